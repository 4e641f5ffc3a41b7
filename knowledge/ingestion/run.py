"""What a job does, from its claim to its end."""

from uuid import UUID

import structlog

from knowledge.embedding.base import Embedder
from knowledge.ingestion.index import Original, index_document, mark_failed
from knowledge.ingestion.jobs import JobCancelled, JobLost, JobRun, claim_job, forget_new_content
from knowledge.ingestion.names import file_name
from knowledge.ingestion.parse import ParseError
from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.storage import read_original
from knowledge.ingestion.sync import documents_of_job, sync_source
from knowledge.models import Document, Job

logger = structlog.get_logger(__name__)


def run_claimed_job(*, job_id: str, embedder: Embedder) -> None:
    """Runs a job that nobody else runs; does nothing when it has ended or lives elsewhere.

    Raises:
        SourceError, OSError and database errors that are not permanent, after the job was marked as failed.
    """
    with claim_job(job_id=job_id) as run:
        if run is None:
            return
        try:
            _work(run=run, embedder=embedder)
        except JobCancelled:
            _end_cancelled(run)
        except JobLost:
            logger.warning("job taken over by another worker", job=job_id)
        except SourceError as error:
            run.finish(state=Job.State.FAILURE, error=str(error))
        except Exception as error:
            # Whatever it was, whoever waits for the job must learn that it has ended; the log keeps the trace.
            run.finish(
                state=Job.State.FAILURE,
                error=f"An internal error ended this job ({type(error).__name__}): retry it, or tell the operator.",
            )
            raise


def _work(*, run: JobRun, embedder: Embedder) -> None:
    job = run.job
    if job.kind == Job.Kind.DOCUMENT:
        assert job.document is not None
        failed = _index_stored(run=run, document_id=job.document.pk, embedder=embedder, alone=True)
        if failed:
            run.finish(state=Job.State.FAILURE, error=failed)
            return
    elif job.kind == Job.Kind.SYNC:
        assert job.source is not None
        sync_source(source=job.source, run=run, embedder=embedder)
    else:
        ids = documents_of_job(job)
        run.report(step="indexing again", seen=len(ids))
        for number, document_id in enumerate(ids):
            run.report(progress=100 * number // len(ids))
            _index_stored(run=run, document_id=document_id, embedder=embedder, alone=False)
    job.refresh_from_db()
    run.finish(state=Job.State.SUCCESS, result={"documents": job.seen, "failed": job.failed})


def _index_stored(*, run: JobRun, document_id: UUID, embedder: Embedder, alone: bool) -> str:
    """Indexes one document from its stored original; returns why it failed, if it did."""
    document = Document.objects.select_related("collection").defer("text").filter(pk=document_id).first()
    if document is None or document.deleted_at is not None:
        return ""
    pending = document.pending_name or document.stored_name
    uri = (document.pending_name and document.pending_uri) or document.uri
    if alone:
        run.report(step="reading", seen=1)

    def tell(share: float) -> None:
        if alone:
            run.report(step="embedding" if share > 0.1 else "chunking", progress=int(100 * share))
        else:
            run.report()

    try:
        data = read_original(tenant_id=document.tenant_id, stored_name=pending)
        result = index_document(
            document=document,
            original=Original(data=data, filename=file_name(uri, document.media_type), stored_name=pending),
            embedder=embedder,
            on_progress=tell,
            before_swap=run.lock,
            title=document.given_title,
        )
    except (ParseError, FileNotFoundError) as error:
        reason = (
            str(error)
            if isinstance(error, ParseError)
            else "Its original is gone from the disk: upload it again."
        )
        mark_failed(document=document, reason=reason)
        if alone:
            forget_new_content(job=run.job)
        run.add_error(document=uri, reason=reason)
        return reason
    Document.objects.filter(pk=document.pk, pending_name=pending).update(
        pending_name="", pending_uri="", uri=uri
    )
    run.report(changed=1, chunks_added=result.added, chunks_kept=result.kept, chunks_removed=result.removed)
    return ""


def _end_cancelled(run: JobRun) -> None:
    job = run.job
    if job.kind == Job.Kind.DOCUMENT and job.document_id:
        forget_new_content(job=job)
        document = Document.objects.without_text().get(pk=job.document_id)
        mark_failed(document=document, reason="Indexing was cancelled.")
    run.finish(state=Job.State.CANCELLED)
