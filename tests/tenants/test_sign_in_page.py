"""Signing in and out in the browser, several tenants, and what ends a session."""

from typing import Any

import pytest
from django.test import Client

from tenants.authentication import SESSION_TENANT
from tenants.models import AuditEvent, Membership, Role, Tenant
from tenants.people import add_member
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def sign_in(client: Client, username: str, password: str = PASSWORD, **form: str) -> Any:
    return client.post("/sign-in/", {"username": username, "password": password, **form})


def events(tenant: Tenant, action: str) -> list[AuditEvent]:
    with scope(tenant_id=tenant.pk, tags=None):
        return list(AuditEvent.objects.filter(action=action))


def add_to(cast: Any, slug: str, username: str, role: str) -> None:
    tenant = cast.tenants[slug]
    with scope(tenant_id=tenant.pk, tags=None):
        add_member(user=cast.members[username].membership.user, role=Role.objects.get(name=role))


def change(cast: Any, username: str, **values: Any) -> None:
    with unscoped(reason="tests"):
        Membership.objects.filter(pk=cast.members[username].membership.pk).update(**values)


def test_the_form_is_shown_to_everybody(cast: Any) -> None:
    response = Client().get("/sign-in/")
    assert response.status_code == 200
    assert 'autocomplete="current-password"' in response.content.decode()
    assert "no-store" in response.headers["Cache-Control"]


def test_right_credentials_lead_to_the_ask_page(cast: Any) -> None:
    client = Client()
    response = sign_in(client, "nina")
    assert (response.status_code, response.url) == (302, "/")
    assert client.session[SESSION_TENANT] == str(cast.acme.pk)
    page = client.get("/").content.decode()
    assert "Acme" in page and "network_engineer" in page
    (event,) = events(cast.acme, "session.sign_in")
    assert (event.actor_name, event.method, event.role_name) == ("nina", "session", "network_engineer")


def test_the_session_gets_a_new_key(cast: Any) -> None:
    client = Client()
    client.session.save()
    before = client.session.session_key
    sign_in(client, "nina")
    assert client.session.session_key != before


@pytest.mark.parametrize(("username", "password"), [("nina", "not-hers-77"), ("nobody", PASSWORD)])
def test_wrong_credentials_say_the_same_whatever_is_wrong(cast: Any, username: str, password: str) -> None:
    client = Client()
    response = sign_in(client, username, password)
    assert response.status_code == 401
    page = response.content.decode()
    assert "User name or password is wrong." in page
    assert f'value="{username}"' in page and password not in page
    assert client.get("/").status_code == 302


@pytest.mark.parametrize(("username", "password"), [("", ""), ("nina", ""), ("ni\0na", "x")])
def test_what_is_missing_is_said(cast: Any, username: str, password: str) -> None:
    assert sign_in(Client(), username, password).status_code == 400


def test_failures_are_audited_and_throttled(cast: Any) -> None:
    client = Client()
    for _ in range(10):
        assert sign_in(client, "nina", "wrong").status_code == 401
    response = sign_in(client, "nina")
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 0
    assert "Too many failed sign-ins" in response.content.decode()
    assert len(events(cast.acme, "session.sign_in_failed")) == 10


def test_the_form_asks_for_its_csrf_token(cast: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    response = sign_in(client, "nina")
    assert response.status_code == 403
    assert "reload the page" in response.content.decode()


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("/c/00000000-0000-0000-0000-000000000001/", "/c/00000000-0000-0000-0000-000000000001/"),
        ("/documents/1/?start=1&end=2", "/documents/1/?start=1&end=2"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("evil", "/"),
    ],
)
def test_next_leads_to_our_own_paths_alone(cast: Any, target: str, leads_to: str) -> None:
    assert sign_in(Client(), "nina", next=target).url == leads_to


def test_a_page_asks_to_sign_in_first_and_is_come_back_to(cast: Any) -> None:
    client = Client()
    wanted = f"/documents/{cast.documents['acme']['edge-policy.md'].pk}/?start=0&end=5"
    response = client.get(wanted)
    assert response.status_code == 302
    form = client.get(response.url).content.decode()
    assert 'name="next"' in form
    assert sign_in(client, "nina", next=wanted).url == wanted


