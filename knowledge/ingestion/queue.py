"""Whose turn it is: jobs of every tenant, small before large, nobody before their turn.

A message wakes a worker; which job it takes up is decided here, when it is free. So the order of the messages does not
matter, and a tenant with a hundred thousand documents waits like everybody else once its turn is over. Listing a source is
not interrupted: until it is done, which of a large web site takes up to 50 minutes, its worker serves nobody else.
"""

import time
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import Case, Exists, F, IntegerField, OuterRef, Q, Subquery, Value, When
from django.utils import timezone

from knowledge.ingestion.job_run import JobGivesWay, JobRun
from knowledge.models import Job
from ragsite.core.config import config
from tenants.models import Tenant
from tenants.scope import unscoped

# A single document goes before work on many; which does not wait for longer than this.
PATIENCE = timedelta(seconds=60)
LOOK_SECONDS = 2.0
# Looking through the source again costs at most this share of a turn.
LISTING_SHARE = 0.2
# A turn ends so long before Celery would end it, whether anybody waits or not; and so long after listing at the earliest.
MARGIN_SECONDS = 300.0
LEAST_SECONDS = 200.0


def _due(now: datetime) -> Q:
    return Q(state=Job.State.PENDING) & (Q(not_before__isnull=True) | Q(not_before__lte=now))


def _first_class(now: datetime) -> Q:
    return Q(document__isnull=False) | Q(waiting_since__lt=now - PATIENCE)


def next_job() -> tuple[UUID, UUID] | None:
    """``(tenant, job)`` of who is to be served now: of the tenants with small or patient work the one served longest ago."""
    now = timezone.now()
    with unscoped(reason="choose the next job"):
        waiting = Job.objects.filter(_due(now), tenant=OuterRef("pk"))
        served = Job.objects.filter(tenant=OuterRef("pk"), served_at__isnull=False).order_by("-served_at")
        turn = (
            Tenant.objects.filter(Exists(waiting))
            .annotate(
                small=Exists(waiting.filter(_first_class(now))),
                served=Subquery(served.values("served_at")[:1]),
            )
            .order_by("-small", F("served").asc(nulls_first=True), "pk")
            .values_list("pk", flat=True)
            .first()
        )
        if turn is None:
            return None
        rank = Case(When(_first_class(now), then=Value(0)), default=Value(1), output_field=IntegerField())
        jobs = Job.objects.filter(_due(now), tenant_id=turn).annotate(rank=rank)
        job = jobs.order_by("rank", "waiting_since", "id").values_list("pk", flat=True).first()
    return (turn, job) if job else None


def _others_wait(job: Job) -> bool:
    """Whether anybody would be served if this job gave way now."""
    now = timezone.now()
    # Not at once: another worker may be free for it.
    waiting = Q(waiting_since__lt=now - timedelta(seconds=LOOK_SECONDS))
    with unscoped(reason="choose the next job"):
        return bool(Job.objects.filter(_due(now), waiting).exclude(pk=job.pk).exists())


class Turn:
    """A long job's time until it gives way; looked at between documents, and between batches of their vectors."""

    def __init__(self, run: JobRun) -> None:
        self._run = run
        self._begun = time.monotonic()
        self._ends = self._begun + config().ingest_turn_seconds
        self._last = self._begun + settings.CELERY_TASK_SOFT_TIME_LIMIT - MARGIN_SECONDS
        self._looked = 0.0

    def has_listed(self) -> None:
        """The source is listed: a job that gives way has to do that again, so the turn is long enough to be worth it."""
        now = time.monotonic()
        self._ends = max(self._ends, now + (now - self._begun) / LISTING_SHARE)
        self._last = max(self._last, now + LEAST_SECONDS)

    def give_way(self) -> None:
        """
        Raises:
            JobGivesWay: the turn is over and somebody waits, or as ``end_in_time``.
        """
        self.end_in_time()
        now = time.monotonic()
        if now < self._ends or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if _others_wait(self._run.job):
            raise JobGivesWay

    def end_in_time(self) -> None:
        """
        Raises:
            JobGivesWay: Celery's limit is near; what is done stays, and another task goes on.
        """
        if time.monotonic() >= self._last:
            raise JobGivesWay


def queue_depths() -> dict[str, int]:
    """How many jobs wait in all tenants: ``documents`` single ones, ``bulk`` syncs and re-indexing."""
    with unscoped(reason="measure the queue"):
        waiting = Job.objects.filter(state=Job.State.PENDING)
        return {
            "documents": waiting.filter(document__isnull=False).count(),
            "bulk": waiting.filter(document__isnull=True).count(),
        }
