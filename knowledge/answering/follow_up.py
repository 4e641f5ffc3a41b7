"""A follow-up made to stand alone by the small model: what it may cost is set aside, what it did is recorded."""

import asyncio
import time

from knowledge.answering.journey import Journey, Prepared
from knowledge.answering.rewrite import rewrite_question
from knowledge.answering.spending import complete_usage, reserve_call
from knowledge.config import AnswerConfig
from knowledge.llm.base import Finished, ProviderError, Usage
from knowledge.llm.gateway import Attempt, AttemptStatus, Gateway
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem


async def rewrite_follow_up(
    journey: Journey, *, prepared: Prepared, config: AnswerConfig, gateway: Gateway
) -> str:
    """The question as it stands alone. Each call is an attempt of the journey, one that its reader gave up too."""
    if not prepared.turns:
        return journey.question.text
    begun = time.perf_counter()
    sent = 0

    async def complete(*, system: str, text: str) -> tuple[str, Finished]:
        nonlocal sent
        sent = len(system) + len(text)
        try:
            journey.reserved = await run_db(
                reserve_call,
                membership=journey.principal.membership,
                request_id=journey.question.request_id,
                chars=sent,
                config=config.small_model,
            )
        except Problem as problem:  # without money by rule, which may lead to an answer that is cached
            sent = 0
            raise ProviderError(problem.detail, permanent=True) from None
        return await gateway.complete(system=system, text=text, config=config.small_model)

    def spent(status: AttemptStatus, usage: Usage | None, *, finished: Finished | None, reason: str) -> None:
        attempt = Attempt(
            provider=config.small_model.provider,
            model=finished.model if finished else config.small_model.model,
            status=status,
            usage=usage or Usage(),
            seconds=time.perf_counter() - begun,
            reason=reason,
        )
        journey.attempts.append((complete_usage(attempt, chars=sent), "rewrite"))

    try:
        rewritten = await rewrite_question(
            question=journey.question.text,
            history=prepared.turns,
            complete=complete if gateway.has_model else None,
        )
    except asyncio.CancelledError:
        if sent:
            spent("cancelled", None, finished=None, reason="")
        raise
    finished = rewritten.finished
    if sent:
        status: AttemptStatus = "success" if finished else "transient"
        usage = finished.usage if finished else rewritten.usage
        spent(status, usage, finished=finished, reason=rewritten.error)
    return rewritten.question
