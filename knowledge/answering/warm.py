"""The questions that a tenant asks most, answered before they are asked again: for each role signature that asked them."""

import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.db.models import F
from django.utils import timezone
from redis.exceptions import RedisError

from knowledge.answering.cache import normalise_question
from knowledge.answering.journey import Question
from knowledge.answering.layers import acl_signature
from knowledge.answering.renew import ENDPOINT, make_answer
from knowledge.answering.services import gateway
from knowledge.config import answer_config
from knowledge.models import Answer
from tenants.access import Principal
from tenants.models import Ability, Membership
from tenants.scope import enter, require_tenant_id

logger = structlog.get_logger(__name__)

MOST = 20
# A source that is synchronised every minute does not have everything answered every minute.
PAUSE_SECONDS = 300
DAYS = 30
# The newest answers alone are looked at, so that it costs the same in a tenant of a million answers.
NEWEST = 2000


@dataclass(frozen=True)
class Asked:
    """A question that was asked often, and somebody of no name who may read what its askers could: what warming costs is
    the tenant's, whose own budgets hold, and no member's."""

    text: str
    membership: Membership
    times: int


def most_asked(*, most: int = MOST, now: datetime | None = None) -> list[Asked]:
    """The tenant's questions of the last 30 days that were asked more than once, most frequent first, once for each role
    signature; roles that nobody has any more are left out."""
    members = Membership.objects.filter(status=Membership.Status.ACTIVE).select_related("role", "tenant")
    by_role: dict[str, Membership] = {}
    for membership in members.order_by("pk"):
        if membership.role.may(Ability.ASK):
            nobody = Membership(tenant=membership.tenant, user=None, role=membership.role)
            by_role.setdefault(membership.role.name, nobody)
    since = (now or timezone.now()) - timedelta(days=DAYS)
    rows: Any = (
        Answer.objects.filter(created_at__gte=since, standalone_question=F("question"))
        .filter(status__in=["success", "cached"], answered=True)
        .order_by("-created_at")
        .values_list("question", "role_name")[:NEWEST]
    )
    times: Counter[tuple[str, str]] = Counter()
    askers: dict[tuple[str, str], tuple[str, Membership]] = {}
    for question, role in rows:
        if role in by_role:
            asked = normalise_question(question), acl_signature(by_role[role])
            times[asked] += 1
            askers.setdefault(asked, (question, by_role[role]))
    return [Asked(*askers[asked], count) for asked, count in times.most_common(most) if count > 1]


def start_warming(*, most: int = MOST, wait_seconds: int = 0) -> int:
    """Has a worker warm the cache, where there is something to warm; returns with how many questions at most."""
    from knowledge.tasks import warm_answers

    questions = len(most_asked(most=most))
    if questions:
        warm_answers.enqueue_on_commit(most=most, wait_seconds=wait_seconds)
    return questions


def warm_after_change() -> None:
    """After documents have changed: at once, and then once in a while, however often they do; the last change is not
    forgotten."""
    tenant_id = require_tenant_id()
    try:
        if cache.add(f"warmed:{tenant_id}", 1, PAUSE_SECONDS):
            start_warming()
        elif cache.add(f"warmed-again:{tenant_id}", 1, PAUSE_SECONDS):
            start_warming(wait_seconds=PAUSE_SECONDS)
    except (RedisError, OSError):
        logger.info("cache not warmed: it is away")


def warm_cache(*, most: int = MOST) -> int:
    """Answers what is asked most and not cached; returns how many answers were made. In the scope of the tenant.

    It keeps to the tenant's budgets, and ends at the first answer that cannot be made, since the next could not either.
    """
    return _make(most_asked(most=most))


@async_to_sync
async def _make(wanted: list[Asked]) -> int:
    made = 0
    for asked in wanted:
        principal = Principal(
            membership=asked.membership,
            method="system",
            abilities=frozenset(asked.membership.role.abilities),
        )
        question = Question(request_id=uuid.uuid4(), text=asked.text, endpoint=ENDPOINT)
        with enter(principal.scope()):
            outcome = await make_answer(
                question=question,
                principal=principal,
                config=answer_config(),
                gateway=gateway(),
                only_missing=True,
                payer=None,
            )
        if outcome == "failed":
            logger.warning("cache not warmed further", made=made, wanted=len(wanted))
            break
        made += outcome == "made"
    return made
