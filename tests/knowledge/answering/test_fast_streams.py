"""Hits that are asked for as streams, before Django: the same events, the same rules."""

import json
from typing import Any

import httpx
import pytest

from knowledge.hits.shape import stream_shape_of
from knowledge.hits.ticket import MOST_PIECES, Ticket
from knowledge.models import Answer
from tenants.scope import scope
from tests.knowledge.answering.test_rate_limits import items
from tests.knowledge.helpers import check_stream, eventually, read_sse, send
from tests.knowledge.hits_site import Asker, new_question
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast
OWN = {"request_id", "conversation", "latency_ms", "timings", "timestamp"}
NDJSON, SSE = "application/x-ndjson", "text/event-stream"


def stream(nina: Asker, question: str, *, accept: str = NDJSON) -> httpx.Response:
    return nina.client.post("/api/v1/query/stream", json={"question": question}, headers={"accept": accept})


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    if response.headers["content-type"].startswith(SSE):
        return read_sse(response.text)
    return [json.loads(line) for line in response.text.splitlines()]


def is_fast(response: httpx.Response) -> bool:
    last = events_of(response)[-1]
    return last["type"] == "done" and set(last["data"]["timings"]) == {"cache"}


def warm(nina: Asker, question: str, *, accept: str = NDJSON) -> httpx.Response:
    def ask() -> httpx.Response | None:
        response = stream(nina, question, accept=accept)
        assert response.status_code == 200, response.text
        return response if is_fast(response) else None

    found: httpx.Response = eventually(ask, 10, "it is never answered before Django")
    return found


@pytest.mark.parametrize("accept", [NDJSON, SSE])
def test_the_stream_is_that_of_django(nina: Asker, accept: str) -> None:
    question = new_question()
    made = stream(nina, question, accept=accept)
    assert events_of(made)[-1]["data"]["cache"] == "miss"
    replayed = stream(nina, question, accept=accept)
    fast = warm(nina, question, accept=accept)
    assert not is_fast(replayed) and events_of(replayed)[-1]["data"]["cache"] == "exact"
    mine, theirs = events_of(fast), events_of(replayed)
    assert [event["type"] for event in mine] == [event["type"] for event in theirs]
    check_stream(mine)
    other = fast.text
    for name in OWN:
        one, two = (json.dumps(events[-1]["data"][name], separators=(",", ":")) for events in (mine, theirs))
        other = other.replace(f'"{name}":{one}', f'"{name}":{two}')
    assert other == replayed.text, "byte for byte, once each response's own is put into the other"
    assert mine[-1]["data"]["request_id"] == fast.headers["x-request-id"] != replayed.headers["x-request-id"]
    for name in ("content-type", "cache-control", "x-accel-buffering", "ratelimit-policy"):
        assert fast.headers[name] == replayed.headers[name], name


def test_the_two_ways_of_asking_and_the_formats_are_not_mixed_up(nina: Asker) -> None:
    question = new_question()
    warm(nina, question)
    nina.warm(question)
    for accept, kind in ((NDJSON, NDJSON), (SSE, SSE), ("*/*", NDJSON)):
        response = warm(nina, question, accept=accept)
        assert response.headers["content-type"].startswith(kind)
        assert response.text.startswith("event: sources\n" if kind == SSE else '{"type":"sources"')
    assert "answer" in nina.post(question).json()


def test_it_is_limited_and_recorded_and_can_be_joined(shared: Any, nina: Asker) -> None:
    question = new_question()
    first, second = warm(nina, question), stream(nina, question)
    assert is_fast(second)
    left = [items(response.headers["ratelimit"])["user"]["r"] for response in (first, second)]
    assert left[1] == left[0] - 1
    pk = second.headers["x-request-id"]
    # Hits are recorded a moment after they were answered.
    eventually(lambda: nina.client.get(f"/api/v1/answers/{pk}").status_code == 200, 10, "it was not recorded")
    again = nina.client.get(f"/api/v1/answers/{pk}/stream")
    texts = ["".join(e["data"] for e in events_of(r) if e["type"] == "answer_chunk") for r in (again, second)]
    assert texts[0] == texts[1]
    with scope(tenant_id=shared.acme.pk, tags=None):
        row = Answer.objects.get(pk=pk)
        assert (row.endpoint, row.cache, row.user_id) == ("stream", "exact", shared.nina.membership.user_id)


def test_whoever_is_shut_out_is_with_the_next_request(shared: Any, nina: Asker) -> None:
    question = new_question()
    warm(nina, question)
    path = f"members/{shared.nina.membership.pk}"
    send(shared.ada, "patch", path, {"status": "suspended"})
    try:
        assert stream(nina, question).status_code == 401
    finally:
        send(shared.ada, "patch", path, {"status": "active"})
    assert is_fast(warm(nina, question))


def test_what_is_no_replay_is_not_remembered() -> None:
    done = dict.fromkeys(OWN, "") | {"cache": "miss", "cache_hit": False, "usage": {}}

    def body(**changes: Any) -> bytes:
        lines = [{"type": "sources", "data": []}, {"type": "done", "data": done | changes}]
        return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)

    hit = {"cache": "exact", "cache_hit": True}
    hit["usage"] = {"input_tokens": 0, "output_tokens": 0, "cost_usd": "0"}
    assert stream_shape_of(headers=[], body=body(**hit)) is not None
    assert stream_shape_of(headers=[], body=body()) is None
    assert stream_shape_of(headers=[], body=body(**hit)[:-4]) is None
    assert stream_shape_of(headers=[], body=b'{"type":"error","data":{}}\n') is None
    assert stream_shape_of(headers=[(b"Set-Cookie", b"a=b")], body=body(**hit)) is None
    ticket = Ticket(tenant_id="", gates=(b"", b""), since=0, generation=0)
    for _ in range(MOST_PIECES + 1):
        ticket.take(b"word ")
    assert ticket.body == b""
