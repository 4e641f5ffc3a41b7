"""The protocol between processes: one leads, the others hear what it says, and are told of its end."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from knowledge.answering import flights
from knowledge.answering.coalesce import share_answer
from knowledge.answering.events import Event
from knowledge.answering.flights import GONE, End, Lead, Term, board
from knowledge.answering.journey import Journey, Question
from ragsite.core.problems import Problem
from ragsite.core.redis import redis_client
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


async def elsewhere(flight: str, *, arrived_ms: float = 0.0) -> Lead | Term:
    """A place as another process would get it."""
    flights._terms.clear()
    return await board(counts="c", flight=flight, arrived_ms=arrived_ms)


async def hear(term: Term, *, seconds: float = 10) -> list[Any]:
    return [event["data"] async for event in term.read(until=asyncio.get_running_loop().time() + seconds)]


def chunk(text: str) -> dict[str, Any]:
    return {"type": "answer_chunk", "data": text}


async def test_of_many_processes_one_leads_and_a_silent_one_makes_way(monkeypatch: Any) -> None:
    monkeypatch.setattr(flights, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(flights, "BEAT_SECONDS", 0.1)
    lead = await board(counts="c", flight="f:1", arrived_ms=0)
    assert isinstance(lead, Lead)
    followers = [await elsewhere("f:1") for _ in range(3)]
    assert not any(isinstance(each, Lead) for each in followers)
    heard = [asyncio.create_task(hear(each)) for each in followers if isinstance(each, Term)]
    lead.say(chunk("a"))
    await asyncio.sleep(2.5)
    assert not isinstance(await elsewhere("f:1"), Lead), "it is heard every beat"
    monkeypatch.setattr(Lead, "_speak", silent)
    assert await asyncio.gather(*heard) == [["a"]] * 3
    assert [each.end for each in followers if isinstance(each, Term)] == [GONE] * 3
    after = [await elsewhere("f:1") for _ in range(3)]
    assert [isinstance(each, Lead) for each in after] == [True, False, False]
    lead.term.close(GONE)


async def silent(self: Any, ending: str = "") -> None:
    """Of a process that is dead, or stopped."""


async def test_what_redis_forgets_is_said_again_and_nothing_twice(monkeypatch: Any) -> None:
    monkeypatch.setattr(flights, "BEAT_SECONDS", 0.05)
    lead = await board(counts="c", flight="f:2", arrived_ms=0)
    assert isinstance(lead, Lead)
    lead.say(chunk("a"))
    await asyncio.sleep(0.2)
    await redis_client().flushdb()
    lead.say(chunk("b"))
    await asyncio.sleep(0.2)
    lead._sent = 0  # a call that had arrived and was not answered is made again
    lead.say(chunk("c"))
    follower = await elsewhere("f:2")
    assert isinstance(follower, Term)
    heard = asyncio.create_task(hear(follower))
    await asyncio.sleep(0.3)
    await lead.close(End("done", {"answered": True}))
    assert await heard == ["a", "b", "c"]
    assert follower.end == End("done", {"answered": True})


async def test_a_flight_that_has_ended_is_for_those_who_were_there_before(monkeypatch: Any) -> None:
    lead = await board(counts="c", flight="f:3", arrived_ms=0)
    assert isinstance(lead, Lead)
    lead.say(chunk("a"))
    await lead.close(End("done"))
    await asyncio.sleep(0.05)
    late = await elsewhere("f:3", arrived_ms=1000)
    assert isinstance(late, Term) and await hear(late) == ["a"] and late.end == End("done")
    assert isinstance(await elsewhere("f:3", arrived_ms=1), Lead)


async def test_a_leader_that_was_replaced_does_not_speak_for_the_other(monkeypatch: Any) -> None:
    monkeypatch.setattr(flights, "BEAT_SECONDS", 0.05)
    first = await board(counts="c", flight="f:4", arrived_ms=0)
    assert isinstance(first, Lead)
    await asyncio.sleep(0.1)
    await redis_client().delete("f:4")
    second = await elsewhere("f:4")
    assert isinstance(second, Lead)
    first.say(chunk("old"))
    await first.close(GONE)
    second.say(chunk("new"))
    follower = await elsewhere("f:4")
    assert isinstance(follower, Term), "the first has not ended the second's flight"
    heard = asyncio.create_task(hear(follower))
    await second.close(End("done"))
    assert await heard == ["new"]


def sources(*chunks: str) -> Event:
    return {"type": "sources", "data": [{"chunk_id": each, "start": 0, "end": 9} for each in chunks]}


class Shared:
    """One question of two who may read the same: the first one's process fails when it is told to."""

    def __init__(self, member: Any, *, then: Event) -> None:
        self._member, self._then = member, then
        self.heard: list[Event] = []
        self._is_heard, self._fails = asyncio.Event(), asyncio.Event()

    def _share(self, make: Any) -> AsyncGenerator[Event, None]:
        question = Question(request_id=uuid.uuid4(), text="What?", endpoint="query")
        journey = Journey(question=question, principal=self._member.principal)
        return share_answer(journey, flight="f:shared", make=make)

    async def _first(self) -> AsyncGenerator[Event, None]:
        yield sources("a", "b")
        yield chunk("The hold")
        await self._fails.wait()
        raise RuntimeError("a fault of ours")

    async def _second(self) -> AsyncGenerator[Event, None]:
        yield self._then
        yield chunk("30 seconds.")

    async def _read_first(self) -> None:
        async for _ in self._share(self._first):
            pass

    async def _read_second(self) -> None:
        async for event in self._share(self._second):
            self.heard.append(event)
            if event["type"] == "answer_chunk":
                self._is_heard.set()

    async def run(self) -> None:
        """Raises what the second one is told."""
        first = asyncio.create_task(self._read_first())
        second = asyncio.create_task(self._read_second())
        await asyncio.wait_for(self._is_heard.wait(), 10)
        self._fails.set()
        with pytest.raises(RuntimeError):
            await first
        await asyncio.wait_for(second, 10)


async def test_another_leader_goes_on_from_the_same_sources(shared: Any) -> None:
    both = Shared(shared.nina, then=sources("a", "b"))
    await both.run()
    kinds = [event["type"] for event in both.heard]
    assert kinds == ["sources", "answer_chunk", "restart", "answer_chunk"]
    assert both.heard[-1] == chunk("30 seconds.")


async def test_another_leader_with_other_sources_interrupts_the_answer(shared: Any) -> None:
    both = Shared(shared.nina, then=sources("a", "c"))
    with pytest.raises(Problem) as told:
        await both.run()
    assert (told.value.status, told.value.code) == (503, "answer-interrupted")
    assert told.value.headers["Retry-After"] == "30" and "Ask again" in told.value.detail
    assert [event["type"] for event in both.heard] == ["sources", "answer_chunk"]
    # It led by then, and is gone: whoever asks next leads, and is shown what there is.
    next_one = await elsewhere("f:shared")
    assert isinstance(next_one, Lead)
    next_one.term.close(GONE)
