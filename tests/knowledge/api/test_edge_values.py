"""What clients send at the edges of the contract: bodies without a length, nulls, empty fields, odd wishes of a format."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.test import Client

from knowledge.models import Job
from tenants.scope import scope
from tests.knowledge.helpers import HOLD_TIMER, check_problem, send, upload
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.live import serve

pytestmark = on_shared_cast


@pytest.fixture
def live(shared: Any, settings: Any) -> Iterator[httpx.Client]:
    """A client of ada's that is served as in production."""
    settings.HOPS_IN_CALLING_THREAD = False
    headers = {"Authorization": shared.ada.client.defaults["HTTP_AUTHORIZATION"]}
    with serve() as address, httpx.Client(base_url=address, headers=headers, timeout=20) as client:
        yield client


def in_chunks(body: bytes) -> dict[str, Any]:
    """Sent as it comes, without a length."""
    return {"content": iter([body[:5], body[5:]])}


def test_a_body_without_a_length_is_read_as_any_other(shared: Any, live: httpx.Client) -> None:
    def ask_for(method: str, path: str, **body: Any) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        return live.request(
            method, f"/api/v1/{path}", headers=headers, **in_chunks(json.dumps(body).encode())
        )

    assert "30 seconds" in ask_for("POST", "query", question=HOLD_TIMER).json()["answer"]
    assert ask_for("POST", "search", question=HOLD_TIMER).json()["sources"]
    document = str(shared.documents["acme"]["edge-policy.md"].pk)
    changed = ask_for("PATCH", f"documents/{document}", title="Renamed")
    assert changed.status_code == 200 and changed.json()["title"] == "Renamed"
    # Of one document, and not of all that there are, as an empty body would have it.
    job = ask_for("POST", "reindex", document=document).json()["task_id"]
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert str(Job.objects.get(pk=job).document_id) == document
    form = httpx.Request("POST", "http://x", files={"file": ("a.md", b"# A\n\nText.\n")})
    sent = live.post(
        "/api/v1/documents", headers={"Content-Type": form.headers["Content-Type"]}, **in_chunks(form.read())
    )
    assert sent.status_code == 202, sent.text


def test_what_is_null_where_nothing_stands_yet_is_left_out(shared: Any) -> None:
    optional = dict.fromkeys(("k", "collections", "tags", "conversation", "cache"))
    answer = send(shared.nina, "post", "query", {"question": HOLD_TIMER, **optional})
    assert answer.status_code == 200, answer.content
    rated = {"request_id": answer.json()["request_id"], "rating": 4, "comment": None, "correction": None}
    assert send(shared.nina, "post", "feedback", rated).status_code == 201
    signed_in = {"username": "nina", "password": "demo-ragsite", "tenant": None}
    assert Client().post("/api/v1/token", signed_in, content_type="application/json").status_code == 200
    problem = check_problem(send(shared.nina, "post", "query", {"question": None}), 400)
    assert problem["errors"][0]["field"] == "question"
    # Where something stands, null is a value, which this has none of.
    document = shared.documents["acme"]["edge-policy.md"].pk
    check_problem(send(shared.ada, "patch", f"documents/{document}", {"title": None}), 400)


def test_an_empty_field_of_a_form_is_none(shared: Any) -> None:
    response = upload(shared.ada, "empty-tags.md", tags=["", ""])
    assert response.status_code == 202, response.content
    plain = upload(shared.ada, "no-tags.md")
    told = [
        send(shared.ada, "get", f"documents/{each.json()['id']}").json()["tags"] for each in (response, plain)
    ]
    assert told[0] == told[1]
    mixed = upload(shared.ada, "mixed.md", tags=["", "faq"]).json()["id"]
    assert send(shared.ada, "get", f"documents/{mixed}").json()["tags"] == ["faq"]


@pytest.mark.parametrize("accept", ["application/octet-stream", "text/markdown", "*/*"])
def test_an_original_is_given_in_its_own_format(shared: Any, accept: str) -> None:
    document = shared.documents["acme"]["edge-policy.md"].pk
    response = shared.ada.client.get(f"/api/v1/documents/{document}/original", headers={"accept": accept})
    assert response.status_code == 200 and b"maximum-prefix" in b"".join(response)


@pytest.mark.parametrize(
    ("accept", "is_sse"),
    [
        ("", False),
        ("*/*", False),
        ("text/event-stream", True),
        ("text/event-stream, application/x-ndjson", True),
        ("application/x-ndjson, text/event-stream", False),
        ("text/event-stream;q=0.1, application/x-ndjson", False),
        ("application/x-ndjson;q=0.1, text/event-stream", True),
        ("text/event-stream, */*", True),
        ("image/png", False),
    ],
)
def test_a_stream_comes_as_its_reader_likes_best(shared: Any, accept: str, is_sse: bool) -> None:
    from django.test import RequestFactory

    from knowledge.api.streaming import wants_sse

    headers = {"accept": accept} if accept else {}
    assert wants_sse(RequestFactory().get("/", headers=headers)) == is_sse


@pytest.mark.parametrize("path", ["costs", "stats", "audit"])
@pytest.mark.parametrize("end", ["0001-01-01", "0050-01-01T00:00:00Z", "9999-12-31"])
def test_a_period_at_the_ends_of_the_calendar_is_none_or_empty(shared: Any, path: str, end: str) -> None:
    response = send(shared.ada, "get", f"{path}?to={end}")
    assert response.status_code in (200, 400), response.content
    if response.status_code == 400:
        check_problem(response, 400)


def test_answers_are_kept_by_no_cache_on_the_way(shared: Any) -> None:
    document = shared.documents["acme"]["edge-policy.md"].pk
    paths = ["me", "documents", f"documents/{document}", f"documents/{document}/original", "members", "costs"]
    for path in paths:
        response = shared.ada.client.get(f"/api/v1/{path}")
        assert response.status_code == 200 and response.headers["Cache-Control"] == "no-store", path
    body = {"username": "nina", "password": "demo-ragsite"}
    for password, status in ((body["password"], 200), ("wrong", 401)):
        response = Client().post(
            "/api/v1/token", {**body, "password": password}, content_type="application/json"
        )
        assert response.status_code == status and response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("options", "/api/docs", 405),
        ("delete", "/api/docs", 405),
        ("delete", "/api/schema", 405),
        ("get", "/api/schema?format=xml", 404),
        ("post", "/health", 405),
        ("post", "/livez", 405),
        ("delete", "/readyz", 405),
        ("put", "/metrics", 405),
    ],
)
def test_a_problem_is_told_in_json_everywhere(shared: Any, method: str, path: str, status: int) -> None:
    problem = check_problem(getattr(Client(), method)(path), status)
    assert problem["title"]


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_whoever_looks_after_a_site_may_ask_for_the_head_alone(path: str) -> None:
    assert Client().head(path).status_code == Client().get(path).status_code
