"""The matrix of roles: saved together, audited, never against somebody else's change unseen."""

import re
from typing import Any

import pytest
from django.test import Client

from tenants.matrix import stamp_of, ticks_of
from tenants.models import AuditEvent, Role
from tenants.scope import scope
from tests.security.helpers import session_client
from tests.tenants.conftest import People
from tests.tenants.counting import queries_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
HTMX = {"hx-request": "true"}


def role(people: People, name: str) -> Role:
    with scope(tenant_id=people.acme.pk, tags=None):
        found: Role = Role.objects.get(name=name)
        return found


def form_of(people: People) -> dict[str, Any]:
    """What the page's form sends when nothing was changed."""
    with scope(tenant_id=people.acme.pk, tags=None):
        roles = list(Role.objects.all())
    form: dict[str, Any] = {}
    for column, one in enumerate(roles):
        form |= {
            f"role{column}": str(one.pk),
            f"stamp{column}": stamp_of(one),
            f"t{column}": sorted(ticks_of(one)),
        }
    return form


def column_of(people: People, form: dict[str, Any], name: str) -> str:
    """The field that holds a role's ticks."""
    wanted = str(role(people, name).pk)
    return next("t" + field.removeprefix("role") for field, value in form.items() if value == wanted)


def tick(people: People, form: dict[str, Any], name: str, *, add: str = "", remove: str = "") -> None:
    field = column_of(people, form, name)
    form[field] = [one for one in form[field] if one != remove] + ([add] if add else [])


def events(people: People, action: str) -> list[AuditEvent]:
    with scope(tenant_id=people.acme.pk, tags=None):
        return list(AuditEvent.objects.filter(action=action).order_by("at"))


def test_the_page_shows_what_each_role_reads_and_may(people: People) -> None:
    page = session_client("ada").get("/roles/").content.decode()
    column = column_of(people, form_of(people), "helpdesk")
    for value, checked in (
        ("faq", True),
        ("configs", False),
        ("may:ask", True),
        ("may:manage", False),
        ("*", False),
    ):
        found = re.search(rf'name="{column}" value="{re.escape(value)}" aria-label="[^"]+"( checked)?', page)
        assert found and bool(found.group(1)) is checked, value
    assert f"/roles/{role(people, 'helpdesk').pk}/preview/" in page, "what would it see?"


def test_what_the_form_sends_unchanged_changes_nothing(people: People) -> None:
    ada = session_client("ada")
    assert ada.post("/roles/", form_of(people)).status_code == 302
    assert events(people, "role.change") == []
    assert "Nothing was different" in ada.get("/roles/").content.decode()


def test_several_roles_are_changed_by_one_save_each_in_the_log(people: People) -> None:
    form = form_of(people)
    tick(people, form, "helpdesk", add="configs", remove="faq")
    tick(people, form, "management", add="may:review", remove="may:see_costs")
    tick(people, form, "security_analyst", add="*")
    ada = session_client("ada")
    response = ada.post("/roles/", form)
    assert (response.status_code, response.url) == (302, "/roles/")
    page = ada.get("/roles/").content.decode()
    assert "helpdesk +configs, −faq" in page and "management +review, −see costs" in page
    assert "configs" in role(people, "helpdesk").tags and "faq" not in role(people, "helpdesk").tags
    assert role(people, "management").abilities == ["ask", "review"]
    assert role(people, "security_analyst").reads_everything
    changed = {event.detail["after"]["name"]: event.detail for event in events(people, "role.change")}
    assert set(changed) == {"helpdesk", "management", "security_analyst"}
    assert changed["security_analyst"]["before"]["reads_everything"] is False
    assert changed["security_analyst"]["after"]["reads_everything"] is True


def test_it_holds_on_the_members_next_request(people: People) -> None:
    nina = session_client("nina")
    before = len(nina.get("/api/v1/documents").json()["results"])
    form = form_of(people)
    tick(people, form, "network_engineer", add="incident_reports")
    session_client("ada").post("/roles/", form)
    assert len(nina.get("/api/v1/documents").json()["results"]) == before + 1


def test_two_who_edit_at_once_do_not_undo_each_other(people: People) -> None:
    first, second = form_of(people), form_of(people)
    tick(people, first, "helpdesk", add="configs")
    tick(people, second, "helpdesk", add="topology")
    ada = session_client("ada")
    assert ada.post("/roles/", first).status_code == 302
    refused = ada.post("/roles/", second)
    assert refused.status_code == 409 and "helpdesk" in refused.content.decode()
    page = refused.content.decode()
    helpdesk = role(people, "helpdesk")
    column = column_of(people, second, "helpdesk")
    assert re.search(rf'name="{column}" value="topology" aria-label="helpdesk: topology" checked', page)
    assert "topology" not in helpdesk.tags and "configs" in helpdesk.tags
    # A role that the other did not touch is no conflict.
    third = form_of(people) | {f"stamp{column[1:]}": second[f"stamp{column[1:]}"]}
    tick(people, third, "management", add="faq")
    assert ada.post("/roles/", third).status_code == 302


def test_a_new_tag_goes_to_the_roles_ticked_for_it(people: People) -> None:
    ada = session_client("ada")
    form = form_of(people) | {"new_tag": " Spare Parts ", "new_tag_for": [str(role(people, "helpdesk").pk)]}
    assert ada.post("/roles/", form).status_code == 302
    assert "spare_parts" in role(people, "helpdesk").tags
    assert "spare_parts" not in role(people, "management").tags
    for more, words in (
        ({"new_tag": "spare"}, "Tick at least one role"),
        ({"new_tag": "sp,are", "new_tag_for": [str(role(people, "helpdesk").pk)]}, "is not a tag"),
    ):
        response = ada.post("/roles/", form_of(people) | more)
        assert response.status_code == 400 and words in response.content.decode()
        assert 'id="new_tag-error"' in response.content.decode()


