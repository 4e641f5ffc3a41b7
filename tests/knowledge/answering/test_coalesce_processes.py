"""Identical questions at once over two web processes, and the death of the one that leads."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.db import connections

from knowledge.models import Answer
from ragsite.core.redis import redis_connection
from tenants.models import AuditEvent, UsageRecord
from tenants.scope import scope
from tests.knowledge.answering.test_model_live import bearer
from tests.knowledge.helpers import HOLD_TIMER, check_answer, check_stream, eventually
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider
from tests.web_process import WebProcess, web_processes

pytestmark = on_shared_cast
SENTENCES = tuple(
    Block(f"The hold timer on acme edge routers is 30 seconds, as rule {n} says. ", cites=((0, 0, 1),))
    for n in range(12)
)
NO_LIMITS = {
    f"RAGSITE_LIMIT_{who}_{what}": 0 for who in ("USER", "KEY", "TENANT") for what in ("REQUESTS", "TOKENS")
}


@pytest.fixture
def stub() -> Iterator[StubProvider]:
    with StubProvider() as found:
        yield found


@pytest.fixture
def pair(shared: Any, stub: StubProvider) -> Iterator[list[WebProcess]]:
    """Two web processes whose model is ``stub``."""
    model = {
        "ANTHROPIC_API_KEY": "sk-ant-test",
        "ANTHROPIC_BASE_URL": stub.url,
        "RAGSITE_ROUTING": "off",
    }
    with web_processes(2, **model, **NO_LIMITS) as found:
        yield found
    connections.close_all()


async def ask(
    client: httpx.AsyncClient, web: WebProcess, member: Any, *, streams: bool, question: str = HOLD_TIMER
) -> dict[str, Any]:
    """The answer object, either way."""
    path = "query/stream" if streams else "query"
    response = await client.post(
        f"{web.url}/api/v1/{path}", json={"question": question}, headers=bearer(member)
    )
    assert response.status_code == 200, response.text
    if not streams:
        found: dict[str, Any] = response.json()
        return found
    events = [json.loads(line) for line in response.text.splitlines()]
    assert events[-1]["type"] == "done", events[-1]
    return check_stream(events)


def ask_at_once(pair: list[WebProcess], member: Any, count: int) -> list[dict[str, Any]]:
    async def all_of_them() -> list[dict[str, Any]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:
            return await asyncio.gather(
                *(ask(client, pair[n % 2], member, streams=n % 4 < 2) for n in range(count))
            )

    return asyncio.run(all_of_them())


def commands() -> Counter[str]:
    """Redis's own count of the calls to it, by command; those within scripts too."""
    stats: Any = redis_connection().info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()})


def check_sharing(shared: Any, stub: StubProvider, answers: list[dict[str, Any]]) -> None:
    assert len(stub.requests) == 1
    first = answers[0]
    assert first["citations"] and "rule 11" in first["answer"]
    for body in answers:
        check_answer(body)
        for name in ("answer", "citations", "marks", "sources", "grounded", "confidence", "model"):
            assert body[name] == first[name], name
    kinds = Counter(body["cache"] for body in answers)
    assert kinds["miss"] == 1 and kinds["coalesced"] > kinds["exact"], kinds
    ids = [body["request_id"] for body in answers]
    (leader,) = [body["request_id"] for body in answers if body["cache"] == "miss"]
    with scope(tenant_id=shared.acme.pk, tags=None):
        rows = list(Answer.objects.filter(pk__in=ids))
        assert len(set(ids)) == len(rows) == len(answers)
        assert Counter(row.cache for row in rows) == kinds
        assert len({row.conversation_id for row in rows}) == len(rows)
        ledger = list(UsageRecord.objects.filter(request_id__in=ids))
        assert [(str(row.request_id), row.status) for row in ledger] == [(leader, "success")]
        asked = AuditEvent.objects.filter(action="question.ask", target_id__in=ids)
        assert asked.count() == len(rows)
    print(f"{len(answers)} at once: {dict(kinds)}")


def test_forty_at_once_over_two_processes_cost_one_call(
    shared: Any, pair: list[WebProcess], stub: StubProvider
) -> None:
    stub.script(Reply(blocks=SENTENCES, wait_seconds=2, delta_seconds=0.02))
    check_sharing(shared, stub, ask_at_once(pair, shared.nina, 40))


