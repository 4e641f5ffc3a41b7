"""Money set aside before a model is called, and settled after: what is left is never given away twice.

All of it happens under one lock of the tenant in PostgreSQL, held for a few statements: counting what was spent, what
is set aside for calls under way, and adding to either. A reservation that nobody settles (its process has died) holds
for ``HOLDS``, then it counts no longer. See docs/decisions/0007-money-is-reserved.md.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from django.db import connections
from django.db.models import F, Q, Sum
from django.utils import timezone

from ragsite.core.observability import BUDGETS
from ragsite.core.problems import Problem
from tenants.audit import record_event
from tenants.gate import mark_gate
from tenants.models import Budget, Membership, Reservation, Spending, Tenant, UsageRecord
from tenants.scope import alias, atomic, require_tenant_id

logger = structlog.get_logger(__name__)

ZERO = Decimal(0)
# Longer than any answer takes (RAGSITE_ANSWER_SECONDS, and what storing it takes).
HOLDS = timedelta(minutes=5)
NEAR, FULL = 80, 100
_LOCK_CLASS = 4021  # of our advisory locks, the ones of budgets


@dataclass(frozen=True)
class Span:
    """One day or month of the tenant's calendar; ``end`` is its first moment no more."""

    period: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Standing:
    """How one budget stands. ``user_id`` is ``None`` for the whole tenant's.

    ``spent`` is the ledger's sum, ``reserved`` what is set aside for calls under way.
    """

    subject: str
    user_id: int | None
    span: Span
    soft: Decimal | None
    hard: Decimal | None
    spent: Decimal
    reserved: Decimal

    @property
    def limit(self) -> Decimal:
        """What 100 % is: the hard limit, or without one the soft one."""
        limit = self.hard if self.hard is not None else self.soft
        assert limit is not None  # the constraint a_budget_has_a_limit
        return limit

    @property
    def percent(self) -> int:
        return min(10_000, int(self.spent * 100 / self.limit)) if self.limit else FULL

    @property
    def is_over_soft(self) -> bool:
        return self.soft is not None and self.spent >= self.soft

    @property
    def words(self) -> str:
        whose = "The tenant’s" if self.user_id is None else "Your"
        return f"{whose} {'daily' if self.span.period == Budget.Period.DAY else 'monthly'} budget"

    @property
    def resets(self) -> str:
        return f"{self.span.end:%Y-%m-%d %H:%M} ({self.span.end.tzname()})"


def span_of(period: str, *, at: datetime, zone: str) -> Span:
    """The day or month of a time zone's calendar that holds ``at``."""
    local = at.astimezone(ZoneInfo(zone)).date()
    first = local if period == Budget.Period.DAY else local.replace(day=1)
    step = timedelta(days=1 if period == Budget.Period.DAY else 32)
    after = first + step if period == Budget.Period.DAY else (first + step).replace(day=1)
    begin, end = (datetime.combine(day, time.min, tzinfo=ZoneInfo(zone)) for day in (first, after))
    return Span(period, begin, end)


def lock_budgets() -> None:
    """Until the end of the transaction nobody else counts or spends this tenant's money.

    Raises:
        OperationalError: the lock was not to be had within the database's time limit; money fails closed.
    """
    with connections[alias()].cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_LOCK_CLASS, str(require_tenant_id())]
        )


def _budgets_of(user_id: int | None) -> list[Budget]:
    """The budgets that a member's calls count in; their own in the place of what each member has."""
    found: dict[tuple[bool, str], Budget] = {}
    subjects = Q(subject=Budget.Subject.TENANT)
    if user_id is not None:
        subjects |= Q(subject=Budget.Subject.MEMBERS) | Q(subject=Budget.Subject.MEMBER, user_id=user_id)
    for budget in Budget.objects.filter(subjects).order_by("subject"):  # member, members, tenant
        found.setdefault((budget.subject == Budget.Subject.TENANT, budget.period), budget)
    return list(found.values())


def _ledger_sum(user_id: int | None, span: Span) -> Decimal:
    rows = UsageRecord.objects.filter(created_at__gte=span.start, created_at__lt=span.end)
    if user_id is not None:
        rows = rows.filter(user_id=user_id)
    return rows.aggregate(sum=Sum("cost_usd"))["sum"] or ZERO


