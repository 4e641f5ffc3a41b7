"""The protocol between processes: one leads, the others hear what it says, and are told of its end."""

import asyncio
from typing import Any

from knowledge.answering import flights
from knowledge.answering.flights import GONE, End, Lead, Term, board
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
