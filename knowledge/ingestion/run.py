"""What a job does, from its claim to its end."""

import random
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connections
from django.db.utils import InterfaceError, OperationalError
from django.utils import timezone

from knowledge.embedding.base import Embedder
from knowledge.ingestion.dead_letters import bury_job, forget_letters
from knowledge.ingestion.errors import describe_error, is_transient
from knowledge.ingestion.index import IndexResult, Original, Outdated, index_document, mark_failed
from knowledge.ingestion.job_run import JobCancelled, JobGivesWay, JobLost, JobRun
from knowledge.ingestion.jobs import (
    MAX_ATTEMPTS,
    claim_job,
    forget_new_content,
    send_job_again,
    start_sync_job,
)
from knowledge.ingestion.names import file_name
from knowledge.ingestion.parse import ParseError
from knowledge.ingestion.queue import Turn, next_job
from knowledge.ingestion.source_tags import lock_source
from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.storage import read_original
from knowledge.ingestion.sync import KILLS, sync_source
from knowledge.models import Corpus, Document, Job, Source
from tenants.scope import atomic, scope

logger = structlog.get_logger(__name__)

RETRY_SECONDS = 60.0  # doubled at each try
DATABASE_SECONDS = 3.0
OUTDATED_TRIES = 3
TOO_LONG = (
    "It did not get further in the time that a worker has for it, three times: split the source or the document into "
    "smaller ones, or tell the operator."
)


def serve_next_job(*, embedder: Embedder) -> None:
    """Gives a turn to the job whose turn it is, of whichever tenant; does nothing when none waits."""
    for _ in range(5):  # several workers may choose the same
        chosen = next_job()
        if chosen is None:
            return
        tenant_id, job_id = chosen
        with scope(tenant_id=tenant_id, tags=None):
            if run_claimed_job(job_id=job_id, embedder=embedder, gives_way=True):
                return


def run_claimed_job(*, job_id: str | UUID, embedder: Embedder, gives_way: bool = False) -> bool:
    """Runs a job that nobody else runs; does nothing when it has ended or lives elsewhere. Says whether it ran.

    What fails for the moment is put into the queue again, three tries in all; what fails for good is kept as a dead letter.

    Args:
        gives_way: put it into the queue again when its turn is over and others wait, and before Celery's limit in any case.

    Raises:
        Errors that are nobody's but the program's, after the job was marked as failed.
    """
    with claim_job(job_id=job_id) as run:
        if run is None:
            return False
        try:
            _work(run=run, embedder=embedder, turn=Turn(run) if gives_way else None)
        except JobGivesWay:
            _give_back(run)
        except SoftTimeLimitExceeded:
            _end_at_limit(run)
        except JobCancelled:
            _end_cancelled(run)
        except JobLost:
            logger.warning("job taken over by another worker", job=str(job_id))
        except Exception as error:
            _end_failed(run, error)
            if not is_transient(error) and not isinstance(error, SourceError):
                raise
        finally:
            _tell(job_id)
        return True


def _tell(job_id: str | UUID) -> None:
    """Whoever asked to be told that the job has ended."""
    from knowledge.tasks import send_callback
    from knowledge.webhooks.callbacks import callback_is_due

    if callback_is_due(job_id=str(job_id)):
        send_callback.enqueue_on_commit(job_id=str(job_id))


def _work(*, run: JobRun, embedder: Embedder, turn: Turn | None) -> None:
    job = run.job
    version = Corpus.current_version()
    if job.kind == Job.Kind.DOCUMENT:
        assert job.document is not None
        failed = _index_stored(run=run, document_id=job.document.pk, embedder=embedder, turn=turn, alone=True)
        if failed:
            run.finish(state=Job.State.FAILURE, error=failed)
            bury_job(job=job, reason=failed)
            return
    elif job.kind == Job.Kind.SYNC:
        assert job.source is not None
        sync_source(source=job.source, run=run, embedder=embedder, turn=turn)
    elif job.kind == Job.Kind.QUESTIONS:
        from knowledge.answering.batch import answer_batch  # indexing needs none of what answering does

        answer_batch(run, turn=turn)
    else:
        _index_again(run=run, embedder=embedder, turn=turn)
    with atomic():  # whoever dies here leaves a job that is not finished, rather than one that nobody follows
        if job.source_id:
            lock_source(job.source_id)  # as whoever deletes it does, before its jobs
        run.finish(state=Job.State.SUCCESS)
        forget_letters(job=job)
        _note_end(run)
    if job.kind != Job.Kind.QUESTIONS and Corpus.current_version() != version:
        from knowledge.answering.warm import warm_after_change

        warm_after_change()


