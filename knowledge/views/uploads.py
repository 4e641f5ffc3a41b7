"""Where uploads stand: the rows of a batch, and how many are done."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, F, Q, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import ngettext

from knowledge.documents import UPLOADS
from knowledge.ingestion.parse import SUPPORTED_EXTENSIONS
from knowledge.models import Collection, Document, Job
from knowledge.views.forms import offer_tags
from knowledge.views.listing import offered_tags
from knowledge.views.shown_jobs import ShownJob, show_jobs
from ragsite.core.config import config
from tenants.access import Principal
from tenants.models import Membership

LATEST = 10
MOST_ROWS = 200
SLACK = timedelta(seconds=3)  # between this clock and a worker's
LONGEST = timedelta(days=1)
UNFINISHED = (Job.State.PENDING, Job.State.PROGRESS)


def own_uploads(membership: Membership) -> QuerySet[Any]:
    """The jobs of documents that the member uploaded and reads."""
    visible = Document.objects.visible_to(membership)
    jobs: QuerySet[Any] = Job.objects.filter(
        tenant_id=membership.tenant_id, user_id=membership.user_id, kind=Job.Kind.DOCUMENT
    ).filter(document__in=visible.values("pk"))
    return jobs


def upload_context(principal: Principal, *, collections: list[Collection]) -> dict[str, Any]:
    """What the form for uploads shows."""
    membership = principal.membership
    latest = list(own_uploads(membership).order_by("-created_at", "-id")[:LATEST])
    waiting = [job.created_at for job in latest if not job.is_finished]
    now = timezone.now()
    return {
        "upload_collections": [c for c in collections if c.slug != UPLOADS],
        "upload_tags": offer_tags(offered_tags(membership), ()),
        "uploads": show_jobs(latest, principal),
        "progress": progress_of([], since=min([now, *waiting]), now=now, busy=bool(waiting)),
        "endings": ",".join(sorted(SUPPORTED_EXTENSIONS)),
        "megabytes": config().max_upload_bytes // 2**20,
        "max_bytes": config().max_upload_bytes,
    }


def progress_of(
    rows: list[ShownJob], *, since: datetime, now: datetime, busy: bool, counts: dict[str, int] | None = None
) -> dict[str, Any]:
    """What the polled part of the page shows, and the address it asks next."""
    query = {"since": since.isoformat(), "after": now.isoformat()} | ({"busy": "1"} if busy else {})
    return {
        "rows": rows,
        "busy": busy,
        "words": describe_counts(**counts) if counts else "",
        "path": f"{reverse('upload-progress')}?{urlencode(query)}",
    }


def describe_counts(*, done: int, waiting: int, failed: int) -> str:
    """How a batch stands, in one line."""
    parts = (
        (done, ngettext("%(n)d can be asked about", "%(n)d can be asked about", done)),
        (waiting, ngettext("%(n)d in work", "%(n)d in work", waiting)),
        (failed, ngettext("%(n)d failed", "%(n)d failed", failed)),
    )
    return " · ".join(words % {"n": n} for n, words in parts if n)


def read_progress(principal: Principal, *, since: str, after: str) -> dict[str, Any]:
    """What has changed of one's uploads.

    Args:
        since: when the batch began (ISO 8601); uploads before it are not told of.
        after: when this was asked the last time.
    """
    now = timezone.now()
    begin = max(_moment(since, otherwise=now), now - LONGEST)
    seen = max(_moment(after, otherwise=now), begin) - SLACK
    jobs = own_uploads(principal.membership).filter(created_at__gte=begin)
    counts: dict[str, int] = jobs.aggregate(
        done=Count("pk", filter=Q(state=Job.State.SUCCESS)),
        waiting=Count("pk", filter=Q(state__in=UNFINISHED)),
        failed=Count("pk", filter=Q(state__in=[Job.State.FAILURE, Job.State.CANCELLED])),
    )
    changed = jobs.filter(Q(state=Job.State.PROGRESS) | Q(finished_at__gte=seen)).order_by(
        F("finished_at").asc(nulls_last=True)
    )[:MOST_ROWS]
    rows = show_jobs(list(changed), principal)
    return progress_of(
        rows,
        since=begin,
        # Where more has changed than one answer tells, the next one begins where this one ended.
        now=rows[-1].job.finished_at or now if len(rows) == MOST_ROWS else now,
        busy=bool(counts["waiting"]),
        counts=counts,
    )


def _moment(text: str, *, otherwise: datetime) -> datetime:
    try:
        found = parse_datetime(text)
    except ValueError:
        return otherwise
    return found if found is not None and found.tzinfo is not None else otherwise


def upload_row(request: HttpRequest, principal: Principal, job: Job) -> str:
    """The row of one upload."""
    shown = show_jobs([job], principal)[0]
    return render_to_string("knowledge/manage/_upload_row.html", {"row": shown}, request=request)
