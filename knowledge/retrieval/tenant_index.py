"""A tenant's search index in this process: read from the database, kept in step with the corpus version, shared by files.

The database stays the one truth: an index is made from it, holds nothing that cannot be made again, and before every
search it is brought to the version that the search's own transaction sees. So a deleted document or a changed tag holds
from the next question on, in every process. It is read under the scope of the whole tenant; what an asker may be shown of
it is decided by the tag sets that row-level security lets *them* read (``search.py``), before anything is scored.
"""

import contextlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import structlog
from django.db import connection

from knowledge.models import Corpus, TagSet
from knowledge.retrieval.analysis import pack_texts
from knowledge.retrieval.segment import Segment, SegmentRow, Vectors, build_segment, merge_segments
from knowledge.retrieval.vector import with_surroundings
from knowledge.retrieval.view import EMPTY, IndexView, Part
from ragsite.core.config import config
from ragsite.core.observability import INDEX_REFRESH
from tenants.scope import atomic, scope

logger = structlog.get_logger(__name__)

READ_ROWS = 20_000
# An index of fewer rows is read again from the database as fast as from a file.
SAVED_ROWS = 2_000
# Merging this many rows costs a search some milliseconds; more is done in the background.
INLINE_ROWS = 8_000
ABANDONED_SECONDS = 3600

_READ = """
SELECT uuid_send(c.id), uuid_send(c.document_id), uuid_send(c.collection_id), uuid_send(t.id), c.terms,
       halfvec_send(e.vector), k.language,
       CASE WHEN c.terms IS NULL THEN array_to_string(d.title || c.heading_path || c.text, E'\\n') END,
       c.embedding_hash IS NOT NULL AND e.vector IS NULL
FROM knowledge_chunk c
JOIN knowledge_document d ON d.id = c.document_id AND d.tenant_id = c.tenant_id
JOIN knowledge_collection k ON k.id = c.collection_id
LEFT JOIN knowledge_tagset t ON t.tenant_id = c.tenant_id AND t.tags = c.tags
LEFT JOIN knowledge_embedding e
  ON e.tenant_id = c.tenant_id AND e.space_id = %(space)s AND e.text_hash = c.embedding_hash
WHERE c.tenant_id = %(tenant)s AND d.deleted_at IS NULL AND c.document_id = ANY(%(documents)s)
ORDER BY c.document_id, c.ordinal
"""
_CHANGED = """
SELECT uuid_send(id), chunk_count FROM knowledge_document
WHERE tenant_id = %(tenant)s AND (revision > %(version)s OR id = ANY(%(incomplete)s)) ORDER BY id
"""


@dataclass(frozen=True)
class IndexKey:
    """Which index: of a tenant, in one space of vectors."""

    tenant_id: UUID
    space_id: UUID
    dimensions: int


