"""The keys page: made, shown once, never kept; revoked."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from tenants.keys import create_api_key
from tenants.models import ApiKey, AuditEvent, Membership, Role
from tenants.scope import scope
from tests.security.helpers import session_client
from tests.tenants.conftest import People
from tests.tenants.counting import queries_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

FORM = {"name": "robot", "for": "member", "member": "nina", "days": "30"}


def make(client: Client, **form: Any) -> Any:
    return client.post("/api-keys/", FORM | form)


def key_in(response: Any) -> str:
    found = re.search(r"<code>(rsk_[^<]+)</code>", response.content.decode())
    assert found, response.content.decode()
    return found.group(1)


def works(raw: str) -> int:
    client = Client(headers={"authorization": f"Bearer {raw}"})
    return int(client.get("/api/v1/me").status_code)


def keys(people: People) -> list[ApiKey]:
    with scope(tenant_id=people.acme.pk, tags=None):
        return list(ApiKey.objects.select_related("membership__user").order_by("name"))


def test_a_key_is_shown_once_works_and_is_kept_nowhere(people: People, caplog: Any, capfd: Any) -> None:
    ada = session_client("ada")
    response = make(ada, scopes=["ask"])
    raw = key_in(response)
    assert response.status_code == 200 and "no-store" in response.headers["Cache-Control"]
    assert response.content.decode().count(raw) == 1
    assert works(raw) == 200
    me = Client(headers={"authorization": f"Bearer {raw}"}).get("/api/v1/me").json()
    assert me["username"] == "nina" and me["abilities"] == ["ask"]
    secret = raw.rpartition(".")[2]
    for path in ("/api-keys/", "/api-keys/?show=all", "/audit/"):
        assert secret not in ada.get(path).content.decode()
    assert not any(secret in str(session.get_decoded()) for session in Session.objects.all())
    out, err = capfd.readouterr()
    assert secret not in caplog.text + out + err
    (key,) = keys(people)
    assert timedelta(days=29) < key.expires_at - timezone.now() < timedelta(days=31)  # type: ignore[operator]
    assert "nina" in ada.get("/api-keys/").content.decode()


def test_a_service_account_is_made_with_its_key(people: People) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        role = Role.objects.get(name="helpdesk")
    response = make(session_client("ada"), **{"for": "account"}, account="ci-robot", role=role.pk, days="")
    assert works(key_in(response)) == 200
    (key,) = keys(people)
    assert key.membership.user.is_service and key.expires_at is None
    assert Client().post("/sign-in/", {"username": "ci-robot", "password": "x"}).status_code == 401


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"member": "nobody"}, "member"),
        ({"member": "gina"}, "member"),
        ({"days": "12"}, "days"),
        ({"days": "x"}, "days"),
        ({"scopes": ["fly"]}, "scopes"),
        ({"scopes": ["manage"]}, "scopes"),
        ({"for": "account", "account": "robot", "role": ""}, "role"),
        ({"for": "account", "account": "", "role": "helpdesk"}, "account"),
        ({"for": "account", "account": "nina", "role": "helpdesk"}, "account"),
        ({"name": "ro\0bot", "member": "no\0body"}, "member"),
    ],
)
def test_what_cannot_be_made_is_said_beside_its_field(
    people: People, form: dict[str, Any], field: str
) -> None:
    if form.get("role") == "helpdesk":
        with scope(tenant_id=people.acme.pk, tags=None):
            form = form | {"role": Role.objects.get(name="helpdesk").pk}
    response = make(session_client("ada"), **form)
    assert response.status_code in (400, 409), form
    assert f'id="{field}-error"' in response.content.decode(), form
    assert not keys(people)
    with scope(tenant_id=people.acme.pk, tags=None):
        assert Membership.objects.count() == 2, "no account is left behind"


def test_a_name_is_given_once(people: People) -> None:
    ada = session_client("ada")
    assert make(ada).status_code == 200
    again = make(ada)
    assert again.status_code == 409 and 'id="name-error"' in again.content.decode()
    assert len(keys(people)) == 1


def test_a_revoked_key_is_refused_at_once_and_listed_among_the_ended(people: People) -> None:
    ada = session_client("ada")
    raw = key_in(make(ada))
    (key,) = keys(people)
    assert ada.post(f"/api-keys/{key.pk}/revoke/").status_code == 302
    assert works(raw) == 401
    assert "<strong>robot</strong>" not in ada.get("/api-keys/").content.decode()
    page = ada.get("/api-keys/?show=all").content.decode()
    assert "<strong>robot</strong>" in page and "revoked" in page
    assert make(ada).status_code == 200, "the name is free again"
    part = ada.post(
        f"/api-keys/{keys(people)[1].pk}/revoke/", headers={"hx-request": "true"}
    ).content.decode()
    assert part.lstrip().startswith('<div id="keys"') and "is revoked" in part


def test_the_list_tells_what_each_key_is(people: People) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        for name, ends in (("soon", timedelta(days=1)), ("never", None), ("gone", timedelta(hours=1))):
            create_api_key(
                principal=people.ada.principal,
                member=people.nina.membership,
                name=name,
                scopes=["ask"] if name == "soon" else [],
                expires_at=timezone.now() + ends if ends else None,
            )
        ApiKey.objects.filter(name="gone").update(expires_at=timezone.now() - timedelta(hours=1))
        hint = ApiKey.objects.get(name="soon").hint
    ada = session_client("ada")
    page = ada.get("/api-keys/").content.decode()
    assert f"…{hint}" in page and "all of its role" in page and "never" in page
    assert "<strong>gone</strong>" not in page
    assert "expired" in ada.get("/api-keys/?show=all").content.decode()
    with scope(tenant_id=people.acme.pk, tags=None):
        Membership.objects.filter(user__username="nina").update(status="suspended")
    assert "member suspended" in ada.get("/api-keys/").content.decode()


def test_only_those_who_manage_and_only_their_own(people: People) -> None:
    raw = key_in(make(session_client("ada")))
    (key,) = keys(people)
    nina, gus = session_client("nina"), session_client("gus")
    assert nina.get("/api-keys/").status_code == make(nina).status_code == 403
    assert nina.post(f"/api-keys/{key.pk}/revoke/").status_code == 403
    assert gus.post(f"/api-keys/{key.pk}/revoke/").status_code == 404
    assert make(gus).status_code == 400, "nina is none of his members"
    assert "robot" not in gus.get("/api-keys/?show=all").content.decode().replace('value="robot"', "")
    assert works(raw) == 200 and len(keys(people)) == 1
    with scope(tenant_id=people.acme.pk, tags=None):
        assert AuditEvent.objects.filter(action="api_key.create").count() == 1


def test_the_database_is_asked_as_often_for_fifty_as_for_five(people: People) -> None:
    def add(count: int) -> None:
        with scope(tenant_id=people.acme.pk, tags=None):
            ApiKey.objects.bulk_create(
                ApiKey(
                    membership=people.nina.membership,
                    name=f"k{ApiKey.objects.count()}-{n}",
                    hint="abcd",
                    secret_hash="x",
                )
                for n in range(count)
            )

    ada = session_client("ada")
    add(5)
    few = queries_of(lambda: ada.get("/api-keys/"))
    add(60)
    assert queries_of(lambda: ada.get("/api-keys/")) == few <= 9
    page = ada.get("/api-keys/").content.decode()
    assert page.count('data-name="Acts as"') == 25
    following = re.search(r'href="(/api-keys/\?after=[^"]+)"', page)
    assert following and ada.get(following.group(1)).content.decode().count('data-name="Acts as"') == 25
    assert ada.get("/api-keys/?after=nonsense").status_code == 400
