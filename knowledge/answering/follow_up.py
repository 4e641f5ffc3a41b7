"""A follow-up made to stand alone by the small model: what it may cost is set aside, what it did is recorded."""

from dataclasses import replace

from knowledge.answering.journey import Journey, Prepared
from knowledge.answering.rewrite import rewrite_question
from knowledge.answering.spending import complete_usage, reserve_call
from knowledge.config import AnswerConfig
from knowledge.llm.base import Finished, ProviderError
from knowledge.llm.gateway import Gateway
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem

MAX_TOKENS = 200


async def rewrite_follow_up(
    journey: Journey, *, prepared: Prepared, config: AnswerConfig, gateway: Gateway
) -> str:
    """The question as it stands alone. Each call is an attempt of the journey, one that its reader gave up too."""
    if not prepared.turns:
        return journey.question.text
    models = [replace(model, max_tokens=MAX_TOKENS) for model in config.small_models]

    async def complete(*, system: str, text: str) -> tuple[str, Finished]:
        chars = len(system) + len(text)
        try:
            journey.reserved = await run_db(
                reserve_call,
                membership=journey.principal.membership,
                request_id=journey.question.request_id,
                chars=chars,
                models=models,
            )
        except Problem as problem:  # without money by rule, which may lead to an answer that is cached
            raise ProviderError(problem.detail, permanent=True) from None
        return await gateway.complete(
            system=system,
            text=text,
            models=models,
            on_attempt=lambda attempt: journey.attempts.append(
                (complete_usage(attempt, chars=chars), "rewrite")
            ),
        )

    rewritten = await rewrite_question(
        question=journey.question.text,
        history=prepared.turns,
        complete=complete if config.has_model else None,
    )
    return rewritten.question
