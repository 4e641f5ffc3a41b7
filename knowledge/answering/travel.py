"""The stages of a question's journey, in their order. They never call each other; frozen values pass between them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from knowledge.access import access_collections, access_conversation
from knowledge.answering.cache import CachedAnswer, answer_key, write_answer
from knowledge.answering.coalesce import flight_key, share_answer
from knowledge.answering.events import Event
from knowledge.answering.follow_up import rewrite_follow_up
from knowledge.answering.generate import DOES_NOT_SAY, NEAREST, generate_answer, prompt_of
from knowledge.answering.journey import Journey, Prepared, Question, source_object
from knowledge.answering.lifetime import seconds_to_keep
from knowledge.answering.passages import find_passages
from knowledge.answering.recall import recall_answer
from knowledge.answering.record import earlier_answers
from knowledge.answering.responses import Response, read_response, response_key, write_response
from knowledge.answering.route import route_question
from knowledge.answering.semantic import Place, find_same, keep_question
from knowledge.answering.spending import prefers_cheaper, set_aside, take_cheaper, take_priced
from knowledge.config import AnswerConfig
from knowledge.embedding.spaces import corpus_state
from knowledge.llm.base import Turn
from knowledge.llm.calls import count_bytes
from knowledge.llm.extractive import NOTICE
from knowledge.llm.gateway import Gateway
from knowledge.model_settings import apply_model_settings, read_model_settings
from knowledge.models import Answer
from knowledge.retrieval.base import Filters
from knowledge.retrieval.evidence import judge_evidence
from ragsite.core.hops import run_db
from ragsite.core.observability import EMPTY_RESULTS
from tenants.access import Principal
from tenants.budgets import read_standings, warnings_of


async def travel(journey: Journey, *, config: AnswerConfig, gateway: Gateway) -> AsyncGenerator[Event, None]:
    question, principal, watch = journey.question, journey.principal, journey.watch
    with watch.stage("prepare"):
        prepared = await run_db(_prepare, question=question, principal=principal, config=config)
    config = apply_model_settings(config, prepared.models)
    if prepared.standings:
        config = await run_db(take_priced, config, standings=prepared.standings)  # it reads the prices
    usual = config
    if config.has_model and prefers_cheaper(prepared.standings):
        journey.warnings = warnings_of(prepared.standings)
        config = take_cheaper(config)
    # A model reads what was answered before; by rule no more is taken than words of the questions as they were searched.
    journey.depends_on = tuple(
        {
            pk
            for answer in prepared.answers
            for pk in (answer.needed_ids if config.has_model else answer.depends_on)
        }
    )
    with watch.stage("rewrite"):
        journey.standalone = await rewrite_follow_up(
            journey, prepared=prepared, config=config, gateway=gateway
        )

    # What the better model has said before is shown over a soft limit, too; it is not made again there.
    for config_of in dict.fromkeys((usual, config)):
        key = answer_key(
            membership=principal.membership,
            question=journey.standalone,
            k=question.k or config.k,
            filters=prepared.filters,
            config=config_of,
        )
        journey.key, journey.fingerprint = key, config_of.fingerprint()
        cached = None
        if question.use_cache:
            with watch.stage("cache"):
                cached = await recall_answer(
                    key=key, membership=principal.membership, corpus_version=prepared.corpus_version
                )
        if cached is not None and (question.takes_stale or not cached.is_stale):
            journey.found = cached
            journey.renewing = key if cached.is_stale and config_of is config else ""
            journey.has_moved = cached.corpus_version != prepared.corpus_version
            for event in _replay(journey, cached):
                yield event
            for event in _say_no_model(journey, prepared=prepared, config=config):
                yield event
            return

    # A model that has read the conversation may have its words in the answer, which is not for others who ask the same.
    is_private = bool(prepared.turns) and config.has_model

    def make() -> AsyncGenerator[Event, None]:
        return _make(
            journey, prepared=prepared, config=config, gateway=gateway, key="" if is_private else key
        )

    flight = flight_key(answer_key=key, corpus_version=prepared.corpus_version)
    is_shared = question.use_cache and not is_private
    answer = share_answer(journey, flight=flight, make=make) if is_shared else make()
    async with aclosing(answer) as events:
        async for event in events:
            yield event
    for event in _say_no_model(journey, prepared=prepared, config=config):
        yield event


async def _make(
    journey: Journey, *, prepared: Prepared, config: AnswerConfig, gateway: Gateway, key: str
) -> AsyncGenerator[Event, None]:
    """From the search to the cache, under ``key``; an empty one keeps nothing."""
    question, principal, watch = journey.question, journey.principal, journey.watch
    k = question.k or config.k
    passages = await find_passages(
        principal=principal,
        text=journey.standalone,
        k=k,
        filters=prepared.filters,
        config=config,
        watch=watch,
        model=prepared.embedding_model,
        corpus_version=prepared.corpus_version,
        use_cache=question.use_cache,
    )
    place = Place(principal.membership, k, prepared.filters, config, prepared.embedding_model)
    asks_anew = config.semantic_cache and not prepared.turns
    if question.use_cache and asks_anew:
        with watch.stage("cache"):
            same = await find_same(
                place, text=journey.standalone, passages=passages, corpus_version=prepared.corpus_version
            )
        if same is not None:
            for event in _replay(journey, same, layer="semantic"):
                yield event
            return
    journey.passages = tuple(passages)
    journey.sources = [source_object(passage) for passage in passages]
    journey.confidence = round(judge_evidence(passages=passages, config=config.retrieval), 4)
    is_weak = journey.confidence < config.retrieval.evidence_floor
    if not is_weak:
        config = await route_question(journey, config=config, gateway=gateway)
    prompt = prompt_of(journey, turns=prepared.turns, config=config)
    response = response_to = None
    if config.has_model and not is_weak and key:
        response_to = response_key(membership=principal.membership, prompt=prompt, models=config.models)
        if question.use_cache or question.is_renewal:
            with watch.stage("cache"):
                response = await read_response(key=response_to, membership=principal.membership)
    if config.has_model and not is_weak and response is None:
        # Before the first event, so that a budget that is used up is said with a status.
        await set_aside(journey, size=count_bytes(prompt), models=config.models)
    yield {"type": "sources", "data": journey.sources}

    if is_weak:
        EMPTY_RESULTS.inc()
        journey.text = DOES_NOT_SAY + (NEAREST if passages else "")
        yield {"type": "answer_chunk", "data": journey.text}
    else:
        generation = generate_answer(
            journey,
            config=config,
            gateway=gateway,
            prompt=prompt,
            response=response,
        )
        async with aclosing(generation) as events:
            async for event in events:
                yield event
    if key and _may_be_cached(journey):
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
        seconds = await run_db(seconds_to_keep, journey, config=config)
        answer = CachedAnswer(corpus_version=prepared.corpus_version, payload=payload)
        journey.found = await write_answer(key=key, answer=answer, seconds=seconds)
        if asks_anew and journey.answered and journey.found:
            await keep_question(place, text=journey.standalone)
        if journey.finished and response_to and response is None:
            made = Response(tuple(journey.said), journey.finished.provider, journey.finished.model)
            await write_response(key=response_to, response=made, seconds=seconds)


def _prepare(*, question: Question, principal: Principal, config: AnswerConfig) -> Prepared:
    membership = principal.membership
    turns, answers = question.turns[-config.history_turns :], []
    noticed = any(NOTICE in turn.answer for turn in question.turns)
    if question.conversation is not None:
        noticed = Answer.objects.filter(conversation_id=question.conversation, text__contains=NOTICE).exists()
        access_conversation(membership, question.conversation, to_change=True)
        answers = earlier_answers(
            membership=membership, conversation_id=question.conversation, limit=config.history_turns
        )
        turns = tuple(Turn(row.standalone_question or row.question, row.text) for row in answers)
    collections = access_collections(principal, question.collections)
    version, model = corpus_state()
    return Prepared(
        filters=Filters(collection_ids=tuple(c.pk for c in collections), tags=question.tags),
        corpus_version=version,
        embedding_model=model,
        turns=turns,
        answers=tuple(answers),
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


def _replay(journey: Journey, cached: CachedAnswer, *, layer: str = "exact") -> list[Event]:
    payload = cached.payload
    journey.cache, journey.cached = layer, payload
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


def _may_be_cached(journey: Journey) -> bool:
    """Only what would be answered the same way again: no fallback, nothing that was cut off."""
    if journey.finished is None:
        return True  # weak evidence: the same until the corpus changes
    return not journey.finished.fallback and journey.finished.stop_reason == "end_turn"
