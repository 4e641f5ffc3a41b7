"""An answer that grows old, made again beside the one that is shown."""

import uuid
from contextlib import aclosing
from dataclasses import replace
from typing import Literal

import structlog
from redis.exceptions import RedisError

from knowledge.answering.journey import Journey, Question
from knowledge.answering.record import calls_of
from knowledge.answering.spending import wait_for_setting_aside
from knowledge.answering.travel import travel
from knowledge.config import AnswerConfig
from knowledge.llm.gateway import Gateway
from ragsite.core.hops import run_db
from ragsite.core.redis import redis_client
from tenants.access import Principal
from tenants.models import User
from tenants.rates import NO_GRANT
from tenants.scope import atomic, enter
from tenants.usage import record_calls

logger = structlog.get_logger(__name__)

# As long as an answer can take; a process that dies at it is followed by another after so long.
RENEWING_SECONDS = 120
# Who was shown the old answer just before the new one was there comes here a moment later, and has nothing to do any more.
SETTLING_SECONDS = 3
ENDPOINT = "renewal"


async def renew_answer(
    *,
    key: str,
    question: Question,
    principal: Principal,
    config: AnswerConfig,
    gateway: Gateway,
    has_moved: bool,
) -> bool:
    """Makes the cached answer of ``key`` again, as its asker; whether it was this process that did.

    One process does, the others leave it to that one. It is in nobody's history; its calls are in the ledger, and keep to
    the asker's budget.

    Args:
        has_moved: it is old because the corpus has moved on, not by its age: what was said to the same prompt holds.
    """
    claim = key.replace(":exact:", ":renewing:", 1)
    try:
        if not await redis_client().set(claim, 1, nx=True, ex=RENEWING_SECONDS):
            return False
    except (RedisError, OSError, TimeoutError):
        return False  # there is no cache to fill
    try:
        with enter(principal.scope()):
            user = principal.membership.user
            again = replace(question, is_renewal=has_moved)
            await make_answer(question=again, principal=principal, config=config, gateway=gateway, payer=user)
    finally:  # cancelled, too: another may do it then
        try:
            await redis_client().expire(claim, SETTLING_SECONDS)
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("claim left to run out", error=type(error).__name__)
    return True


async def make_answer(
    *,
    question: Question,
    principal: Principal,
    config: AnswerConfig,
    gateway: Gateway,
    payer: User | None,
    only_missing: bool = False,
) -> Literal["made", "there", "failed"]:
    """Answers for the cache alone. In the scope of ``principal``.

    Args:
        payer: the member whose the cost is, beside the tenant's.
        only_missing: an answer that is cached, and not stale, is left as it is.
    """
    alone = replace(
        question,
        request_id=uuid.uuid4(),
        endpoint=ENDPOINT,
        conversation=None,
        turns=(),
        use_cache=only_missing,
        takes_stale=False,
        grant=NO_GRANT,
    )
    journey = Journey(question=alone, principal=principal)
    try:
        async with aclosing(travel(journey, config=config, gateway=gateway)) as events:
            async for _ in events:
                pass
        return "made" if journey.cache == "miss" else "there"
    except Exception as error:
        # Nobody waits for it: what is cached stays as long as it may.
        logger.warning("answer not made again", error=type(error).__name__)
        return "failed"
    finally:
        await wait_for_setting_aside(journey)
        if journey.attempts or journey.holds_money:
            await run_db(_record, journey=journey, payer=payer)


def _record(*, journey: Journey, payer: User | None) -> None:
    with atomic():
        record_calls(
            user=payer,
            request_id=journey.question.request_id,
            endpoint=ENDPOINT,
            calls=calls_of(journey.attempts),
        )
