"""How current a tenant's index is, as far as is known here."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from knowledge.models import Document, Job, Source
from knowledge.schedules import next_runs
from ragsite.core.problems import Problem

# A run may take a moment to begin, and to end.
GRACE = timedelta(minutes=1)


@dataclass(frozen=True)
class OverdueSource:
    """A source whose schedule has passed since it was synchronised last.

    ``since`` is when it was due first: changes there may be unseen since ``synced_at`` at the earliest.
    """

    source: Source
    since: datetime
    synced_at: datetime | None


@dataclass(frozen=True)
class Freshness:
    """What is known to wait.

    Attributes:
        waiting: documents that were taken in and are not indexed yet.
        oldest: since when the oldest known change is not in the index; ``None``: nothing waits.
        overdue: sources that should have been looked at.
    """

    waiting: int
    oldest: datetime | None
    overdue: list[OverdueSource]

    def age(self, *, now: datetime | None = None) -> timedelta:
        """The age of the oldest unsynced change."""
        return (now or timezone.now()) - self.oldest if self.oldest else timedelta(0)


def read_freshness(*, now: datetime | None = None) -> Freshness:
    """The freshness of the tenant in force: uploads that wait, jobs that run or wait, schedules that were missed."""
    now = now or timezone.now()
    jobs = Job.objects.filter(state__in=[Job.State.PENDING, Job.State.PROGRESS])
    pending = Document.objects.filter(status=Document.Status.PENDING, deleted_at__isnull=True)
    overdue = [
        found
        for source in Source.objects.filter(enabled=True).exclude(schedule="").defer("state")
        if (found := _overdue(source, now)) is not None
    ]
    moments = [
        jobs.order_by("created_at").values_list("created_at", flat=True).first(),
        pending.order_by("created_at").values_list("created_at", flat=True).first(),
        *(each.since for each in overdue),
    ]
    return Freshness(
        waiting=pending.count()
        + Document.objects.filter(deleted_at__isnull=True)
        .exclude(pending_name="")
        .exclude(status=Document.Status.PENDING)
        .count(),
        oldest=min((moment for moment in moments if moment is not None), default=None),
        overdue=overdue,
    )


def _overdue(source: Source, now: datetime) -> OverdueSource | None:
    after = source.last_synced_at or source.created_at
    try:
        due = next_runs(source.schedule, time_zone=source.time_zone, after=after)
    except Problem:
        return None  # a schedule of an older version, which the source's page complains of
    if not due or due[0] + GRACE > now:
        return None
    return OverdueSource(source=source, since=due[0], synced_at=source.last_synced_at)