def _held(user_id: int | None, *, now: datetime) -> Decimal:
    rows = Reservation.objects.filter(expires_at__gt=now)
    if user_id is not None:
        rows = rows.filter(user_id=user_id)
    return rows.aggregate(sum=Sum("amount_usd"))["sum"] or ZERO


def _standing(budget: Budget, *, user_id: int | None, zone: str, now: datetime, keep: bool) -> Standing:
    """``keep``, under the lock, makes the row that is kept up from then on; without it a sum of the ledger will do.

    A period that is kept goes on to its end, whatever the tenant's time zone is by now: another zone gives no money early.
    """
    of = None if budget.subject == Budget.Subject.TENANT else user_id
    under_way = Spending.objects.filter(user_id=of, period=budget.period, starts_at__lte=now, ends_at__gt=now)
    row = under_way.order_by("starts_at").first()
    if row is None:
        span = span_of(budget.period, at=now, zone=zone)
        spent = _ledger_sum(of, span)
        if keep:
            Spending.objects.create(
                user_id=of, period=span.period, starts_at=span.start, ends_at=span.end, spent_usd=spent
            )
    else:
        local = ZoneInfo(zone)
        span = Span(row.period, row.starts_at.astimezone(local), row.ends_at.astimezone(local))
        spent = row.spent_usd
    return Standing(
        subject=budget.subject,
        user_id=of,
        span=span,
        soft=budget.soft_usd,
        hard=budget.hard_usd,
        spent=spent,
        reserved=_held(of, now=now),
    )


def read_standings(membership: Membership) -> list[Standing]:
    """How the budgets stand that a member's questions count in."""
    now, zone = timezone.now(), membership.tenant.time_zone
    budgets = _budgets_of(membership.user_id)
    return [_standing(b, user_id=membership.user_id, zone=zone, now=now, keep=False) for b in budgets]


def read_budget(budget: Budget, *, tenant: Tenant) -> Standing:
    """How one budget stands, the tenant's or its member's."""
    return _standing(budget, user_id=budget.user_id, zone=tenant.time_zone, now=timezone.now(), keep=False)


def read_tenant_standings(tenant: Tenant) -> list[Standing]:
    """How the budgets of the whole tenant stand."""
    now, zone = timezone.now(), tenant.time_zone
    return [_standing(b, user_id=None, zone=zone, now=now, keep=False) for b in _budgets_of(None)]


def show_standing(standing: Standing) -> dict[str, Any]:
    """As the API tells it."""
    return {
        "subject": standing.subject,
        "period": standing.span.period,
        "soft_usd": standing.soft,
        "hard_usd": standing.hard,
        "spent_usd": standing.spent,
        "reserved_usd": standing.reserved,
        "percent": standing.percent,
        "resets_at": standing.span.end,
    }


def warnings_of(standings: Iterable[Standing]) -> tuple[str, ...]:
    """What a member is told about soft limits that are gone over; with any of them the cheaper model answers."""
    return tuple(
        f"{one.words} is over its soft limit: the cheaper model answers until {one.resets}."
        for one in standings
        if one.is_over_soft
    )


def _refusal(standing: Standing) -> Problem:
    seconds = max(1, int((standing.span.end - timezone.now()).total_seconds()))
    return Problem(
        402,
        "budget-exhausted",
        f"{standing.words} is used up; it begins anew at {standing.resets}. Answers that are cached, and search, "
        "still work. Who manages the tenant can raise it.",
        headers={"Retry-After": str(seconds)},
        extra={
            "budget": {
                "subject": standing.subject,
                "period": standing.span.period,
                "limit_usd": f"{standing.hard:f}",
                "spent_usd": f"{standing.spent:f}",
                "resets_at": standing.span.end.isoformat(),
            }
        },
    )


