"""A short call of a small model on the way to an answer: reserved, made, and recorded as an attempt of the journey."""

from dataclasses import replace

from knowledge.answering.journey import Journey
from knowledge.answering.spending import set_aside
from knowledge.config import AnswerConfig
from knowledge.llm.base import Finished
from knowledge.llm.gateway import Gateway
from knowledge.llm.wire import size_of

# Of the time that a question has left: most of it is the answer's.
TIME_SHARE = 0.25


async def ask_small_model(
    journey: Journey,
    *,
    kind: str,
    system: str,
    text: str,
    max_tokens: int,
    config: AnswerConfig,
    gateway: Gateway,
) -> tuple[str, Finished]:
    """What it says, and how the call ended.

    Args:
        kind: of the call, as the ledger has it.

    Raises:
        Problem: there is no money for it.
        ProviderError: every small model has failed, or the time for it is over.
    """
    models = [replace(model, max_tokens=max_tokens) for model in config.small_models]
    await set_aside(journey, size=size_of(system, text), models=models)
    return await gateway.complete(
        system=system,
        text=text,
        models=models,
        deadline=journey.end_of_share(TIME_SHARE),
        on_attempt=lambda attempt: journey.attempts.append((attempt, kind)),
    )
