"""JSON Web Tokens: forged, expired, replayed, raced, revoked."""

import base64
import hmac
import json
import threading
import time
import uuid
from typing import Any

import jwt
import pytest
from django.conf import settings
from django.db import connections
from django.test import Client

from tenants.models import TokenFamily
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD
from tests.security.helpers import call
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def sign_in(username: str, **body: str) -> dict[str, Any]:
    response = call(Client(), "POST", "/api/v1/token", {"username": username, "password": PASSWORD, **body})
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def status_with(token: str) -> int:
    response = Client().get("/api/v1/me", headers={"authorization": f"Bearer {token}"})
    return int(response.status_code)


def refresh(token: str) -> Any:
    return call(Client(), "POST", "/api/v1/token/refresh", {"refresh": token})


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_claims_name_tenant_and_audience(people: People) -> None:
    pair = sign_in("nina")
    assert pair["tenant"] == "acme" and pair["role"] == "network_engineer"
    for token, kind in ((pair["access"], "access"), (pair["refresh"], "refresh")):
        claims = claims_of(token)
        assert claims["aud"] == "ragsite-api" and claims["iss"] == "ragsite"
        assert claims["tenant"] == "acme" and claims["tid"] == str(people.acme.pk)
        assert claims["token_type"] == kind
        assert jwt.get_unverified_header(token)["alg"] == "HS256"
        assert PASSWORD not in json.dumps(claims) and "password" not in claims
    assert claims_of(pair["access"])["exp"] - time.time() <= 15 * 60 + 5
    assert status_with(pair["access"]) == 200


def test_forged_tokens_are_refused(people: People) -> None:
    access = sign_in("nina")["access"]
    good, key = claims_of(access), settings.SECRET_KEY
    assert status_with(jwt.encode(good, key, algorithm="HS256")) == 200  # the control

    def changed(**claims: Any) -> str:
        return jwt.encode(good | claims, key, algorithm="HS256")

    def without(name: str) -> str:
        return jwt.encode({k: v for k, v in good.items() if k != name}, key, algorithm="HS256")

    def signed(alg: str) -> str:
        """Another algorithm in the header, over the signature that HS256 would give."""
        text = f"{part({'alg': alg, 'typ': 'JWT'})}.{part(good)}"
        return f"{text}.{part(hmac.digest(key.encode(), text.encode(), 'sha256'))}"

    assert status_with(signed("HS256")) == 200  # the control of the forger's own tool
    head, body, tail = access.split(".")
    gus = people.gus.membership
    forged = {
        "none": jwt.encode(good, None, algorithm="none"),
        "None": f"{part({'alg': 'None', 'typ': 'JWT'})}.{body}.",
        "none with a signature": f"{part({'alg': 'none'})}.{body}.{tail}",
        "no alg": f"{part({'typ': 'JWT'})}.{body}.{tail}",
        "HS384": jwt.encode(good, key, algorithm="HS384"),
        "HS512": jwt.encode(good, key, algorithm="HS512"),
        "RS256": signed("RS256"),
        "ES256": signed("ES256"),
        "hs256": signed("hs256"),
        "another key": jwt.encode(good, key + "x", algorithm="HS256"),
        "kid": jwt.encode(
            good,
            "a key of the forger, long enough for HS256",
            algorithm="HS256",
            headers={"kid": "/dev/null"},
        ),
        "jwk": jwt.encode(
            good,
            "a key of the forger, long enough for HS256",
            algorithm="HS256",
            headers={"jwk": {"kty": "oct", "k": part(b"own")}},
        ),
        "wrong aud": changed(aud="ragsite-metrics"),
        "aud list": changed(aud=["other"]),
        "no aud": without("aud"),
        "wrong iss": changed(iss="evil"),
        "no iss": without("iss"),
        "expired": changed(exp=int(time.time()) - 1),
        "no exp": without("exp"),
        "exp nonsense": changed(exp="tomorrow"),
        "no jti": without("jti"),
        "no type": without("token_type"),
        "another type": changed(token_type="refresh"),
        "sliding": changed(token_type="sliding"),
        "no tenant": without("tid"),
        "no member": without("mid"),
        "no family": without("fam"),
        "no stamp": without("pws"),
        "old stamp": changed(pws="0" * 16),
        "another tenant": changed(tid=str(people.globex.pk)),
        "another member": changed(mid=str(people.ada.membership.pk)),
        "another tenant's member": changed(tid=str(gus.tenant_id), mid=str(gus.pk)),
        "another family": changed(fam=str(uuid.uuid4())),
        "number for an id": changed(tid=12345678901234567890123456789012),
        "list for an id": changed(mid=[str(people.nina.membership.pk)]),
        "injection": changed(fam="' OR true --"),
        "tampered": f"{head}.{part(good | {'role': 'admin'})}.{tail}",
        "cut": access[:-2],
        "twice": access + access,
        "two parts": f"{head}.{body}",
        "empty": "",
        "words": "let me in",
        "nul": "a\0b.c.d",
        "not ascii": "ä.ö.ü",
        "deep": part(b'{"a":' * 5000) + "." + body + "." + tail,
        "huge": "x" * 50_000,
    }
    for name, token in forged.items():
        assert status_with(token) == 401, name
        # With the server's own key and the type changed it would be an old refresh token, and end the sign-in.
        if len(token) <= 4000 and name != "another type":
            assert refresh(token).status_code in (400, 401), name
    for header in (
        "Basic bmluYTpw",
        "Bearer",
        f"bearer  {access}x",
        f"Token {access}",
        "rsk_x",
        "Bearer rsk_x.y",
    ):
        assert Client().get("/api/v1/me", headers={"authorization": header}).status_code == 401, header
    # A good token still holds, in a header alone.
    assert status_with(access) == 200
    assert Client().get(f"/api/v1/me?access_token={access}&token={access}").status_code == 401


