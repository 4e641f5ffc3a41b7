"""The only code that writes chunks: parse → chunk → diff → embed what is new → swap in one transaction."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from typing import TypeVar
from uuid import UUID

from django.utils import timezone

from knowledge.embedding.base import Embedder
from knowledge.embedding.store import store_vectors, text_hash
from knowledge.ingestion.chunk import ChunkSpan, chunk_document
from knowledge.ingestion.diff import ChunkDiff, diff_chunks, embedded_text, hash_chunk, hash_words
from knowledge.ingestion.parse import ParsedDocument, ParseError, ParseLimits, media_type_of
from knowledge.ingestion.sandbox import parse_in_sandbox
from knowledge.ingestion.source_tags import give_source_tags
from knowledge.ingestion.storage import delete_original
from knowledge.models import Chunk, Corpus, Document, TagSet
from knowledge.retrieval.analysis import TERMS_VERSION, chunk_words, pack_texts
from knowledge.withdrawals import have_withdrawal_measured
from ragsite.core.config import config
from ragsite.core.observability import INGESTED
from tenants.scope import atomic, on_commit, require_tenant_id

INSERT_BATCH = 200
Item = TypeVar("Item")


class Outdated(Exception):
    """The document was changed while it was being indexed: what was prepared is compared with what is not there any more.

    To be prepared again from the row as it is by now.
    """

    permanent = False


@dataclass(frozen=True)
class IndexResult:
    """What a swap did to a document's chunks."""

    added: int
    kept: int
    removed: int


@dataclass(frozen=True)
class Original:
    """A file as it came: its bytes, the name that tells its format, and the name it is stored under.

    ``fingerprint`` is what its source says of this content; empty where that cannot be relied on.
    """

    data: bytes
    filename: str
    stored_name: str
    fingerprint: str = ""

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class _Row:
    """A new chunk, and what its vector and search terms are made from."""

    span: ChunkSpan
    content_hash: str
    text: str
    hash: bytes
    terms: bytes


@dataclass(frozen=True)
class Prepared:
    """A document that is parsed, cut and compared with what is indexed of it; its vectors may still be missing."""

    document: Document
    original: Original
    parsed: ParsedDocument
    title: str
    chunks: int
    diff: ChunkDiff[UUID]
    rows: list[_Row]

    @property
    def texts(self) -> dict[bytes, str]:
        """What must have vectors before the swap, by hash."""
        return {row.hash: row.text for row in self.rows}

    def stored_as(self, stored_name: str) -> "Prepared":
        """The same, once its original is stored."""
        return replace(self, original=replace(self.original, stored_name=stored_name))

    @property
    def result(self) -> IndexResult:
        return IndexResult(
            added=len(self.diff.added), kept=len(self.diff.kept), removed=len(self.diff.removed)
        )


def parse_limits() -> ParseLimits:
    return ParseLimits(
        max_bytes=config().max_upload_bytes,
        max_unpacked_bytes=config().parse_unpacked_bytes,
        max_pages=config().parse_pages,
        cpu_seconds=config().parse_cpu_seconds,
        wall_seconds=config().parse_seconds,
        memory_bytes=config().parse_memory_bytes,
    )


def index_document(
    *,
    document: Document,
    original: Original,
    embedder: Embedder,
    on_progress: Callable[[float], None] = lambda share: None,
    before_commit: Callable[[], None] = lambda: None,
    between: Callable[[], None] = lambda: None,
    title: str = "",
) -> IndexResult:
    """Indexes a document's new content. Readers see the old chunks or the new, never half.

    Args:
        document: its row; ``collection`` is read for the language.
        title: replaces the title found in the file.
        on_progress: called with the share done, 0–1, in every step before the swap; may raise to end the work.
        before_commit, between: as ``swap_documents``.

    Raises:
        ParseError: the file cannot be read; the document's old chunks stay.
        Outdated: nothing was written.
    """
    prepared = prepare_document(
        document=document, original=original, embedder=embedder, on_progress=on_progress, title=title
    )
    store_vectors(
        texts=prepared.texts,
        embedder=embedder,
        on_progress=lambda share: on_progress(0.1 + 0.85 * share),
    )
    swap_documents(
        prepared=[prepared],
        before_commit=before_commit,
        between=between,
    )
    return prepared.result


