"""A tenant's own settings, and going over to another tenant without losing one's place."""

from typing import Any

import pytest
from django.test import Client

from tenants.authentication import SESSION_TENANT
from tenants.models import AuditEvent, Role, Tenant
from tenants.people import add_member
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD
from tests.security.helpers import session_client
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def tenant(people: People, slug: str = "acme") -> Tenant:
    with unscoped(reason="tests"):
        return Tenant.objects.get(slug=slug)


def save(client: Client, **form: str) -> Any:
    return client.post("/settings/", {"name": "Acme", "time_zone": "UTC", **form})


class TestSettings:
    def test_name_and_time_zone_are_changed_and_in_the_log(self, people: People) -> None:
        ada = session_client("ada")
        assert save(ada, name=" Acme  Logistics ", time_zone="Europe/Berlin").url == "/settings/"
        changed = tenant(people)
        assert (changed.name, changed.time_zone, changed.slug) == ("Acme Logistics", "Europe/Berlin", "acme")
        with scope(tenant_id=people.acme.pk, tags=None):
            event = AuditEvent.objects.get(action="tenant.change")
        assert event.detail["before"] == {"name": "Acme", "time_zone": "UTC"}
        assert "Acme Logistics" in ada.get("/settings/").content.decode()
        save(ada, name="Acme Logistics", time_zone="Europe/Berlin")
        with scope(tenant_id=people.acme.pk, tags=None):
            assert AuditEvent.objects.filter(action="tenant.change").count() == 1, "nothing was different"

    @pytest.mark.parametrize(
        ("form", "field"),
        [
            ({"name": ""}, "name"),
            ({"name": "x" * 201}, "name"),
            ({"time_zone": "Europe/Atlantis"}, "time_zone"),
            ({"time_zone": "../../etc/passwd"}, "time_zone"),
            ({"time_zone": ""}, "time_zone"),
            ({"time_zone": "Etc/GMT+5"}, "time_zone"),
        ],
    )
    def test_what_cannot_be_is_said(self, people: People, form: dict[str, str], field: str) -> None:
        response = save(session_client("ada"), **form)
        assert response.status_code == 400 and f'id="{field}-error"' in response.content.decode()
        assert (tenant(people).name, tenant(people).time_zone) == ("Acme", "UTC")

    def test_neither_the_short_name_nor_the_status_is_changed(self, people: People) -> None:
        assert save(session_client("ada"), slug="other", status="suspended", is_demo="1").status_code == 302
        assert (tenant(people).slug, tenant(people).status) == ("acme", "active")

    def test_zones_are_offered(self, people: People) -> None:
        page = session_client("ada").get("/settings/").content.decode()
        for zone in ("UTC", "Europe/Berlin", "Asia/Kolkata"):
            assert f'<option value="{zone}">' in page
        assert len(page) < 40_000

    def test_only_those_who_manage(self, people: People) -> None:
        nina = session_client("nina")
        assert nina.get("/settings/").status_code == save(nina, name="Mine").status_code == 403
        save(session_client("gus"), name="Globex & Sons")
        assert (tenant(people).name, tenant(people, "globex").name) == ("Acme", "Globex & Sons")
        assert Client().get("/settings/").status_code == 302


class TestSwitching:
    @pytest.fixture
    def ada(self, people: People) -> Client:
        """ada manages acme, and is a helpdesk member of globex."""
        with scope(tenant_id=people.globex.pk, tags=None):
            add_member(user=people.ada.membership.user, role=Role.objects.get(name="helpdesk"))
        client = Client()
        client.post("/sign-in/", {"username": "ada", "password": PASSWORD})
        client.post("/sign-in/", {"tenant": "acme"})
        return client

    @pytest.mark.parametrize(
        ("page", "leads_to"),
        [
            ("/documents/", "/documents/"),
            ("/documents/00000000-0000-0000-0000-000000000000/", "/documents/"),
            ("/account/", "/account/"),
            ("/members/", "/"),
            ("/usage/calls/", "/"),
            ("/c/00000000-0000-0000-0000-000000000000/", "/"),
            ("/nowhere/", "/"),
            ("//evil.example/documents/", "/"),
            ("https://evil.example/documents/", "/"),
            ("", "/"),
        ],
    )
    def test_one_stays_on_the_same_kind_of_page_where_one_may(
        self, people: People, ada: Client, page: str, leads_to: str
    ) -> None:
        response = ada.post("/tenant/", {"tenant": "globex", "next": page})
        assert (response.status_code, response.url) == (302, leads_to)
        assert ada.session[SESSION_TENANT] == str(people.globex.pk)

    def test_who_manages_there_too_stays_among_the_members(self, people: People, ada: Client) -> None:
        with scope(tenant_id=people.globex.pk, tags=None):
            Role.objects.filter(name="helpdesk").update(abilities=["ask", "manage"])
        assert ada.post("/tenant/", {"tenant": "globex", "next": "/members/?q=x"}).url == "/members/"
        assert "gina" in ada.get("/members/").content.decode()
        assert ada.post("/tenant/", {"tenant": "acme", "next": "/roles/x/preview/"}).url == "/roles/"

    def test_the_account_shows_both_and_switches(self, people: People, ada: Client) -> None:
        page = ada.get("/account/").content.decode()
        assert "Globex" in page and "you are here" in page
        assert ada.post("/tenant/", {"tenant": "globex", "next": "/account/"}).url == "/account/"
