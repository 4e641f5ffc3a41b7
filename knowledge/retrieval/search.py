"""From a question to passages: both arms, fusion, expansion."""

import math
from typing import Any

from django.db.models import Value
from django.db.models.functions import Substr

from knowledge.config import RetrievalConfig
from knowledge.embedding.base import Vectors
from knowledge.models import Chunk, Collection, Document
from knowledge.retrieval.base import Arm, Filters, FoundPassage
from knowledge.retrieval.expand import expand_spans
from knowledge.retrieval.fusion import fuse_arms
from knowledge.retrieval.keyword import question_lexemes, search_keywords
from knowledge.retrieval.vector import cosines_of, search_vectors
from ragsite.core.observability import RETRIEVAL_RESULTS
from tenants.models import Membership
from tenants.scope import atomic

SWAPPED_TRIES = 3


def search_passages(
    *,
    membership: Membership,
    question: str,
    vector: Vectors,
    k: int,
    filters: Filters,
    config: RetrievalConfig,
) -> list[FoundPassage]:
    """The ``k`` best passages that the member may read, best first; fewer only where they may read fewer.

    Args:
        question: standing alone.
        vector: its embedding, shape ``(dimensions,)``, of length 1.
    """
    for _ in range(SWAPPED_TRIES):
        passages, swapped = _search_once(
            membership=membership, question=question, vector=vector, k=k, filters=filters, config=config
        )
        if not swapped:
            break
    RETRIEVAL_RESULTS.observe(len(passages))
    return passages


def _search_once(
    *,
    membership: Membership,
    question: str,
    vector: Vectors,
    k: int,
    filters: Filters,
    config: RetrievalConfig,
) -> tuple[list[FoundPassage], bool]:
    """The passages, and whether a document was swapped or deleted under the search's feet; then it is left out."""
    with atomic():
        chunks = _readable_chunks(membership=membership, filters=filters)
        dense = search_vectors(
            chunks=chunks,
            vector=vector,
            limit=max(config.candidates, 4 * k),
            deviation=config.dense_deviation,
        )
        languages = sorted(set(Collection.objects.values_list("language", flat=True)))
        keyword = search_keywords(
            chunks=chunks,
            lexemes=question_lexemes(question=question, languages=languages),
            limit=max(config.candidates, 4 * k),
            k1=config.bm25_k1,
            b=config.bm25_b,
        )
        missing = list(keyword.scores.keys() - dense.scores.keys())
        if missing:
            dense = Arm(
                scores=dense.scores | cosines_of(chunks=chunks, vector=vector, ids=missing),
                deviation=dense.deviation,
            )
        best = fuse_arms(dense=dense, keyword=keyword, keyword_weight=config.keyword_weight)[:k]
        rows = chunks.defer("embedding", "search").in_bulk([pk for pk, _ in best])
        found = [rows[pk] for pk, _ in best if pk in rows]
        spans = expand_spans(
            chunks=chunks,
            found=found,
            section_tokens=config.section_tokens,
            context_tokens=config.context_tokens,
        )
        documents = _documents_with_spans(membership=membership, found=found, spans=spans)
    fused = dict(best)
    passages: list[FoundPassage] = []
    swapped = len(found) < len(best)
    for index, chunk in enumerate(found):
        document = documents.get(chunk.document_id)
        span = spans[chunk.pk]
        text = getattr(document, f"span_{index}", "")
        # The statements see what is committed as they begin: old offsets must not cut a new text.
        if document is None or text[chunk.start - span.start : chunk.end - span.start] != chunk.text:
            swapped = True
            continue
        passages.append(
            FoundPassage(
                n=len(passages) + 1,
                document_id=document.pk,
                document_version=document.version,
                chunk_id=chunk.pk,
                title=document.title,
                uri=document.uri,
                collection=document.collection.slug,
                heading=" › ".join(chunk.heading_path),
                text=text,
                score=round(squash(fused[chunk.pk], config), 4),
                page=_page_of(document, span.start),
                start=span.start,
                end=span.end,
                cosine=round(dense.scores[chunk.pk], 4),
                keyword=round(keyword.scores.get(chunk.pk, 0.0), 4),
                coverage=round(keyword.coverage.get(chunk.pk, 0.0), 4),
                updated_at=document.updated_at.isoformat(),
            )
        )
    return passages, swapped


def squash(fused: float, config: RetrievalConfig) -> float:
    """The fused score as 0–1."""
    return 1 / (1 + math.exp(-(fused - config.midpoint) / config.slope))


def _readable_chunks(*, membership: Membership, filters: Filters) -> Any:
    chunks = Chunk.objects.visible_to(membership)
    if filters.collection_ids:
        chunks = chunks.filter(collection_id__in=filters.collection_ids)
    if filters.tags:
        chunks = chunks.filter(tags__overlap=list(filters.tags))
    return chunks


def _documents_with_spans(
    *, membership: Membership, found: list[Any], spans: dict[Any, Any]
) -> dict[Any, Any]:
    """The documents of the found chunks, each with the texts of the spans (``span_0`` …) and not its whole text."""
    documents = Document.objects.visible_to(membership).without_text().select_related("collection")
    cut = {
        f"span_{index}": Substr(
            "text", Value(spans[chunk.pk].start + 1), Value(spans[chunk.pk].end - spans[chunk.pk].start)
        )
        for index, chunk in enumerate(found)
    }
    rows = documents.filter(pk__in={chunk.document_id for chunk in found}).annotate(**cut)
    return {document.pk: document for document in rows}


def _page_of(document: Document, offset: int) -> int | None:
    """The 1-based page that an offset of the text lies on; ``None`` for formats without pages."""
    return sum(1 for start in document.pages if start <= offset) or None
