"""What members think of the answers: figures by day for the home page of the admin, in the scope of the tenant."""

from dataclasses import dataclass

from django.db.models import Avg, Count, Q

from feedback.models import DocumentRequest, Feedback, Review
from feedback.review import WAITING
from tenants.admin_periods import number_of_day
from tenants.periods import Days

WAITING_UP_TO = 1_000


@dataclass(frozen=True)
class RatingDay:
    """One day's ratings. ``voted`` said whether the answer was helpful, ``rated`` gave a number."""

    helpful: int = 0
    voted: int = 0
    rated: int = 0
    average: float | None = None

    @property
    def helpful_share(self) -> float | None:
        return self.helpful / self.voted if self.voted else None


@dataclass(frozen=True)
class Satisfaction:
    days: list[RatingDay]
    total: RatingDay


def satisfaction(days: Days) -> Satisfaction:
    """The ratings given on these days."""
    rows = (
        Feedback.objects.filter(created_at__gte=days.start, created_at__lt=days.end)
        .order_by()
        .annotate(day=number_of_day("created_at", days))
        .values("day")
        .annotate(
            yes=Count("pk", filter=Q(helpful=True)),
            voted=Count("pk", filter=Q(helpful__isnull=False)),
            rated=Count("rating"),
            average=Avg("rating"),
        )
    )
    found = {row["day"]: RatingDay(row["yes"], row["voted"], row["rated"], row["average"]) for row in rows}
    by_day = [found.get(number, RatingDay()) for number in range(1, len(days) + 1)]
    rated = sum(day.rated for day in by_day)
    stars = sum((day.average or 0) * day.rated for day in by_day)
    total = RatingDay(
        sum(day.helpful for day in by_day),
        sum(day.voted for day in by_day),
        rated,
        stars / rated if rated else None,
    )
    return Satisfaction(by_day, total)


@dataclass(frozen=True)
class Waiting:
    """What waits for a person, counted no further than anybody reads."""

    reviews: int
    requests: int


def waiting_work() -> Waiting:
    reviews = Review.objects.filter(status__in=WAITING).order_by()[:WAITING_UP_TO].count()
    requests = DocumentRequest.objects.filter(status=DocumentRequest.Status.OPEN).order_by()
    return Waiting(reviews, requests[:WAITING_UP_TO].count())
