"""Signing in: the same words for every failure, and a brake on guessing."""

from typing import Any

import pytest
from django.test import Client
from redis.exceptions import ConnectionError as RedisConnectionError

from tenants import limits
from tenants.limits import FAILURES_PER_ACCOUNT, FAILURES_PER_ADDRESS
from tests.cast import PASSWORD
from tests.security.helpers import call, signature
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def attempt(username: str, password: str, *, address: str = "192.0.2.1", page: bool = False) -> Any:
    client = Client(REMOTE_ADDR=address)
    if page:
        return client.post("/sign-in/", {"username": username, "password": password})
    return call(client, "POST", "/api/v1/token", {"username": username, "password": password})


def test_an_unknown_user_and_a_wrong_password_are_told_the_same(people: People) -> None:
    known, unknown = attempt("nina", "wrong"), attempt("nobody", "wrong")
    assert known.status_code == unknown.status_code == 401
    assert signature(known) == signature(unknown)
    for wrong in ("", "nina\0", "x" * 5000):
        assert attempt(wrong, "wrong").status_code in (400, 401)
        assert attempt("nina", wrong).status_code in (400, 401)


def test_an_account_is_protected_from_many_addresses(people: People) -> None:
    most, seconds = FAILURES_PER_ACCOUNT
    for n in range(most):
        # Whatever the case of the name, on the page and in the API.
        name = "nina" if n % 2 else "NINA"
        assert attempt(name, "wrong", address=f"192.0.2.{n}", page=n % 3 == 0).status_code == 401, n
    for page in (False, True):
        refused = attempt("nina", PASSWORD, address="198.51.100.1", page=page)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= seconds
    assert attempt("gina", PASSWORD, address="198.51.100.1").status_code == 200
    assert people.nina.client.get("/api/v1/me").status_code == 200, "who is signed in stays so"


def test_an_address_is_stopped_after_many_accounts(people: People) -> None:
    most, seconds = FAILURES_PER_ADDRESS
    for n in range(most):
        assert attempt(f"user-{n}", "wrong", address="203.0.113.9").status_code == 401
    refused = attempt("nina", PASSWORD, address="203.0.113.9")
    assert refused.status_code == 429 and 0 < int(refused.headers["Retry-After"]) <= seconds
    assert refused.headers["RateLimit-Policy"] == f'"sign-in";q={most};w={seconds}'
    assert refused.headers["RateLimit"] == f'"sign-in";r=0;t={refused.headers["Retry-After"]}'
    # A header does not change the address.
    spoofed = Client(
        REMOTE_ADDR="203.0.113.9", headers={"x-forwarded-for": "192.0.2.77", "x-real-ip": "192.0.2.77"}
    )
    body = {"username": "nina", "password": PASSWORD}
    assert call(spoofed, "POST", "/api/v1/token", body).status_code == 429
    assert attempt("nina", PASSWORD, address="203.0.113.10").status_code == 200


def test_signing_in_clears_the_accounts_count_alone(people: People) -> None:
    for _ in range(FAILURES_PER_ACCOUNT[0] - 1):
        attempt("nina", "wrong")
    assert attempt("nina", PASSWORD).status_code == 200
    assert attempt("nina", "wrong").status_code == 401
    assert attempt("nina", PASSWORD).status_code == 200
    for _ in range(FAILURES_PER_ADDRESS[0] - FAILURES_PER_ACCOUNT[0]):
        attempt("somebody", "wrong")
    assert attempt("nina", PASSWORD).status_code == 429  # the address had its share


def test_the_admins_own_sign_in_is_no_way_round(people: People) -> None:
    for n in range(FAILURES_PER_ACCOUNT[0]):
        attempt("nina", "wrong", address=f"192.0.2.{n}")
    client = Client()
    client.post("/admin/login/", {"username": "nina", "password": PASSWORD})
    assert client.get("/api/v1/me").status_code == 401


def test_without_redis_people_still_sign_in(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise RedisConnectionError("away")

    monkeypatch.setattr(limits, "get_redis_connection", away)
    assert attempt("nina", PASSWORD).status_code == 200
    assert attempt("nina", PASSWORD, page=True).status_code == 302
    assert attempt("nina", "wrong").status_code == 401
