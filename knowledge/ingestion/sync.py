"""A source brought up to date: new and changed documents indexed, unchanged ones skipped, vanished ones deleted."""

import hashlib
from pathlib import Path
from uuid import UUID

from django.utils import timezone

from knowledge.embedding.base import Embedder
from knowledge.ingestion.index import (
    Original,
    check_file,
    index_document,
    mark_failed,
    note_changes,
    retag_chunks,
    too_large,
)
from knowledge.ingestion.jobs import JobRun
from knowledge.ingestion.names import file_name
from knowledge.ingestion.parse import ParseError
from knowledge.ingestion.sources.base import SourceConnector, SourceItem
from knowledge.ingestion.sources.connect import connect
from knowledge.ingestion.storage import delete_original, store_original
from knowledge.models import Document, Job, Source
from ragsite.core.config import config
from ragsite.core.observability import INGESTED
from tenants.audit import record_event
from tenants.scope import atomic


def effective_tags(source: Source) -> list[str]:
    """The tags of a source's documents: its own, else its collection's defaults."""
    return sorted(set(source.tags or source.collection.default_tags))


def sync_source(*, source: Source, run: JobRun, embedder: Embedder, force: bool = False) -> None:
    """Brings a source up to date, one document at a time; a bad document fails alone.

    Args:
        force: index unchanged documents too.

    Raises:
        SourceError: the source as a whole cannot be read; nothing was deleted.
        JobCancelled, JobLost: what was done so far stays.
    """
    with connect(source) as connector:
        run.report(step="listing")
        items = list(connector.list_items())
        known = {
            d.uri: d for d in Document.objects.filter(source=source, deleted_at__isnull=True).without_text()
        }
        run.report(step="reading", seen=len(items))
        for number, item in enumerate(items):
            _sync_item(
                source=source,
                connector=connector,
                item=item,
                document=known.get(item.uri),
                run=run,
                embedder=embedder,
                force=force,
                progress=100 * number // max(1, len(items)),
            )
        state = connector.state()
    gone = [known[uri] for uri in known.keys() - {item.uri for item in items}]
    _delete_gone(source=source, documents=gone, run=run)
    Source.objects.filter(pk=source.pk).update(last_synced_at=timezone.now(), state=state)


def _sync_item(
    *,
    source: Source,
    connector: SourceConnector,
    item: SourceItem,
    document: Document | None,
    run: JobRun,
    embedder: Embedder,
    force: bool,
    progress: int,
) -> None:
    tags = effective_tags(source)
    try:
        if item.size > config().max_upload_bytes:
            raise ParseError("too_large", too_large(filename=item.uri, size=item.size))
        data = connector.fetch(item)
        unchanged = (
            document is not None
            and document.status == Document.Status.INDEXED
            and document.sha256 == hashlib.sha256(data).hexdigest()
        )
        if document is not None and (
            sorted(document.tags) != tags or document.collection_id != source.collection_id
        ):
            _follow_source(document=document, source=source, tags=tags)
        if unchanged and not force:
            run.report(progress=progress, unchanged=1)
            return
        run.report(step=item.uri, progress=progress)
        filename = file_name(item.uri, item.media_type)
        check_file(data=data, filename=filename)
        if document is None:
            document = Document.objects.create(
                source=source,
                collection=source.collection,
                uri=item.uri,
                title=Path(filename).stem[:500],
                tags=tags,
            )
        stored = document.stored_name if unchanged else store_original(tenant_id=source.tenant_id, data=data)
        try:
            result = index_document(
                document=document,
                original=Original(data=data, filename=filename, stored_name=stored),
                embedder=embedder,
                on_progress=lambda share: run.report(),
                before_swap=run.lock,
                title=document.given_title,
            )
        except BaseException:
            # Nothing points to it: the document's row keeps the original of what is indexed.
            if not unchanged:
                delete_original(tenant_id=source.tenant_id, stored_name=stored)
            raise
        run.report(
            changed=1,
            chunks_added=result.added,
            chunks_kept=result.kept,
            chunks_removed=result.removed,
        )
    except ParseError as error:
        if document is not None:
            mark_failed(document=document, reason=str(error))
        else:
            INGESTED.labels("failed").inc()
        run.add_error(document=item.uri, reason=str(error))
    except OSError as error:
        run.add_error(document=item.uri, reason=f"The file could not be read: {error.strerror or error}.")


def _follow_source(*, document: Document, source: Source, tags: list[str]) -> None:
    with atomic():
        document.tags, document.collection = tags, source.collection
        document.save(update_fields=["tags", "collection", "updated_at"])
        retag_chunks(document=document)


def _delete_gone(*, source: Source, documents: list[Document], run: JobRun) -> None:
    if not documents:
        return
    run.report(step="deleting what is gone")
    ids: list[UUID] = [document.pk for document in documents]
    with atomic():
        run.lock()
        Document.objects.filter(pk__in=ids).update(deleted_at=timezone.now())
        note_changes(documents=ids)
        for document in documents:
            record_event(
                action="document.delete",
                target=document,
                detail={"title": document.title, "source": source.name},
            )
    run.report(deleted=len(ids))


def documents_of_job(job: Job) -> "list[UUID]":
    """What a reindex job is about: one document, a collection's, or all of the tenant's."""
    documents = Document.objects.filter(deleted_at__isnull=True).exclude(stored_name="")
    if job.document_id:
        documents = documents.filter(pk=job.document_id)
    elif job.source_id:
        documents = documents.filter(source_id=job.source_id)
    elif job.collection_id:
        documents = documents.filter(collection_id=job.collection_id)
    return list(documents.order_by("created_at", "id").values_list("pk", flat=True))