def test_access_and_refresh_tokens_are_not_interchangeable(people: People) -> None:
    pair = sign_in("nina")
    assert status_with(pair["refresh"]) == 401
    assert refresh(pair["access"]).status_code == 401
    assert status_with(pair["access"]) == 200
    assert refresh(pair["refresh"]).status_code == 200


def test_a_refresh_token_that_comes_back_ends_its_family(people: People) -> None:
    first, other = sign_in("nina"), sign_in("nina")
    second = refresh(first["refresh"]).json()
    third = refresh(second["refresh"]).json()
    assert status_with(third["access"]) == 200
    assert refresh(first["refresh"]).status_code == 401  # the thief, or the owner after the thief
    for pair in (first, second, third):
        assert status_with(pair["access"]) == 401
        assert refresh(pair["refresh"]).status_code == 401
    assert status_with(other["access"]) == 200, "another sign-in goes on"
    with scope(tenant_id=people.acme.pk, tags=None):
        assert TokenFamily.objects.filter(revoked_because="reuse").count() == 1
    events = people.ada.client.get("/api/v1/audit?action=token.reuse_detected").json()["results"]
    assert [event["actor"] for event in events] == ["nina"]


def test_of_many_refreshes_at_once_at_most_one_wins(people: People) -> None:
    for _ in range(3):
        pair = sign_in("nina")
        barrier = threading.Barrier(6)
        codes: list[int] = []
        fresh: list[str] = []

        def race(pair: Any = pair, barrier: Any = barrier, codes: Any = codes, fresh: Any = fresh) -> None:
            try:
                barrier.wait()
                response = refresh(pair["refresh"])
                codes.append(response.status_code)
                if response.status_code == 200:
                    fresh.append(response.json()["access"])
            finally:
                connections.close_all()

        threads = [threading.Thread(target=race) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(codes)[1:] == [401] * 5 and sorted(codes)[0] in (200, 401), codes
        # It was used twice: the family has ended, for the winner too.
        assert all(status_with(token) == 401 for token in fresh)


def test_revoking(people: People) -> None:
    for kind in ("refresh", "access"):
        pair = sign_in("nina")
        assert call(Client(), "POST", "/api/v1/token/revoke", {"token": pair[kind]}).status_code == 204
        assert status_with(pair["access"]) == 401
        assert refresh(pair["refresh"]).status_code == 401
    assert call(Client(), "POST", "/api/v1/token/revoke", {"token": "nonsense"}).status_code == 204
    assert call(Client(), "POST", "/api/v1/token/revoke", {}).status_code == 400
    # Of a member who is suspended: the tokens do not come back to life with them.
    pair = sign_in("nina")
    path = f"/api/v1/members/{people.nina.membership.pk}"
    assert call(people.ada.client, "PATCH", path, {"status": "suspended"}).status_code == 200
    assert call(Client(), "POST", "/api/v1/token/revoke", {"refresh": pair["refresh"]}).status_code == 204
    assert call(people.ada.client, "PATCH", path, {"status": "active"}).status_code == 200
    assert status_with(pair["access"]) == 401
    assert refresh(pair["refresh"]).status_code == 401
    with unscoped(reason="tests"):
        assert not TokenFamily.objects.filter(
            membership__user__username="gina", revoked_at__isnull=False
        ).exists()


def test_a_body_that_is_nested_too_deeply_is_the_clients_error(people: People) -> None:
    deep = b"[" * 100_000
    for path, client in (("token", Client()), ("query", people.nina.client), ("roles", people.ada.client)):
        response = client.generic("POST", f"/api/v1/{path}", deep, "application/json")
        assert response.status_code == 400, path
