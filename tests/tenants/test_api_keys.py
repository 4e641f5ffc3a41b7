"""API keys: shown once, kept as a hash, never more than their member."""

import base64
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone

from tenants.models import ApiKey, AuditEvent, Role
from tenants.people import add_member
from tenants.scope import scope
from tests.security.helpers import call, key_client, session_client
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def make(people: People, **body: Any) -> dict[str, Any]:
    response = call(people.ada.client, "POST", "/api/v1/api-keys", {"name": str(uuid.uuid4()), **body})
    assert response.status_code == 201, response.content
    found: dict[str, Any] = response.json()
    return found


def client_of(raw: str, header: str = "authorization") -> Client:
    return Client(headers={header: f"Bearer {raw}" if header == "authorization" else raw})


def status_with(raw: str) -> int:
    return int(client_of(raw).get("/api/v1/me").status_code)


def test_a_key_tells_nothing_of_its_members_other_tenants(people: People) -> None:
    with scope(tenant_id=people.globex.pk, tags=None):
        add_member(user=people.nina.membership.user, role=Role.objects.get(name="helpdesk"))
    client = key_client(people.nina, principal=people.ada.principal)
    for path in ("/account/", "/", "/documents/", "/history/"):
        page = client.get(path)
        assert page.status_code == 200 and "globex" not in page.content.decode().lower(), path
    assert [row["slug"] for row in client.get("/api/v1/me").json()["tenants"]] == ["acme"]
    refused = [client.post("/tenant/", {"tenant": slug}) for slug in ("globex", "nowhere", "acme")]
    assert [response.status_code for response in refused] == [403] * 3
    assert not any("globex" in response.content.decode().lower() for response in refused)
    with scope(tenant_id=people.globex.pk, tags=None):
        assert not AuditEvent.objects.filter(action="session.switch_tenant").exists()


def test_a_key_is_shown_once_and_only_its_hash_is_kept(people: People) -> None:
    made = make(people, name="robot", member="nina")
    raw = made["key"]
    where, _, secret = raw.removeprefix("rsk_").partition(".")
    assert len(base64.urlsafe_b64decode(secret + "==")) >= 32
    assert status_with(raw) == 200
    assert client_of(raw, "x-api-key").get("/api/v1/me").json()["username"] == "nina"
    with connections["platform"].cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT count(*) FROM "{table}" t WHERE position(%s in t::text) > 0', [secret])
            assert cursor.fetchone() == (0,), table
        cursor.execute("SELECT secret_hash FROM tenants_apikey WHERE id = %s", [made["id"]])
        assert len(cursor.fetchone()[0]) == 64
    for path in ("/api/v1/api-keys", f"/api/v1/api-keys/{made['id']}", "/api/v1/audit?page_size=200"):
        shown = people.ada.client.get(path).content.decode()
        assert secret not in shown and where not in shown
        assert "secret" not in shown
    assert make(people)["key"] != raw


def test_wrong_keys_are_refused_in_the_same_words(people: People) -> None:
    raw = make(people, member="nina")["key"]
    where, _, secret = raw.removeprefix("rsk_").partition(".")
    ids = base64.urlsafe_b64decode(where + "==")

    def at(tenant: bytes, key: bytes) -> str:
        return base64.urlsafe_b64encode(tenant + key).decode().rstrip("=")

    wrong = [
        f"rsk_{where}.{secret[:-1]}",
        f"rsk_{where}.{secret}x",
        f"rsk_{where}.",
        f"rsk_{where}",
        f"rsk_.{secret}",
        "rsk_",
        "rsk_.",
        f"rsk_{at(people.globex.pk.bytes, ids[16:])}.{secret}",
        f"rsk_{at(ids[:16], uuid.uuid4().bytes)}.{secret}",
        f"rsk_{at(b'', b'')}.{secret}",
        f"rsk_{where}AAAA.{secret}",
        f"rsk_ä.{secret}",
        f"rsk_{where}.{secret}\0",
        f"RSK_{where}.{secret}",
    ]
    told = set()
    for key in wrong:
        response = client_of(key).get("/api/v1/me")
        assert response.status_code == 401, key
        if key.startswith("rsk_"):
            told.add(json.dumps({k: v for k, v in response.json().items() if k != "request_id"}))
    assert len(told) == 1
    assert status_with(raw) == 200


