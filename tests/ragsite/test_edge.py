"""What stands before Django: whose address a request comes from, and how much of a body is read."""

import json
import socket
import uuid
from typing import Any

import httpx
import pytest
from django.conf import settings as ours
from django.core.handlers.asgi import ASGIHandler

from knowledge.models import Collection, Source
from ragsite.core.config import config
from tenants.models import AuditEvent
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD, Cast
from tests.knowledge.helpers import eventually
from tests.knowledge.hits_site import asker
from tests.live import serve

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def address_of(request_id: str) -> str | None:
    def find() -> list[AuditEvent]:
        with unscoped(reason="test"):
            return list(AuditEvent.objects.filter(request_id=request_id))

    address: str | None = eventually(find, 10, "nothing was recorded")[0].address
    return address


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


# Bodies

LARGE = 400 * 2**20
USUAL = ours.DATA_UPLOAD_MAX_MEMORY_SIZE
FILE = 3 * 2**20


def answer_to_head(site: str, path: str, *lines: str, body: bytes = b"") -> tuple[int, dict[str, str], str]:
    """What is answered to a POST of which no more than ``body`` ever comes, read until the connection is closed."""
    host, port = site.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = "\r\n".join((f"POST {path} HTTP/1.1", f"Host: {host}", *lines))
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        told = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    first, _, rest = told.partition("\r\n")
    headers, _, text = rest.partition("\r\n\r\n")
    pairs = (line.split(": ", 1) for line in headers.split("\r\n"))
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}, text


@pytest.fixture
def spooled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of each request Django has written down. Refusals wait for the rest of a body but a moment."""
    monkeypatch.setattr("ragsite.bodies.LINGER_SECONDS", 0.2)
    found: list[int] = []
    read = ASGIHandler.read_body

    async def count(self: Any, receive: Any) -> Any:
        at = len(found)
        found.append(0)

        async def counted() -> Any:
            message = await receive()
            found[at] += len(message.get("body", b""))
            return message

        return await read(self, counted)

    monkeypatch.setattr(ASGIHandler, "read_body", count)
    return found


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config(), "max_upload_bytes", FILE)


def authorization(cast: Cast) -> str:
    return f"Authorization: {cast.nina.client.defaults['HTTP_AUTHORIZATION']}"


def test_a_strangers_large_body_is_refused_before_it_is_read(
    live_site: str, small_files: None, spooled: list[int]
) -> None:
    for path, length, status in (
        ("/api/v1/documents", LARGE, 413),
        ("/api/v1/documents", FILE, 401),
        ("/api/v1/query", USUAL + 1, 413),
        ("/v1/chat/completions", USUAL + 1, 413),
        ("/api/v1/nothing", LARGE, 413),
        (f"/api/v1/hooks/{uuid.uuid4()}", FILE, 401),
        (f"/api/v1/hooks/{uuid.uuid4()}", LARGE, 413),
    ):
        lines = ["Content-Type: application/json", f"Content-Length: {length}"]
        found, headers, text = answer_to_head(live_site, path, *lines, body=b"x" * 1000)
        assert found == status and headers["connection"] == "close" and headers["x-request-id"], path
        kind = "application/json" if path.startswith("/v1/") else "application/problem+json"
        assert headers["content-type"] == kind and json.loads(text)
    assert not any(spooled)


def test_a_page_tells_it_as_a_page(live_site: str, spooled: list[int]) -> None:
    status, headers, text = answer_to_head(live_site, "/sign-in/", f"Content-Length: {LARGE}")
    assert status == 413 and headers["content-type"].startswith("text/html") and "2 MB" in text
    assert "content-security-policy" in headers and spooled == [0]
    # A script that asks for JSON is told in JSON.
    _, headers, _ = answer_to_head(
        live_site, "/upload/", "Accept: application/json", f"Content-Length: {LARGE}"
    )
    assert headers["content-type"] == "application/problem+json"


def test_a_body_of_no_announced_size_is_counted(
    live_site: str, cast: Cast, small_files: None, spooled: list[int]
) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (2**16, b"x" * 2**16) for _ in range(60))
    for path, most in (("/api/v1/query", USUAL), ("/api/v1/collections", USUAL)):
        spooled.clear()
        lines = [authorization(cast), "Content-Type: application/json", "Transfer-Encoding: chunked"]
        status, headers, _ = answer_to_head(live_site, path, *lines, body=chunks)
        assert status == 413 and headers["connection"] == "close"
        assert spooled[0] <= most and spooled[1] == 0
    spooled.clear()
    assert answer_to_head(live_site, "/api/v1/documents", *lines[1:], body=chunks)[0] == 401
    assert spooled == [0]


def test_members_send_files_up_to_the_limit_and_are_told_of_larger_ones(
    live_site: str, cast: Cast, small_files: None
) -> None:
    headers = {"Authorization": cast.nina.client.defaults["HTTP_AUTHORIZATION"]}
    with httpx.Client(base_url=live_site, headers=headers, timeout=30) as client:

        def send(size: int) -> httpx.Response:
            files = {"file": ("large.md", b"word \n" * (size // 6))}
            return client.post("/api/v1/documents", files=files, data={"tags": "runbooks"})

        assert send(FILE - 100).status_code == 202
        little = send(FILE + 100)
        assert little.status_code == 413 and "large.md" in little.text
        much = send(4 * FILE)  # all of it is sent before the answer is looked at
        assert much.status_code == 413 and much.json()["detail"] == "A file may have 3 MB at most: split it."
        assert send(100).status_code == 202


def test_a_member_who_is_signed_in_sends_large_forms(live_site: str, cast: Cast, small_files: None) -> None:
    with httpx.Client(base_url=live_site, timeout=30, headers={"Accept": "application/json"}) as client:
        client.get("/sign-in/")
        token = {"csrfmiddlewaretoken": client.cookies["ragsite_csrf"]}
        assert (
            client.post("/sign-in/", data={"username": "nina", "password": PASSWORD} | token).status_code
            == 302
        )
        client.get("/upload/")
        token = {"csrfmiddlewaretoken": client.cookies["ragsite_csrf"], "tags": "runbooks"}
        files = {"file": ("large.md", b"word \n" * (FILE // 6 - 100))}
        assert client.post("/upload/", files=files, data=token).status_code == 201


def test_a_delivery_to_a_source_that_is_there_is_read(
    live_site: str, cast: Cast, small_files: None, spooled: list[int]
) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None):
        collection = Collection.objects.create(slug="pushed", name="Pushed")
        source = Source.objects.create(name="pushed", kind="push", collection=collection, tags=["runbooks"])
    response = httpx.post(f"{live_site}/api/v1/hooks/{source.pk}", content=b"x" * FILE, timeout=30)
    assert response.status_code == 401 and spooled == [FILE]
