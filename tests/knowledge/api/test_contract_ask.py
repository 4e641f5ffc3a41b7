"""The contract's rows of asking: query, search, answers, conversations."""

from typing import Any
from uuid import uuid4

import pytest

from tests.knowledge.helpers import (
    HOLD_TIMER,
    SOURCE_KEYS,
    ask,
    check_answer,
    check_problem,
    check_source_offsets,
    conforms,
    read_stream,
    send,
)
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


def test_the_answer_object(shared: Any) -> None:
    response = send(shared.nina, "post", "query", {"question": f"  {HOLD_TIMER} "})
    body = conforms(response, "/api/v1/query", "post")
    check_answer(body)
    check_source_offsets(shared.nina, body)
    assert body["question"] == HOLD_TIMER
    assert body["answered"] is True and body["grounded"] is True and body["citations"]
    assert (body["cache"], body["cache_hit"], body["stale"]) == ("miss", False, False)
    assert (body["provider"], body["fallback"], body["variant"]) == ("extractive", False, None)
    assert body["usage"] == {"input_tokens": 0, "output_tokens": 0, "cost_usd": "0"}
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert body["conversation"] == body["request_id"]
    assert body["latency_ms"] > 0 and {"embed", "retrieve"} <= set(body["timings"])
    for source in body["sources"]:
        assert source["collection"] == "handbook" and source["uri"].endswith(".md")


def test_the_stored_answer_is_the_answer(shared: Any) -> None:
    body = ask(shared.nina)
    stored = conforms(
        send(shared.nina, "get", f"answers/{body['request_id']}"), "/api/v1/answers/{id}", "get"
    )
    assert stored == body
    for outsider in (shared.sam, shared.ada, shared.gina):
        check_problem(send(outsider, "get", f"answers/{body['request_id']}"), 404, "not-found")
    check_problem(send(shared.nina, "get", f"answers/{uuid4()}"), 404, "not-found")


def test_search_is_retrieval_alone(shared: Any) -> None:
    found = conforms(
        send(shared.nina, "post", "search", {"question": "bgp session", "k": 1}), "/api/v1/search", "post"
    )
    assert set(found) == {"sources", "timings"}
    assert len(found["sources"]) == 1 and set(found["sources"][0]) >= SOURCE_KEYS
    check_source_offsets(shared.nina, found)
    assert send(shared.nina, "get", "conversations").status_code == 200


def test_k_collections_and_tags_filter(shared: Any) -> None:
    def titles(member: Any, **filters: Any) -> set[str]:
        body = {"question": "BGP session incident plan VPN", "k": 20, **filters}
        response = send(member, "post", "search", body)
        assert response.status_code == 200, response.content
        return {source["title"] for source in response.json()["sources"]}

    assert len(titles(shared.ada)) == 5
    assert titles(shared.ada, tags=["standards"]) == {"Edge BGP policy"}
    assert titles(shared.ada, tags=["standards", "faq"]) == {"Edge BGP policy", "VPN questions"}
    assert titles(shared.nina, tags=["incident_reports"]) == set()
    assert titles(shared.ada, collections=["handbook"]) == titles(shared.ada)
    assert titles(shared.ada, collections=[str(shared.collections["acme"].pk)]) == titles(shared.ada)
    other = str(shared.collections["globex"].pk)
    check_problem(send(shared.ada, "post", "search", {"question": "bgp", "collections": [other]}), 404)
    check_problem(send(shared.ada, "post", "query", {"question": "bgp", "collections": ["absent"]}), 404)
    for k in (1, 2, 20):
        response = send(shared.ada, "post", "query", {"question": HOLD_TIMER, "k": k})
        assert 1 <= len(response.json()["sources"]) <= k


@pytest.mark.parametrize("path", ["query", "query/stream", "search"])
def test_limits_of_a_question(shared: Any, path: str) -> None:
    def status(**body: Any) -> int:
        response = send(shared.nina, "post", path, {"question": HOLD_TIMER, **body})
        if response.status_code == 400:
            (error,) = check_problem(response, 400, "invalid")["errors"]
            assert error["field"].split(".")[0] in body or error["field"] == "question"
        code: int = response.status_code
        return code

    assert status(question="ab") == status(question="   ab   ") == status(question="") == 400
    assert status(question="x" * 1001) == 400
    assert status(question="bgp") == status(question="bgp " * 250) == 200  # trimmed to 999 characters
    assert status(k=0) == status(k=21) == status(k=-1) == status(k="many") == status(k=1.5) == 400
    assert status(k=1) == status(k=20) == 200
    assert status(tags="configs") == status(tags=["Not a tag"]) == status(collections={"a": 1}) == 400
    if path != "search":
        assert status(conversation="no-uuid") == status(cache="perhaps") == 400
    check_problem(send(shared.nina, "post", path, {}), 400)
    check_problem(send(shared.nina, "post", path, []), 400)


