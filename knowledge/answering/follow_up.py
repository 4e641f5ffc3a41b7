"""A follow-up made to stand alone by the small model: what it may cost is set aside, what it did is recorded."""

from knowledge.answering.journey import Journey, Prepared
from knowledge.answering.rewrite import rewrite_question
from knowledge.answering.small_calls import ask_small_model
from knowledge.config import AnswerConfig
from knowledge.llm.base import Finished, ProviderError
from knowledge.llm.gateway import Gateway
from ragsite.core.problems import Problem

MAX_TOKENS = 200


async def rewrite_follow_up(
    journey: Journey, *, prepared: Prepared, config: AnswerConfig, gateway: Gateway
) -> str:
    """The question as it stands alone. Each call is an attempt of the journey, one that its reader gave up too."""
    if not prepared.turns:
        return journey.question.text

    async def complete(*, system: str, text: str) -> tuple[str, Finished]:
        try:
            return await ask_small_model(
                journey,
                kind="rewrite",
                system=system,
                text=text,
                max_tokens=MAX_TOKENS,
                config=config,
                gateway=gateway,
            )
        except Problem as problem:  # without money by rule, which may lead to an answer that is cached
            raise ProviderError(problem.detail, permanent=True) from None

    rewritten = await rewrite_question(
        question=journey.question.text,
        history=prepared.turns,
        complete=complete if config.has_model else None,
    )
    return rewritten.question
