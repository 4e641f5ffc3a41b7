"""From a question to passages: both arms, fusion, expansion."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Subquery
from django.db.models.expressions import RawSQL

from knowledge.config import RetrievalConfig
from knowledge.embedding.base import Vectors
from knowledge.models import Chunk, Collection, Corpus, Document, EmbeddingSpace, TagSet
from knowledge.retrieval.analysis import question_forms, question_terms
from knowledge.retrieval.base import Filters, FoundPassage, Ranked, Ranking
from knowledge.retrieval.cross_encoder import reranker_for
from knowledge.retrieval.expand import NEIGHBOURS, Place, Span, expand_spans
from knowledge.retrieval.fusion import fuse_scores, spread_passages
from knowledge.retrieval.keyword import KeywordScores, search_keywords
from knowledge.retrieval.rerank import Candidate, rerank_candidates
from knowledge.retrieval.segment import Rows
from knowledge.retrieval.tenant_index import IndexKey, indexes
from knowledge.retrieval.vector import best_of, move_towards, near_rows
from knowledge.retrieval.view import EMPTY, IndexView, Selection
from ragsite.core.observability import RETRIEVAL_RESULTS
from tenants.models import Membership
from tenants.scope import atomic, require_tenant_id

SWAPPED_TRIES = 3


class Readable(NamedTuple):
    """A tenant's index, the rows of it that a member may read, and the languages of the tenant's documents."""

    view: IndexView
    selection: Selection
    languages: tuple[str, ...]


# Each span from its own document only: cutting a long text unpacks all of it.
_SPAN = """CASE WHEN "knowledge_document"."id" = %s THEN substr("knowledge_document"."text", %s, %s) ELSE '' END"""


def search_passages(
    *,
    membership: Membership,
    question: str,
    vector: Vectors,
    k: int,
    filters: Filters,
    config: RetrievalConfig,
    model: str = "",
) -> list[FoundPassage]:
    """The ``k`` best passages that the member may read, best first; fewer only where they may read fewer.

    Args:
        question: standing alone.
        vector: its embedding, shape ``(dimensions,)``, of length 1.
        model: the name of the embedder that made it; empty: that of the space in force.
    """
    for _ in range(SWAPPED_TRIES):
        passages, swapped = _search_once(
            membership=membership,
            question=question,
            vector=vector,
            k=k,
            filters=filters,
            config=config,
            model=model,
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
    model: str,
) -> tuple[list[FoundPassage], bool]:
    """The passages, and whether a document was swapped or deleted under the search's feet; then it is left out."""
    with atomic():
        ranking = rank_chunks(
            membership=membership,
            question=question,
            vector=vector,
            limit=max(config.candidates, 4 * k),
            filters=filters,
            config=config,
            model=model,
            most=max(k, config.rerank_candidates),
        )
        chunks = _readable_chunks(membership=membership, filters=filters)
        best = _rerank(ranking.fused, chunks=chunks, question=question, config=config)[:k]
        near = ranking.view.beside(np.array([each.row for each in best], dtype=np.int64), reach=NEIGHBOURS)
        rows = chunks.filter(pk__in=ranking.view.chunk_ids(near)).order_by().values_list(*Place._fields)
        places = {row[0]: Place(*row) for row in rows}
        found = [places[each.chunk_id] for each in best if each.chunk_id in places]
        spans = expand_spans(
            places=places.values(),
            found=found,
            section_tokens=config.section_tokens,
            context_tokens=config.context_tokens,
        )
        documents = _documents_with_spans(membership=membership, found=found, spans=spans)
    of_chunk = {each.chunk_id: each for each in best}
    passages: list[FoundPassage] = []
    score = 1.0
    swapped = len(found) < len(best)
    for index, chunk in enumerate(found):
        document = documents.get(chunk.document_id)
        span = spans[chunk.pk]
        text = getattr(document, f"span_{index}", "")
        # The statements see what is committed as they begin: old offsets must not cut a new text.
        if document is None or text[chunk.start - span.start : chunk.end - span.start] != chunk.text:
            swapped = True
            continue
        score = min(score, squash(of_chunk[chunk.pk].fused, config))  # a reranker has an order of its own
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
                score=round(score, 4),
                page=_page_of(document, span.start),
                start=span.start,
                end=span.end,
                cosine=round(of_chunk[chunk.pk].cosine, 4),
                keyword=round(of_chunk[chunk.pk].keyword, 4),
                coverage=round(of_chunk[chunk.pk].coverage, 4),
                updated_at=document.updated_at.isoformat(),
            )
        )
    return passages, swapped


