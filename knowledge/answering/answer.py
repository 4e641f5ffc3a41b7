"""A question's journey, in its order. The stages never call each other; what passes between them are frozen values."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict

import structlog

from knowledge.access import access_collections, access_conversation
from knowledge.answering.cache import CachedAnswer, answer_key, read_answer, write_answer
from knowledge.answering.citations import AnswerAssembler, Piece
from knowledge.answering.compress import compress_passages
from knowledge.answering.events import Event, EventLog
from knowledge.answering.follow_up import rewrite_follow_up
from knowledge.answering.journey import Journey, Prepared, Question, source_object
from knowledge.answering.prompt import build_prompt
from knowledge.answering.record import answer_object, conversation_turns
from knowledge.answering.route import route_question
from knowledge.answering.spending import (
    complete_usage,
    prefers_cheaper,
    reserve_again,
    reserve_call,
    take_cheaper,
    take_priced,
)
from knowledge.answering.storing import in_background, store_in_background, store_journey
from knowledge.config import AnswerConfig
from knowledge.embedding.base import EmbeddingError, Vectors
from knowledge.embedding.batching import embed_question
from knowledge.embedding.factory import load_embedder
from knowledge.embedding.spaces import active_model, embeddings_unavailable
from knowledge.llm.base import Finished, Passage, Prompt, ProviderError, Turn
from knowledge.llm.extractive import NOTICE
from knowledge.llm.gateway import Attempt, Gateway, Restarted, count_chars
from knowledge.model_settings import apply_model_settings, read_model_settings
from knowledge.models import Answer, Corpus
from knowledge.retrieval.base import Filters, FoundPassage
from knowledge.retrieval.evidence import judge_evidence
from knowledge.retrieval.search import search_passages
from ragsite.core.hops import run_db
from ragsite.core.observability import (
    ACTIVE_REQUESTS,
    EMPTY_RESULTS,
    REQUEST_LATENCY,
    REQUESTS,
    Stopwatch,
)
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.budgets import read_standings, warnings_of
from tenants.rates import NO_GRANT, settle_request
from tenants.rest import problem_of

logger = structlog.get_logger(__name__)

DOES_NOT_SAY = "Your documents don't say."
NEAREST = " The passages nearest to your question are listed as sources."


async def answer_question(
    *, question: Question, principal: Principal, config: AnswerConfig, gateway: Gateway
) -> AsyncGenerator[Event, None]:
    """Answers, yielding ``sources``, ``answer_chunk``, ``citation``, ``mark``, ``restart`` and last ``done``.

    Closing the generator cancels the call upstream; what was spent until then is stored and priced. Expected failures
    are raised as ``Problem`` before the first event, and end the stream as an ``error`` event after it.

    Raises:
        Problem: 403 without the ability to ask, 404 for a collection or conversation that is not the asker's.
    """
    principal.require("ask")
    journey = Journey(question=question, principal=principal)
    log = EventLog(membership=principal.membership, request_id=question.request_id)
    status, begun, grant = "error", False, question.grant
    ACTIVE_REQUESTS.inc()
    try:
        async with aclosing(_travel(journey, config=config, gateway=gateway)) as events:
            async for event in events:
                await log.add(event)
                begun = True
                yield event
        status = _status_of(journey)
        answer = await run_db(store_journey, journey=journey, status=status)
        await settle_request(grant, used=journey.tokens)
        grant = NO_GRANT
        done = answer_object(answer, with_body=False)
        event = {"type": "done", "data": done | ({"warnings": journey.warnings} if journey.warnings else {})}
        await log.add(event)
        yield event
    except (GeneratorExit, asyncio.CancelledError):
        if status == "error":
            status = "cancelled"
            store_in_background(journey, status=status)
            if begun:  # who has come back meanwhile must not wait for an end that never comes
                stopped = Problem(409, "cancelled", "This answer was stopped before its end: ask again.")
                in_background(log.add({"type": "error", "data": stopped.document()}))
        raise
    except Exception as error:
        # Failed calls have their rows in the ledger too, and what was set aside for them goes back.
        if journey.attempts or journey.reserved:
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


def _status_of(journey: Journey) -> str:
    if journey.cached:
        return "cached"
    if not journey.answered:
        return "unanswered"
    return "fallback" if journey.finished and journey.finished.fallback else "success"


async def _travel(journey: Journey, *, config: AnswerConfig, gateway: Gateway) -> AsyncGenerator[Event, None]:
    question, principal, watch = journey.question, journey.principal, journey.watch
    k = question.k or config.k
    with watch.stage("prepare"):
        prepared = await run_db(_prepare, question=question, principal=principal, config=config)
    config = apply_model_settings(config, prepared.models)
    if prepared.standings:
        config = await run_db(take_priced, config, standings=prepared.standings)  # it reads the prices
    if config.has_model and prefers_cheaper(prepared.standings):
        journey.warnings = warnings_of(prepared.standings)
        config = take_cheaper(config)
    with watch.stage("rewrite"):
        journey.standalone = await rewrite_follow_up(
            journey, prepared=prepared, config=config, gateway=gateway
        )

    key = answer_key(
        membership=principal.membership,
        question=journey.standalone,
        k=k,
        filters=prepared.filters,
        config=config,
    )
    if question.use_cache:
        with watch.stage("cache"):
            cached = await read_answer(
                key=key, tenant_id=principal.membership.tenant_id, corpus_version=prepared.corpus_version
            )
        if cached is not None:
            for event in _replay(journey, cached):
                yield event
            for event in _say_no_model(journey, prepared=prepared, config=config):
                yield event
            return

    passages = await find_passages(
        principal=principal,
        text=journey.standalone,
        k=k,
        filters=prepared.filters,
        config=config,
        watch=watch,
    )
    journey.passages = tuple(passages)
    journey.sources = [source_object(passage) for passage in passages]
    journey.confidence = round(judge_evidence(passages=passages, config=config.retrieval), 4)
    is_weak = journey.confidence < config.retrieval.evidence_floor
    if not is_weak:
        config = await route_question(journey, config=config, gateway=gateway)
    prompt = _prompt_of(journey, turns=prepared.turns, config=config)
    if config.has_model and not is_weak:
        # Before the first event, so that a budget that is used up is said with a status.
        journey.reserved = await run_db(
            reserve_call,
            membership=principal.membership,
            request_id=question.request_id,
            chars=count_chars(prompt),
            models=config.models,
        )
    yield {"type": "sources", "data": journey.sources}

    if is_weak:
        EMPTY_RESULTS.inc()
        journey.text = DOES_NOT_SAY + (NEAREST if passages else "")
        yield {"type": "answer_chunk", "data": journey.text}
    else:
        generation = _generate(
            journey,
            config=config,
            gateway=gateway,
            prompt=prompt,
        )
        async with aclosing(generation) as events:
            async for event in events:
                yield event
    # The model has read the conversation: its words may be in the answer, and are not for others who ask the same.
    is_private = bool(prepared.turns) and config.has_model
    if _may_be_cached(journey) and not is_private:
        payload = {
            "text": journey.text,
            "sources": journey.sources,
            "citations": journey.citations,
            "marks": journey.marks,
            "answered": journey.answered,
            "grounded": journey.grounded,
            "confidence": journey.confidence,
            "provider": journey.finished.provider if journey.finished else "",
            "model": journey.finished.model if journey.finished else "",
        }
        await write_answer(
            key=key,
            answer=CachedAnswer(corpus_version=prepared.corpus_version, payload=payload),
            seconds=config.cache_seconds,
        )
    for event in _say_no_model(journey, prepared=prepared, config=config):
        yield event


def _prepare(*, question: Question, principal: Principal, config: AnswerConfig) -> Prepared:
    membership = principal.membership
    turns = [(turn.question, turn.answer) for turn in question.turns][-config.history_turns :]
    noticed = any(NOTICE in turn.answer for turn in question.turns)
    if question.conversation is not None:
        noticed = Answer.objects.filter(conversation_id=question.conversation, text__contains=NOTICE).exists()
        access_conversation(membership, question.conversation, to_change=True)
        turns = conversation_turns(
            membership=membership, conversation_id=question.conversation, limit=config.history_turns
        )
    collections = access_collections(membership, question.collections)
    return Prepared(
        filters=Filters(collection_ids=tuple(c.pk for c in collections), tags=question.tags),
        corpus_version=Corpus.current_version(),
        turns=tuple(Turn(question=asked, answer=given) for asked, given in turns),
        noticed=noticed,
        standings=tuple(read_standings(membership)),
        models=read_model_settings(),
    )


def _say_no_model(journey: Journey, *, prepared: Prepared, config: AnswerConfig) -> list[Event]:
    """Once in a conversation, with its first answer. No part of what is cached: another conversation has its own once."""
    if config.has_model or prepared.noticed or not journey.answered:
        return []
    notice = f"\n\n{NOTICE}"
    journey.text += notice
    return [{"type": "answer_chunk", "data": notice}]


async def _embed(text: str) -> tuple[Vectors, str]:
    """The question's vector by the model that the tenant is searched with, and that model's name."""
    name = await run_db(active_model)
    try:
        model = await load_embedder(name)
        return await embed_question(text, embedder=model), model.name
    except EmbeddingError as error:
        raise embeddings_unavailable(error) from error


async def find_passages(
    *, principal: Principal, text: str, k: int, filters: Filters, config: AnswerConfig, watch: Stopwatch
) -> list[FoundPassage]:
    """Retrieval alone: embed, search under the asker's scope."""
    with watch.stage("embed"):
        vector, model = await _embed(text)
    with watch.stage("retrieve"):
        return await run_db(
            search_passages,
            membership=principal.membership,
            question=text,
            vector=vector,
            model=model,
            k=k,
            filters=filters,
            config=config.retrieval,
        )


