"""An answer whose reader may come back: it goes on for a while, is joined again, or is stopped."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from knowledge.answering import events
from knowledge.api import streaming
from tests.knowledge.answering.test_coalesce import noa, pool, sites  # noqa: F401
from tests.knowledge.answering.test_model_live import BODY, LONG, bearer, ledger_of, stored
from tests.knowledge.helpers import HOLD_TIMER, check_stream, eventually
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Reply, StubProvider

pytestmark = on_shared_cast
LINGER = {"x-linger": "1"}
# Writes a few sentences, then nothing more.
SILENT = Reply(blocks=LONG, after_deltas=20, cut="hang")


@contextmanager
def left_early(site: str, member: Any, **headers: str) -> Iterator[str]:
    """Asks, leaves as soon as the model writes; the answer's id."""
    with (
        httpx.Client(base_url=site, headers=bearer(member), timeout=20) as client,
        client.stream("POST", "/api/v1/query/stream", json=BODY, headers=LINGER | headers) as response,
    ):
        request_id = response.headers["x-request-id"]
        for line in response.iter_lines():
            if json.loads(line)["type"] == "answer_chunk":
                break
    yield request_id


def rejoin(site: str, member: Any, request_id: str) -> httpx.Response:
    with httpx.Client(base_url=site, headers=bearer(member), timeout=30) as client:
        return client.get(f"/api/v1/answers/{request_id}/stream")


def stop(site: str, member: Any, request_id: str) -> int:
    with httpx.Client(base_url=site, headers=bearer(member), timeout=30) as client:
        return client.delete(f"/api/v1/answers/{request_id}/stream").status_code


def test_who_comes_back_reads_the_answer_from_its_beginning_to_its_end(
    shared: Any, shared_site: str, model: StubProvider
) -> None:
    model.script(Reply(blocks=LONG, delta_seconds=0.05))
    with left_early(shared_site, shared.nina) as request_id:
        for stranger in (shared.ada, shared.gina):
            assert rejoin(shared_site, stranger, request_id).status_code == 404
        again = rejoin(shared_site, shared.nina, request_id)
    body = check_stream([json.loads(line) for line in again.text.splitlines()])
    assert body["answer"].startswith("Sentence 0") and "Sentence 39" in body["answer"]
    assert stored(shared.nina, request_id).status == "success"
    assert [row.status for row in ledger_of(shared.nina, request_id)] == ["success"]


