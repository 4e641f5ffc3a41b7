"""Jobs: made, claimed, reported on, cancelled, taken over from the dead."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from knowledge.ingestion.dead_letters import bury_job
from knowledge.ingestion.job_run import JobCancelled as JobCancelled  # where work is claimed it is ended, too
from knowledge.ingestion.job_run import JobGivesWay as JobGivesWay
from knowledge.ingestion.job_run import JobLost as JobLost
from knowledge.ingestion.job_run import JobRun
from knowledge.ingestion.storage import delete_original
from knowledge.models import Collection, Document, Job, Source
from ragsite.core.observability import current_request_id
from ragsite.core.problems import Problem
from tenants.models import User
from tenants.scope import atomic, on_commit, unscoped

STALE_AFTER = timedelta(seconds=15)
# A message is taken for lost after the first time where nobody has taken up any job lately, after the second anyway.
UNHEARD_AFTER = timedelta(seconds=10)
UNSTARTED_AFTER = timedelta(minutes=2)
MAX_ATTEMPTS = 3
MAX_BULK_ATTEMPTS = (
    6  # of a job of many documents, of which the one that kills its worker is passed over meanwhile
)
SENT_AT_ONCE = 50
UNFINISHED = (Job.State.PENDING, Job.State.PROGRESS)
_SPENT = Q(kind=Job.Kind.DOCUMENT, attempts__gte=MAX_ATTEMPTS) | Q(attempts__gte=MAX_BULK_ATTEMPTS)
# What a resumed job counts afresh, from what it finds done; the rest of its result stays.
COUNTED_AFRESH = ("added", "changed", "failed", "expired", "skipped")


def create_job(
    *,
    kind: str,
    user: User | None = None,
    document: Document | None = None,
    source: Source | None = None,
    collection: Collection | None = None,
    callback_url: str = "",
    request: dict[str, Any] | None = None,
) -> Job:
    """A job row, and its task once the transaction commits; of a source the sync that waits or runs already, if any.

    Args:
        callback_url: told when it has ended; empty: its source's, if that has one.
    """
    if kind == Job.Kind.SYNC:
        assert source is not None
        return start_sync_job(source=source, user=user, callback_url=callback_url)[0]
    told = callback_url or (source.callback_url if source is not None and kind != Job.Kind.REINDEX else "")
    job: Job = Job.objects.create(
        kind=kind,
        user=user,
        document=document,
        source=source,
        collection=collection,
        request=request or {},
        step="waiting",
        callback_url=told,
        callback_state=Job.CallbackState.PENDING if told else Job.CallbackState.NONE,
    )
    _send(job)
    return job


def _send(job: Job) -> None:
    from knowledge.tasks import run_job

    run_job.enqueue_on_commit(job_id=str(job.pk))


def start_sync_job(
    *, source: Source, user: User | None = None, follow: bool = False, callback_url: str = ""
) -> tuple[Job, bool]:
    """A new job that synchronises a source, or the one that waits or runs already, and whether it is new.

    Args:
        callback_url: told when a new one has ended; empty: the source's, if it has one.
        follow: something has changed just now: a job that runs, and may have looked before, is followed by another.
    """
    told = callback_url or source.callback_url
    while True:
        job = Job(
            kind=Job.Kind.SYNC,
            user=user,
            source=source,
            step="waiting",
            callback_url=told,
            callback_state=Job.CallbackState.PENDING if told else Job.CallbackState.NONE,
        )
        with atomic():
            # Nobody else can insert one meanwhile: the database allows one unfinished sync of a source.
            Job.objects.bulk_create([job], ignore_conflicts=True)
            if Job.objects.filter(pk=job.pk).exists():
                _send(job)
                return job, True
        busy: Job | None = Job.objects.filter(kind=Job.Kind.SYNC, source=source, state__in=UNFINISHED).first()
        if busy is None:
            continue  # it has ended this moment
        runs = Job.objects.filter(pk=busy.pk, state=Job.State.PROGRESS)
        if follow and busy.state == Job.State.PROGRESS and not runs.update(again=True):
            continue  # it has ended this moment, or waits again
        return busy, False


def cancel_job(*, job: Job) -> Job:
    """Ends a waiting job at once, asks a running one to end, which it does within two seconds.

    Raises:
        Problem: 409 for a job that has ended.
    """
    now = timezone.now()
    ended = Job.objects.filter(pk=job.pk, state=Job.State.PENDING).update(
        state=Job.State.CANCELLED, cancel_requested=True, step="cancelled", finished_at=now
    )
    if ended:
        _fail_waiting_document(job, "Indexing was cancelled.")
        forget_new_content(job=job)
    elif not Job.objects.filter(pk=job.pk, state=Job.State.PROGRESS).update(cancel_requested=True):
        raise Problem(409, "finished", "This job has ended already.")
    job.refresh_from_db()
    return job


def retry_job(*, job: Job, user: User | None = None) -> Job:
    """The same work as a new job.

    Raises:
        Problem: 409 while the job has not ended, or another one synchronises the source.
    """
    if not job.is_finished:
        raise Problem(409, "not-finished", "This job has not ended yet: cancel it first, or wait.")
    if job.kind == Job.Kind.SYNC and job.source is not None:
        again, is_new = start_sync_job(source=job.source, user=user)
        if not is_new:
            raise Problem(409, "not-finished", "This source is being synchronised already: wait for that.")
        return again
    return create_job(
        kind=job.kind,
        user=user,
        document=job.document,
        source=job.source,
        collection=job.collection,
        request=job.request,
    )


def _fail_waiting_document(job: Job, reason: str) -> None:
    if job.document_id:
        Document.objects.filter(pk=job.document_id, status=Document.Status.PENDING).update(
            status=Document.Status.FAILED, error=reason
        )


def forget_new_content(*, job: Job) -> None:
    """Drops content that was never indexed of a document that has older content, which goes on answering.

    Not while a later job is there to index it; and not of a document that has nothing else, so that it can be retried.
    """
    if not job.document_id:
        return
    with atomic():
        document = Document.objects.select_for_update().without_text().filter(pk=job.document_id).first()
        if document is None or not document.pending_name or not document.stored_name:
            return
        # An earlier one that still runs was about what this content has replaced.
        later = Job.objects.filter(
            document_id=document.pk, state__in=UNFINISHED, created_at__gt=job.created_at
        )
        if later.exists():
            return
        tenant_id, name = document.tenant_id, document.pending_name
        Document.objects.filter(pk=document.pk).update(pending_name="", pending_uri="")
        if name != document.stored_name:
            on_commit(lambda: delete_original(tenant_id=tenant_id, stored_name=name))


@contextmanager
def claim_job(*, job_id: str | uuid.UUID) -> Iterator[JobRun | None]:
    """Claims a waiting job, or one whose worker has died; ``None`` when there is nothing to do.

    Meanwhile a thread keeps the heartbeat, so that long parsing is not taken for death.
    """
    run = _claim(job_id)
    if run is None:
        yield None
        return
    run.watch()
    try:
        yield run
    finally:
        run.leave()


def _claim(job_id: str | uuid.UUID) -> JobRun | None:
    token, now = uuid.uuid4(), timezone.now()
    before = Job.objects.filter(pk=job_id).values("state", "at", "suspects", "result").first()
    if before is None:
        return None
    abandoned = Q(state=Job.State.PROGRESS) & (
        Q(heartbeat_at__isnull=True) | Q(heartbeat_at__lt=now - STALE_AFTER)
    )
    result = before["result"] or {}
    for part in ("totals", "changes"):
        for kind in COUNTED_AFRESH:
            result.get(part, {}).pop(kind, None)
    suspects = before["suspects"]
    if before["state"] == Job.State.PROGRESS and before["at"]:
        suspects[before["at"]] = suspects.get(before["at"], 0) + 1
    claimed = Job.objects.filter(Q(state=Job.State.PENDING) | abandoned, ~_SPENT, pk=job_id).update(
        state=Job.State.PROGRESS,
        run=token,
        trace_id=current_request_id(),
        started_at=Coalesce("started_at", Value(now)),
        served_at=now,
        heartbeat_at=now,
        not_before=None,
        attempts=F("attempts") + 1,
        at="",
        suspects=suspects,
        error="",
        seen=0,
        changed=0,
        unchanged=0,
        failed=0,
        progress=0,
        errors=[],
        result=result or None,
    )
    if not claimed:
        return None
    job = Job.objects.select_related("source__collection", "document", "collection").get(pk=job_id)
    return JobRun(job, token)


def find_abandoned_jobs(*, now: datetime | None = None) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """``(tenant, job)`` of what is due without a message, or running without a heartbeat, in every tenant."""
    now = now or timezone.now()
    with unscoped(reason="find abandoned jobs"):
        served = Job.objects.filter(served_at__gte=now - UNHEARD_AFTER).exists()
        unheard = now - (UNSTARTED_AFTER if served else UNHEARD_AFTER)
        # Of a waiting job the heartbeat is the time of its last message.
        rows = Job.objects.filter(
            Q(state=Job.State.PENDING, created_at__lt=unheard)
            & (Q(heartbeat_at__isnull=True) | Q(heartbeat_at__lt=unheard))
            & Q(not_before__isnull=True)
            | Q(state=Job.State.PENDING, not_before__lte=now)
            & (
                Q(heartbeat_at__isnull=True)
                | Q(heartbeat_at__lt=F("not_before"))
                | Q(heartbeat_at__lt=unheard)
            )
            | Q(state=Job.State.PROGRESS, heartbeat_at__lt=now - STALE_AFTER)
        )
        return list(rows.order_by("created_at").values_list("tenant_id", "id")[:SENT_AT_ONCE])


def is_abandoned(*, job_id: str | uuid.UUID) -> bool:
    """Whether a job's worker has died: no heartbeat for some time."""
    stale = timezone.now() - STALE_AFTER
    return bool(Job.objects.filter(pk=job_id, state=Job.State.PROGRESS, heartbeat_at__lt=stale).exists())


def send_job_again(*, job_id: uuid.UUID) -> None:
    """A new message for a job whose old one may be lost; a second message for the same job does no harm."""
    Job.objects.filter(pk=job_id, state=Job.State.PENDING).update(heartbeat_at=timezone.now())
    _send(Job(pk=job_id))


def give_up_on_job(*, job_id: uuid.UUID) -> bool:
    """Ends a job whose worker has died too often; says whether it did."""
    job = Job.objects.select_related("source").get(pk=job_id)
    reason = f"The worker died {job.attempts} times during this job: look for the document that kills it, then retry."
    ended = Job.objects.filter(
        _SPENT, pk=job_id, state=Job.State.PROGRESS, heartbeat_at__lt=timezone.now() - STALE_AFTER
    ).update(state=Job.State.FAILURE, step="failed", error=reason, finished_at=timezone.now(), run=None)
    if ended:
        _fail_waiting_document(job, reason)
        bury_job(job=job, reason=reason)
    return bool(ended)
