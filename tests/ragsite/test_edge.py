"""What stands before Django: whose address a request comes from."""

from typing import Any

import httpx
import pytest

from tenants.models import AuditEvent
from tenants.scope import unscoped
from tests.cast import PASSWORD, Cast
from tests.knowledge.helpers import eventually
from tests.knowledge.hits_site import asker
from tests.live import serve

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def address_of(request_id: str) -> str | None:
    def find() -> AuditEvent | None:
        with unscoped(reason="test"):
            return AuditEvent.objects.filter(request_id=request_id).first()

    event: AuditEvent = eventually(find, 10, "nothing was recorded")
    return event.address


def sign_in(site: str, forwarded: str) -> httpx.Response:
    body = {"username": "nina", "password": PASSWORD}
    return httpx.post(f"{site}/api/v1/token", json=body, headers={"X-Forwarded-For": forwarded}, timeout=20)


def test_nobody_is_believed_who_was_not_named(cast: Cast, settings: Any) -> None:
    settings.HOPS_IN_CALLING_THREAD = False
    with serve() as site:
        response = sign_in(site, "203.0.113.9")
    assert response.status_code == 200
    assert address_of(response.headers["X-Request-ID"]) == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, not-an-ip", None),
        ("1.2.3.4, 2001:DB8::1", "2001:db8::1"),
    ],
)
def test_what_a_named_proxy_says_is_an_address_or_nothing(
    cast: Cast, settings: Any, forwarded: str, address: str | None
) -> None:
    settings.HOPS_IN_CALLING_THREAD = False
    with serve(fast_hits=True, trusted_proxies="127.0.0.1") as site:
        response = sign_in(site, forwarded)
        assert response.status_code == 200, response.text
        assert address_of(response.headers["X-Request-ID"]) == address
        with asker(site, cast.nina) as nina:
            nina.client.headers["X-Forwarded-For"] = forwarded
            hit = nina.warm()  # answered before Django, and recorded nevertheless
            assert address_of(hit.json()["request_id"]) == address
