"""Questions sent again under their ``Idempotency-Key`` when the first answer did not come to its end."""

import asyncio
import json
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import pytest

from knowledge.answering import storing
from knowledge.api import query
from knowledge.models import Answer, Job
from tenants.models import UsageRecord
from tenants.scope import scope
from tests.knowledge.answering.test_model_live import LONG, bearer, stored
from tests.knowledge.helpers import HOLD_TIMER, check_stream, conforms, eventually, read_events, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
GOOD = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))
QUERY, STREAM, CHAT = "/api/v1/query", "/api/v1/query/stream", "/v1/chat/completions"
BODY = {"question": HOLD_TIMER, "cache": False}


def body_of(path: str, *, stream: bool) -> dict[str, Any]:
    if path != CHAT:
        return BODY
    messages = [{"role": "user", "content": HOLD_TIMER}]
    return {"model": "all", "messages": messages, "stream": stream, "ragsite": {"cache": False}}


def keyed(member: Any, key: str) -> dict[str, str]:
    return bearer(member) | {"idempotency-key": key}


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def send_until_free(site: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    """Sent again and again, as a client that is told to ask again in a moment does."""
    with httpx.Client(base_url=site, headers=headers, timeout=20) as client:

        def again() -> httpx.Response | None:
            response = client.post(path, json=body)
            if response.status_code == 409:
                assert response.headers["Retry-After"] == "1"
                return None
            return response

        found: httpx.Response = eventually(again, 20, "the key stays taken")
        return found


def leave(site: str, path: str, body: Any, headers: dict[str, str], *, when: Callable[[], Any]) -> None:
    """Sends a request, and closes its connection without an answer as soon as ``when`` says so."""

    async def run() -> None:
        async with httpx.AsyncClient(base_url=site, headers=headers, timeout=20) as client:
            asking = asyncio.create_task(client.post(path, json=body))
            while not when():
                assert not asking.done(), asking.result()
                await asyncio.sleep(0.02)
            asking.cancel()
            await asyncio.wait({asking})

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_a_stream_that_was_left_is_made_anew(
    shared: Any, shared_site: str, model: StubProvider, path: str
) -> None:
    model.script(Reply(blocks=LONG, after_deltas=6), GOOD)
    headers, body = keyed(shared.nina, f"left{path}"), body_of(path, stream=True)
    with (
        httpx.Client(base_url=shared_site, headers=headers, timeout=20) as client,
        client.stream("POST", path, json=body) as response,
    ):
        left = response.headers["x-request-id"]
        lines = response.iter_lines()
        for line in lines:
            if "Sentence 0" in line:
                break
    eventually(lambda: stored(shared.nina, left), 10, "the answer was not stored")
    again = send_until_free(shared_site, path, body, headers)
    assert again.status_code == 200 and "Idempotency-Replayed" not in again.headers
    assert "The hold timer is 30 seconds." in again.text and "Sentence 0" not in again.text
    assert "[DONE]" in again.text if path == CHAT else events_of(again)[-1]["type"] == "done"
    # The whole one is shown again, and asked for no more.
    calls = len(model.requests)
    third = httpx.post(f"{shared_site}{path}", json=body, headers=headers, timeout=20)
    assert third.headers["Idempotency-Replayed"] == "true" and "The hold timer is 30 seconds." in third.text
    assert len(model.requests) == calls


def test_what_broke_off_says_so_when_it_is_read(shared: Any, shared_site: str, model: StubProvider) -> None:
    model.script(Reply(blocks=LONG, after_deltas=6))
    with (
        httpx.Client(base_url=shared_site, headers=bearer(shared.nina), timeout=20) as client,
        client.stream("POST", STREAM, json=BODY) as response,
    ):
        left = response.headers["x-request-id"]
        lines = response.iter_lines()
        for line in lines:
            if "Sentence 0" in line:
                break
    eventually(lambda: stored(shared.nina, left), 10, "the answer was not stored")
    read = conforms(send(shared.nina, "get", f"answers/{left}"), "/api/v1/answers/{id}", "get")
    assert read["interrupted"] == "cancelled" and read["answer"].startswith("Sentence 0")
    events = read_events(shared.nina, f"answers/{left}/stream")
    check_stream(events)
    assert events[-1]["type"] == "error" and events[-1]["data"]["type"] == "/problems/cancelled"
    talk = conforms(
        send(shared.nina, "get", f"conversations/{read['conversation']}"), "/api/v1/conversations/{id}", "get"
    )
    assert [answer["interrupted"] for answer in talk["answers"]] == ["cancelled"]


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_a_stream_that_failed_is_made_anew(
    shared: Any, shared_site: str, model: StubProvider, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of order")

    model.script(GOOD, GOOD)
    headers, body = keyed(shared.nina, f"failed{path}"), body_of(path, stream=True)
    with monkeypatch.context() as patch:
        patch.setattr("knowledge.answering.citations.AnswerAssembler.finish", fail)
        first = httpx.post(f"{shared_site}{path}", json=body, headers=headers, timeout=20)
    assert first.status_code == 200 and "internal" in first.text.splitlines()[-1] + first.text[-400:]
    failed = first.headers["x-request-id"]
    assert eventually(lambda: stored(shared.nina, failed), 10, "not stored").status == "error"
    assert read_events(shared.nina, f"answers/{failed}/stream")[-1]["data"]["status"] == 503
    assert send(shared.nina, "get", f"answers/{failed}").json()["interrupted"] == "error"
    again = send_until_free(shared_site, path, body, headers)
    assert again.status_code == 200 and "Idempotency-Replayed" not in again.headers
    assert "The hold timer is 30 seconds." in again.text and "error" not in again.text


def test_a_stream_that_failed_without_a_call_frees_its_key_too(
    shared: Any, shared_site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered from the cache, and then not to be stored: no row says so until it is."""
    from django.db import OperationalError

    from knowledge.answering import storing

    store, calls = storing.store_answer, []

    def away(**given: Any) -> Answer:
        calls.append(given)
        if len(calls) == 1:
            raise OperationalError("gone")
        return store(**given)

    httpx.post(
        f"{shared_site}{QUERY}", json={"question": HOLD_TIMER}, headers=bearer(shared.nina), timeout=20
    )
    monkeypatch.setattr("knowledge.answering.storing.store_answer", away)
    headers, body = keyed(shared.nina, "not-stored"), {"question": HOLD_TIMER}
    first = httpx.post(f"{shared_site}{STREAM}", json=body, headers=headers, timeout=20)
    assert events_of(first)[-1]["type"] == "error"
    again = send_until_free(shared_site, STREAM, body, headers)
    assert events_of(again)[-1]["type"] == "done" and len(calls) == 3


@pytest.mark.parametrize("path", [QUERY, CHAT])
def test_a_client_that_leaves_leaves_its_key_free(
    shared: Any, shared_site: str, model: StubProvider, path: str
) -> None:
    model.script(Reply(blocks=LONG, after_deltas=2), GOOD)
    headers, body, asked = keyed(shared.nina, f"gone{path}"), body_of(path, stream=False), len(model.requests)
    leave(shared_site, path, body, headers, when=lambda: len(model.requests) > asked)
    assert model.wait_for_disconnect(5), "the call upstream went on"
    again = send_until_free(shared_site, path, body, headers)
    assert again.status_code == 200 and "Idempotency-Replayed" not in again.headers
    assert "The hold timer is 30 seconds." in again.text
    assert len(model.requests) == asked + 2
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert sorted(UsageRecord.objects.order_by("-created_at").values_list("status", flat=True)[:2]) == [
            "cancelled",
            "success",
        ]


def hold_up(
    module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[threading.Event, threading.Event]:
    """Has a function of a module wait: it sets the first event when it is called, and goes on when the second is set."""
    function, is_called, may_go_on = getattr(module, name), threading.Event(), threading.Event()

    def hold(**given: Any) -> Any:
        is_called.set()
        assert may_go_on.wait(20)
        return function(**given)

    monkeypatch.setattr(module, name, hold)
    return is_called, may_go_on


def test_an_answer_that_was_whole_when_its_client_left_is_shown_and_not_made_again(
    shared: Any, shared_site: str, model: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client leaves while its answer is being stored."""
    is_storing, may_store = hold_up(storing, "store_answer", monkeypatch)
    model.script(GOOD)
    headers = keyed(shared.nina, "whole")
    leave(shared_site, QUERY, BODY, headers, when=is_storing.is_set)
    may_store.set()
    again = send_until_free(shared_site, QUERY, BODY, headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["answer"] == "The hold timer is 30 seconds." and len(model.requests) == 1


def test_a_batch_whose_client_leaves_is_started_once(
    shared: Any, shared_site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_starting, may_start = hold_up(query, "start_batch", monkeypatch)
    headers, body = keyed(shared.nina, "batch"), {"questions": [HOLD_TIMER]}
    leave(shared_site, "/api/v1/query/batch", body, headers, when=is_starting.is_set)
    may_start.set()
    again = send_until_free(shared_site, "/api/v1/query/batch", body, headers)
    assert again.status_code == 202 and again.headers["Idempotency-Replayed"] == "true"
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert [
            str(pk) for pk in Job.objects.filter(kind=Job.Kind.QUESTIONS).values_list("pk", flat=True)
        ] == [again.json()["task_id"]]