def test_nobody_asks_without_signing_in_or_without_the_ability(shared: Any, client: Any) -> None:
    from tenants.models import Role
    from tenants.scope import scope
    from tests.cast import member_of

    for path in ("query", "query/stream", "search"):
        refused = client.post(f"/api/v1/{path}", {"question": HOLD_TIMER}, content_type="application/json")
        check_problem(refused, 401, "unauthenticated")
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    with scope(tenant_id=shared.acme.pk, tags=None):
        Role.objects.filter(name="management").update(abilities=["see_costs"])
    mona = member_of(slug="acme", username="mona")
    for path in ("query", "query/stream", "search"):
        check_problem(send(mona, "post", path, {"question": HOLD_TIMER}), 403, "forbidden")


def test_conversations(shared: Any) -> None:
    body = ask(shared.sam, "Who entered through the jump host?")
    path = f"conversations/{body['conversation']}"
    listed = conforms(send(shared.sam, "get", "conversations"), "/api/v1/conversations", "get")["results"]
    assert listed[0]["id"] == body["conversation"] and listed[0]["own"] is True
    read = conforms(send(shared.sam, "get", path), "/api/v1/conversations/{id}", "get")
    assert read["answers"] == [body]
    change = send(shared.sam, "patch", path, {"title": "The intruder", "pinned": True})
    changed = conforms(change, "/api/v1/conversations/{id}", "patch")
    assert (changed["title"], changed["pinned"]) == ("The intruder", True)
    check_problem(send(shared.nina, "get", path), 404)
    check_problem(send(shared.nina, "patch", path, {"title": "x"}), 404)
    conforms(send(shared.sam, "delete", path), "/api/v1/conversations/{id}", "delete")
    check_problem(send(shared.sam, "get", path), 404)
    check_problem(send(shared.sam, "get", f"conversations/{uuid4()}"), 404)


def test_sharing_only_with_those_who_may_read_every_source(shared: Any) -> None:
    body = ask(shared.sam, "Who entered through the jump host?", tags=["incident_reports"])
    assert body["sources"]
    path = f"conversations/{body['conversation']}"
    refused = check_problem(send(shared.sam, "post", f"{path}/share", {"members": ["nina"]}), 409)
    assert "nina" in refused["detail"]
    shared_with = send(shared.sam, "post", f"{path}/share", {"members": ["ada"]})
    assert conforms(shared_with, "/api/v1/conversations/{id}/share", "post") == {"shared_with": ["ada"]}
    check_problem(send(shared.sam, "post", f"{path}/share", {"members": ["gina"]}), 400)
    check_problem(send(shared.sam, "post", f"{path}/share", {"members": []}), 400)
    read = conforms(send(shared.ada, "get", path), "/api/v1/conversations/{id}", "get")
    assert read["own"] is False and read["answers"][0]["answer"] == body["answer"]
    assert send(shared.ada, "get", f"answers/{body['request_id']}").status_code == 200
    check_problem(send(shared.ada, "patch", path, {"title": "x"}), 404)
    check_problem(send(shared.ada, "delete", path), 404)
    check_problem(
        send(shared.ada, "post", "query", {"question": "and?!", "conversation": body["conversation"]}), 404
    )
    check_problem(send(shared.nina, "get", path), 404)


def test_an_answer_whose_document_has_gone_is_withheld(shared: Any) -> None:
    from tests.knowledge.helpers import upload_indexed

    document = upload_indexed(
        shared.ada, "leaving.md", "# Leaving\n\nThe walrus gateway speaks at 640 zorkmid.\n", tags=["faq"]
    )
    body = ask(shared.hal, "How fast is the walrus gateway?")
    assert "zorkmid" in body["answer"]
    assert send(shared.ada, "delete", f"documents/{document}").status_code == 204
    response = send(shared.hal, "get", f"answers/{body['request_id']}")
    stored = conforms(response, "/api/v1/answers/{id}", "get")
    assert "zorkmid" not in str(stored) and stored["citations"] == []
    _, stream = read_stream(shared.hal, f"answers/{body['request_id']}/stream")
    assert "zorkmid" not in stream and "answer_chunk" in stream


def test_a_database_that_does_not_answer_is_503_with_retry_after(shared: Any, monkeypatch: Any) -> None:
    from django.db import OperationalError

    def fail(**_: Any) -> None:
        raise OperationalError("the connection is gone")

    monkeypatch.setattr("knowledge.answering.passages.search_passages", fail)
    for path in ("query", "query/stream", "search"):
        response = send(
            shared.nina,
            "post",
            path,
            {"question": HOLD_TIMER, "cache": False} if path != "search" else {"question": HOLD_TIMER},
        )
        check_problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0
        assert b"connection is gone" not in response.content
