"""The dead letters: what failed for good, why, how often and where in the logs; and trying it again."""

from collections.abc import Iterable
from uuid import UUID

from django.db.models import F
from django.utils import timezone

import ragsite
from knowledge.models import DeadLetter, Document, Job, Source
from ragsite.core.observability import current_request_id
from tenants.models import User


def bury_job(*, job: Job, reason: str) -> None:
    """Keeps a job that failed for good; of a source the last one alone, until it succeeds."""
    _bury(
        key={"source_id": job.source_id, "uri": ""}
        if job.source_id
        else {"document_id": job.document_id, "source": None}
        if job.document_id
        else {"job_id": job.pk},
        values={
            "job_id": job.pk,
            "reason": reason,
            "attempts": max(1, job.attempts),
            "trace_id": job.trace_id,
        },
        again={},
    )


def bury_item(
    *,
    source: Source,
    job: Job,
    uri: str,
    reason: str,
    permanent: bool,
    fingerprint: str = "",
    document: Document | None = None,
    attempts: int = 1,
) -> None:
    """Keeps a document of a source that failed. A permanent failure holds until the source says that it has changed."""
    _bury(
        key={"source_id": source.pk, "uri": uri},
        values={
            "job_id": job.pk,
            "document_id": document.pk if document is not None and not document._state.adding else None,
            "reason": reason,
            "permanent": permanent,
            "fingerprint": fingerprint,
            "attempts": attempts,
            "trace_id": current_request_id() or job.trace_id,
        },
        again={"attempts": F("attempts") + attempts},
    )


def _bury(*, key: dict[str, object], values: dict[str, object], again: dict[str, object]) -> None:
    values |= {"failed_at": timezone.now(), "release": ragsite.__version__}
    if not DeadLetter.objects.filter(**key).update(**(values | again)):
        DeadLetter.objects.bulk_create([DeadLetter(**(key | values))], ignore_conflicts=True)


def forget_letters(*, job: Job) -> None:
    """A job has succeeded: what was kept of its like has no meaning any more."""
    letters = DeadLetter.objects.all()
    if job.kind == Job.Kind.SYNC:
        letters.filter(source_id=job.source_id, uri="").delete()
    elif job.document_id:
        letters.filter(document_id=job.document_id, source__isnull=True).delete()
    else:
        letters.filter(source__isnull=True, document__isnull=True).filter(
            job__collection_id=job.collection_id, job__kind=job.kind
        ).delete()


def retry_letters(*, letters: Iterable[DeadLetter], user: User | None = None) -> list[Job]:
    """Begins again what failed: one sync for all documents of a source, one job for every other letter.

    The letters stay, with their attempts, until what they stand for has succeeded.
    """
    from knowledge.ingestion.jobs import create_job, start_sync_job

    jobs: dict[UUID, Job] = {}
    for letter in letters:
        if letter.source is not None:
            DeadLetter.objects.filter(pk=letter.pk).update(permanent=False)
            # One that runs may be past it already.
            job, _ = start_sync_job(source=letter.source, user=user, follow=True)
        elif letter.document is not None:
            waits = letter.document.pending_name
            kind = Job.Kind.DOCUMENT if waits or not letter.document.stored_name else Job.Kind.REINDEX
            job = create_job(kind=kind, document=letter.document, user=user)
        elif letter.job is not None:
            job = create_job(kind=letter.job.kind, collection=letter.job.collection, user=user)
        else:
            DeadLetter.objects.filter(pk=letter.pk).delete()  # its job was cleared away
            continue
        jobs[job.pk] = job
    return list(jobs.values())