def prepare_document(
    *,
    document: Document,
    original: Original,
    embedder: Embedder,
    on_progress: Callable[[float], None] = lambda share: None,
    title: str = "",
) -> Prepared:
    """Parses and cuts a document, and finds out which of its chunks are new. Writes nothing.

    Args and raises: as ``index_document``; the document need not be saved. If it is, it is a row that was read before its
    chunks are: should another swap come in between, its version tells.
    """
    parsed = parse_in_sandbox(
        data=original.data,
        filename=original.filename,
        limits=parse_limits(),
        tenant_id=require_tenant_id(),
        on_tick=lambda: on_progress(0.0),  # where a cancelled job ends
    )
    title = (title or parsed.title)[:500]
    on_progress(0.05)

    def count_tokens(text: str) -> int:
        on_progress(0.05)  # a long document takes many seconds to be cut
        return embedder.count_tokens(text)

    spans = chunk_document(parsed, count_tokens=count_tokens)
    language = document.collection.language
    # Everything that a chunk's vector and search terms are made from.
    hashes = [
        hash_chunk(embedded_text="\n".join([TERMS_VERSION, language, title, *span.heading_path, span.text]))
        for span in spans
    ]
    old: list[tuple[UUID, str]] = []
    if not document._state.adding:
        chunks = Chunk.objects.filter(document=document).order_by("ordinal")
        old = list(chunks.values_list("id", "content_hash"))
    diff = diff_chunks(old=old, new=list(zip(spans, hashes, strict=True)))
    on_progress(0.1)
    rows = list(
        _rows_of(
            title=title,
            language=language,
            spans=diff.added,
            hashes=hashes,
            between=lambda: on_progress(0.1),
        )
    )
    return Prepared(
        document=document,
        original=original,
        parsed=parsed,
        title=title,
        chunks=len(spans),
        diff=diff,
        rows=rows,
    )