class TenantIndex:
    """One tenant's index in this process. ``view`` is replaced, never changed."""

    def __init__(self, key: IndexKey) -> None:
        self.key = key
        self.view: IndexView = EMPTY
        # Documents whose vectors were still to be made: they are read again whenever the version is raised.
        self._incomplete: set[bytes] = set()
        self._lock = threading.Lock()
        self._merging = False

    def at(self, *, version: int) -> IndexView:
        """The index at ``version`` or later; brings it there first."""
        if self.view.version < version:
            with self._lock:
                if self.view.version < version:
                    self._refresh()
        return self.view

    @property
    def nbytes(self) -> int:
        """Memory of its own, in bytes; what is mapped from files is the system's."""
        return sum(part.segment.nbytes for part in self.view.parts if not _is_mapped(part.segment))

    def _refresh(self) -> None:
        begun = time.perf_counter()
        view = self.view
        with scope(tenant_id=self.key.tenant_id, tags=None):
            # Before the rows are read: what is committed meanwhile is read twice rather than never. And both at once: with
            # an older floor, rows that have gone without a trace would stay for good.
            current, floor = Corpus.objects.values_list("version", "floor").first() or (0, 0)
        if view.version < floor or not view.parts:
            view, self._incomplete = self._load(floor=floor, current=current), set()
        incomplete: set[bytes] = set()
        with scope(tenant_id=self.key.tenant_id, tags=None), atomic():
            changed = self._changed_since(view.version)
            parts = _without(view.parts, [document for document, _ in changed])
            kind = "delta" if view.parts else "build"
            for segment in self._read(changed, incomplete=incomplete):
                parts = [*parts, Part(segment, np.ones(segment.size, dtype=np.bool_))]
        self.view, self._incomplete = IndexView(version=current, parts=tuple(parts)), incomplete
        self._tidy(built=kind == "build")
        INDEX_REFRESH.labels(kind).observe(time.perf_counter() - begun)

    def _changed_since(self, version: int) -> list[tuple[bytes, int]]:
        with _binary_cursor() as cursor:
            incomplete = [UUID(bytes=document) for document in self._incomplete]
            cursor.execute(
                _CHANGED, {"tenant": self.key.tenant_id, "version": version, "incomplete": incomplete}
            )
            return [(bytes(document), count) for document, count in cursor.fetchall()]

    def _read(self, changed: list[tuple[bytes, int]], *, incomplete: set[bytes]) -> Iterable[Segment]:
        """Args: incomplete: takes up the documents of which vectors are missing."""
        batch: list[UUID] = []
        size = 0
        segments = []
        for document, count in changed:
            batch.append(UUID(bytes=document))
            size += count
            if size >= READ_ROWS:
                segments += self._read_batch(batch, incomplete=incomplete)
                batch, size = [], 0
        if batch:
            segments += self._read_batch(batch, incomplete=incomplete)
        return segments

    def _read_batch(self, documents: list[UUID], *, incomplete: set[bytes]) -> list[Segment]:
        values = {"tenant": self.key.tenant_id, "space": self.key.space_id, "documents": documents}
        with _binary_cursor() as cursor:
            cursor.execute(_READ, values)
            found = cursor.fetchall()
            if any(row[3] is None for row in found):
                _note_missing_tag_sets()
                cursor.execute(_READ, values)
                found = cursor.fetchall()
        if not found:
            return []
        rows = [
            SegmentRow(
                chunk=bytes(chunk),
                document=bytes(document),
                collection=bytes(collection),
                tag_set=bytes(tag_set),
                terms=bytes(terms) if terms is not None else pack_texts([words], language=language)[0],
            )
            for chunk, document, collection, tag_set, terms, _, language, words, _ in found
        ]
        incomplete.update(
            row.document for row, (*_, is_missing) in zip(rows, found, strict=True) if is_missing
        )
        vectors = self._vectors_of([row[5] for row in found])
        return [build_segment(rows, with_surroundings(vectors, [row.document for row in rows]))]

    def _vectors_of(self, blobs: list[bytes | None]) -> Vectors:
        """From PostgreSQL's own form: two 16-bit numbers, then big-endian half floats."""
        size = 4 + 2 * self.key.dimensions
        nothing = bytes(size)
        joined = b"".join(
            bytes(blob) if blob is not None and len(blob) == size else nothing for blob in blobs
        )
        halves = np.frombuffer(joined, dtype=">f2").reshape(len(blobs), -1)[:, 2:]
        vectors = halves.astype(np.float32)
        # Half floats are a little longer or shorter than 1.
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)

    # Segments

    def _tidy(self, *, built: bool) -> None:
        """Few segments, little that is dead, and what was costly to make in a file."""
        parts = [part for part in self.view.parts if part.alive.any()]
        mergeable = _to_merge(parts)
        if built or sum(part.segment.size for part in parts[mergeable:]) <= INLINE_ROWS:
            parts = _merged(parts, 0 if built else mergeable)
            self.view = replace(self.view, parts=tuple(parts), _selections={})
            if built:
                self._save()
        elif not self._merging:
            self._merging = True
            threading.Thread(target=self._merge_aside, daemon=True, name="merge-index").start()
        else:
            self.view = replace(self.view, parts=tuple(parts), _selections={})

    def _merge_aside(self) -> None:
        """Merges while searches go on; what changed meanwhile is applied to the merged segment."""
        try:
            before = self.view
            merged = _merged(list(before.parts), 0)[:1]
            with self._lock:
                now = self.view
                kept = {id(part.segment): part for part in before.parts}
                newer = [part for part in now.parts if id(part.segment) not in kept]
                # Whatever died of the merged segments since: documents that were read again, or are gone.
                alive = {
                    document.tobytes()
                    for part in now.parts
                    if id(part.segment) in kept
                    for document in _alive_documents(part)
                }
                gone = [
                    document.tobytes()
                    for part in merged
                    for document in part.segment.documents
                    if document.tobytes() not in alive
                ]
                self.view = replace(now, parts=(*_without(tuple(merged), gone), *newer), _selections={})
                if not newer and not gone:
                    self._save()
        finally:
            self._merging = False

    # Files

    def _folder(self) -> Path:
        return config().data / "index" / str(self.key.tenant_id)

    def _load(self, *, floor: int, current: int) -> IndexView:
        """The newest file that is not older than ``floor``; an empty view where there is none."""
        for path in sorted(self._folder().glob(f"{self.key.space_id}-*.seg"), key=_version_of, reverse=True):
            version = _version_of(path)
            if floor <= version <= current:
                with contextlib.suppress(OSError, ValueError):
                    segment = Segment.load(path)
                    alive = np.ones(segment.size, dtype=np.bool_)
                    return IndexView(version=version, parts=(Part(segment, alive),))
        return EMPTY

    def _save(self) -> None:
        """One segment, whole, as a file; then it is mapped from there. A full disk costs only memory."""
        if len(self.view.parts) != 1 or self.view.size < SAVED_ROWS or self._incomplete:
            return
        segment, folder = self.view.parts[0].segment, self._folder()
        path = folder / f"{self.key.space_id}-{self.view.version}-{secrets.token_hex(4)}.seg"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            segment.save(path)
            mapped = Segment.load(path)
            abandoned = time.time() - ABANDONED_SECONDS
            for partial in folder.glob("*.partial"):
                if partial.stat().st_mtime < abandoned:
                    partial.unlink(missing_ok=True)  # of a process that was killed
            for old in folder.glob("*.seg"):
                if old != path and _version_of(old) <= self.view.version:
                    old.unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            logger.warning("index not saved", tenant=str(self.key.tenant_id), error=str(error))
            return
        alive = np.ones(mapped.size, dtype=np.bool_)
        self.view = replace(self.view, parts=(Part(mapped, alive),), _selections={})


