"""The stream's events, without a model: order, shape, both formats, replay."""

from typing import Any
from uuid import uuid4

from tests.knowledge.helpers import (
    HOLD_TIMER,
    check_answer,
    check_problem,
    check_stream,
    read_events,
    read_sse,
    read_stream,
    send,
)
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast
BODY = {"question": HOLD_TIMER, "cache": False}


def test_ndjson_is_the_default(shared: Any) -> None:
    for accept in (
        "",
        "*/*",
        "application/x-ndjson",
        "application/json",
        "application/x-ndjson, text/event-stream",
    ):
        response, text = read_stream(shared.nina, "query/stream", BODY, accept=accept)
        assert response.headers["Content-Type"] == "application/x-ndjson", accept
        assert response.headers["Cache-Control"] == "no-store"
    assert text.endswith("\n")
    body = check_stream(read_events(shared.nina, "query/stream", BODY))
    check_answer(body)
    assert body["answered"] and "30 seconds" in body["answer"]


def test_sse_says_the_same(shared: Any) -> None:
    response, text = read_stream(shared.nina, "query/stream", BODY, accept="text/event-stream")
    assert response.headers["Content-Type"].startswith("text/event-stream")
    body = check_stream(read_sse(text))
    check_answer(body)
    assert body["request_id"] == response.headers["X-Request-ID"]
    whole = send(shared.nina, "post", "query", BODY).json()
    assert body["answer"] == whole["answer"] and body["citations"] == whole["citations"]
    assert body["sources"] == whole["sources"]


def test_a_comment_keeps_a_silent_sse_stream_alive(shared: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("knowledge.api.streaming.HEARTBEAT_SECONDS", 0.001)
    _, text = read_stream(shared.nina, "query/stream", BODY, accept="text/event-stream")
    assert "\n\n: " in text
    check_stream(read_sse(text))
    events = read_events(shared.nina, "query/stream", BODY)
    assert all(event for event in events)


def test_what_is_wrong_with_a_question_is_said_with_a_status(shared: Any) -> None:
    for accept in ("text/event-stream", "application/x-ndjson", "text/html"):
        response, _ = read_stream(shared.nina, "query/stream", {"question": "x"}, accept=accept)
        check_problem(response, 400)
    response, _ = read_stream(shared.nina, "query/stream", {**BODY, "conversation": str(uuid4())})
    check_problem(response, 404)
    response, _ = read_stream(shared.nina, "query/stream", {**BODY, "collections": ["absent"]})
    check_problem(response, 404)


def test_a_finished_answer_is_replayed_to_its_asker_alone(shared: Any) -> None:
    first = check_stream(read_events(shared.nina, "query/stream", BODY))
    path = f"answers/{first['request_id']}"
    again = check_stream(read_events(shared.nina, f"{path}/stream"))
    assert again == first
    response, text = read_stream(shared.nina, f"{path}/stream", accept="text/event-stream")
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert check_stream(read_sse(text)) == first
    assert send(shared.nina, "get", path).json() == first
    for outsider in (shared.ada, shared.sam, shared.gina):
        response, _ = read_stream(outsider, f"{path}/stream")
        check_problem(response, 404, "not-found")
    response, _ = read_stream(shared.nina, f"answers/{uuid4()}/stream")
    check_problem(response, 404, "not-found")


def test_a_failure_after_the_first_event_ends_the_stream_with_an_error_event(
    shared: Any, monkeypatch: Any
) -> None:
    from django.db import OperationalError

    def fail(**_: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr("knowledge.answering.storing.store_answer", fail)
    events = read_events(shared.nina, "query/stream", BODY)
    assert events[-1]["type"] == "error" and events[-1]["data"]["status"] == 503
    check_stream(events)
    check_problem(send(shared.nina, "post", "query", BODY), 503)
