"""Superusers in the admin: on the platform or inside one tenant, told so, and in both logs."""

from typing import Any

import pytest
from django.urls import reverse

from knowledge.models import Collection, Price
from tenants.models import AuditEvent, Role, Tenant, User
from tenants.people import add_member, create_tenant
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD
from tests.tenants.admin_cast import operator, signed_in, url_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

CHOOSE = "/admin/tenant/"


def told(**query: Any) -> list[str]:
    with unscoped(reason="tests"):
        return list(AuditEvent.objects.filter(**query).order_by("at").values_list("action", flat=True))


def test_a_visit_to_the_platform_is_audited(people: Any) -> None:
    User.objects.create_superuser("root", password=PASSWORD)
    signed_in("root").get("/admin/")
    assert told(tenant=None, actor_name="root") == ["platform.unscoped"]


def test_a_superusers_session_with_a_bad_credential_beside_it_is_nobodys(cast: Any) -> None:
    root = operator()
    for path in ("/admin/", url_of(Price, "changelist"), url_of(User, "changelist"), reverse("admin:costs")):
        refused = root.get(path, headers={"authorization": "Bearer nonsense"}, follow=True)
        assert refused.status_code == 403, path
    assert told(tenant=None, actor_name="root") == []


def test_inside_a_tenant_a_banner_says_so_and_leads_out(cast: Any) -> None:
    root = operator()
    text = root.get("/admin/").content.decode()
    assert "You work on the platform, in no tenant." in text and "Leave" not in text
    assert root.post(CHOOSE, {"tenant": str(cast.acme.pk)}).headers["Location"] == "/admin/"
    for path in ("/admin/", url_of(Role, "changelist"), url_of(Role, "add"), reverse("admin:costs")):
        text = root.get(path).content.decode()
        assert "You work in <strong>Acme</strong> as superuser root" in text and "Leave Acme" in text, path
    assert root.post(CHOOSE, {"tenant": ""}).status_code == 302
    assert "in no tenant" in root.get("/admin/").content.decode()
    assert "admin-where" not in signed_in("ada").get("/admin/").content.decode()


def test_platform_and_tenant_are_never_open_at_once(cast: Any) -> None:
    root = operator()
    assert root.get(url_of(Price, "changelist")).status_code == 200
    assert root.get(url_of(Role, "changelist")).status_code == 403
    root.post(CHOOSE, {"tenant": str(cast.acme.pk)})
    for model, status in ((Price, 403), (Tenant, 403), (User, 403), (Role, 200)):
        assert root.get(url_of(model, "changelist")).status_code == status, model
    # The log is there on both sides, each with its own events.
    assert "platform.in_tenant" not in root.get(url_of(AuditEvent, "changelist")).content.decode()
    root.post(CHOOSE, {"tenant": ""})
    text = root.get(url_of(AuditEvent, "changelist")).content.decode()
    assert "platform.in_tenant" in text and "role.create" not in text


def test_both_logs_tell_who_came_what_they_opened_and_what_they_did(cast: Any) -> None:
    root = operator(cast.acme)
    root.get(url_of(Collection, "changelist"))
    form = {"slug": "new", "name": "New", "language": "english", "content_class": "reference"}
    assert root.post(url_of(Collection, "add"), form).status_code == 302
    root.post(CHOOSE, {"tenant": ""})
    of_tenant = told(tenant=cast.acme, actor_name="root")
    assert of_tenant == ["operator.enter", "collection.create", "admin.add", "operator.leave"]
    of_platform = told(tenant=None, actor_name="root")
    assert of_platform.count("platform.in_tenant") == 3
    assert {"operator.enter", "operator.leave"} <= set(of_platform)
    with unscoped(reason="tests"):
        opened = AuditEvent.objects.filter(action="platform.in_tenant").order_by("at").first()
        assert opened.detail == {"tenant": "acme", "method": "GET", "path": "/admin/knowledge/collection/"}
        created = Collection.objects.get(slug="new")
        event = AuditEvent.objects.get(action="collection.create", target_id=str(created.pk))
    assert created.tenant_id == cast.acme.pk
    assert (event.actor_name, event.role_name) == ("root", "superuser")


def test_only_a_superuser_chooses_and_only_what_there_is(cast: Any) -> None:
    ada = signed_in("ada")
    assert ada.post(CHOOSE, {"tenant": str(cast.globex.pk)}).status_code == 403
    assert "Globex" not in ada.get("/admin/").content.decode()
    root = operator()
    assert root.get(CHOOSE).status_code == 405
    for wrong in ("00000000-0000-0000-0000-000000000001", "acme", "1' OR '1'='1"):
        page = root.post(CHOOSE, {"tenant": wrong}, follow=True).content.decode()
        assert "There is no such tenant." in page and "in no tenant" in page