def _version_of(path: Path) -> int:
    parts = path.stem.rsplit("-", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else -1


def _is_mapped(segment: Segment) -> bool:
    return not segment.vectors.flags.owndata and not segment.vectors.flags.writeable


@contextlib.contextmanager
def _binary_cursor() -> Any:
    """A cursor of psycopg's own, whose results come in binary form.

    It goes round Django's wrapper: the scope is handed to the transaction by a statement before it.
    """
    assert connection.in_atomic_block
    with connection.cursor() as ordinary:
        ordinary.execute("SELECT 1")
    with psycopg.Cursor(connection.connection) as cursor:
        cursor.format = psycopg.pq.Format.BINARY
        yield cursor


def _note_missing_tag_sets() -> None:
    """Of chunks that were written by a version of ragsite before tag sets."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT tags FROM knowledge_chunk")
        sets = [TagSet(tags=tags) for (tags,) in cursor.fetchall()]
    TagSet.objects.bulk_create(sets, ignore_conflicts=True)


def _alive_documents(part: Part) -> Any:
    first = part.segment.starts[:-1]
    return part.segment.documents[part.alive[first]]


def _without(parts: tuple[Part, ...], documents: list[bytes]) -> list[Part]:
    """The parts with these documents dead."""
    out = []
    for part in parts:
        rows = [part.segment.rows_of_document(document) for document in documents]
        rows = [each for each in rows if each.stop > each.start]
        if rows:
            alive = part.alive.copy()
            for each in rows:
                alive[each] = False
            part = Part(part.segment, alive)
        out.append(part)
    return out


def _to_merge(parts: list[Part]) -> int:
    """From which part on to merge: while a part is less than four times what follows, or mostly dead."""
    sizes = [int(part.alive.sum()) for part in parts]
    place, after = len(parts) - 1, sizes[-1] if sizes else 0
    while place > 0:
        before = parts[place - 1]
        if sizes[place - 1] >= 4 * after and sizes[place - 1] >= 0.7 * before.segment.size:
            break
        place, after = place - 1, after + sizes[place - 1]
    return max(0, place)


def _merged(parts: list[Part], place: int) -> list[Part]:
    tail = parts[place:]
    if not tail or (len(tail) == 1 and tail[0].alive.mean() >= 0.7):
        return parts
    segment = merge_segments([(part.segment, part.alive) for part in tail])
    return [*parts[:place], Part(segment, np.ones(segment.size, dtype=np.bool_))]


class IndexStore:
    """The indexes of this process, the least recently used ones forgotten when memory runs short."""

    def __init__(self) -> None:
        self._indexes: OrderedDict[IndexKey, TenantIndex] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: IndexKey) -> TenantIndex:
        with self._lock:
            found = self._indexes.get(key)
            if found is None:
                found = self._indexes[key] = TenantIndex(key)
            self._indexes.move_to_end(key)
            if len(self._indexes) > 1 and secrets.randbelow(16) == 0:
                self._make_room()
            return found

    def _make_room(self) -> None:
        used = sum(index.nbytes for index in self._indexes.values())
        while used > config().index_memory_bytes and len(self._indexes) > 1:
            _, oldest = self._indexes.popitem(last=False)
            used -= oldest.nbytes

    def forget(self) -> None:
        """All of them, as at the start of the process."""
        with self._lock:
            self._indexes.clear()


indexes = IndexStore()
