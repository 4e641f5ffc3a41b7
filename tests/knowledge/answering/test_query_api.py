"""POST /api/v1/query and /search."""

from typing import Any

import pytest

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def ask(member: Any, question: str, **body: Any) -> Any:
    return member.client.post(
        "/api/v1/query", {"question": question, **body}, content_type="application/json"
    )


def test_a_member_gets_a_cited_answer_from_their_own_documents(cast: Any) -> None:
    response = ask(cast.nina, "What is the hold timer on edge routers?")
    assert response.status_code == 200, response.content
    body = response.json()
    assert body["answered"] and body["grounded"]
    assert "30 seconds" in body["answer"]
    assert "180 seconds" not in response.content.decode()
    assert body["sources"][0]["title"] == "BGP session down"
    for citation in body["citations"]:
        source = body["sources"][citation["source"] - 1]
        assert source["n"] == citation["source"]
        assert body["answer"][citation["start"] : citation["end"]]
    assert body["request_id"] == response.headers["X-Request-ID"]


def test_another_tenant_gets_its_own_answer(cast: Any) -> None:
    body = ask(cast.gina, "What is the hold timer on edge routers?").json()
    assert "180 seconds" in body["answer"]
    assert "30 seconds" not in str(body).replace("180 seconds", "")
