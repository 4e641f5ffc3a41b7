"""Jobs: made, claimed, reported on, cancelled, taken over from the dead."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, connections
from django.db.models import F, Q
from django.utils import timezone

from knowledge.ingestion.storage import delete_original
from knowledge.models import Collection, Document, Job, Source
from ragsite.core.problems import Problem
from tenants.models import User
from tenants.scope import atomic, on_commit, unscoped

logger = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 3.0
STALE_AFTER = timedelta(seconds=15)
UNSTARTED_AFTER = timedelta(minutes=2)
MAX_ATTEMPTS = 3
MAX_ERRORS = 200


class JobCancelled(Exception):
    """Somebody asked for the job to end."""


class JobLost(Exception):
    """Another worker has taken the job over; this one must not write any more."""


def create_job(
    *,
    kind: str,
    user: User | None = None,
    document: Document | None = None,
    source: Source | None = None,
    collection: Collection | None = None,
    callback_url: str = "",
) -> Job:
    """A job row, and its task once the transaction commits.

    Args:
        callback_url: told when it has ended; empty: its source's, if that has one.
    """
    from knowledge.tasks import run_job

    told = callback_url or (source.callback_url if source is not None and kind != Job.Kind.REINDEX else "")
    job: Job = Job.objects.create(
        kind=kind,
        user=user,
        document=document,
        source=source,
        collection=collection,
        step="waiting",
        callback_url=told,
        callback_state=Job.CallbackState.PENDING if told else Job.CallbackState.NONE,
    )
    run_job.enqueue_on_commit(job_id=str(job.pk))
    return job


def cancel_job(*, job: Job) -> Job:
    """Ends a waiting job at once, asks a running one to end (it looks every few chunks).

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
        Problem: 409 while the job has not ended.
    """
    if not job.is_finished:
        raise Problem(409, "not-finished", "This job has not ended yet: cancel it first, or wait.")
    return create_job(
        kind=job.kind, user=user, document=job.document, source=job.source, collection=job.collection
    )


def _fail_waiting_document(job: Job, reason: str) -> None:
    if job.document_id:
        Document.objects.filter(pk=job.document_id, status=Document.Status.PENDING).update(
            status=Document.Status.FAILED, error=reason
        )


def forget_new_content(*, job: Job) -> None:
    """Drops content that was never indexed of a document that has older content, which goes on answering.

    Not while another job is there to index it; and not of a document that has nothing else, so that it can be retried.
    """
    if not job.document_id:
        return
    with atomic():
        document = Document.objects.select_for_update().without_text().filter(pk=job.document_id).first()
        if document is None or not document.pending_name or not document.stored_name:
            return
        others = Job.objects.filter(
            document_id=document.pk, state__in=[Job.State.PENDING, Job.State.PROGRESS]
        ).exclude(pk=job.pk)
        if others.exists():
            return
        tenant_id, name = document.tenant_id, document.pending_name
        Document.objects.filter(pk=document.pk).update(pending_name="", pending_uri="")
        if name != document.stored_name:
            on_commit(lambda: delete_original(tenant_id=tenant_id, stored_name=name))


class JobRun:
    """A claimed job: the only way to write its row while it runs."""

    def __init__(self, job: Job, run: uuid.UUID) -> None:
        self.job = job
        self._mine = Q(pk=job.pk, run=run, state=Job.State.PROGRESS)

    def report(self, *, step: str | None = None, progress: int | None = None, **counts: int) -> None:
        """Tells step and percent, and adds to the counts (``changed=1``).

        Raises:
            JobCancelled, JobLost: the work must end here.
        """
        values: dict[str, Any] = {name: F(name) + more for name, more in counts.items() if more}
        values["heartbeat_at"] = timezone.now()
        if step is not None:
            values["step"] = step[:200]
        if progress is not None:
            values["progress"] = min(99, max(0, progress))
        rows = Job.objects.filter(self._mine)
        if not rows.update(**values):
            raise JobLost
        if rows.filter(cancel_requested=True).exists():
            raise JobCancelled

    def add_error(self, *, document: str, reason: str) -> None:
        """One document's own failure; the job goes on."""
        job = Job.objects.filter(self._mine).first()
        if job is None:
            raise JobLost
        if len(job.errors) < MAX_ERRORS:
            job.errors.append({"document": document, "reason": reason})
            job.save(update_fields=["errors"])
        self.report(failed=1)

    def finish(self, *, state: str, error: str = "", result: Any = None) -> None:
        values: dict[str, Any] = {
            "state": state,
            "error": error,
            "result": result,
            "finished_at": timezone.now(),
            "step": {"SUCCESS": "done", "CANCELLED": "cancelled"}.get(state, "failed"),
        }
        if state == Job.State.SUCCESS:
            values["progress"] = 100
        Job.objects.filter(self._mine).update(**values)

    def lock(self) -> None:
        """Inside the transaction of a swap: holds the job's row, so that nobody takes it over meanwhile.

        Raises:
            JobLost: somebody has.
        """
        if not Job.objects.select_for_update().filter(self._mine).exists():
            raise JobLost


