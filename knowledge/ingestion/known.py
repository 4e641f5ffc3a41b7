"""What is known of a source before a sync: its documents, what failed, what went of age. Looked up, never queried."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from uuid import UUID

from django.utils import timezone

import ragsite
from knowledge.ingestion.dead_letters import bury_item
from knowledge.ingestion.following import AT_ONCE, follow_documents
from knowledge.ingestion.source_tags import effective_tags, lock_source
from knowledge.ingestion.sources.base import SourceItem
from knowledge.models import DeadLetter, Document, ExpiredItem, Job, Source
from tenants.scope import atomic

BATCH = 500


class Known:
    """The state of a source's documents at the beginning of a sync, by path.

    Attributes:
        documents: those that are not deleted.
        vanished: of these, what the source does not list any more; what is found under another path is taken out.
        started: when the job began first; what was indexed since then is its own work, of an earlier turn.
    """

    def __init__(self, *, source: Source, items: Sequence[SourceItem], started: datetime) -> None:
        self.source, self.items, self.started = source, items, started
        rows = Document.objects.filter(source=source, deleted_at__isnull=True).defer("text", "pages")
        self.documents: dict[str, Document] = {row.uri: row for row in rows.iterator(chunk_size=5000)}
        for document in self.documents.values():
            document.source = source
        listed = {item.uri for item in items}
        self.vanished = {uri: row for uri, row in self.documents.items() if uri not in listed}
        self._moved_candidates: defaultdict[str, list[str]] = defaultdict(list)
        for uri, row in sorted(self.vanished.items()):
            if row.status == Document.Status.INDEXED and row.sha256:
                self._moved_candidates[row.sha256].append(uri)
        # A name that has turned up elsewhere is kept for whoever bears it there.
        self._new_names = {PurePosixPath(uri).name for uri in listed - self.documents.keys()}
        self._letters = {row.uri: row for row in DeadLetter.objects.filter(source=source).exclude(uri="")}
        self._settled: set[UUID] = {row.pk for uri, row in self._letters.items() if uri not in listed}
        self._expired = self._read_expired()
        self._expired_elsewhere: defaultdict[str, list[str]] = defaultdict(list)
        for uri, expired in sorted(self._expired.items()):
            if uri not in listed:
                self._expired_elsewhere[expired.sha256].append(uri)
        self._fingerprints: dict[UUID, str] = {}

    def _read_expired(self) -> dict[str, ExpiredItem]:
        days = self.source.collection.retention_days
        rows = ExpiredItem.objects.filter(source=self.source)
        of_age = rows.filter(by_hand=False)
        if days is None:
            of_age.delete()
        else:
            oldest = timezone.now() - timedelta(days=days)
            of_age.filter(current_since__gte=oldest).delete()  # the collection keeps them longer by now
        return {row.uri: row for row in rows}

    def follow_source(self) -> None:
        """Gives the documents the source's tags and collection, where they differ: in batches, not one by one."""
        tags, collection = effective_tags(self.source), self.source.collection
        behind = [
            row.pk
            for row in self.documents.values()
            if (sorted(row.tags) != tags and not row.own_tags) or row.collection_id != collection.pk
        ]
        for begin in range(0, len(behind), AT_ONCE):
            with atomic():
                source = lock_source(self.source.pk)
                if source is not None:
                    follow_documents(source=source, documents=behind[begin : begin + AT_ONCE])
        for row in self.documents.values():
            row.collection = collection  # read for its language

    # Questions

    def reason_of_failure(self, item: SourceItem) -> str:
        """Why this content failed before and would fail again; empty: try it."""
        letter = self._letters.get(item.uri)
        if (
            letter is None
            or not letter.permanent
            or not letter.fingerprint
            or letter.fingerprint != item.fingerprint
            or letter.release != ragsite.__version__
        ):
            return ""
        return str(letter.reason)

    def is_unchanged(self, item: SourceItem, *, sha256: str = "") -> bool:
        """Whether the content that is indexed is the item's: by what the source says, or by its bytes."""
        document = self.documents.get(item.uri)
        if document is None or document.status != Document.Status.INDEXED:
            return False
        if sha256:
            return document.sha256 == sha256
        return bool(item.fingerprint) and document.fingerprint == item.fingerprint

    def is_excluded(self, item: SourceItem) -> bool:
        """Whether a person has deleted it here; whatever it says by now, it stays away."""
        row = self._expired.get(item.uri)
        return row is not None and row.by_hand and item.uri not in self.documents

    def is_expired(self, item: SourceItem, *, sha256: str = "") -> bool:
        """Whether retention has deleted this very content."""
        row = self._expired.get(item.uri)
        if row is None or item.uri in self.documents:
            return False
        if not sha256:
            return bool(item.fingerprint) and row.fingerprint == item.fingerprint
        if row.sha256 != sha256:
            return False
        ExpiredItem.objects.filter(pk=row.pk).update(fingerprint=item.fingerprint)
        return True

    def is_expired_elsewhere(self, item: SourceItem, *, sha256: str) -> bool:
        """Whether retention has deleted this very content under a path that is not listed any more, each only once; from now
        on it has this path, as has the document, should it be restored."""
        candidates = self._expired_elsewhere.get(sha256)
        if not sha256 or not candidates:
            return False
        old = max(candidates, key=lambda uri: _likeness(uri, item.uri))
        candidates.remove(old)
        row = self._expired.pop(old)
        of_source = ExpiredItem.objects.filter(source=self.source)
        deleted = Document.objects.filter(source=self.source, uri=old, deleted_at__isnull=False)
        with atomic():
            of_source.filter(uri=item.uri).delete()  # other content that had this path
            of_source.filter(pk=row.pk).update(uri=item.uri, fingerprint=item.fingerprint)
            deleted.filter(sha256=sha256).update(uri=item.uri)
        self._expired[item.uri] = row
        return True

    def is_of_this_job(self, document: Document) -> bool:
        """Whether an earlier turn of the same job has indexed it."""
        return document.indexed_at is not None and document.indexed_at >= self.started

    def take_moved(self, *, uri: str, sha256: str) -> Document | None:
        """The vanished document of the same bytes, each only once; of several the one whose path is most alike.

        By bytes alone: two addresses may share a fingerprint and differ all the same.
        """
        name = PurePosixPath(uri).name
        candidates = [
            old
            for old in self._moved_candidates.get(sha256, ())
            if PurePosixPath(old).name == name or PurePosixPath(old).name not in self._new_names
        ]
        if not candidates:
            return None
        best = max(candidates, key=lambda old: _likeness(old, uri))
        self._moved_candidates[sha256].remove(best)
        document = self.vanished.pop(best)
        del self.documents[best]
        self.documents[uri] = document
        return document

    # Changes

    def succeed(self, item: SourceItem) -> None:
        """The item is as it should be: its fingerprint is remembered, its failures are forgotten."""
        self.settle_letter(item)
        document = self.documents.get(item.uri)
        if document is None:
            return
        if document.fingerprint != item.fingerprint or document.error:
            self._fingerprints[document.pk] = item.fingerprint
            if len(self._fingerprints) >= BATCH:
                self.remember()

    def settle_letter(self, item: SourceItem) -> None:
        if item.uri in self._letters:
            self._settled.add(self._letters[item.uri].pk)

    def fail(
        self, item: SourceItem, *, job: Job, reason: str, permanent: bool, fingerprint: str, attempts: int
    ) -> None:
        """Keeps a document's failure as a dead letter."""
        bury_item(
            source=self.source,
            job=job,
            uri=item.uri,
            reason=reason,
            permanent=permanent,
            fingerprint=fingerprint,
            document=self.documents.get(item.uri),
            attempts=attempts,
        )

    def remember(self) -> None:
        """Writes the new fingerprints of unchanged documents."""
        rows = [Document(pk=pk, fingerprint=value, error="") for pk, value in self._fingerprints.items()]
        Document.objects.bulk_update(rows, ["fingerprint", "error"], batch_size=BATCH)
        self._fingerprints = {}

    def forget_letters(self) -> None:
        """Drops the dead letters of what has succeeded or is gone."""
        for batch in _batches(self._settled):
            DeadLetter.objects.filter(pk__in=batch).delete()


def _likeness(old: str, new: str) -> tuple[bool, int]:
    """The same name counts most, then the folders that both begin with."""
    a, b = PurePosixPath(old), PurePosixPath(new)
    shared = 0
    for left, right in zip(a.parts, b.parts, strict=False):
        if left != right:
            break
        shared += 1
    return a.name == b.name, shared


def _batches(ids: Iterable[UUID]) -> Iterable[list[UUID]]:
    listed = list(ids)
    for begin in range(0, len(listed), BATCH):
        yield listed[begin : begin + BATCH]
