"""The only code that writes chunks: parse → chunk → diff → embed what is new → swap in one transaction."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.contrib.postgres.search import SearchVector
from django.db.models import Value
from django.utils import timezone

from knowledge.embedding.base import Embedder, Vectors
from knowledge.ingestion.chunk import ChunkSpan, chunk_document
from knowledge.ingestion.diff import diff_chunks, embedded_text, hash_chunk
from knowledge.ingestion.parse import ParsedDocument, ParseError, ParseLimits, media_type_of
from knowledge.ingestion.sandbox import parse_in_sandbox
from knowledge.ingestion.storage import delete_original
from knowledge.models import Chunk, Corpus, Document
from ragsite.core.config import config
from ragsite.core.observability import INGESTED
from tenants.scope import atomic, on_commit

EMBED_BATCH = 32
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
        hash_chunk(embedded_text="\n".join([embedder.name, language, title, *span.heading_path, span.text]))
        for span in spans
    ]
    old = list(Chunk.objects.filter(document=document).order_by("ordinal").values_list("id", "content_hash"))
    diff = diff_chunks(old=old, new=list(zip(spans, hashes, strict=True)))
    on_progress(0.1)
    vectors = _embed(
        texts=[embedded_text(title=title, heading_path=s.heading_path, text=s.text) for s in diff.added],
        embedder=embedder,
        on_progress=on_progress,
    )
    replaced = ""
    with atomic():
        before_swap()
        current = Document.objects.select_for_update().without_text().get(pk=document.pk)
        Chunk.objects.filter(id__in=list(diff.removed)).delete()
        _move_kept(document=current, kept=diff.kept)
        _insert_added(
            document=current,
            title=title,
            language=language,
            spans=diff.added,
            hashes=hashes,
            vectors=vectors,
        )
        if current.stored_name != original.stored_name:
            replaced = current.stored_name
        _update_document(document=current, parsed=parsed, original=original, title=title, chunks=len(spans))
        Corpus.raise_version()
        if replaced:
            on_commit(lambda: delete_original(tenant_id=current.tenant_id, stored_name=replaced))
    INGESTED.labels("success").inc()
    return IndexResult(added=len(diff.added), kept=len(diff.kept), removed=len(diff.removed))


def _embed(
    *, texts: Sequence[str], embedder: Embedder, on_progress: Callable[[float], None]
) -> list[Vectors]:
    rows: list[Vectors] = []
    for begin in range(0, len(texts), EMBED_BATCH):
        rows.extend(embedder.embed(texts[begin : begin + EMBED_BATCH]))
        on_progress(0.1 + 0.85 * len(rows) / len(texts))
    return rows


def _move_kept(*, document: Document, kept: Sequence[tuple[ChunkSpan, UUID]]) -> None:
    moved = [
        Chunk(
            id=chunk_id,
            ordinal=span.ordinal,
            start=span.start,
            end=span.end,
            page=span.page,
            tags=document.tags,
            collection_id=document.collection_id,
        )
        for span, chunk_id in kept
    ]
    Chunk.objects.bulk_update(
        moved, ["ordinal", "start", "end", "page", "tags", "collection"], batch_size=INSERT_BATCH
    )


def _insert_added(
    *,
    document: Document,
    title: str,
    language: str,
    spans: Sequence[ChunkSpan],
    hashes: Sequence[str],
    vectors: Sequence[Vectors],
) -> None:
    rows = [
        Chunk(
            document=document,
            collection_id=document.collection_id,
            tags=document.tags,
            ordinal=span.ordinal,
            start=span.start,
            end=span.end,
            page=span.page,
            heading_path=list(span.heading_path),
            text=span.text,
            tokens=span.tokens,
            content_hash=hashes[span.ordinal],
            search=SearchVector(Value(" / ".join([title, *span.heading_path])), weight="A", config=language)
            + SearchVector(Value(span.text), weight="B", config=language),
            embedding=vector,
        )
        for span, vector in zip(spans, vectors, strict=True)
    ]
    Chunk.objects.bulk_create(rows, batch_size=INSERT_BATCH)


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
    Chunk.objects.filter(document=document).update(tags=document.tags, collection_id=document.collection_id)
    Corpus.raise_version()


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