def test_expiry_and_revocation(people: People) -> None:
    expiring = make(people, member="nina", expires_at=(timezone.now() + timedelta(hours=1)).isoformat())
    assert status_with(expiring["key"]) == 200
    with scope(tenant_id=people.acme.pk, tags=None):
        ApiKey.objects.filter(pk=expiring["id"]).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert status_with(expiring["key"]) == 401
    past = {"name": "late", "expires_at": (timezone.now() - timedelta(hours=1)).isoformat()}
    assert call(people.ada.client, "POST", "/api/v1/api-keys", past).status_code == 400
    revoked = make(people, member="nina")
    assert status_with(revoked["key"]) == 200
    for _ in range(2):
        assert call(people.ada.client, "DELETE", f"/api/v1/api-keys/{revoked['id']}").status_code == 204
        assert status_with(revoked["key"]) == 401
    with scope(tenant_id=people.acme.pk, tags=None):
        assert ApiKey.objects.get(pk=revoked["id"]).last_used_at is not None


def test_scopes_narrow_and_never_widen(people: People) -> None:
    ask_only = client_of(make(people, scopes=["ask"])["key"])  # of the admin
    assert ask_only.get("/api/v1/me").json()["abilities"] == ["ask"]
    assert ask_only.get("/api/v1/documents").status_code == 200
    for method, path in (
        ("GET", "audit"),
        ("GET", "members"),
        ("HEAD", "members"),
        ("GET", "costs"),
        ("GET", "tasks"),
    ):
        assert call(ask_only, method, f"/api/v1/{path}").status_code == 403, path
    assert call(ask_only, "POST", "/api/v1/api-keys", {"name": "more"}).status_code == 403
    # A key speaks for one tenant and does not learn of its member's others.
    assert len(ask_only.get("/api/v1/me").json()["tenants"]) == 1
    beyond = {"name": "beyond", "member": "nina", "scopes": ["manage"]}
    assert call(people.ada.client, "POST", "/api/v1/api-keys", beyond).status_code == 400
    assert (
        call(people.ada.client, "POST", "/api/v1/api-keys", beyond | {"scopes": ["root"]}).status_code == 400
    )
    # The member's role shrinks, the key with it, whatever its scopes say.
    key = client_of(make(people, member="nina", scopes=["ask", "upload"])["key"])
    assert key.get("/api/v1/me").json()["abilities"] == ["ask", "upload"]
    path = f"/api/v1/members/{people.nina.membership.pk}"
    call(people.ada.client, "PATCH", path, {"role": "helpdesk"})
    assert key.get("/api/v1/me").json()["abilities"] == ["ask"]
    call(people.ada.client, "PATCH", path, {"role": "admin"})
    assert key.get("/api/v1/me").json()["abilities"] == ["ask", "upload"]
    # Who does not manage makes no keys, not even for themselves.
    assert call(people.gina.client, "POST", "/api/v1/api-keys", {"name": "mine"}).status_code == 403


def test_a_service_account_acts_through_keys_and_cannot_sign_in(people: People) -> None:
    made = make(people, service_account={"name": "ci-bot", "role": "helpdesk"})
    me = client_of(made["key"]).get("/api/v1/me").json()
    assert (me["username"], me["role"], me["method"]) == ("ci-bot", "helpdesk", "api_key")
    from tenants.models import User

    user = User.objects.get(username="ci-bot")
    assert user.is_service and not user.has_usable_password()
    user.set_password("a-Passw0rd-of-a-robot")  # even if somebody gave it one
    user.save()
    body = {"username": "ci-bot", "password": "a-Passw0rd-of-a-robot"}
    assert call(Client(), "POST", "/api/v1/token", body).status_code == 401
    page = Client()
    assert page.post("/sign-in/", body).status_code == 401
    assert page.get("/api/v1/me").status_code == 401
    # A session made before it became one is no way in either.
    session = session_client("nina")
    User.objects.filter(username="nina").update(is_service=True)
    assert session.get("/api/v1/me").status_code == 401
