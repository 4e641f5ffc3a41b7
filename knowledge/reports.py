"""What a tenant's questions come to: figures by day for the home page of the admin, in the scope of the tenant.

With a million answers a page must not walk over their rows. They are counted from one index alone
(``answers_figures``), latencies as a histogram, and a day that is over, whose answers never change, is counted once. What
they cost is the ledger's to say: it has the calls that belong to no answer, too.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any

from django.db.models import Count, Exists, F, FloatField, Func, IntegerField, OuterRef, Q, Sum, Value
from django.db.models.functions import Coalesce, Greatest, Ln
from django.utils import timezone
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from knowledge.answering.layers import tenant_prefix
from knowledge.models import Answer, Document, Job
from tenants.admin_periods import number_of_day
from tenants.costs import Asked, by_day, calls_of
from tenants.models import Membership
from tenants.periods import Days, day_start
from tenants.scope import require_tenant_id

# The histogram's bins are 5 % wide, from a millisecond to twenty minutes.
LOWEST, HIGHEST, BINS = 0.0, 14.0, 280
WIDTH = (HIGHEST - LOWEST) / BINS
# Answers of a day may still be stored right after its end.
SETTLED_AFTER = timedelta(minutes=10)
REMEMBERED_SECONDS = 7 * 24 * 3600
COUNTED = ("questions", "cached", "missed", "failed", "unanswered")


@dataclass(frozen=True)
class AnswerDay:
    """One day's questions.

    ``cached``, ``missed`` (the documents did not say) and ``failed`` (stopped by the reader, too) part them by how they
    ended, the rest was answered; ``unanswered`` are those without an answer, repeated from the cache or not.
    ``cost`` is that of all calls of the day, renewals of cached answers among them. ``histogram`` counts latencies by the
    number of their bin.
    """

    questions: int = 0
    users: int = 0
    cost: Decimal = Decimal(0)
    cached: int = 0
    missed: int = 0
    failed: int = 0
    unanswered: int = 0
    histogram: dict[int, int] = field(default_factory=dict)

    def latency(self, share: float) -> float | None:
        return quantile(self.histogram, share)

    def to_json(self) -> str:
        counts = [getattr(self, name) for name in COUNTED]
        return json.dumps([counts, self.users, str(self.cost), list(self.histogram.items())])

    @classmethod
    def from_json(cls, text: bytes | str) -> "AnswerDay":
        counts, users, cost, histogram = json.loads(text)
        named = dict(zip(COUNTED, counts, strict=True))
        return cls(users=users, cost=Decimal(cost), histogram=dict(histogram), **named)


@dataclass(frozen=True)
class AnswerFigures:
    """The days in order, and what they come to. ``active`` counts members who asked, each once."""

    days: list[AnswerDay]
    active: int

    @property
    def total(self) -> AnswerDay:
        histogram: Counter[int] = Counter()
        for day in self.days:
            histogram.update(day.histogram)
        return AnswerDay(
            cost=sum((day.cost for day in self.days), Decimal(0)),
            histogram=dict(histogram),
            **{name: sum(getattr(day, name) for day in self.days) for name in COUNTED},
        )


def quantile(histogram: dict[int, int], share: float) -> float | None:
    """The latency in milliseconds below which ``share`` of the counted lie, by linear interpolation within its bin."""
    total = sum(histogram.values())
    if not total:
        return None
    wanted, seen = share * total, 0
    for number in sorted(histogram):
        count = histogram[number]
        if seen + count >= wanted:
            within = (wanted - seen) / count
            return math.exp(LOWEST + (number - 1 + within) * WIDTH)
        seen += count
    return math.exp(HIGHEST)


def answer_figures(days: Days) -> AnswerFigures:
    """The figures of some days of the tenant in force."""
    known = _remembered(days)
    missing = [day for day in days if day not in known]
    if missing:  # counted at once, from the first of them on
        counted = _count_days(Days(missing[0], days.last))
        _remember(counted)
        known |= counted
    return AnswerFigures([known[day] for day in days], _active_members(days))


def _answers_on(days: Days) -> Any:
    return Answer.objects.filter(created_at__gte=days.start, created_at__lt=days.end).order_by()


def _count_days(days: Days) -> dict[date, AnswerDay]:
    rows = _answers_on(days).annotate(day=number_of_day("created_at", days))
    # Not “*”, which takes no filter, nor the id, which the index has not.
    bins = (
        rows.annotate(
            bin=Func(
                Ln(Greatest(F("latency_ms"), Value(1.0), output_field=FloatField())),
                Value(LOWEST),
                Value(HIGHEST),
                Value(BINS),
                function="WIDTH_BUCKET",
                output_field=IntegerField(),
            )
        )
        .values("day", "bin")
        .annotate(
            questions=Count("*"),
            cached=Count("created_at", filter=Q(status="cached")),
            missed=Count("created_at", filter=Q(status="unanswered")),
            failed=Count("created_at", filter=Q(status__in=Answer.BROKEN)),
            unanswered=Count("created_at", filter=Q(answered=False) & ~Q(status__in=Answer.BROKEN)),
        )
    )
    users: Counter[int] = Counter(day for day, _user in rows.values_list("day", "user_id").distinct())
    found = {
        number: _day_of(list(of_day), users=users[number])
        for number, of_day in groupby(sorted(bins, key=lambda row: row["day"]), key=lambda row: row["day"])
    }
    spent = by_day(calls_of(Asked(days=days)), days)
    return {
        day: replace(found.get(number, AnswerDay()), cost=calls.cost)
        for number, (day, calls) in enumerate(spent, start=1)
    }


def _day_of(bins: list[dict[str, Any]], *, users: int) -> AnswerDay:
    return AnswerDay(
        users=users,
        histogram={row["bin"]: row["questions"] for row in bins},
        **{name: sum(row[name] for row in bins) for name in COUNTED},
    )


def _active_members(days: Days) -> int:
    """By a look at the newest answers of each member, which one index holds, not by a walk over all of them."""
    asked = _answers_on(days).filter(user_id=OuterRef("user_id"))
    count: int = Membership.objects.filter(Exists(asked)).count()
    return count


def _key(day: date) -> str:
    zone = timezone.get_current_timezone_name()
    return f"{tenant_prefix(require_tenant_id())}answers-of-day:2:{zone}:{day}"


def _remembered(days: Days) -> dict[date, AnswerDay]:
    try:
        stored = get_redis_connection("default").mget([_key(day) for day in days])
    except (RedisError, OSError):
        return {}  # counted again: slower, not wrong
    return {day: AnswerDay.from_json(text) for day, text in zip(days, stored, strict=True) if text}


def _remember(days: dict[date, AnswerDay]) -> None:
    settled = timezone.now() - SETTLED_AFTER
    try:
        pipeline = get_redis_connection("default").pipeline(transaction=False)
        for day, found in days.items():
            if day_start(day + timedelta(days=1)) <= settled:
                pipeline.set(_key(day), found.to_json(), ex=REMEMBERED_SECONDS)
        pipeline.execute()
    except (RedisError, OSError):
        return  # as above


@dataclass(frozen=True)
class JobDay:
    finished: int = 0
    failed: int = 0


def job_days(days: Days) -> list[JobDay]:
    """Jobs by the day they were made; ``failed`` are those that ended in failure."""
    rows = (
        Job.objects.filter(created_at__gte=days.start, created_at__lt=days.end)
        .order_by()
        .annotate(day=number_of_day("created_at", days))
        .values("day")
        .annotate(
            finished=Count("pk", filter=Q(state=Job.State.SUCCESS)),
            failed=Count("pk", filter=Q(state=Job.State.FAILURE)),
        )
    )
    found = {row["day"]: JobDay(row["finished"], row["failed"]) for row in rows}
    return [found.get(number, JobDay()) for number in range(1, len(days) + 1)]


@dataclass(frozen=True)
class IndexSize:
    """What is searched, and the size of the originals in bytes."""

    documents: int
    chunks: int
    size: int
    failed: int


def index_size() -> IndexSize:
    """From the documents, which know the number of their chunks; those are not counted one by one."""
    found = Document.objects.filter(deleted_at__isnull=True).aggregate(
        documents=Count("pk", filter=Q(status=Document.Status.INDEXED)),
        failed=Count("pk", filter=Q(status=Document.Status.FAILED)),
        chunks=Coalesce(Sum("chunk_count"), 0),
        size=Coalesce(Sum("size"), 0),
    )
    return IndexSize(**found)