def test_a_suspended_tenant_can_be_looked_into(cast: Any) -> None:
    Tenant.objects.using("platform").filter(pk=cast.acme.pk).update(status="suspended")
    assert "You work in <strong>Acme</strong>" in operator(cast.acme).get("/admin/").content.decode()


def test_who_is_no_superuser_any_more_is_out_at_once(cast: Any) -> None:
    root = operator(cast.acme)
    User.objects.using("owner").filter(username="root").update(is_superuser=False)
    assert root.get(url_of(Role, "changelist")).status_code == 302
    assert root.get("/admin/", follow=True).status_code == 403


def test_a_choice_in_the_admin_is_none_on_the_pages(cast: Any) -> None:
    """A superuser who is a member of one tenant and works in the admin of another."""
    with scope(tenant_id=cast.globex.pk, tags=None):
        add_member(user=cast.root, role=Role.objects.get(name="helpdesk"))
    root = operator(cast.acme)
    assert b"Globex" in root.get("/").content and b"Acme" not in root.get("/").content
    assert 'href="/"' in root.get("/admin/").content.decode()
    assert root.get("/api/v1/me").json()["tenant"] == "globex"


def test_who_is_a_member_of_nothing_is_offered_no_way_to_the_pages(cast: Any) -> None:
    assert "View site" not in operator(cast.acme).get("/admin/").content.decode()
    assert "View site" in signed_in("ada").get("/admin/").content.decode()


def test_signing_out_forgets_the_tenant(cast: Any) -> None:
    root = operator(cast.acme)
    assert root.post("/admin/logout/").headers["Location"] == "/sign-in/"
    assert root.login(username="root", password=PASSWORD)
    assert "in no tenant" in root.get("/admin/").content.decode()
    assert "session.sign_out" in told(tenant=cast.acme, actor_name="root")


def test_a_cost_leads_into_its_tenant_and_stays_at_costs(cast: Any) -> None:
    root = operator()
    sent = {"tenant": str(cast.acme.pk), "next": reverse("admin:costs")}
    assert root.post(CHOOSE, sent).headers["Location"] == "/admin/costs/"
    sent = {"tenant": str(cast.acme.pk), "next": "https://evil.example/admin/costs/"}
    assert root.post(CHOOSE, sent).headers["Location"] == "/admin/"


def test_a_new_tenant_is_made_with_its_roles_and_entered(cast: Any) -> None:
    root = operator()
    form = {"slug": "initech", "name": "Initech", "time_zone": "Europe/Berlin"}
    assert root.post(url_of(Tenant, "add"), form).status_code == 302
    with unscoped(reason="tests"):
        tenant = Tenant.objects.get(slug="initech")
        assert tenant.time_zone == "Europe/Berlin"
        assert Role.objects.filter(tenant=tenant).count() == 5
    root.post(CHOOSE, {"tenant": str(tenant.pk)})
    assert "network_engineer" in root.get(url_of(Role, "changelist")).content.decode()


def test_users_are_made_changed_and_deactivated_never_deleted(cast: Any) -> None:
    root = operator()
    word = "a long enough word"
    form = {"username": "lena", "email": "lena@acme.example", "password1": word, "password2": word}
    assert root.post(url_of(User, "add"), form | {"usable_password": "true"}).status_code == 302
    lena = User.objects.get(username="lena")
    assert lena.check_password(word) and not lena.is_superuser and not lena.is_staff
    sent = {"action": "deactivate", "_selected_action": [str(lena.pk), str(cast.root.pk)]}
    assert (
        "You cannot deactivate yourself."
        in root.post(url_of(User, "changelist"), sent, follow=True).content.decode()
    )
    assert list(User.objects.filter(is_active=False).values_list("username", flat=True)) == ["lena"]
    assert root.post(url_of(User, "delete", lena.pk), {"post": "yes"}).status_code == 403
    assert "platform.deactivate" in told(tenant=None, actor_name="root")
    with scope(tenant_id=create_tenant(slug="other", name="Other").pk, tags=None):
        assert User.objects.filter(username="lena").exists()


def test_the_search_of_the_sidebar_finds_pages_one_may_open(cast: Any) -> None:
    found = reverse("admin:search")
    assert url_of(Role, "changelist") in signed_in("ada").get(found, {"s": "role"}).content.decode()
    root = operator()
    assert url_of(Role, "changelist") not in root.get(found, {"s": "role"}).content.decode()
    assert url_of(Price, "changelist") in root.get(found, {"s": "PRICE"}).content.decode()
    assert root.get(found).content.decode().strip() == ""