def rank_chunks(
    *,
    membership: Membership,
    question: str,
    vector: Vectors,
    limit: int,
    filters: Filters,
    config: RetrievalConfig,
    model: str = "",
    most: int | None = None,
) -> Ranking:
    """Both arms and their fusion, over the chunks that the member may read and nothing else.

    The index is of the whole tenant. Which of its rows may be looked at, the database says in the asker's own scope: the
    sets of tags that row-level security shows and the role reads. Nothing else is scored, nor counted in any figure.

    Args:
        limit: chunks of each arm.
        vector: of the question, shape ``(dimensions,)``, of length 1.
        model: the name of the embedder that made it; empty: that of the space in force.
        most: how many chunks the lists hold at most; ``None``: all that were found.
    """
    with atomic(savepoint=False):
        view, selection, languages = readable_rows(membership=membership, filters=filters, model=model)
        terms = question_terms(question, languages=languages)
        forms = question_forms(question, languages=languages)
    if not selection.total:
        return Ranking(view=view, dense=(), keyword=(), fused=())
    keyword = search_keywords(
        view=view, selection=selection, terms=terms, forms=forms, k1=config.bm25_k1, b=config.bm25_b
    )
    by_words, _ = keyword.best(view=view, limit=limit)
    near = near_rows(view=view, selection=selection, vector=vector, limit=limit)
    by_vector, _ = near.best(vector=vector, limit=limit)
    rows = np.union1d(by_words, by_vector)
    fused = _fuse(view=view, rows=rows, vector=vector, keyword=keyword, config=config)
    if config.feedback_passages:
        nearest, _ = best_of(rows, fused, config.feedback_passages)
        moved = move_towards(vector, view.vectors(nearest), weight=config.feedback_weight)
        again, _ = near.best(vector=moved, limit=limit)
        rows = np.union1d(rows, again)
        fused = _fuse(view=view, rows=rows, vector=moved, keyword=keyword, config=config)
    best, scores = spread_passages(scores=fused, around=view.neighbourhoods(rows))
    best, scores = best[:most], scores[:most]
    vectors = view.vectors(best)
    cosines = vectors @ vector / np.maximum(np.linalg.norm(vectors, axis=1), 1e-6)
    keywords, covered = keyword.of(view=view, rows=best)
    ranked = [
        Ranked(row, chunk_id, document_id, *map(float, figures))
        for row, chunk_id, document_id, *figures in zip(
            best.tolist(),
            view.chunk_ids(best),
            view.document_ids(best),
            scores,
            cosines,
            keywords,
            covered,
            strict=True,
        )
    ]
    of_row = {each.row: each for each in ranked}
    return Ranking(
        view=view,
        dense=tuple(of_row[row] for row in by_vector.tolist() if row in of_row),
        keyword=tuple(of_row[row] for row in by_words.tolist() if row in of_row),
        fused=tuple(ranked),
    )


def readable_rows(*, membership: Membership, filters: Filters, model: str = "") -> Readable:
    """The tenant's index as this transaction sees it or later, and the rows of it that the member may read.

    A question that was embedded just before a switch is still compared with vectors of its own model.
    """
    tag_sets = TagSet.objects.visible_to(membership)
    if filters.tags:
        tag_sets = tag_sets.filter(tags__overlap=list(filters.tags))
    space = EmbeddingSpace.objects.order_by("created_at")
    space = space.filter(model=model) if model else space.filter(state=EmbeddingSpace.State.ACTIVE)
    languages = Collection.objects.order_by("language").values("language").distinct()
    # All in one statement: it runs before every search.
    found = Corpus.objects.values_list(
        "version",
        Subquery(space.values("pk")[:1]),
        Subquery(space.values("dimensions")[:1]),
        ArraySubquery(tag_sets.values("pk")),
        ArraySubquery(languages),
    ).first()
    if found is None or found[1] is None:
        return Readable(EMPTY, EMPTY.select(tag_sets=frozenset(), collections=None), ())
    version, space_id, dimensions, readable, spoken = found
    key = IndexKey(tenant_id=require_tenant_id(), space_id=space_id, dimensions=dimensions)
    view = indexes.of(key).at(version=version)
    collections = frozenset(pk.bytes for pk in filters.collection_ids) if filters.collection_ids else None
    selection = view.select(tag_sets=frozenset(pk.bytes for pk in readable), collections=collections)
    return Readable(view, selection, tuple(spoken))


def _fuse(
    *, view: IndexView, rows: Rows, vector: Vectors, keyword: KeywordScores, config: RetrievalConfig
) -> Vectors:
    return fuse_scores(
        cosines=view.vectors(rows) @ vector,
        keywords=keyword.of(view=view, rows=rows)[0],
        dense_deviation=config.dense_deviation,
        keyword_deviation=keyword.deviation,
        keyword_weight=config.keyword_weight,
    )


def _rerank(
    ranked: Sequence[Ranked], *, chunks: Any, question: str, config: RetrievalConfig
) -> Sequence[Ranked]:
    """The best candidates in the reranker's order, where one is set; the rest behind them."""
    reranker = reranker_for(config)
    if reranker is None:
        return ranked
    head = ranked[: config.rerank_candidates]
    rows = chunks.filter(pk__in=[each.chunk_id for each in head]).values_list(
        "pk", "document__title", "heading_path", "text", "document__updated_at", "collection__language"
    )
    found = {pk: row for pk, *row in rows}
    candidates = []
    for each in head:
        if each.chunk_id in found:
            title, headings, text, updated_at, language = found[each.chunk_id]
            candidates.append(
                Candidate(
                    chunk_id=each.chunk_id,
                    score=each.fused,
                    title=title,
                    headings=tuple(headings),
                    text=text,
                    updated_at=updated_at,
                    language=language,
                )
            )
    of_chunk = {each.chunk_id: each for each in head}
    order = rerank_candidates(reranker=reranker, question=question, candidates=candidates)
    return [*(of_chunk[each.chunk_id] for each in order), *ranked[len(head) :]]


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
    *, membership: Membership, found: Sequence[Place], spans: Mapping[UUID, Span]
) -> dict[Any, Any]:
    """The documents of the found chunks, each with the texts of the spans (``span_0`` …) and not its whole text."""
    documents = Document.objects.visible_to(membership).without_text().select_related("collection")
    cut = {
        f"span_{index}": RawSQL(  # noqa: S611  the ORM takes longer to build the same than the database to run it
            _SPAN,
            [chunk.document_id, spans[chunk.pk].start + 1, spans[chunk.pk].end - spans[chunk.pk].start],
        )
        for index, chunk in enumerate(found)
    }
    rows = documents.filter(pk__in={chunk.document_id for chunk in found}).annotate(**cut)
    return {document.pk: document for document in rows}


def _page_of(document: Document, offset: int) -> int | None:
    """The 1-based page that an offset of the text lies on; ``None`` for formats without pages."""
    return sum(1 for start in document.pages if start <= offset) or None