def _index_again(*, run: JobRun, embedder: Embedder, turn: Turn | None) -> None:
    job = run.job
    ids = documents_of_job(job)
    run.report(step="indexing again", seen=len(ids))
    started = job.started_at or timezone.now()
    done = (
        set(Document.objects.filter(pk__in=ids, indexed_at__gte=started).values_list("pk", flat=True))
        if job.served_at != job.started_at
        else set()
    )
    run.report(changed=len(done))
    left = [document_id for document_id in ids if document_id not in done]
    for number, document_id in enumerate(left, start=len(done)):
        run.report(progress=100 * number // len(ids))
        if turn is not None:
            turn.give_way()
        _index_stored(run=run, document_id=document_id, embedder=embedder, turn=turn, alone=False)


def documents_of_job(job: Job) -> list[UUID]:
    """What a reindex job is about: one document, a source's, a collection's, or all of the tenant's."""
    documents = Document.objects.filter(deleted_at__isnull=True).exclude(stored_name="")
    if job.document_id:
        documents = documents.filter(pk=job.document_id)
    elif job.source_id:
        documents = documents.filter(source_id=job.source_id)
    elif job.collection_id:
        documents = documents.filter(collection_id=job.collection_id)
    return list(documents.order_by("created_at", "id").values_list("pk", flat=True))


def _index_stored(
    *, run: JobRun, document_id: UUID, embedder: Embedder, turn: Turn | None, alone: bool
) -> str:
    """Indexes one document from its stored original; returns why it failed, if it did."""
    document = _stored_document(document_id)
    if alone:
        run.report(step="reading", seen=1)
    if document is None or document.deleted_at is not None:
        run.report(unchanged=1)
        return ""
    uri = document.waiting_uri
    if not alone:
        if run.is_suspect(uri):
            run.add_error(document=uri, reason=KILLS)
            return KILLS
        run.begin(uri)

    def tell(share: float) -> None:
        if alone:
            run.report(step="embedding" if share > 0.1 else "chunking", progress=int(100 * share))
        run.check(now=share > 0.1)
        if turn is not None and share > 0.1:
            turn.end_in_time()

    try:
        result = _index_waiting(document, run=run, embedder=embedder, on_progress=tell)
    except (ParseError, FileNotFoundError) as error:
        reason = (
            str(error)
            if isinstance(error, ParseError)
            else "Its original is gone from the disk: upload it again."
        )
        mark_failed(document=document, reason=reason)
        if alone:
            forget_new_content(job=run.job)
        run.get_further()
        run.add_error(document=uri, reason=reason)
        return reason
    run.get_further()
    run.report(changed=1, chunks_added=result.added, chunks_kept=result.kept, chunks_removed=result.removed)
    return ""


def _stored_document(document_id: UUID) -> Document | None:
    found: Document | None = (
        Document.objects.select_related("collection").defer("text").filter(pk=document_id).first()
    )
    return found


def _index_waiting(
    document: Document, *, run: JobRun, embedder: Embedder, on_progress: Callable[[float], None]
) -> IndexResult:
    """Indexes the content that waits, or else what is stored. Where other content comes meanwhile, that.

    Raises:
        ParseError, FileNotFoundError: of the content that is there now.
        Outdated: it was changed again and again.
    """
    for tries_left in reversed(range(OUTDATED_TRIES)):
        name, uri = document.pending_name or document.stored_name, document.waiting_uri
        try:
            return index_document(
                document=document,
                original=Original(
                    data=read_original(tenant_id=document.tenant_id, stored_name=name),
                    filename=file_name(uri, document.media_type),
                    stored_name=name,
                    fingerprint="" if document.pending_name else document.fingerprint,
                ),
                embedder=embedder,
                on_progress=on_progress,
                before_commit=run.lock,
                between=lambda: run.check(now=True),
                title=document.given_title,
            )
        except (Outdated, FileNotFoundError):
            now = _stored_document(document.pk)
            is_same = now is not None and (now.version, now.pending_name) == (
                document.version,
                document.pending_name,
            )
            if now is None or is_same or not tries_left:
                raise
            document = now
    raise AssertionError("unreachable")


def _give_back(run: JobRun, *, counts: bool = False) -> None:
    if run.give_back(counts=counts):
        send_job_again(job_id=run.job.pk)


def _end_at_limit(run: JobRun) -> None:
    """Celery's limit came all the same, in the middle of something long: another task goes on, as long as that is of use."""
    connections["default"].close()  # a statement may have been cut off
    if run.got_further or run.job.attempts < MAX_ATTEMPTS:
        _give_back(run, counts=not run.got_further)
    else:
        _end_failed(run, SourceError(TOO_LONG, permanent=True))


def _end_cancelled(run: JobRun) -> None:
    job = run.job
    if job.kind == Job.Kind.DOCUMENT and job.document_id:
        forget_new_content(job=job)
        document = Document.objects.without_text().get(pk=job.document_id)
        mark_failed(document=document, reason="Indexing was cancelled.")
    run.finish(state=Job.State.CANCELLED)
    _note_end(run)


def _end_failed(run: JobRun, error: Exception) -> None:
    """Puts the job into the queue again, or ends it and keeps it as a dead letter."""
    job = run.job
    away = isinstance(error, OperationalError | InterfaceError)
    if away:
        # A connection that broke is not used again; where the database is still away, this raises, and the job is taken
        # over by its missing heartbeat.
        connections["default"].close()
    reason = describe_error(error)
    if is_transient(error) and job.attempts < MAX_ATTEMPTS:
        doubled = RETRY_SECONDS * 2 ** max(0, job.attempts - 1)
        seconds = DATABASE_SECONDS if away else doubled * random.uniform(0.9, 1.1)  # noqa: S311
        run.try_again(error=reason, delay=timedelta(seconds=seconds))
        logger.warning("job to be tried again", job=str(job.pk), error=type(error).__name__, seconds=seconds)
        return
    # Whatever it was, whoever waits for the job must learn that it has ended; the log keeps the trace.
    if not run.finish(state=Job.State.FAILURE, error=reason):
        return
    if job.document_id and job.kind == Job.Kind.DOCUMENT:
        document = Document.objects.without_text().filter(pk=job.document_id).first()
        if document is not None:
            mark_failed(document=document, reason=reason)
    bury_job(job=job, reason=reason)
    _note_end(run)


def _note_end(run: JobRun) -> None:
    """What a source's row says of its last sync; and the next one, where something changed meanwhile."""
    if run.job.kind != Job.Kind.SYNC or run.job.source_id is None:
        return
    job = Job.objects.filter(pk=run.job.pk).first()
    if job is None or not job.is_finished:
        return
    last = {
        "job": str(job.pk),
        "state": job.state,
        "error": job.error,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "documents": {
            name: getattr(job, name)
            for name in ("seen", "changed", "unchanged", "deleted", "failed", "skipped")
        },
        "chunks": {"added": job.chunks_added, "kept": job.chunks_kept, "removed": job.chunks_removed},
        "totals": (job.result or {}).get("totals", {}),
    }
    with atomic():
        Source.objects.filter(pk=job.source_id).update(last_run=last)
        source = Source.objects.filter(pk=job.source_id).defer("state").first()
        if job.again and source is not None and job.state == Job.State.SUCCESS:
            start_sync_job(source=source, user=job.user)
