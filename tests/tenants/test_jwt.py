"""JSON Web Tokens: what is refused, rotation, and what ends a sign-in at once."""

import threading
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings
from django.db import connections
from django.test import Client
from django.utils import timezone

from ragsite.core.problems import Problem
from tenants.models import AuditEvent, Membership, Tenant, TokenFamily
from tenants.people import change_member, remove_member, set_tenant_status
from tenants.scope import scope, unscoped
from tenants.tokens import rotate_tokens
from tests.cast import PASSWORD, Cast, Member

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
ME = "/api/v1/me"


def sign_in(username: str) -> dict[str, str]:
    response = Client().post(
        "/api/v1/token", {"username": username, "password": PASSWORD}, content_type="application/json"
    )
    assert response.status_code == 200, response.content
    pair: dict[str, str] = response.json()
    return pair


def status_with(token: str) -> int:
    return int(Client().get(ME, headers={"authorization": f"Bearer {token}"}).status_code)


def refresh(token: str) -> Any:
    return Client().post("/api/v1/token/refresh", {"refresh": token}, content_type="application/json")


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def test_claims_name_tenant_and_audience(cast: Cast) -> None:
    pair = sign_in("nina")
    assert (pair["tenant"], pair["role"]) == ("acme", "network_engineer")
    claims = claims_of(pair["access"])
    assert claims["tenant"] == "acme"
    assert claims["aud"] == "ragsite-api"
    assert claims["iss"] == "ragsite"
    assert jwt.get_unverified_header(pair["access"])["alg"] == "HS256"
    assert status_with(pair["access"]) == 200


def test_forged_and_foreign_tokens_are_refused(cast: Cast) -> None:
    pair = sign_in("nina")
    claims, key = claims_of(pair["access"]), settings.SECRET_KEY
    past = int((timezone.now() - timedelta(minutes=1)).timestamp())
    forged = {
        "alg none": jwt.encode(claims, "", algorithm="none"),
        "HS512 with our key": jwt.encode(claims, key, algorithm="HS512"),
        "HS384 with our key": jwt.encode(claims, key, algorithm="HS384"),
        "another key": jwt.encode(claims, "x" * 64, algorithm="HS256"),
        "wrong audience": jwt.encode(claims | {"aud": "other"}, key, algorithm="HS256"),
        "wrong issuer": jwt.encode(claims | {"iss": "other"}, key, algorithm="HS256"),
        "expired": jwt.encode(claims | {"exp": past}, key, algorithm="HS256"),
        "another tenant": jwt.encode(claims | {"tid": str(cast.globex.pk)}, key, algorithm="HS256"),
        "another's membership": jwt.encode(
            claims | {"mid": str(cast.ada.membership.pk)}, key, algorithm="HS256"
        ),
        "a refresh token": pair["refresh"],
        "garbage": "a.b.c",
        "nothing": "",
    }
    for missing in ("aud", "iss", "exp", "tid", "mid", "fam", "pws", "jti"):
        short = {name: value for name, value in claims.items() if name != missing}
        forged[f"no {missing}"] = jwt.encode(short, key, algorithm="HS256")
    assert jwt.encode(claims, key, algorithm="HS256") and status_with(pair["access"]) == 200
    for why, token in forged.items():
        assert status_with(token) == 401, why
    assert refresh(pair["access"]).status_code == 401


def test_a_refresh_token_works_once_and_its_reuse_ends_the_family(cast: Cast) -> None:
    first = sign_in("nina")
    other = sign_in("nina")
    second = refresh(first["refresh"]).json()
    assert status_with(second["access"]) == 200
    assert refresh(first["refresh"]).status_code == 401
    for token in (first["access"], second["access"]):
        assert status_with(token) == 401
    assert refresh(second["refresh"]).status_code == 401
    assert status_with(other["access"]) == 200  # another sign-in of the same person goes on
    with unscoped(reason="tests"):
        assert AuditEvent.objects.filter(action="token.reuse_detected", actor_name="nina").count() == 1


def test_of_two_refreshes_at_once_at_most_one_wins(cast: Cast) -> None:
    pair = sign_in("nina")
    outcomes: list[str] = []
    barrier = threading.Barrier(6)

    def rotate() -> None:
        barrier.wait()
        try:
            rotate_tokens(refresh=pair["refresh"])
            outcomes.append("won")
        except Problem as problem:
            outcomes.append(str(problem.status))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=rotate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6
    assert outcomes.count("won") <= 1
    assert outcomes.count("401") >= 5
    with unscoped(reason="tests"):
        assert TokenFamily.objects.get(pk=claims_of(pair["access"])["fam"]).revoked_because == "reuse"


