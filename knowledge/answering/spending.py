"""What the calls of a question may cost, set aside before they are made."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from knowledge.answering.journey import Journey
from knowledge.answering.record import price_call
from knowledge.config import AnswerConfig
from knowledge.llm.base import ModelConfig, Usage
from knowledge.llm.calls import Attempt
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem
from tenants.budgets import Standing, reserve_cost, warnings_of
from tenants.models import Membership

# What a provider adds of its own: marks of documents, of turns, instructions for citations.
ADDED_TOKENS = 600


def usual_tokens(config: AnswerConfig) -> int:
    """What a question uses, as it is taken from the rate limits before it is known; settled when it is answered."""
    if not config.models:
        return 0
    return (config.retrieval.context_tokens + config.models[0].max_tokens) // 2


def most_tokens(*, size: int, config: ModelConfig) -> Usage:
    """What a call with a prompt of so many bytes uses at most: in no language is a token shorter than a byte."""
    return Usage(input_tokens=size + ADDED_TOKENS, output_tokens=config.max_tokens)


def most_cost(*, size: int, config: ModelConfig) -> Decimal | None:
    """What a call with a prompt of so many bytes costs at most, in US dollars; ``None`` for a model without a price.

    Writing a prompt to the provider's cache costs more than sending it, so all of it is taken as written.
    """
    usage = most_tokens(size=size, config=config)
    usage = replace(usage, input_tokens=0, cache_write_tokens=usage.input_tokens)
    return price_call(provider=config.provider, model=config.model, usage=usage)


def prefers_cheaper(standings: tuple[Standing, ...]) -> bool:
    """Whether a soft limit is gone over: what routes questions to models then takes the cheaper one."""
    return bool(warnings_of(standings))


def take_cheaper(config: AnswerConfig) -> AnswerConfig:
    """The small models in the place of the large ones."""
    return replace(config, models=config.small_models)


def take_priced(config: AnswerConfig, *, standings: tuple[Standing, ...]) -> AnswerConfig:
    """Under a budget the models that have a price, where there are any: nothing can be set aside for the others."""
    if not standings:
        return config

    def priced(models: tuple[ModelConfig, ...]) -> tuple[ModelConfig, ...]:
        return tuple(m for m in models if most_cost(size=0, config=m) is not None) or models

    return replace(config, models=priced(config.models), small_models=priced(config.small_models))


def reserve_call(
    *, membership: Membership, request_id: UUID, size: int, models: Sequence[ModelConfig]
) -> bool:
    """Sets aside what a call of ``size`` bytes to the dearest of the models may cost at most; whether anything was.

    Raises:
        Problem: 402 where a budget does not allow it.
    """
    costs = [most_cost(size=size, config=model) for model in models]
    known = [cost for cost in costs if cost is not None]
    amount = max(known) if len(known) == len(costs) else None
    return reserve_cost(membership=membership, request_id=request_id, amount=amount)


async def set_aside(journey: Journey, *, size: int, models: Sequence[ModelConfig]) -> None:
    """``reserve_call`` for a question on its way.

    Raises:
        Problem: 402 where a budget does not allow it.
    """
    reserving = run_db(
        reserve_call,
        membership=journey.principal.membership,
        request_id=journey.question.request_id,
        size=size,
        models=models,
    )
    journey.reserving = asyncio.get_running_loop().create_task(reserving)
    journey.reserved = await asyncio.shield(journey.reserving)


async def wait_for_setting_aside(journey: Journey) -> None:
    """Until nothing is being set aside for it any more: what came after it was settled would be held for nothing."""
    if journey.reserving is not None:
        await asyncio.wait([journey.reserving])


def reserve_again(*, membership: Membership, request_id: UUID, failed: Attempt) -> bool:
    """A call has failed and another is to follow: what the first has cost comes on top of what is set aside.

    Returns:
        Whether the budgets allow that; if not, what is free may still answer.
    """
    cost = price_call(provider=failed.provider, model=failed.model, usage=failed.usage)
    try:
        if cost:
            reserve_cost(membership=membership, request_id=request_id, amount=cost)
    except Problem as problem:
        if problem.status != 402:
            raise
        return False
    return True
