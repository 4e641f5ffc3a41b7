"""Errors outside of any view: problems for the API, pages for people, a request id on everything."""

from typing import Any
from uuid import UUID

import pytest

from tests.knowledge.helpers import check_problem

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def test_what_is_not_there(client: Any) -> None:
    for path in (
        "/api/v1/nothing",
        "/api/v2/query",
        "/api/",
        "/api/v1/experiments",
    ):
        check_problem(client.get(path), 404, "not-found")
    told = client.get("/v1/engines")  # OpenAI's protocol has its own shape
    assert told.status_code == 404 and told.json()["error"]["code"] == "not_found"
    page = client.get("/nothing-here")
    assert page.status_code == 404 and page.headers["Content-Type"].startswith("text/html")
    assert UUID(page.headers["X-Request-ID"])


def test_a_request_id_is_always_ours(client: Any) -> None:
    given = "11111111-1111-4111-8111-111111111111"
    for path in ("/livez", "/health", "/api/v1/me", "/api/schema", "/static/nothing.css", "/sign-in/"):
        response = client.get(path, headers={"x-request-id": given})
        assert UUID(response.headers["X-Request-ID"]) != UUID(given), path


def test_a_failure_of_our_own_is_a_500_that_tells_nothing(cast: Any, monkeypatch: Any) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("the secret detail")

    client = cast.nina.client
    client.raise_request_exception = False
    monkeypatch.setattr("knowledge.api.collections.CollectionShape", explode)
    monkeypatch.setattr("knowledge.answering.passages.search_passages", explode)
    question = {"question": "What is the hold timer?"}
    for response in (
        client.get("/api/v1/collections"),
        client.post("/api/v1/search", question, content_type="application/json"),
        client.post("/api/v1/query", question, content_type="application/json"),
        client.post("/api/v1/query/stream", question, content_type="application/json"),
    ):
        problem = check_problem(response, 500, "internal")
        assert "secret" not in str(problem) and "ZeroDivision" not in str(problem)


def test_a_database_that_is_away_is_503(cast: Any, monkeypatch: Any) -> None:
    from django.db import OperationalError

    def fail(*_: Any, **__: Any) -> None:
        raise OperationalError("connection to 10.0.0.5 refused")

    cast.nina.client.raise_request_exception = False
    monkeypatch.setattr("tenants.authentication.principal_of_token", fail)
    response = cast.nina.client.get("/api/v1/me")
    problem = check_problem(response, 503)
    assert "10.0.0.5" not in str(problem) and int(response.headers["Retry-After"]) > 0