def _replay(journey: Journey, cached: CachedAnswer) -> list[Event]:
    payload = cached.payload
    journey.cache, journey.cached = "exact", payload
    journey.sources, journey.citations = payload["sources"], payload["citations"]
    journey.text, journey.answered = payload["text"], payload["answered"]
    journey.grounded, journey.confidence = payload["grounded"], payload["confidence"]
    journey.marks = payload.get("marks", [])
    return [
        {"type": "sources", "data": journey.sources},
        {"type": "answer_chunk", "data": journey.text},
        *({"type": "citation", "data": citation} for citation in journey.citations),
        *({"type": "mark", "data": mark} for mark in journey.marks),
    ]


def _prompt_of(journey: Journey, *, turns: tuple[Turn, ...], config: AnswerConfig) -> Prompt:
    passages = [
        Passage(n=p.n, title=p.title, uri=p.uri, heading=p.heading, text=p.text) for p in journey.passages
    ]
    sent: Sequence[Passage] = passages
    if config.has_model:
        sent = compress_passages(passages, question=journey.standalone, tokens=config.prompt_tokens)
    return build_prompt(question=journey.standalone, passages=sent, history=turns, whole=passages)


async def _generate(
    journey: Journey, *, config: AnswerConfig, gateway: Gateway, prompt: Prompt
) -> AsyncGenerator[Event, None]:
    assembler = AnswerAssembler(prompt.shown, sent=prompt.passages, question=prompt.question)
    chars = count_chars(prompt)

    def take(pieces: list[Piece]) -> list[Event]:
        events: list[Event] = []
        for piece in pieces:
            journey.text += piece.text
            if piece.text:
                events.append({"type": "answer_chunk", "data": piece.text})
            for citation in piece.citations:
                data = {"source": citation.source, "start": citation.start, "end": citation.end}
                journey.citations.append(data)
                events.append({"type": "citation", "data": data})
            for mark in piece.marks:
                journey.marks.append(asdict(mark))
                events.append({"type": "mark", "data": asdict(mark)})
        return events

    begun = time.perf_counter()
    first_byte = True
    stream = gateway.stream(
        prompt,
        config.models,
        on_cancelled=lambda attempt: journey.attempts.append(
            (complete_usage(attempt, chars=chars), "answer")
        ),
    )
    try:
        async with aclosing(stream) as events:
            async for event in events:
                if first_byte and not isinstance(event, Attempt | Restarted):
                    journey.watch.add("first_byte", time.perf_counter() - begun)
                    first_byte = False
                if isinstance(event, Attempt):
                    journey.attempts.append((event, "answer"))
                    if event.status != "success" and journey.reserved:
                        await run_db(
                            reserve_again,
                            membership=journey.principal.membership,
                            request_id=journey.question.request_id,
                            failed=event,
                        )
                elif isinstance(event, Restarted):
                    assembler.restart()
                    journey.text, journey.citations, journey.marks = "", [], []
                    yield {"type": "restart", "data": {"reason": event.reason}}
                elif isinstance(event, Finished):
                    journey.finished = event
                else:
                    for out in take(assembler.feed(event)):
                        yield out
    except ProviderError as error:
        raise Problem(
            503,
            "model-unavailable",
            f"No answer could be made: {error.reason} Search still works.",
            headers={"Retry-After": "30"},
        ) from None
    finally:
        journey.watch.add("generate", time.perf_counter() - begun)
    is_cut = journey.finished is not None and journey.finished.stop_reason == "max_tokens"
    for out in take(assembler.finish(is_cut=is_cut)):
        yield out
    if not journey.text.strip():  # refused or empty everywhere: that is said, not shown as nothing
        journey.text = DOES_NOT_SAY + NEAREST
        yield {"type": "answer_chunk", "data": journey.text}
    journey.grounded = assembler.is_grounded
    journey.confidence = round(journey.confidence * assembler.support, 4)
    # A model that cites nothing has, by its instructions, found nothing.
    journey.answered = bool(journey.citations)


def _may_be_cached(journey: Journey) -> bool:
    """Only what would be answered the same way again: no fallback, nothing that was cut off."""
    if journey.finished is None:
        return True  # weak evidence: the same until the corpus changes
    return not journey.finished.fallback and journey.finished.stop_reason == "end_turn"
