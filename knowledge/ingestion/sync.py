"""A source brought up to date: new and changed documents indexed, moved ones followed, vanished ones deleted."""

import hashlib
import time
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from django.db.utils import DatabaseError
from django.utils import timezone

from knowledge.embedding.base import Embedder
from knowledge.embedding.store import store_vectors
from knowledge.ingestion.aside import Aside
from knowledge.ingestion.errors import describe_error, is_transient
from knowledge.ingestion.formats.base import make_title
from knowledge.ingestion.index import (
    STANDING,
    Original,
    Outdated,
    Prepared,
    check_file,
    mark_failed,
    note_changes,
    prepare_document,
    swap_documents,
    too_large,
)
from knowledge.ingestion.job_run import JobRun
from knowledge.ingestion.known import BATCH, Known
from knowledge.ingestion.names import file_name
from knowledge.ingestion.parse import ParseError
from knowledge.ingestion.queue import Turn
from knowledge.ingestion.reading import list_items, open_source
from knowledge.ingestion.source_tags import give_source_tags
from knowledge.ingestion.sources.base import ItemError, SourceConnector, SourceError, SourceItem
from knowledge.ingestion.storage import delete_original, store_original
from knowledge.models import Document, Source
from ragsite.core.config import config
from ragsite.core.observability import INGESTED
from tenants.audit import record_event
from tenants.scope import atomic

# Documents are embedded and swapped together until they come to this much; one at a time after a worker has died.
BATCH_CHUNKS = 100
BATCH_DOCUMENTS = 50
BATCH_BYTES = 20 * 2**20
BATCH_SECONDS = 10.0
# So many failures in a row, and it is the source that is away, not the documents.
AWAY_AFTER = 10
KILLS = "A worker died at this document again and again: it is passed over until somebody has it tried again."


def sync_source(
    *, source: Source, run: JobRun, embedder: Embedder, force: bool = False, turn: Turn | None = None
) -> None:
    """Brings a source up to date; a bad document fails alone.

    A document whose fingerprint or bytes are the same is left alone; one that is gone while its bytes turn up under another
    path has moved, and keeps its row and vectors. What fails for the moment is tried once more at the end. Pictures and
    the like are counted, and no failures.

    Args:
        force: index unchanged documents too.
        turn: to be given up when it is over and others wait, and before Celery's limit; not while the source is listed,
            which would begin anew.

    Raises:
        SourceError: the source as a whole cannot be read; nothing was deleted.
        JobCancelled, JobLost, JobGivesWay: what was done so far stays.
    """
    run.report(step="listing")
    with open_source(source=source, look_round=run.report) as (aside, connector):
        items = list_items(aside=aside, connector=connector, run=run)
        if turn is not None:
            turn.has_listed()
        known = Known(source=source, items=items, started=run.job.started_at or timezone.now())
        run.report(step="reading")
        known.follow_source()
        sync = _Sync(
            source=source,
            run=run,
            embedder=embedder,
            aside=aside,
            connector=connector,
            known=known,
            force=force,
            turn=turn,
        )
        for item in items:
            if turn is not None and sync.is_settled:
                turn.give_way()
            sync.take(item)
            sync.settle_if_full()
        sync.settle()
        sync.try_again()
        state = aside.call(connector.state)
    run.say(state.get("said", []))
    known.remember()
    _delete_gone(source=source, documents=list(known.vanished.values()), run=run)
    known.forget_letters()
    # What was found at a place that it has no more is of no use at the next.
    Source.objects.filter(pk=source.pk, path=source.path).update(last_synced_at=timezone.now(), state=state)