def test_without_a_reader_it_ends_after_a_while(
    shared: Any, shared_site: str, model: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LINGER_SECONDS", 1.0)
    model.script(SILENT)
    with left_early(shared_site, shared.nina) as request_id:
        assert not model.wait_for_disconnect(0.4), "not at once"
        assert model.wait_for_disconnect(10)
        # Who comes back now does not wait for an end that never comes: it is in the log, or stored.
        late = rejoin(shared_site, shared.nina, request_id)
    assert json.loads(late.text.splitlines()[-1])["type"] in events.LAST
    answer = eventually(lambda: stored(shared.nina, request_id), 5, "it was not stored")
    assert answer.status == "cancelled"
    assert [row.status for row in ledger_of(shared.nina, request_id)] == ["cancelled"]


def test_who_reads_on_keeps_it_going_beyond_that(
    shared: Any, shared_site: str, model: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LINGER_SECONDS", 1.5)
    monkeypatch.setattr(events, "READER_SECONDS", 1)
    model.script(Reply(blocks=LONG, delta_seconds=0.1))
    with left_early(shared_site, shared.nina) as request_id:
        again = rejoin(shared_site, shared.nina, request_id)
    assert "Sentence 39" in check_stream([json.loads(line) for line in again.text.splitlines()])["answer"]


def test_its_asker_stops_it_and_nobody_else(shared: Any, shared_site: str, model: StubProvider) -> None:
    model.script(SILENT)
    with left_early(shared_site, shared.nina) as request_id:
        for stranger in (shared.ada, shared.gina):
            assert stop(shared_site, stranger, request_id) == 404
        assert not model.wait_for_disconnect(1)
        assert stop(shared_site, shared.nina, request_id) == 204
        assert model.wait_for_disconnect(8)
    answer = eventually(lambda: stored(shared.nina, request_id), 5, "it was not stored")
    assert answer.status == "cancelled"
    assert stop(shared_site, shared.nina, request_id) == 204, "what has ended stays as it is"
    assert stored(shared.nina, request_id).text == answer.text


@contextmanager
def asking(site: str, member: Any, body: dict[str, Any]) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """The answer's id, and its events as they come."""
    with (
        httpx.Client(base_url=site, headers=bearer(member), timeout=60) as client,
        client.stream("POST", "/api/v1/query/stream", json=body, headers=LINGER) as response,
    ):
        yield response.headers["x-request-id"], (json.loads(line) for line in response.iter_lines())


def check_stopped(member: Any, request_id: str, last: dict[str, Any]) -> None:
    """Its reader was told, and it is stored as far as they wanted it."""
    assert last["type"] == "error" and last["data"]["type"] == "/problems/cancelled"
    answer = eventually(lambda: stored(member, request_id), 40, "it was not stored")
    assert answer.status == "cancelled" and not answer.answered
    assert answer.text.startswith("Sentence 0") and "Sentence 39" not in answer.text


def test_it_can_be_stopped_from_elsewhere_while_it_is_read(
    shared: Any, shared_site: str, model: StubProvider
) -> None:
    model.script(Reply(blocks=LONG, delta_seconds=0.1))
    with asking(shared_site, shared.nina, BODY) as (request_id, events_of):
        next(event for event in events_of if event["type"] == "answer_chunk")
        assert stop(shared_site, shared.nina, request_id) == 204
        *_, last = events_of
        assert model.wait_for_disconnect(8)
    check_stopped(shared.nina, request_id, last)
    assert [row.status for row in ledger_of(shared.nina, request_id)] == ["cancelled"]


@pytest.mark.parametrize("leaves", [True, False])
def test_who_stops_what_others_wait_for_too_stops_it_for_themselves(
    shared: Any,
    noa: Any,  # noqa: F811
    sites: tuple[str, str],  # noqa: F811
    model: StubProvider,
    pool: ThreadPoolExecutor,  # noqa: F811
    leaves: bool,
) -> None:
    model.script(Reply(blocks=LONG, delta_seconds=0.1))
    body, follows = {"question": HOLD_TIMER}, threading.Event()

    def follow() -> list[dict[str, Any]]:
        with asking(sites[1], noa, body) as (_, events_of):
            seen = []
            for event in events_of:
                seen.append(event)
                follows.set()
            return seen

    with asking(sites[0], shared.nina, body) as (request_id, events_of):
        next(event for event in events_of if event["type"] == "answer_chunk")
        following = pool.submit(follow)
        assert follows.wait(20)
        if not leaves:
            assert stop(sites[0], shared.nina, request_id) == 204
            *_, last = events_of
    if leaves:
        assert stop(sites[0], shared.nina, request_id) == 204
        last = json.loads(rejoin(sites[0], shared.nina, request_id).text.splitlines()[-1])
    whole = check_stream(following.result(60))
    assert "Sentence 39" in whole["answer"] and whole["cache"] == "coalesced"
    assert model.disconnects == 0 and len(model.requests) == 1
    check_stopped(shared.nina, request_id, last)
    # The call was theirs to its end.
    assert [row.status for row in ledger_of(shared.nina, request_id)] == ["success"]
    assert ledger_of(noa, whole["request_id"]) == []


def test_without_redis_it_ends_after_the_same_while(
    shared: Any, shared_site: str, model: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redis.exceptions import ConnectionError as RedisGone

    async def gone(self: Any) -> tuple[bool, bool]:
        await asyncio.sleep(0)
        raise RedisGone("gone")

    monkeypatch.setattr(events.Readers, "look", gone)
    monkeypatch.setattr(streaming, "LINGER_SECONDS", 1.0)
    model.script(SILENT)
    with left_early(shared_site, shared.nina):
        assert model.wait_for_disconnect(10)