@pytest.mark.long
def test_two_hundred_at_once_over_two_processes_cost_one_call(
    shared: Any, pair: list[WebProcess], stub: StubProvider
) -> None:
    stub.script(Reply(blocks=SENTENCES, wait_seconds=6, delta_seconds=0.02))
    before, begun = commands(), time.monotonic()
    answers = ask_at_once(pair, shared.nina, 200)
    seconds = time.monotonic() - begun
    calls = dict((commands() - before).most_common(12))
    check_sharing(shared, stub, answers)
    model = next(body for body in answers if body["cache"] == "miss")["timings"]["generate"] / 1000
    print(
        f"all answered after {seconds:.1f} s, of which the model took {model:.1f} s; calls to Redis: {calls}"
    )


def test_when_the_leaders_process_is_killed_another_answers(
    shared: Any, pair: list[WebProcess], stub: StubProvider
) -> None:
    leading, following = pair
    stub.script(
        Reply(blocks=SENTENCES, delta_seconds=0.3), Reply(blocks=SENTENCES[::-1], delta_seconds=0.005)
    )

    async def run() -> tuple[list[dict[str, Any]], float]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            leader = asyncio.create_task(ask(client, leading, shared.nina, streams=True))
            while not stub.requests:
                await asyncio.sleep(0.02)
            half = [
                asyncio.create_task(ask(client, following, shared.nina, streams=n % 2 == 0)) for n in range(6)
            ]
            async with client.stream(
                "POST",
                f"{following.url}/api/v1/query/stream",
                json={"question": HOLD_TIMER},
                headers=bearer(shared.nina),
            ) as response:
                seen: list[dict[str, Any]] = []
                killed = 0.0
                async for line in response.aiter_lines():
                    seen.append(json.loads(line))
                    if seen[-1]["type"] == "citation" and not killed:
                        leading.kill()
                        killed = time.monotonic()
            with pytest.raises(httpx.HTTPError):
                await leader
            ended = time.monotonic() - killed
            assert [event["type"] for event in seen].count("restart") == 1
            return [check_stream(seen), *await asyncio.gather(*half)], ended

    answers, seconds = asyncio.run(run())
    assert len(stub.requests) == 2
    kinds = Counter(body["cache"] for body in answers)
    assert kinds == {"miss": 1, "coalesced": 6}, "one takes over, the rest follow that one"
    assert {body["answer"] for body in answers} == {answers[0]["answer"]}
    assert answers[0]["answer"].startswith(SENTENCES[-1].text.strip())
    assert seconds < 15
    print(f"answered {seconds:.1f} s after the kill")
    with scope(tenant_id=shared.acme.pk, tags=None):
        ids = [body["request_id"] for body in answers]
        ledger = eventually(
            lambda: list(UsageRecord.objects.filter(request_id__in=ids)), 5, "nothing in the ledger"
        )
    assert [row.status for row in ledger] == ["success"]


@pytest.mark.long
def test_whenever_the_leaders_process_is_killed_nobody_elsewhere_gets_an_error(
    shared: Any, pair: list[WebProcess], stub: StubProvider
) -> None:
    chance, slowest = random.Random(9), 0.0
    for number in range(8):
        leading, following = pair[number % 2], pair[1 - number % 2]
        question = f"{HOLD_TIMER} ({number})"
        stub.requests.clear()
        stub.script(Reply(blocks=SENTENCES, delta_seconds=0.1))

        async def run(
            leading: WebProcess = leading, following: WebProcess = following, question: str = question
        ) -> tuple[list[dict[str, Any]], float]:
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(timeout=60, limits=limits) as client:
                lost = [
                    asyncio.create_task(ask(client, leading, shared.nina, streams=n == 0, question=question))
                    for n in range(2)
                ]
                while not stub.requests:
                    await asyncio.sleep(0.02)
                others = [
                    asyncio.create_task(ask(client, following, shared.nina, streams=n < 5, question=question))
                    for n in range(10)
                ]
                await asyncio.sleep(chance.uniform(0.0, 3.5))
                leading.kill()
                killed = time.monotonic()
                await asyncio.gather(*lost, return_exceptions=True)
                return await asyncio.gather(*others), time.monotonic() - killed

        answers, seconds = asyncio.run(run())
        slowest = max(slowest, seconds)
        assert len(stub.requests) <= 2
        assert {body["answer"] for body in answers} == {answers[0]["answer"]} and answers[0]["citations"]
        with scope(tenant_id=shared.acme.pk, tags=None):
            assert Answer.objects.filter(pk__in=[body["request_id"] for body in answers]).count() == 10
        stub._scripts.clear()
        leading.start()
        leading.wait_until_ready()
    assert slowest < 20
    print(f"8 kills; all had their answer {slowest:.1f} s after one at the latest")
