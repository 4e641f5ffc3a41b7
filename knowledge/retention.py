"""Retention by age, and what nothing needs any more."""

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef
from django.db.models.functions import Coalesce

from knowledge.embedding.spaces import drop_retired_spaces
from knowledge.ingestion.index import note_changes
from knowledge.ingestion.storage import delete_original, list_originals
from knowledge.models import Chunk, Collection, Document, Embedding, ExpiredItem, Job
from tenants.audit import record_by
from tenants.scope import atomic, require_tenant_id

BATCH = 200
UNUSED_FOR = timedelta(days=30)
STORED_FOR = timedelta(days=1)
JOBS_FOR = timedelta(days=400)


def expire_documents(*, now: datetime) -> int:
    """Deletes what is older than its collection keeps documents; it can be restored for 30 days. Returns how many.

    A document's age counts from the last change of its content, or from when it was restored; being indexed again, tagged
    or moved makes it no younger. A document of a source stays away while the source holds the same content.
    """
    expired = 0
    for collection in Collection.objects.filter(retention_days__isnull=False):
        oldest = now - timedelta(days=collection.retention_days)
        while done := _expire_some(_older_than(collection, oldest), now=now, days=collection.retention_days):
            expired += done
    return expired


def _older_than(collection: Collection, oldest: datetime) -> Any:
    return (
        Document.objects.filter(collection=collection, deleted_at__isnull=True, pending_name="")
        .exclude(status=Document.Status.PENDING)
        .alias(age=Coalesce("current_since", "indexed_at", "created_at"))
        .filter(age__lt=oldest)
        .without_text()
        .order_by("pk")
    )


def _expire_some(due: Any, *, now: datetime, days: int) -> int:
    """Returns how many; 0: none is left."""
    with atomic():
        # Locked and then looked at: new content may have come while the lock was waited for.
        documents: list[Document] = list(due.select_for_update(of=("self",))[:BATCH])
        if not documents:
            return 0
        ids = [document.pk for document in documents]
        Document.objects.filter(pk__in=ids).update(deleted_at=now)
        note_changes(documents=ids, withdrawn=True)
        ExpiredItem.objects.bulk_create(
            [
                ExpiredItem(
                    source_id=document.source_id,
                    uri=document.uri,
                    sha256=document.sha256,
                    fingerprint=document.fingerprint,
                    current_since=document.current_since or document.indexed_at or document.created_at,
                )
                for document in documents
                if document.source_id
            ],
            update_conflicts=True,
            unique_fields=["tenant", "source", "uri"],
            update_fields=["sha256", "fingerprint", "current_since"],
        )
        for document in documents:
            record_by(None, "document.expire", document, {"title": document.title, "days": days})
    return len(documents)


def clear_away(*, now: datetime) -> dict[str, int]:
    """Removes vectors that no chunk has used for 30 days, originals that no row names, jobs of long ago, and models'
    vectors that nothing was searched in for as long as one can switch back."""
    return {
        "spaces": drop_retired_spaces(now=now),
        "vectors": _clear_vectors(now=now),
        "originals": _clear_originals(now=now),
        "jobs": _clear_jobs(now=now),
    }


def _clear_vectors(*, now: datetime) -> int:
    used = Exists(Chunk.objects.filter(tenant_id=require_tenant_id(), embedding_hash=OuterRef("text_hash")))
    vectors = Embedding.objects.all()
    vectors.filter(unused_since__isnull=False).filter(used).update(unused_since=None)
    # Said again in the statement that removes: a vector that somebody takes up meanwhile is kept.
    removed: int = vectors.filter(~used, unused_since__lt=now - UNUSED_FOR).delete()[0]
    vectors.filter(~used, unused_since__isnull=True, created_at__lt=now - timedelta(days=1)).update(
        unused_since=now
    )
    return removed


def _clear_originals(*, now: datetime) -> int:
    """What a crash left behind: written, and never named by a row, or named no more."""
    tenant_id = require_tenant_id()
    old = [
        name
        for name, changed in list_originals(tenant_id=tenant_id)
        if changed < (now - STORED_FOR).timestamp()
    ]
    removed = 0
    for begin in range(0, len(old), 1000):
        names = set(old[begin : begin + 1000])
        rows = Document.objects.filter(stored_name__in=names).values_list("stored_name", flat=True)
        waiting = Document.objects.filter(pending_name__in=names).values_list("pending_name", flat=True)
        for name in names - set(rows) - set(waiting):
            delete_original(tenant_id=tenant_id, stored_name=name)
            removed += 1
    return removed


def _clear_jobs(*, now: datetime) -> int:
    removed: int = Job.objects.filter(finished_at__lt=now - JOBS_FOR).delete()[0]
    return removed