class _Sync:
    """The walk over a source's items; documents that need indexing are gathered into batches."""

    def __init__(
        self,
        *,
        source: Source,
        run: JobRun,
        embedder: Embedder,
        aside: Aside,
        connector: SourceConnector,
        known: Known,
        force: bool,
        turn: Turn | None,
    ) -> None:
        self.source, self.run, self.embedder = source, run, embedder
        self.aside, self.connector, self.known, self.force = aside, connector, known, force
        self.turn = turn
        self._batch: list[tuple[SourceItem, Prepared]] = []
        self._batch_begun = 0.0
        self._later: list[SourceItem] = []
        self._done = 0
        self._failures = 0

    @property
    def is_settled(self) -> bool:
        return not self._batch

    def take(self, item: SourceItem) -> None:
        """One item: left alone, followed, or read and put into the batch."""
        known, run = self.known, self.run
        if known.is_excluded(item):
            self._leave_alone(item, left_out="excluded")
            return
        if not self.force:
            if reason := known.reason_of_failure(item):
                self._fail(item, reason, remembered=True)
                return
            if known.is_expired(item):
                self._leave_alone(item, left_out="expired")
                return
            if known.is_unchanged(item):
                self._leave_alone(item)
                return
        if run.is_suspect(item.uri):
            self._fail(item, KILLS, fingerprint=item.fingerprint)
            return
        run.begin(item.uri)
        try:
            self._read(item)
            self._failures = 0
        except ParseError as error:
            self._fail(item, str(error), fingerprint=item.fingerprint)
            self._failures = 0
        except DatabaseError:
            raise
        except Exception as error:
            if isinstance(error, SourceError) and error.permanent:
                self._fail(item, str(error), fingerprint=item.fingerprint)
                return
            self._failures += not isinstance(error, ItemError)
            if not is_transient(error) or self._failures >= AWAY_AFTER:
                raise
            self._later.append(item)

    def try_again(self) -> None:
        """Once more what failed for the moment."""
        later, self._later = self._later, []
        self._failures = 0
        for item in later:
            self.run.begin(item.uri)
            try:
                self._read(item)
            except ParseError as error:
                self._fail(item, str(error), fingerprint=item.fingerprint)
            except DatabaseError:
                raise
            except Exception as error:
                permanent = isinstance(error, SourceError) and error.permanent
                if not permanent and not is_transient(error):
                    raise
                self._fail(item, describe_error(error), permanent=permanent, attempts=2)
            self.settle(again=True)

    def settle_if_full(self) -> None:
        if self._is_full():
            self.settle()

    def settle(self, *, again: bool = False) -> None:
        """Embeds and swaps the batch. Where one of its documents was changed meanwhile, all of it is left for later.

        Raises:
            Outdated: that happened ``again``.
        """
        batch, self._batch = self._batch, []
        if not batch:
            return
        prepared = [each for _, each in batch]
        new = {each.document.pk for each in prepared if each.document._state.adding}
        texts = {digest: text for each in prepared for digest, text in each.texts.items()}
        try:
            store_vectors(texts=texts, embedder=self.embedder, on_progress=lambda share: self._look_round())
            swap_documents(
                prepared=prepared,
                before_commit=self.run.lock,
                between=lambda: self.run.check(now=True),
            )
        except Outdated:
            self._drop_originals(prepared)
            if again:
                raise
            for item, each in batch:
                if not each.document._state.adding:
                    each.document.refresh_from_db(fields=[*STANDING, "given_title", "deleted_at"])
                self._later.append(item)
            return
        except DatabaseError:
            raise  # a commit whose answer is lost may have gone through: what is in use is looked up later
        except BaseException:
            # Nothing points to them: the rows keep the originals of what is indexed.
            self._drop_originals(prepared)
            raise
        self.run.get_further()
        for item, each in batch:
            self.known.settle_letter(item)
            self.run.list_change("added" if each.document.pk in new else "changed", item.uri)
            result = each.result
            self._count(
                changed=1,
                chunks_added=result.added,
                chunks_kept=result.kept,
                chunks_removed=result.removed,
            )

    # Steps of one item

    def _read(self, item: SourceItem) -> None:
        if item.size > config().max_upload_bytes:
            raise ParseError("too_large", too_large(filename=item.uri, size=item.size))
        data = self.aside.call(lambda: self.connector.fetch(item))
        digest = hashlib.sha256(data).hexdigest()
        document = self.known.documents.get(item.uri)
        if not self.force:
            if self.known.is_expired(item, sha256=digest):
                self._leave_alone(item, left_out="expired")
                return
            if self.known.is_unchanged(item, sha256=digest):
                self._leave_alone(item)
                return
        check_file(data=data, filename=file_name(item.uri, item.media_type))
        if document is None and (moved := self.known.take_moved(uri=item.uri, sha256=digest)) is not None:
            if self._follow(item, moved):
                return
            document = moved
        if document is None and not self.force and self.known.is_expired_elsewhere(item, sha256=digest):
            self._leave_alone(item, left_out="expired")
            return
        self._prepare(item, document or self._new_document(item), data)

    def _follow(self, item: SourceItem, document: Document) -> bool:
        """Gives a moved document its new path; says whether that is all there is to do."""
        old, new = PurePosixPath(document.uri), PurePosixPath(item.uri)
        # A title that was made from the file's name is made again, and with it the chunks' vectors.
        from_name = document.title == make_title(old.name) and not document.given_title
        is_all = old.suffix == new.suffix and (old.name == new.name or not from_name)
        with atomic():
            record_event(action="document.move", target=document, detail={"from": str(old), "to": item.uri})
            document.uri = item.uri
            if is_all:
                document.fingerprint = item.fingerprint
                document.save(update_fields=["uri", "fingerprint", "updated_at"])
            self.run.lock()
            if is_all:
                note_changes(documents=[document.pk])  # its path is shown beside passages
        self.run.list_change("moved", {"from": str(old), "to": item.uri})
        if is_all:
            self._leave_alone(item)
        return is_all

    def _new_document(self, item: SourceItem) -> Document:
        return Document(
            source=self.source,
            collection=self.source.collection,
            uri=item.uri,
            title=PurePosixPath(file_name(item.uri, item.media_type)).stem[:500],
        )

    def _prepare(self, item: SourceItem, document: Document, data: bytes) -> None:
        original = Original(
            data=data,
            filename=file_name(item.uri, item.media_type),
            stored_name="",
            fingerprint=item.fingerprint,
        )
        try:
            prepared = prepare_document(
                document=document,
                original=original,
                embedder=self.embedder,
                on_progress=lambda share: self.run.report(),
                title=document.given_title or item.title,
            )
        except ParseError as error:
            if document._state.adding:
                document.status, document.error = Document.Status.FAILED, str(error)[:1000]
                with atomic():
                    give_source_tags([document])
                    document.save(force_insert=True)
                self.known.documents[item.uri] = document
            raise
        # Only now: what cannot be read is not kept.
        unchanged = not document._state.adding and document.sha256 == original.sha256
        name = (
            document.stored_name if unchanged else store_original(tenant_id=self.source.tenant_id, data=data)
        )
        if not self._batch:
            self._batch_begun = time.monotonic()
        self._batch.append((item, prepared.stored_as(name)))

    def _is_full(self) -> bool:
        if not self._batch:
            return False
        return (
            self.run.is_careful
            or len(self._batch) >= BATCH_DOCUMENTS
            or sum(len(each.rows) for _, each in self._batch) >= BATCH_CHUNKS
            or sum(len(each.original.data) for _, each in self._batch) >= BATCH_BYTES
            or time.monotonic() - self._batch_begun >= BATCH_SECONDS
        )

    def _drop_originals(self, prepared: list[Prepared]) -> None:
        for each in prepared:
            if each.document.stored_name != each.original.stored_name or each.document._state.adding:
                delete_original(tenant_id=self.source.tenant_id, stored_name=each.original.stored_name)

    # Counting

    def _leave_alone(self, item: SourceItem, *, left_out: str = "") -> None:
        self.known.succeed(item)
        if left_out:
            self.run.list_change(left_out, item.uri)
        document = self.known.documents.get(item.uri)
        if document is not None and self.known.is_of_this_job(document):
            is_new = document.created_at >= self.known.started
            self.run.list_change("added" if is_new else "changed", item.uri)
            self._count(changed=1)
        else:
            self._count(unchanged=1)

    def _fail(
        self,
        item: SourceItem,
        reason: str,
        *,
        permanent: bool = True,
        fingerprint: str = "",
        attempts: int = 1,
        remembered: bool = False,
    ) -> None:
        document = self.known.documents.get(item.uri)
        if not remembered:
            if document is not None:
                mark_failed(document=document, reason=reason)
            else:
                INGESTED.labels("failed").inc()
            self.known.fail(
                item,
                job=self.run.job,
                reason=reason,
                permanent=permanent,
                fingerprint=fingerprint,
                attempts=attempts,
            )
            self.run.get_further()
        self.run.list_change("failed", item.uri)
        self.run.add_error(document=item.uri, reason=reason)
        self._count()

    def _count(self, **counts: int) -> None:
        self._done += 1
        progress = 100 * self._done // max(1, len(self.known.items))
        self.run.report(step=None, progress=progress, **counts)

    def _look_round(self) -> None:
        """While vectors are made; those that are there stay."""
        self.run.report()
        self.run.check(now=True)
        if self.turn is not None:
            self.turn.end_in_time()


def _delete_gone(*, source: Source, documents: list[Document], run: JobRun) -> None:
    if not documents:
        return
    run.report(step="deleting what is gone")
    for begin in range(0, len(documents), BATCH):
        batch = documents[begin : begin + BATCH]
        ids: list[UUID] = [document.pk for document in batch]
        with atomic():
            Document.objects.filter(pk__in=ids).update(deleted_at=timezone.now())
            for document in batch:
                detail: dict[str, Any] = {"title": document.title, "source": source.name}
                record_event(action="document.delete", target=document, detail=detail)
            run.lock()
            note_changes(documents=ids, withdrawn=True)
        for document in batch:
            run.list_change("deleted", document.uri)
        run.report(deleted=len(ids))