def test_a_member_of_several_tenants_chooses_one(cast: Any) -> None:
    add_to(cast, "globex", "nina", "helpdesk")
    client = Client()
    response = sign_in(client, "nina", next="/c/x/")
    page = response.content.decode()
    assert response.status_code == 200
    assert 'value="acme"' in page and 'value="globex"' in page
    assert PASSWORD not in page
    assert client.get("/").status_code == 302, "nobody is signed in before the choice"
    assert not events(cast.globex, "session.sign_in")

    response = client.post("/sign-in/", {"tenant": "globex", "next": "/c/x/"})
    assert (response.status_code, response.url) == (302, "/c/x/")
    assert "helpdesk" in client.get("/").content.decode()
    assert len(events(cast.globex, "session.sign_in")) == 1
    assert not events(cast.acme, "session.sign_in")


def test_only_ones_own_tenants_can_be_chosen(cast: Any) -> None:
    add_to(cast, "globex", "nina", "helpdesk")
    client = Client()
    sign_in(client, "nina")
    assert client.post("/sign-in/", {"tenant": "elsewhere"}).status_code == 404
    assert client.get("/").status_code == 302


def test_a_choice_without_a_password_before_it_is_nothing(cast: Any) -> None:
    client = Client()
    assert client.post("/sign-in/", {"tenant": "acme"}).status_code == 400
    assert client.get("/").status_code == 302


def test_a_choice_does_not_outlive_a_new_password(cast: Any) -> None:
    add_to(cast, "globex", "nina", "helpdesk")
    client = Client()
    sign_in(client, "nina")
    user = cast.nina.membership.user
    user.set_password("another-one-9")
    user.save(update_fields=["password"])
    assert client.post("/sign-in/", {"tenant": "acme"}).status_code == 400


def test_switching_tenants(cast: Any) -> None:
    add_to(cast, "globex", "nina", "helpdesk")
    client = Client()
    sign_in(client, "nina")
    client.post("/sign-in/", {"tenant": "acme"})
    assert 'action="/tenant/"' in client.get("/").content.decode()
    assert client.post("/tenant/", {"tenant": "globex"}).status_code == 302
    assert client.session[SESSION_TENANT] == str(cast.globex.pk)
    (event,) = events(cast.globex, "session.switch_tenant")
    assert event.detail == {"from": "acme"}
    document = cast.documents["acme"]["edge-policy.md"]
    assert client.get(f"/documents/{document.pk}/").status_code == 404


def test_nobody_switches_into_a_tenant_that_is_not_theirs(cast: Any) -> None:
    client = Client()
    sign_in(client, "nina")
    assert client.post("/tenant/", {"tenant": "globex"}).status_code == 404
    assert client.get("/tenant/").status_code == 405
    assert client.session[SESSION_TENANT] == str(cast.acme.pk)
    assert Client().post("/tenant/", {"tenant": "acme"}).status_code == 302


def test_signing_out(cast: Any) -> None:
    client = Client()
    sign_in(client, "nina")
    assert client.get("/sign-out/").status_code == 405
    response = client.post("/sign-out/")
    assert (response.status_code, response.url) == (302, "/sign-in/")
    assert client.get("/").status_code == 302
    (event,) = events(cast.acme, "session.sign_out")
    assert event.actor_name == "nina"
    assert client.post("/sign-out/").status_code == 302, "twice is no error"


def test_a_suspended_member_is_signed_out_at_once_and_told_so(cast: Any) -> None:
    client = Client()
    sign_in(client, "nina")
    change(cast, "nina", status=Membership.Status.SUSPENDED)
    response = client.get("/")
    assert response.status_code == 401
    assert "not an active member of this tenant any more" in response.content.decode()
    assert "_auth_user_id" not in client.session
    assert client.get("/").status_code == 302
    assert sign_in(client, "nina").status_code == 403


def test_a_suspended_tenant_lets_nobody_in(cast: Any) -> None:
    client = Client()
    sign_in(client, "nina")
    with unscoped(reason="tests"):
        Tenant.objects.filter(pk=cast.acme.pk).update(status=Tenant.Status.SUSPENDED)
    assert client.get("/").status_code == 401
    assert sign_in(Client(), "nina").status_code == 403


def test_an_operator_without_a_tenant_goes_to_the_admin(cast: Any) -> None:
    client = Client()
    assert sign_in(client, "root").url == "/admin/"
    assert client.get("/").status_code == 302
    with unscoped(reason="tests"):
        assert (
            AuditEvent.objects.filter(action="session.sign_in", tenant=None, actor_name="root").count() == 1
        )


def test_who_is_signed_in_is_not_asked_again(cast: Any) -> None:
    client = Client()
    sign_in(client, "nina")
    assert client.get("/sign-in/?next=/c/x/").url == "/c/x/"
