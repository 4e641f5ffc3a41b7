"""API keys: shown once, hashed, narrowed, revocable; and brute force."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone

from tenants.models import ApiKey, AuditEvent
from tenants.scope import unscoped
from tests.cast import PASSWORD, Cast

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def make_key(cast: Cast, **body: Any) -> Any:
    return cast.ada.client.post("/api/v1/api-keys", {"name": "ci", **body}, content_type="application/json")


def with_key(key: str, header: str = "authorization") -> Client:
    value = f"Bearer {key}" if header == "authorization" else key
    return Client(headers={header: value})


def test_a_key_is_shown_once_and_only_its_hash_is_kept(cast: Cast) -> None:
    made = make_key(cast)
    assert made.status_code == 201
    key = made.json()["key"]
    secret = key.split(".")[1]
    assert len(secret) >= 43
    for header in ("authorization", "x-api-key"):
        assert with_key(key, header).get("/api/v1/me").json()["method"] == "api_key"
    listed = cast.ada.client.get("/api/v1/api-keys").content.decode()
    detail = cast.ada.client.get(f"/api/v1/api-keys/{made.json()['id']}").content.decode()
    assert secret not in listed + detail
    assert '"key"' not in detail
    with connections["platform"].cursor() as cursor:
        for table in ("tenants_apikey", "tenants_auditevent"):
            cursor.execute(
                f"SELECT count(*), count(*) FILTER (WHERE t::text LIKE %s) FROM {table} t", [f"%{secret}%"]
            )
            rows, holding = cursor.fetchone()
            assert rows > 0 and holding == 0
    assert make_key(cast).status_code == 409


def test_wrong_ended_and_revoked_keys_are_refused_alike(cast: Cast) -> None:
    made = make_key(cast).json()
    key, other = made["key"], make_key(cast, name="other").json()
    where, secret = key.split(".")
    wrong = [
        f"{where}.{'A' * 43}",
        f"{where}.",
        f"{other['key'].split('.')[0]}.{secret}",
        "rsk_",
        "rsk_!!.x",
        "rsk_" + "A" * 43 + "." + secret,
    ]
    bodies = set()
    for each in wrong:
        response = with_key(each).get("/api/v1/me")
        assert response.status_code == 401, each
        bodies.add(response.json()["detail"])
    assert cast.ada.client.delete(f"/api/v1/api-keys/{made['id']}").status_code == 204
    revoked = with_key(key).get("/api/v1/me")
    with unscoped(reason="tests"):
        ApiKey.objects.filter(pk=other["id"]).update(expires_at=timezone.now() - timedelta(seconds=1))
    expired = with_key(other["key"]).get("/api/v1/me")
    bodies |= {revoked.json()["detail"], expired.json()["detail"]}
    assert (revoked.status_code, expired.status_code) == (401, 401)
    assert len(bodies) == 1


def test_scopes_narrow_and_never_widen(cast: Cast) -> None:
    key = make_key(cast, member="nina", scopes=["ask"]).json()["key"]
    client = with_key(key)
    assert client.get("/api/v1/me").json()["abilities"] == ["ask"]
    assert client.get("/api/v1/me").json()["username"] == "nina"
    assert client.get("/api/v1/members").status_code == 403
    assert client.get("/api/v1/tasks").status_code == 403  # nina herself may upload
    assert cast.nina.client.get("/api/v1/tasks").status_code == 200
    wider = make_key(cast, name="wider", member="nina", scopes=["ask", "manage"])
    assert wider.status_code == 400 and wider.json()["errors"][0]["field"] == "scopes"
    past = make_key(cast, name="past", expires_at="2020-01-01T00:00:00Z")
    assert past.status_code == 400
    assert (
        cast.nina.client.post("/api/v1/api-keys", {"name": "x"}, content_type="application/json").status_code
        == 403
    )


def test_a_service_account_asks_and_cannot_sign_in(cast: Cast) -> None:
    made = make_key(cast, service_account={"name": "robot", "role": "helpdesk"})
    assert made.status_code == 201, made.content
    client = with_key(made.json()["key"])
    assert client.get("/api/v1/me").json()["role"] == "helpdesk"
    for password in ("", "!", PASSWORD):
        response = Client().post(
            "/api/v1/token",
            {"username": "robot", "password": password or "x"},
            content_type="application/json",
        )
        assert response.status_code == 401
    session = Client()
    assert not session.login(username="robot", password=PASSWORD)


def test_brute_force_is_throttled_by_account_and_by_address(cast: Cast) -> None:
    def attempt(username: str, password: str, address: str) -> Any:
        return Client(REMOTE_ADDR=address).post(
            "/api/v1/token", {"username": username, "password": password}, content_type="application/json"
        )

    for number in range(10):
        assert attempt("nina", "wrong", f"10.0.0.{number}").status_code == 401
    blocked = attempt("nina", PASSWORD, "10.0.0.99")
    assert blocked.status_code == 429
    assert int(blocked.headers["Retry-After"]) > 0
    assert attempt("gina", PASSWORD, "10.0.0.99").status_code == 200

    for number in range(20):
        assert attempt(f"nobody{number}", "wrong", "10.9.9.9").status_code == 401
    assert attempt("gina", PASSWORD, "10.9.9.9").status_code == 429
    assert attempt("gina", PASSWORD, "10.9.9.8").status_code == 200
    page = Client(REMOTE_ADDR="10.9.9.9").post("/sign-in/", {"username": "gina", "password": PASSWORD})
    assert page.status_code == 429
    with unscoped(reason="tests"):
        failed = AuditEvent.objects.filter(action="session.sign_in_failed")
        assert failed.filter(tenant=cast.acme, actor_name="nina").count() == 10
        assert failed.filter(tenant=None).count() == 20


def test_signing_in_goes_on_without_redis(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    import redis

    def away(alias: str) -> Any:
        return redis.Redis(unix_socket_path="/nonexistent/redis.sock", socket_timeout=0.1)

    monkeypatch.setattr("tenants.limits.get_redis_connection", away)
    response = Client().post(
        "/api/v1/token", {"username": "nina", "password": PASSWORD}, content_type="application/json"
    )
    assert response.status_code == 200