def swap_documents(
    *,
    prepared: Sequence[Prepared],
    before_commit: Callable[[], None] = lambda: None,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Puts documents' new chunks in the place of the old ones, in one transaction. All vectors are stored already.

    Args:
        before_commit: called last inside the transaction; may raise to forbid the swap.
        between: called between its statements; may raise to end the work, and writes nothing, since a lock that it took
            would be held until the end.

    Raises:
        Outdated: one of them is not what was compared any more; nothing was written.
    """
    replaced: list[str] = []
    with atomic():
        give_source_tags([each.document for each in prepared if each.document._state.adding])
        known = [each.document.pk for each in prepared if not each.document._state.adding]
        rows = {
            row.pk: row
            for row in Document.objects.select_for_update().without_text().filter(pk__in=known).order_by("pk")
        }
        now, new, chunks = timezone.now(), [], []
        for each in prepared:
            adding = each.document._state.adding
            current = each.document if adding else _row_compared(each.document, rows)
            old_name = current.stored_name
            _take_content(document=current, prepared=each, now=now)
            if adding:
                new.append(current)
            else:
                current.save(update_fields=CONTENT)
                for ids in _batches(each.diff.removed, between):
                    Chunk.objects.filter(id__in=ids).delete()
                _move_kept(document=current, kept=each.diff.kept, between=between)
                if old_name not in ("", each.original.stored_name):
                    replaced.append(old_name)
            chunks += _chunks_of(document=current, rows=each.rows)
        Document.objects.bulk_create(new, batch_size=INSERT_BATCH)
        for tags in {tuple(chunk.tags) for chunk in chunks} | {tuple(row.tags) for row in rows.values()}:
            note_tags(tags)
        for batch in _batches(chunks, between):
            Chunk.objects.bulk_create(batch)
        before_commit()
        note_changes(documents=[each.document.pk for each in prepared])
        for name in replaced:
            on_commit(partial(delete_original, tenant_id=require_tenant_id(), stored_name=name))
    for each in prepared:
        if each.document.pk in rows:
            for field in STANDING:
                setattr(each.document, field, getattr(rows[each.document.pk], field))
    INGESTED.labels("success").inc(len(prepared))


def _row_compared(document: Document, rows: Mapping[UUID, Document]) -> Document:
    """The locked row of a document, if that is still what its new content was compared with."""
    row = rows.get(document.pk)
    if row is None or (row.version, row.pending_name) != (document.version, document.pending_name):
        raise Outdated(f"“{document.uri}” was changed while it was being indexed: it is done again.")
    return row


def _rows_of(
    *,
    title: str,
    language: str,
    spans: Sequence[ChunkSpan],
    hashes: Sequence[str],
    between: Callable[[], None],
) -> Iterator[_Row]:
    for batch in _batches(spans, between):
        words = [chunk_words(title, span.heading_path, span.text) for span in batch]
        for span, terms in zip(batch, pack_texts(words, language=language), strict=True):
            text = embedded_text(title=title, heading_path=span.heading_path, text=span.text)
            yield _Row(
                span=span, content_hash=hashes[span.ordinal], text=text, hash=text_hash(text), terms=terms
            )


def _batches(items: Sequence[Item], between: Callable[[], None]) -> Iterator[Sequence[Item]]:
    for begin in range(0, len(items), INSERT_BATCH):
        between()
        yield items[begin : begin + INSERT_BATCH]


def _move_kept(
    *, document: Document, kept: Sequence[tuple[ChunkSpan, UUID]], between: Callable[[], None]
) -> None:
    moved = [
        Chunk(
            id=chunk_id,
            ordinal=span.ordinal,
            start=span.start,
            end=span.end,
            page=span.page,
            tags=sorted(document.tags),
            collection_id=document.collection_id,
        )
        for span, chunk_id in kept
    ]
    for batch in _batches(moved, between):
        Chunk.objects.bulk_update(batch, ["ordinal", "start", "end", "page", "tags", "collection"])


def _chunks_of(*, document: Document, rows: Sequence[_Row]) -> list[Chunk]:
    return [
        Chunk(
            document=document,
            collection_id=document.collection_id,
            tags=sorted(document.tags),
            ordinal=row.span.ordinal,
            start=row.span.start,
            end=row.span.end,
            page=row.span.page,
            heading_path=list(row.span.heading_path),
            text=row.span.text,
            tokens=row.span.tokens,
            content_hash=row.content_hash,
            embedding_hash=row.hash,
            terms=row.terms,
        )
        for row in rows
    ]


# What a swap writes of a document that exists, and of that what the row in memory gets as well.
STANDING = [
    "uri", "title", "media_type", "size", "sha256", "text_sha256", "fingerprint", "stored_name", "pending_name",
    "pending_uri", "version", "status", "error", "note", "chunk_count", "indexed_at", "current_since", "updated_at",
]  # fmt: skip
CONTENT = [*STANDING, "text", "pages"]


def _take_content(*, document: Document, prepared: Prepared, now: datetime) -> None:
    original, parsed = prepared.original, prepared.parsed
    if document.pending_name and document.pending_name == original.stored_name:
        document.uri = document.pending_uri or document.uri
        document.pending_name = document.pending_uri = ""
    else:
        document.uri = prepared.document.uri  # it may have moved
    if document.sha256 != original.sha256:
        document.current_since = now
    elif document.current_since is None:
        document.current_since = document.indexed_at or now
    document.title = document.given_title or prepared.title  # given meanwhile
    document.text = parsed.text
    document.pages = list(parsed.pages)
    document.media_type = parsed.media_type
    document.size = len(original.data)
    document.sha256 = original.sha256
    document.text_sha256 = hash_words(parsed.text)
    document.fingerprint = original.fingerprint
    document.stored_name = original.stored_name
    document.version += 1
    document.status = Document.Status.INDEXED
    document.error = ""
    document.note = parsed.note
    document.chunk_count = prepared.chunks
    document.indexed_at = now


def mark_failed(*, document: Document, reason: str) -> None:
    """A document that could not be read. What was indexed of it before stays, with the reason beside it."""
    status = Document.Status.INDEXED if document.chunk_count else Document.Status.FAILED
    Document.objects.filter(pk=document.pk).update(status=status, error=reason[:1000])
    INGESTED.labels("failed").inc()


def retag_chunks(*, document: Document) -> None:
    """Copies a document's tags and collection onto its chunks; in the transaction of the change."""
    retag_documents(documents=[document.pk], tags=document.tags, collection_id=document.collection_id)


def retag_documents(*, documents: Sequence[UUID], tags: Sequence[str], collection_id: UUID) -> None:
    """Gives the chunks of these documents the documents' own tags and collection; in the transaction of the change."""
    note_tags(tags)
    Chunk.objects.filter(document_id__in=documents).update(tags=sorted(tags), collection_id=collection_id)
    note_changes(documents=documents)


def note_tags(tags: Sequence[str]) -> None:
    """Makes a set of tags known to search; to be called in the transaction that gives it to chunks."""
    TagSet.objects.bulk_create([TagSet(tags=sorted(tags))], ignore_conflicts=True)


def note_changes(*, documents: Sequence[UUID], withdrawn: bool = False) -> None:
    """Raises the corpus version, and has search look at these documents; last in the transaction of the change.

    Args:
        withdrawn: nobody is to find them any more; how long they still are is measured with the first of them.
    """
    Document.objects.filter(pk__in=documents).update(revision=Corpus.raise_version())
    if withdrawn and documents:
        have_withdrawal_measured(document_id=documents[0])


def check_file(*, data: bytes, filename: str) -> str:
    """Whether a file can be taken at all, before anything is stored; returns its media type.

    Raises:
        ParseError: too large, empty, of no supported kind, or not what its name says.
    """
    limits = parse_limits()
    if len(data) > limits.max_bytes:
        raise ParseError("too_large", too_large(filename=filename, size=len(data)))
    if not data:
        raise ParseError("empty", f"{filename} is empty: upload a file with content.")
    return media_type_of(filename=filename, data=data)


def too_large(*, filename: str, size: int) -> str:
    most = config().max_upload_bytes / 2**20
    return f"{filename} has {size / 2**20:.1f} MB, more than the {most:.0f} MB allowed: split it."
