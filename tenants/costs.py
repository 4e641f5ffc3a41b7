"""The cost ledger as pages show it: totals, days, models, people, and the calls themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from tenants.models import UsageRecord
from tenants.paging import NEWEST, Place, rows_after
from tenants.periods import Days
from tenants.usage import ZERO

NOBODY = "-"  # stands for calls of no user: a removed one, or the system
GROUPS = 50  # models or people listed by name; the others are told together
EXPORT_BATCH = 500


@dataclass(frozen=True)
class Asked:
    """Which calls: of a period, one user's (``-``: nobody's), one model's."""

    days: Days
    user: str = ""
    model: str = ""


@dataclass(frozen=True)
class Totals:
    """``cost`` is of the priced calls; ``unpriced`` counts those without a price."""

    calls: int
    requests: int
    failed: int
    unpriced: int
    cost: Decimal
    input_tokens: int
    output_tokens: int

    @property
    def each(self) -> Decimal:
        """US dollars for each request that called a model."""
        return self.cost / self.requests if self.requests else ZERO


@dataclass(frozen=True)
class Group:
    """The calls of one day, model or person."""

    name: str
    calls: int
    cost: Decimal
    unpriced: int
    input_tokens: int
    output_tokens: int


_SUMS = {
    "calls": Count("id"),
    "cost": Sum("cost_usd"),
    "unpriced": Count("id", filter=Q(cost_usd=None)),
    "tokens_in": Sum("input_tokens"),
    "tokens_out": Sum("output_tokens"),
}


def calls_of(asked: Asked) -> "QuerySet[UsageRecord]":
    """The calls of the tenant in force that are asked for."""
    rows: QuerySet[UsageRecord] = UsageRecord.objects.filter(
        created_at__gte=asked.days.start, created_at__lt=asked.days.end
    )
    if asked.user:
        rows = rows.filter(user=None) if asked.user == NOBODY else rows.filter(user__username=asked.user)
    return rows.filter(model=asked.model) if asked.model else rows


def total(rows: "QuerySet[UsageRecord]") -> Totals:
    found = rows.aggregate(
        **_SUMS,
        requests=Count("request_id", distinct=True),
        failed=Count("id", filter=~Q(status="success")),
    )
    return Totals(
        calls=found["calls"],
        requests=found["requests"],
        failed=found["failed"],
        unpriced=found["unpriced"],
        cost=found["cost"] or ZERO,
        input_tokens=found["tokens_in"] or 0,
        output_tokens=found["tokens_out"] or 0,
    )


def cost_between(start: datetime, end: datetime) -> Decimal:
    rows = UsageRecord.objects.filter(created_at__gte=start, created_at__lt=end)
    cost: Decimal | None = rows.aggregate(cost=Sum("cost_usd"))["cost"]
    return cost or ZERO


def _group(row: Any, name: str) -> Group:
    return Group(
        name=name,
        calls=row["calls"],
        cost=row["cost"] or ZERO,
        unpriced=row["unpriced"],
        input_tokens=row["tokens_in"] or 0,
        output_tokens=row["tokens_out"] or 0,
    )


def by_day(rows: "QuerySet[UsageRecord]", days: Days) -> list[tuple[date, Group]]:
    """Every day of the period in the time zone in force, those without calls too; oldest first."""
    zone = timezone.get_current_timezone()
    found = rows.order_by().values(day=TruncDate("created_at", tzinfo=zone)).annotate(**_SUMS)
    groups = {row["day"]: _group(row, row["day"].isoformat()) for row in found}
    empty = {"calls": 0, "cost": None, "unpriced": 0, "tokens_in": 0, "tokens_out": 0}
    return [(day, groups.get(day) or _group(empty, day.isoformat())) for day in days]


def by_field(rows: "QuerySet[UsageRecord]", field: str) -> tuple[list[Group], int]:
    """The costliest groups of ``model`` or ``user__username``, and how many more there are."""
    found = (
        rows.order_by()
        .values(field)
        .annotate(**_SUMS)
        .order_by(F("cost").desc(nulls_last=True), "-calls", field)
    )
    groups = [_group(row, row[field] or NOBODY) for row in found]
    return groups[:GROUPS], max(0, len(groups) - GROUPS)


def stream_calls(rows: "QuerySet[UsageRecord]") -> Iterator[UsageRecord]:
    """Every call, newest first, in bounded memory."""
    place: Place | None = None
    while True:
        batch = list(rows_after(rows.select_related("user"), NEWEST, place)[:EXPORT_BATCH])
        yield from batch
        if len(batch) < EXPORT_BATCH:
            return
        place = (batch[-1].created_at, batch[-1].pk)