@contextmanager
def claim_job(*, job_id: str) -> Iterator[JobRun | None]:
    """Claims a waiting job, or one whose worker has died; ``None`` when there is nothing to do.

    Meanwhile a thread keeps the heartbeat, so that long parsing is not taken for death.
    """
    run, now = uuid.uuid4(), timezone.now()
    abandoned = Q(state=Job.State.PROGRESS) & (
        Q(heartbeat_at__isnull=True) | Q(heartbeat_at__lt=now - STALE_AFTER)
    )
    claimed = Job.objects.filter(
        Q(state=Job.State.PENDING) | abandoned, pk=job_id, attempts__lt=MAX_ATTEMPTS
    ).update(
        state=Job.State.PROGRESS,
        run=run,
        started_at=now,
        heartbeat_at=now,
        attempts=F("attempts") + 1,
        seen=0,
        changed=0,
        unchanged=0,
        deleted=0,
        failed=0,
        chunks_added=0,
        chunks_kept=0,
        chunks_removed=0,
        errors=[],
    )
    if not claimed:
        yield None
        return
    job = Job.objects.select_related("source", "document", "collection").get(pk=job_id)
    stop = threading.Event()

    def beat() -> None:
        try:
            while not stop.wait(HEARTBEAT_SECONDS):
                Job.objects.filter(pk=job.pk, run=run).update(heartbeat_at=timezone.now())
        finally:
            connections.close_all()

    # Inside a test's own transaction another connection could not see the row.
    heart = (
        None
        if connection.in_atomic_block
        else threading.Thread(target=copy_context().run, args=(beat,), daemon=True)
    )
    if heart:
        heart.start()
    try:
        yield JobRun(job, run)
    finally:
        stop.set()
        if heart:
            heart.join()


def find_abandoned_jobs(*, now: datetime | None = None) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """``(tenant, job)`` of what is waiting without a message, or running without a heartbeat, in every tenant."""
    now = now or timezone.now()
    with unscoped(reason="find abandoned jobs"):
        rows = Job.objects.filter(
            Q(state=Job.State.PENDING, created_at__lt=now - UNSTARTED_AFTER)
            & (Q(heartbeat_at__isnull=True) | Q(heartbeat_at__lt=now - UNSTARTED_AFTER))
            | Q(state=Job.State.PROGRESS, heartbeat_at__lt=now - STALE_AFTER)
        )
        return list(rows.order_by("created_at").values_list("tenant_id", "id")[:500])


def send_job_again(*, job_id: uuid.UUID) -> None:
    """A new message for a job whose old one may be lost; a second message for the same job does no harm."""
    from knowledge.tasks import run_job

    # For a waiting job the heartbeat is the time of its last message.
    Job.objects.filter(pk=job_id, state=Job.State.PENDING).update(heartbeat_at=timezone.now())
    run_job.enqueue_on_commit(job_id=str(job_id))


def give_up_on_job(*, job_id: uuid.UUID) -> bool:
    """Ends a job whose worker has died too often; says whether it did."""
    reason = f"The worker died {MAX_ATTEMPTS} times during this job: look for the document that kills it, then retry."
    ended = Job.objects.filter(
        pk=job_id,
        state=Job.State.PROGRESS,
        attempts__gte=MAX_ATTEMPTS,
        heartbeat_at__lt=timezone.now() - STALE_AFTER,
    ).update(state=Job.State.FAILURE, step="failed", error=reason, finished_at=timezone.now())
    if ended:
        job = Job.objects.get(pk=job_id)
        _fail_waiting_document(job, reason)
    return bool(ended)
