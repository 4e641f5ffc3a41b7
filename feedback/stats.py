"""What the questions of a period come to, counted from the rows: answers, the ledger and ratings."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Aggregate, Avg, Count, FloatField, Q, Sum

from feedback.models import Feedback
from knowledge.models import Answer
from tenants.models import UsageRecord

CONTENT_FROM = 4  # stars


class Percentile(Aggregate):
    """PostgreSQL's ``percentile_cont``: linear interpolation between the two nearest."""

    function = "PERCENTILE_CONT"
    template = "%(function)s(%(share)s) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()

    def __init__(self, field: str, share: float, **extra: Any) -> None:
        super().__init__(field, share=share, **extra)


@dataclass(frozen=True)
class Stats:
    """Shares are between 0 and 1, and ``None`` where there is nothing to take them of; latencies are milliseconds."""

    start: datetime
    end: datetime
    answers: dict[str, Any]
    ledger: dict[str, Any]
    ratings: dict[str, Any]
    caches: dict[str, int]

    def show(self) -> dict[str, Any]:
        queries = self.answers["queries"]
        ended = queries - self.answers["failed"]
        hours = max((self.end - self.start) / timedelta(hours=1), 1e-9)
        misses = self.caches.get("miss", 0)
        hits = sum(self.caches.values()) - misses
        return {
            "from": self.start,
            "to": self.end,
            "queries": queries,
            "failed": self.answers["failed"],
            "queries_per_hour": round(queries / hours, 4),
            "latency_ms": {name: self.answers[name] for name in ("average", "p50", "p95", "p99")},
            "empty_rate": _share(self.answers["empty"], ended),
            "tokens": {
                name: self.ledger[name] or 0 for name in ("input", "output", "cache_read", "cache_write")
            },
            "calls": self.ledger["calls"],
            "cost": self.ledger["cost"] or Decimal(0),
            "satisfaction": _share(self.ratings["content"], self.ratings["count"]),
            "ratings": self.ratings["count"],
            "average_rating": self.ratings["average"],
            "cache": {
                "hits": hits,
                "misses": misses,
                "hit_rate": _share(hits, hits + misses),
                "by_kind": {kind: count for kind, count in sorted(self.caches.items()) if kind != "miss"},
            },
        }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def summarise_answers(*, start: datetime, end: datetime) -> Stats:
    """The questions that were asked, the calls that were made and the ratings that were given in ``[start, end)``.

    An answer that was stopped or failed counts as a query and is in no latency, no rate of empty answers and no rate of
    the cache. A rating is content that says “helpful” or gives four stars or more.
    """
    within = Q(created_at__gte=start, created_at__lt=end)
    ended = ~Q(status__in=Answer.BROKEN)
    answers = Answer.objects.filter(within).order_by()
    figures = answers.aggregate(
        queries=Count("pk"),
        failed=Count("pk", filter=~ended),
        empty=Count("pk", filter=ended & Q(answered=False)),
        average=Avg("latency_ms", filter=ended),
        **{f"p{n}": Percentile("latency_ms", n / 100, filter=ended) for n in (50, 95, 99)},
    )
    caches = answers.filter(ended).values_list("cache").annotate(count=Count("pk"))
    ledger = (
        UsageRecord.objects.filter(within)
        .order_by()
        .aggregate(
            calls=Count("pk"),
            cost=Sum("cost_usd"),
            **{name: Sum(f"{name}_tokens") for name in ("input", "output", "cache_read", "cache_write")},
        )
    )
    ratings = (
        Feedback.objects.filter(within)
        .order_by()
        .aggregate(
            count=Count("pk", filter=Q(helpful__isnull=False) | Q(rating__isnull=False)),
            content=Count("pk", filter=Q(helpful=True) | Q(helpful__isnull=True, rating__gte=CONTENT_FROM)),
            average=Avg("rating"),
        )
    )
    return Stats(start, end, figures, ledger, ratings, dict(caches))