def test_revoke_ends_access_too_and_says_nothing_of_bad_tokens(cast: Cast) -> None:
    pair = sign_in("nina")
    for token, body in ((pair["refresh"], "refresh"), ("garbage", "token")):
        response = Client().post("/api/v1/token/revoke", {body: token}, content_type="application/json")
        assert response.status_code == 204
    assert status_with(pair["access"]) == 401
    assert refresh(pair["refresh"]).status_code == 401


def _ways_in(member: Member) -> dict[str, Client]:
    """The same member by token, by key and by session."""
    from tenants.keys import create_api_key

    with scope(tenant_id=member.membership.tenant_id, tags=None):
        _, key = create_api_key(principal=member.principal, member=member.membership, name="laptop")
    session = Client()
    assert session.login(username=member.username, password=PASSWORD)
    return {
        "jwt": member.client,
        "key": Client(headers={"authorization": f"Bearer {key}"}),
        "session": session,
    }


def _statuses(ways: dict[str, Client]) -> dict[str, int]:
    return {name: client.get(ME).status_code for name, client in ways.items()}


@pytest.mark.parametrize("what", ["member", "tenant", "user", "removal"])
def test_suspension_ends_every_way_in_on_the_next_request(cast: Cast, what: str) -> None:
    ways = _ways_in(cast.nina)
    assert _statuses(ways) == {"jwt": 200, "key": 200, "session": 200}
    membership = cast.nina.membership
    with scope(tenant_id=membership.tenant_id, tags=None):
        if what == "member":
            change_member(membership=membership, status=Membership.Status.SUSPENDED)
        elif what == "removal":
            remove_member(membership=membership)
        elif what == "user":
            membership.user.is_active = False
            membership.user.save(update_fields=["is_active"])
    if what == "tenant":
        set_tenant_status(tenant=cast.acme, status=Tenant.Status.SUSPENDED)
    assert set(_statuses(ways).values()) == {401}
    assert cast.gina.client.get(ME).status_code == 200


def test_a_new_password_ends_tokens_and_sessions_but_not_keys(cast: Cast) -> None:
    ways = _ways_in(cast.nina)
    user = cast.nina.membership.user
    user.set_password("another-long-password-9")
    user.save(update_fields=["password"])
    assert _statuses(ways) == {"jwt": 401, "key": 200, "session": 401}


def test_a_role_holds_from_the_next_request(cast: Cast) -> None:
    membership = cast.nina.membership
    with scope(tenant_id=membership.tenant_id, tags=None):
        from tenants.models import Role

        change_member(membership=membership, role=Role.objects.get(name="helpdesk"))
    me = cast.nina.client.get(ME).json()
    assert me["role"] == "helpdesk"
    assert me["abilities"] == ["ask"]
    assert me["tags"] == ["faq", "runbooks", "troubleshooting_guides"]


def test_members_of_several_tenants_name_one(cast: Cast) -> None:
    from tenants.models import Role
    from tenants.people import add_member

    with scope(tenant_id=cast.globex.pk, tags=None):
        add_member(user=cast.nina.membership.user, role=Role.objects.get(name="helpdesk"))
    body = {"username": "nina", "password": PASSWORD}
    refused = Client().post("/api/v1/token", body, content_type="application/json")
    assert refused.status_code == 400
    assert [t["slug"] for t in refused.json()["tenants"]] == ["acme", "globex"]
    pair = Client().post("/api/v1/token", body | {"tenant": "globex"}, content_type="application/json").json()
    assert (pair["tenant"], pair["role"]) == ("globex", "helpdesk")
    me = Client().get(ME, headers={"authorization": f"Bearer {pair['access']}"}).json()
    assert me["tenant"] == "globex" and [t["slug"] for t in me["tenants"]] == ["acme", "globex"]
    for wrong in ({"tenant": "nowhere"}, {"password": "wrong-password"}, {"username": "nobody"}):
        response = Client().post("/api/v1/token", body | wrong, content_type="application/json")
        assert response.status_code == 401
