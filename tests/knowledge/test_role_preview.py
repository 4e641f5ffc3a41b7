"""“What would this role see?” on a real question."""

from typing import Any

import pytest
from django.test import Client

from tenants.models import AuditEvent, Role
from tenants.scope import scope
from tests.cast import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

MARLIN = "Through which host did the intruder enter?"


def signed_in(username: str) -> Client:
    client = Client()
    assert client.post("/sign-in/", {"username": username, "password": PASSWORD}).status_code == 302
    return client


def role_of(cast: Any, name: str, slug: str = "acme") -> Role:
    with scope(tenant_id=cast.tenants[slug].pk, tags=None):
        role: Role = Role.objects.get(name=name)
        return role


def parts(html: str) -> tuple[str, str]:
    """What the role would see, and what is hidden from it."""
    shown, _, hidden = html.partition("Hidden from them")
    return shown, hidden


def look(client: Client, role: Role, question: str = "", **headers: str) -> Any:
    return client.get(
        f"/roles/{role.pk}/preview/", {"question": question} if question else {}, headers=headers
    )


def test_an_admin_sees_what_a_role_would_get_and_what_it_would_not(cast: Any) -> None:
    ada = signed_in("ada")
    helpdesk = look(ada, role_of(cast, "helpdesk"), MARLIN).content.decode()
    shown, hidden = parts(helpdesk)
    assert "Incident INC-0042" not in shown and "Incident INC-0042" in hidden
    assert "VPN questions" in shown and "not in your documents" in shown
    analyst = look(ada, role_of(cast, "security_analyst"), MARLIN).content.decode()
    shown, hidden = parts(analyst)
    assert "Incident INC-0042" in shown and "would be answered" in shown
    assert "BGP session down" in hidden and "globex" not in analyst
    with scope(tenant_id=cast.tenants["acme"].pk, tags=None):
        assert AuditEvent.objects.filter(action="role.preview").count() == 2


def test_the_numbers_say_how_much_a_role_reads(cast: Any) -> None:
    page = look(signed_in("ada"), role_of(cast, "helpdesk")).content.decode()
    assert "The role reads 2 documents" in page
    assert (
        "The role reads 1 document:"
        in look(signed_in("ada"), role_of(cast, "security_analyst")).content.decode()
    )


def test_who_manages_but_does_not_read_everything_is_shown_no_more_than_they_read(cast: Any) -> None:
    with scope(tenant_id=cast.tenants["acme"].pk, tags=None):
        Role.objects.filter(name="helpdesk").update(abilities=["ask", "manage"])
    page = look(signed_in("hal"), role_of(cast, "security_analyst"), MARLIN).content.decode()
    assert "marlin" not in page and "INC-0042" not in page
    assert "1 passage that your own role may not read" in page


def test_htmx_gets_the_result_alone(cast: Any) -> None:
    part = look(signed_in("ada"), role_of(cast, "helpdesk"), MARLIN, HX_Request="true")
    html = part.content.decode()
    assert "<html" not in html and "They would see" in html
    assert 'id="messages"' not in html, "nothing is to be said beside it"


def test_a_question_that_is_too_short_says_so(cast: Any) -> None:
    response = look(signed_in("ada"), role_of(cast, "helpdesk"), "x")
    assert response.status_code == 400 and "3 to 1,000 characters" in response.content.decode()


def test_others_may_not_look(cast: Any) -> None:
    assert look(signed_in("nina"), role_of(cast, "helpdesk")).status_code == 403
    assert look(signed_in("gus"), role_of(cast, "helpdesk")).status_code == 404
    assert look(Client(), role_of(cast, "helpdesk")).status_code == 302