def test_somebody_always_manages(people: People) -> None:
    form = form_of(people)
    tick(people, form, "admin", remove="may:manage")
    tick(people, form, "helpdesk", add="configs")
    ada = session_client("ada")
    response = ada.post("/roles/", form)
    assert response.status_code == 409 and "Nobody would be left" in response.content.decode()
    assert role(people, "admin").may("manage")
    assert "configs" not in role(people, "helpdesk").tags, "all or nothing"
    # Handed over to a role that somebody has, in one save.
    tick(people, form, "network_engineer", add="may:manage")
    assert ada.post("/roles/", form).status_code == 302
    assert not role(people, "admin").may("manage") and role(people, "network_engineer").may("manage")


def test_what_is_not_of_a_form_is_refused(people: People) -> None:
    ada, form = session_client("ada"), form_of(people)
    tick(people, form, "helpdesk", add="not a tag")
    assert ada.post("/roles/", form).status_code == 400
    with scope(tenant_id=people.globex.pk, tags=None):
        foreign = Role.objects.get(name="helpdesk")
    forged = {"role0": "x", "role1": str(foreign.pk), "stamp1": stamp_of(foreign), "t1": ["*"]}
    assert ada.post("/roles/", forged).status_code == 302
    with scope(tenant_id=people.globex.pk, tags=None):
        assert not Role.objects.get(name="helpdesk").reads_everything
    form = form_of(people)
    tick(people, form, "helpdesk", add="may:everything")
    ada.post("/roles/", form)
    assert role(people, "helpdesk").abilities == ["ask"]


def test_htmx_gets_the_matrix_or_what_is_wrong_and_keeps_what_was_ticked(people: People) -> None:
    ada, form = session_client("ada"), form_of(people)
    tick(people, form, "helpdesk", add="configs")
    saved = ada.post("/roles/", form, headers=HTMX).content.decode()
    assert saved.lstrip().startswith('<div id="roles"') and "helpdesk +configs" in saved
    stale = ada.post("/roles/", form | {column_of(people, form, "helpdesk"): ["faq"]}, headers=HTMX)
    assert stale.status_code == 409 and stale.headers["HX-Reswap"] == "none"
    assert "Somebody else has just changed helpdesk" in stale.content.decode()


def test_roles_are_made_renamed_and_deleted(people: People) -> None:
    ada = session_client("ada")
    like = role(people, "helpdesk")
    assert ada.post("/roles/", {"form": "create", "name": "night shift", "like": like.pk}).status_code == 302
    made = role(people, "night shift")
    assert set(made.tags) == set(like.tags) and made.abilities == like.abilities
    assert ada.post(f"/roles/{made.pk}/", {"name": "nights"}).status_code == 302
    assert role(people, "nights").pk == made.pk
    assert ada.post(f"/roles/{made.pk}/delete/").status_code == 302
    with scope(tenant_id=people.acme.pk, tags=None):
        assert not Role.objects.filter(pk=made.pk).exists()
    assert [len(events(people, action)) for action in ("role.create", "role.change", "role.delete")] == [
        1,
        1,
        1,
    ]
    for form in ({"name": ""}, {"name": "x" * 61}, {"name": "helpdesk"}, {"name": "ok", "like": "nonsense"}):
        response = ada.post("/roles/", {"form": "create", **form})
        assert (
            response.status_code in (400, 409) and '<details class="panel" open' in response.content.decode()
        )


def test_a_role_in_use_is_not_deleted_and_it_is_said_by_whom(people: People) -> None:
    response = session_client("ada").post(f"/roles/{role(people, 'network_engineer').pk}/delete/")
    assert response.status_code == 409 and "nina" in response.content.decode()
    assert role(people, "network_engineer")


def test_only_those_who_manage_and_only_their_own(people: People) -> None:
    helpdesk = role(people, "helpdesk").pk
    nina, gus = session_client("nina"), session_client("gus")
    assert nina.get("/roles/").status_code == nina.post("/roles/", form_of(people)).status_code == 403
    for path in ("", "delete/"):
        assert nina.post(f"/roles/{helpdesk}/{path}", {"name": "x"}).status_code == 403
        assert gus.post(f"/roles/{helpdesk}/{path}", {"name": "x"}).status_code == 404
    assert Client().get("/roles/").status_code == 302
    assert role(people, "helpdesk")


def test_the_database_is_asked_as_often_for_thirty_roles_as_for_five(people: People) -> None:
    ada = session_client("ada")
    few = queries_of(lambda: ada.get("/roles/"))
    with scope(tenant_id=people.acme.pk, tags=None):
        Role.objects.bulk_create(Role(name=f"r{number}", tags=[f"t{number}"]) for number in range(25))
    assert queries_of(lambda: ada.get("/roles/")) == few <= 8


def test_many_ticks_fit_into_one_form(people: People) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        tags = [f"t{number}" for number in range(150)]
        Role.objects.bulk_create(Role(name=f"r{number}", tags=tags) for number in range(10))
    form = form_of(people)
    tick(people, form, "r3", remove="t7")
    assert session_client("ada").post("/roles/", form).status_code == 302
    assert len(role(people, "r3").tags) == 149
