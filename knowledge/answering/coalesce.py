"""An answer shared by all who ask the same at once: one of them makes it, the others pass on what that one says."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import structlog

from knowledge.answering.events import FOLLOW_SECONDS, Event
from knowledge.answering.flights import GONE, End, Lead, Term, board
from knowledge.answering.journey import Journey
from knowledge.answering.layers import count_lookup, counts_key
from knowledge.llm.base import Finished, Usage
from ragsite.core.observability import CACHE_MISSES
from ragsite.core.problems import Problem
from tenants.rest import problem_of

logger = structlog.get_logger(__name__)

LAYER = "coalesced"


def flight_key(*, answer_key: str, corpus_version: int) -> str:
    """Equal for those who may be given the same answer: they ask the same, and may read the same of the same documents."""
    return f"{answer_key.replace(':exact:', ':flight:', 1)}:{corpus_version}"


async def share_answer(
    journey: Journey, *, flight: str, make: Callable[[], AsyncGenerator[Event, None]]
) -> AsyncGenerator[Event, None]:
    """The events of an answer that is made once, by whoever comes first; when that one is gone another makes it again.

    Args:
        make: makes the answer, filling in the journey.

    Raises:
        Problem: what ``make`` raises; as a follower what all would meet, or 503 for an answer that does not come.
    """
    begun = time.perf_counter()
    until = asyncio.get_running_loop().time() + FOLLOW_SECONDS
    shown = _Shown()
    tenant_id = journey.principal.membership.tenant_id
    arrived_ms = journey.watch.elapsed_ms
    while True:
        place = await board(flight=flight, counts=counts_key(tenant_id), arrived_ms=arrived_ms)
        arrived_ms = 0.0  # of a flight that has ended nothing more is to be hoped for
        if isinstance(place, Lead):
            CACHE_MISSES.labels(LAYER).inc()
            stream = _lead(journey, lead=place, make=make)
        else:
            stream = _follow(journey, term=place, until=until)
        async with aclosing(stream) as events:
            async for event in events:
                for each in shown.show(event):
                    yield each
        if isinstance(place, Lead):
            return
        journey.watch.add(LAYER, time.perf_counter() - begun)
        match place.end:
            case End("done", data):
                _fill(journey, data)
                await count_lookup(tenant_id=tenant_id, layer=LAYER, is_hit=True)
                return
            case End("problem", data):
                raise Problem(**data)
        begun = time.perf_counter()
        shown.begin_again()


async def _lead(
    journey: Journey, *, lead: Lead, make: Callable[[], AsyncGenerator[Event, None]]
) -> AsyncGenerator[Event, None]:
    _forget(journey, cache="miss")
    journey.is_followed = lead.is_followed
    end = GONE  # whatever ends it: another takes over
    try:
        async with aclosing(make()) as events:
            async for event in events:
                lead.say(event)
                yield event
        end = End("done", _outcome(journey))
    except Exception as error:
        end = _end_of(error)
        raise
    finally:
        journey.is_followed = None
        await lead.close(end)


async def _follow(journey: Journey, *, term: Term, until: float) -> AsyncGenerator[Event, None]:
    _forget(journey, cache=LAYER)
    try:
        async with aclosing(term.read(until=until)) as events:
            async for event in events:
                data = event["data"]
                match event["type"]:
                    case "sources":
                        journey.sources = data
                    case "answer_chunk":
                        journey.text += data
                    case "citation":
                        journey.citations.append(data)
                    case "mark":
                        journey.marks.append(data)
                    case "restart":
                        journey.text, journey.citations, journey.marks = "", [], []
                yield event
    except TimeoutError:
        raise Problem(
            503,
            "answer-late",
            "The same question is being answered for somebody else, and takes too long. Ask again in a moment.",
            headers={"Retry-After": "30"},
        ) from None


class _Shown:
    """What one reader has been shown, so that another leader's words go on from there."""

    def __init__(self) -> None:
        self._places: list[Any] | None = None
        self._has_text = self._is_old = False

    def begin_again(self) -> None:
        self._is_old = self._has_text

    def show(self, event: Event) -> list[Event]:
        """The events to show for it.

        Raises:
            Problem: 503 for other sources than those that were shown.
        """
        if event["type"] == "sources":
            places = [[source[name] for name in ("chunk_id", "start", "end")] for source in event["data"]]
            if self._places is None:
                self._places = places
                return [event]
            if self._places != places:
                raise Problem(
                    503,
                    "answer-interrupted",
                    "Whoever made this answer has gone, and documents have changed since. Ask again.",
                    headers={"Retry-After": "30"},
                )
            return []
        is_old, self._is_old, self._has_text = self._is_old, False, True
        if is_old and event["type"] != "restart":
            reason = "What was answering has stopped; the answer starts again."
            return [{"type": "restart", "data": {"reason": reason}}, event]
        return [event]


def _forget(journey: Journey, *, cache: str) -> None:
    """Of an answer that another one has begun."""
    journey.cache = cache
    journey.text, journey.citations, journey.marks = "", [], []


def _outcome(journey: Journey) -> dict[str, Any]:
    finished = journey.finished
    if finished is None and journey.cached:  # of a question in other words
        provider, model = journey.cached["provider"], journey.cached["model"]
        finished = Finished(provider=provider, model=model, stop_reason="end_turn", usage=Usage())
    return {
        "answered": journey.answered,
        "grounded": journey.grounded,
        "confidence": journey.confidence,
        "finished": finished
        and {
            "provider": finished.provider,
            "model": finished.model,
            "stop_reason": finished.stop_reason,
            "fallback": finished.fallback,
        },
    }


def _fill(journey: Journey, outcome: dict[str, Any]) -> None:
    journey.answered, journey.grounded = outcome["answered"], outcome["grounded"]
    journey.confidence, finished = outcome["confidence"], outcome["finished"]
    journey.finished = finished and Finished(**finished, usage=Usage())


def _end_of(error: Exception) -> End:
    """What would meet the others as well is theirs, too; from what is the leader's own another may be free."""
    problem = problem_of(error)
    if problem is None:
        return GONE
    of_tenant = problem.extra.get("budget", {}).get("subject") == "tenant"
    if problem.status != 503 and not of_tenant:
        return GONE
    told = {
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "headers": dict(problem.headers),
        "extra": dict(problem.extra),
    }
    return End("problem", told)