def reserve_cost(*, membership: Membership, request_id: uuid.UUID, amount: Decimal | None) -> bool:
    """Sets ``amount`` (US dollars) aside for calls of a question, on top of what is set aside for it already.

    Args:
        amount: at least what the calls will cost; ``None``: of a model without a price.

    Returns:
        Whether anything was set aside; not where no budget holds.

    Raises:
        Problem: 402 where a hard limit could be gone over, or would not be held for want of a price.
    """
    budgets = _budgets_of(membership.user_id)
    if not budgets:
        return False
    if amount is None:
        if any(budget.hard_usd is not None for budget in budgets):
            raise Problem(
                402,
                "unpriced-model",
                "The language model has no price, so that no budget can hold its cost. Ask the operator to enter "
                "its price, or remove the budget’s hard limit.",
            )
        return False
    now, refused = timezone.now(), None
    with atomic():
        lock_budgets()
        for budget in budgets:
            standing = _standing(
                budget,
                user_id=membership.user_id,
                zone=membership.tenant.time_zone,
                now=now,
                keep=True,
            )
            if standing.hard is not None and standing.spent + standing.reserved + amount > standing.hard:
                refused = standing
                break
        if refused is None:
            changed = Reservation.objects.filter(pk=request_id).update(
                amount_usd=F("amount_usd") + amount, expires_at=now + HOLDS
            )
            if not changed:
                Reservation.objects.create(
                    id=request_id, user=membership.user, amount_usd=amount, expires_at=now + HOLDS
                )
        elif refused.spent >= refused.limit * NEAR / 100:
            _tell(refused, FULL)  # no question fits in any more
    if refused is not None:
        BUDGETS.labels("refused").inc()
        raise _refusal(refused)
    return True


def release_cost(*, request_id: uuid.UUID) -> None:
    """Gives back what is set aside for a question."""
    Reservation.objects.filter(pk=request_id).delete()


def count_spending(*, user_id: int | None, cost: Decimal) -> None:
    """Adds to the periods that are kept, and tells who manages when a budget nears its end.

    Under ``lock_budgets``, in the transaction that writes the ledger's rows: each row counts once, here or in the sum that
    a period began with.
    """
    now = timezone.now()
    spendings = Spending.objects.filter(starts_at__lte=now, ends_at__gt=now)
    mine = (
        spendings.filter(Q(user_id=None) | Q(user_id=user_id)) if user_id else spendings.filter(user_id=None)
    )
    if not mine.update(spent_usd=F("spent_usd") + cost):
        return
    zone = Tenant.objects.values_list("time_zone", flat=True).get(pk=require_tenant_id())
    for budget in _budgets_of(user_id):
        standing = _standing(budget, user_id=user_id, zone=zone, now=now, keep=False)
        if standing.soft is not None and standing.spent >= standing.soft > standing.spent - cost:
            mark_gate(connections[alias()])  # other models answer from now on
        if standing.percent >= NEAR:
            _tell(standing, FULL if standing.percent >= FULL else NEAR)


def _tell(standing: Standing, percent: int) -> None:
    """Once in a period for each of the two percentages: in the audit log, in the log, and as a count."""
    row = Spending.objects.filter(
        user_id=standing.user_id, period=standing.span.period, starts_at=standing.span.start, told__lt=percent
    )
    if not row.update(told=percent):
        return
    action = "budget.spent" if percent == FULL else "budget.near"
    facts = {
        "subject": standing.subject,
        "user_id": standing.user_id,
        "period": standing.span.period,
        "percent": standing.percent,
        "limit_usd": f"{standing.limit:f}",
        "spent_usd": f"{standing.spent:f}",
        "resets_at": standing.span.end.isoformat(),
    }
    record_event(action=action, detail=facts)
    BUDGETS.labels("spent" if percent == FULL else "near").inc()
    logger.warning(action, **facts)


def clear_reservations() -> int:
    """Removes what holds no longer, and periods that are long over; in the scope of a tenant.

    What was never settled is told, and is no row of the ledger: nobody knows what it has cost, if anything. See
    docs/decisions/0007-money-is-reserved.md.
    """
    now = timezone.now()
    lost = Reservation.objects.filter(expires_at__lt=now - HOLDS)
    most = lost.aggregate(sum=Sum("amount_usd"))["sum"]
    gone, _ = lost.delete()
    if gone:
        BUDGETS.labels("lost").inc(gone)
        logger.warning(
            "calls of a process that died are not in the ledger", questions=gone, most_usd=f"{most:f}"
        )
    Spending.objects.filter(ends_at__lt=now - timedelta(days=100)).delete()
    return int(gone)
