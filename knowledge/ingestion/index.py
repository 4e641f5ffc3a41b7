"""The only code that writes chunks: parse → chunk → diff → embed what is new → swap in one transaction."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.utils import timezone

from knowledge.embedding.base import Embedder
from knowledge.embedding.store import store_vectors, text_hash
from knowledge.ingestion.chunk import ChunkSpan, chunk_document
from knowledge.ingestion.diff import diff_chunks, embedded_text, hash_chunk
from knowledge.ingestion.parse import ParsedDocument, ParseError, ParseLimits, media_type_of
from knowledge.ingestion.sandbox import parse_in_sandbox
from knowledge.ingestion.storage import delete_original
from knowledge.models import Chunk, Corpus, Document, TagSet
from knowledge.retrieval.analysis import chunk_words, count_terms, pack_terms
from ragsite.core.config import config
from ragsite.core.observability import INGESTED
from tenants.scope import atomic, on_commit

INSERT_BATCH = 200


@dataclass(frozen=True)
class IndexResult:
    """What a swap did to a document's chunks."""

    added: int
    kept: int
    removed: int


@dataclass(frozen=True)
class Original:
    """A file as it came: its bytes, the name that tells its format, and the name it is stored under."""

    data: bytes
    filename: str
    stored_name: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


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
    before_swap: Callable[[], None] = lambda: None,
    title: str = "",
) -> IndexResult:
    """Indexes a document's new content. Readers see the old chunks or the new, never half.

    Args:
        document: its row; ``collection`` is read for the language.
        title: replaces the title found in the file.
        on_progress: called with the share done, 0–1, between batches; may raise to end the work.
        before_swap: called first inside the swap's transaction; may raise to forbid the swap.

    Raises:
        ParseError: the file cannot be read; the document's old chunks stay.
    """
    parsed = parse_in_sandbox(
        data=original.data,
        filename=original.filename,
        limits=parse_limits(),
        on_tick=lambda: on_progress(0.0),  # where a cancelled job ends
    )
    title = (title or parsed.title)[:500]
    on_progress(0.05)
    spans = chunk_document(parsed, count_tokens=embedder.count_tokens)
    language = document.collection.language
    # Everything that a chunk's vector and search terms are made from.
    hashes = [
        hash_chunk(embedded_text="\n".join([language, title, *span.heading_path, span.text]))
        for span in spans
    ]
    old = list(Chunk.objects.filter(document=document).order_by("ordinal").values_list("id", "content_hash"))
    diff = diff_chunks(old=old, new=list(zip(spans, hashes, strict=True)))
    on_progress(0.1)
    rows = _rows_of(title=title, language=language, spans=diff.added, hashes=hashes)
    store_vectors(
        texts={row.hash: row.text for row in rows},
        embedder=embedder,
        on_progress=lambda share: on_progress(0.1 + 0.85 * share),
    )
    replaced = ""
    with atomic():
        before_swap()
        current = Document.objects.select_for_update().without_text().get(pk=document.pk)
        Chunk.objects.filter(id__in=list(diff.removed)).delete()
        note_tags(current.tags)
        _move_kept(document=current, kept=diff.kept)
        _insert_added(document=current, rows=rows)
        if current.stored_name != original.stored_name:
            replaced = current.stored_name
        _update_document(document=current, parsed=parsed, original=original, title=title, chunks=len(spans))
        note_changes(documents=[current.pk])
        if replaced:
            on_commit(lambda: delete_original(tenant_id=current.tenant_id, stored_name=replaced))
    INGESTED.labels("success").inc()
    return IndexResult(added=len(diff.added), kept=len(diff.kept), removed=len(diff.removed))


@dataclass(frozen=True)
class _Row:
    """A new chunk, and what its vector and search terms are made from."""

    span: ChunkSpan
    content_hash: str
    text: str
    hash: bytes
    terms: bytes


def _rows_of(*, title: str, language: str, spans: Sequence[ChunkSpan], hashes: Sequence[str]) -> list[_Row]:
    rows = []
    for span in spans:
        text = embedded_text(title=title, heading_path=span.heading_path, text=span.text)
        rows.append(
            _Row(
                span=span,
                content_hash=hashes[span.ordinal],
                text=text,
                hash=text_hash(text),
                terms=pack_terms(
                    count_terms(chunk_words(title, span.heading_path, span.text), language=language)
                ),
            )
        )
    return rows


def _move_kept(*, document: Document, kept: Sequence[tuple[ChunkSpan, UUID]]) -> None:
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
    Chunk.objects.bulk_update(
        moved, ["ordinal", "start", "end", "page", "tags", "collection"], batch_size=INSERT_BATCH
    )


def _insert_added(*, document: Document, rows: Sequence[_Row]) -> None:
    Chunk.objects.bulk_create(
        [
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
        ],
        batch_size=INSERT_BATCH,
    )


def _update_document(
    *, document: Document, parsed: ParsedDocument, original: Original, title: str, chunks: int
) -> None:
    document.title = title
    document.text = parsed.text
    document.pages = list(parsed.pages)
    document.media_type = parsed.media_type
    document.size = len(original.data)
    document.sha256 = original.sha256
    document.stored_name = original.stored_name
    document.version += 1
    document.status = Document.Status.INDEXED
    document.error = ""
    document.chunk_count = chunks
    document.indexed_at = timezone.now()
    document.save(
        update_fields=[
            "title",
            "text",
            "pages",
            "media_type",
            "size",
            "sha256",
            "stored_name",
            "version",
            "status",
            "error",
            "chunk_count",
            "indexed_at",
            "updated_at",
        ]
    )


def mark_failed(*, document: Document, reason: str) -> None:
    """A document that could not be read. What was indexed of it before stays, with the reason beside it."""
    status = Document.Status.INDEXED if document.chunk_count else Document.Status.FAILED
    Document.objects.filter(pk=document.pk).update(status=status, error=reason[:1000])
    INGESTED.labels("failed").inc()


def retag_chunks(*, document: Document) -> None:
    """Copies a document's tags and collection onto its chunks; in the transaction of the change."""
    note_tags(document.tags)
    Chunk.objects.filter(document=document).update(
        tags=sorted(document.tags), collection_id=document.collection_id
    )
    note_changes(documents=[document.pk])


def note_tags(tags: Sequence[str]) -> None:
    """Makes a set of tags known to search; to be called in the transaction that gives it to chunks."""
    TagSet.objects.bulk_create([TagSet(tags=sorted(tags))], ignore_conflicts=True)


def note_changes(*, documents: Sequence[UUID]) -> None:
    """Raises the corpus version, and has search look at these documents; last in the transaction of the change."""
    Document.objects.filter(pk__in=documents).update(revision=Corpus.raise_version())


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
