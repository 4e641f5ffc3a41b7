"""A question answered: its journey from the first event to the last, kept for those who come back, stored and counted."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import structlog
from redis.exceptions import RedisError

from knowledge.answering.events import LAST, STOPPED, Event, EventLog, Readers
from knowledge.answering.journey import Journey, Question
from knowledge.answering.record import answer_object
from knowledge.answering.renew import renew_answer
from knowledge.answering.storing import store_in_background, store_journey
from knowledge.answering.travel import travel
from knowledge.answering.work import Work
from knowledge.config import AnswerConfig
from knowledge.hits.ticket import note_answer
from knowledge.llm.gateway import Gateway
from ragsite.core.background import in_background, to_its_end
from ragsite.core.hops import run_db
from ragsite.core.observability import ACTIVE_REQUESTS, REQUEST_LATENCY, REQUESTS
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.rates import NO_GRANT, settle_request
from tenants.rest import problem_of

logger = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5


async def answer_question(
    *, question: Question, principal: Principal, config: AnswerConfig, gateway: Gateway
) -> AsyncGenerator[Event, None]:
    """Answers, yielding ``sources``, ``answer_chunk``, ``citation``, ``mark``, ``restart`` and last ``done``.

    Closing the generator cancels the call upstream; what was spent until then is stored and priced. So does stopping the
    answer, which ends with an ``error`` event; for others who wait for it, either way, it goes on. Expected failures are
    raised as ``Problem`` before the first event, and end the stream as an ``error`` event after it.

    Raises:
        Problem: 403 without the ability to ask, 404 for a collection or conversation that is not the asker's.
    """
    principal.require("ask")
    journey = Journey(question=question, principal=principal)
    log = EventLog(membership=principal.membership, request_id=question.request_id)
    work = Work(_answer(journey, log=log, config=config, gateway=gateway))
    try:
        async with aclosing(work.read()) as events:
            async for event in events:
                yield event
                if log.is_stopped and event["type"] not in LAST:
                    yield {"type": "error", "data": STOPPED.document()}
                    return
    finally:
        if not work.is_done:
            await _leave(work, journey, log)
    if journey.renewing and not question.may_go_on:  # nothing goes on behind this one
        await _renew(journey, config=config, gateway=gateway)


async def _answer(
    journey: Journey, *, log: EventLog, config: AnswerConfig, gateway: Gateway
) -> AsyncGenerator[Event, None]:
    question = journey.question
    status, begun, is_stored, grant = "error", False, False, question.grant
    ACTIVE_REQUESTS.inc()
    try:
        async with aclosing(travel(journey, config=config, gateway=gateway)) as events:
            async for event in events:
                await log.add(event)
                begun = True
                yield event
        status = _status_of(journey)
        answer = await to_its_end(run_db(store_journey, journey=journey, status=status))
        is_stored = True
        await settle_request(grant, used=journey.tokens)
        grant = NO_GRANT
        if journey.stopped is None:
            note_answer(journey=journey, answer=answer)
        done = answer_object(answer, with_body=False) | {"stale": bool(journey.renewing)}
        event = {"type": "done", "data": done | ({"warnings": journey.warnings} if journey.warnings else {})}
        await log.add(event)
        if journey.renewing and question.may_go_on:
            in_background(_renew(journey, config=config, gateway=gateway))
        yield event
    except (GeneratorExit, asyncio.CancelledError):
        if status == "error":
            status = "cancelled"
            store_in_background(journey, status=status)
            if begun:  # who has come back meanwhile must not wait for an end that never comes
                in_background(log.add({"type": "error", "data": STOPPED.document()}))
        raise
    except Exception as error:
        # Failed calls have their rows in the ledger too, and what was set aside for them goes back. What has begun is found
        # again as one that has failed.
        if not is_stored and (begun or journey.attempts or journey.holds_money):
            store_in_background(journey, status="error")
        if not begun:
            raise
        # A status cannot be sent any more: whatever it was, the reader is told that the stream ends here.
        problem = problem_of(error)
        if problem is None:
            logger.exception("answer failed", answer=str(question.request_id))
            problem = Problem(500, "internal", "Something went wrong on our side: ask again.")
        event = {"type": "error", "data": problem.document()}
        await log.add(event)
        yield event
    finally:
        in_background(settle_request(grant, used=journey.tokens))
        ACTIVE_REQUESTS.dec()
        REQUESTS.labels(question.endpoint, status).inc()
        REQUEST_LATENCY.labels(question.endpoint).observe(journey.watch.elapsed_ms / 1000)


async def _renew(journey: Journey, *, config: AnswerConfig, gateway: Gateway) -> None:
    await renew_answer(
        key=journey.renewing,
        question=replace(journey.question, text=journey.standalone),
        principal=journey.principal,
        config=config,
        gateway=gateway,
        has_moved=journey.has_moved,
    )


async def _leave(work: Work, journey: Journey, log: EventLog) -> None:
    """Whoever asked has gone: the answer ends, unless others wait for it."""
    try:
        goes_on = journey.question.may_go_on and journey.is_followed and await journey.is_followed()
    except BaseException:  # cancelled while it asks Redis: nobody else would end the work
        work.cancel()
        raise
    if goes_on:
        in_background(_go_on(work, journey, log))
    else:
        await work.stop()


async def _go_on(work: Work, journey: Journey, log: EventLog) -> None:
    """For those who wait for it; whoever asked may stop it for themselves."""
    readers = Readers(membership=journey.principal.membership, request_id=journey.question.request_id)
    while not work.is_done:
        if journey.stopped is None and await _is_stopped(readers):
            journey.stop()
            await log.add({"type": "error", "data": STOPPED.document()})
        if await work.wait(seconds=LOOK_SECONDS):
            return
        if journey.is_followed and not await journey.is_followed():
            await work.stop()


async def _is_stopped(readers: Readers) -> bool:
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        return (await readers.look())[1]
    return False


def _status_of(journey: Journey) -> str:
    if journey.stopped is not None:
        return journey.stopped.status
    if journey.cached:
        return "cached"
    if journey.cache == "coalesced":
        return "fallback" if journey.finished and journey.finished.fallback else "cached"
    if not journey.answered:
        return "unanswered"
    return "fallback" if journey.finished and journey.finished.fallback else "success"
