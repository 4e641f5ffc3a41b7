"""Why something is found, or not: a search as a role makes it, told to somebody who manages.

The search is the real one, behind the role's own walls. What is told of it goes through the walls of the one who looks as
well: a passage that they may not read is counted and not shown, and where the role reads what they do not, the figures
that tell of its words (how many chunks hold a term, the scores made of that, the confidence) are left out too.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.contrib.humanize.templatetags.humanize import ordinal
from django.utils.text import get_text_list
from django.utils.translation import gettext as _

from knowledge.access import as_member, eyes_of
from knowledge.config import RetrievalConfig
from knowledge.embedding.base import Vectors
from knowledge.models import Chunk, Document, EmbeddingSpace, TagSet
from knowledge.retrieval.analysis import (
    chunk_words,
    count_terms,
    find_terms,
    hash_term,
    question_forms,
    question_terms,
    unpack_terms,
)
from knowledge.retrieval.base import Filters, FoundPassage, Ranked, Ranking
from knowledge.retrieval.evidence import judge_evidence
from knowledge.retrieval.keyword import count_holding, idf_of, search_keywords
from knowledge.retrieval.search import rank_chunks, readable_rows, search_passages
from knowledge.retrieval.vector import search_vectors
from knowledge.retrieval.view import EMPTY
from tenants.models import Membership, Role
from tenants.scope import require_tenant_id, scope

SHOWN_TAG_SETS = 30


@dataclass(frozen=True)
class Term:
    """A term of the question as search sees it.

    Attributes:
        times: in the question.
        holding: how many of the chunks that were searched hold it.
        idf: how telling that makes it.
    """

    text: str
    times: int
    holding: int
    idf: float


@dataclass(frozen=True)
class Places:
    """Where a chunk stands, each 1-based; ``None``: not among those that the arm took."""

    by_meaning: int | None
    by_words: int | None
    together: int | None


@dataclass(frozen=True)
class ExplainedPassage:
    """A passage that the role gets and that the one who looks may read too.

    Attributes:
        pieces: its text, cut at the terms of the question: ``(text, whether it is one)``.
        held: the question's terms that its chunk holds, the most telling first.
    """

    passage: FoundPassage
    ranked: Ranked | None
    places: Places
    held: tuple[str, ...]
    pieces: tuple[tuple[str, bool], ...]
    sentence: str


@dataclass(frozen=True)
class Explanation:
    """How a question is searched for a role.

    Attributes:
        terms: the most telling first; empty unless ``complete``.
        complete: whether the one who looks reads all that the role reads; if not, figures of words are left out.
        chunks: in the tenant's index; readable: of these to the role; remaining: of these after the filters.
        tag_sets: those that the role reads, some of them; ``tag_set_count``: how many it reads, of ``all_tag_sets``.
        passages: best first; ``beyond``: how many more the role gets that the one who looks may not read.
        confidence: 0–1; ``None`` unless ``complete``.
        timings: milliseconds by stage. The arms alone are part of the ranking too, which is part of the search.
        limit: how many chunks each arm takes.
    """

    terms: tuple[Term, ...]
    complete: bool
    chunks: int
    readable: int
    remaining: int
    tag_sets: tuple[str, ...]
    tag_set_count: int
    all_tag_sets: int
    passages: tuple[ExplainedPassage, ...]
    beyond: int
    answered: bool
    confidence: float | None
    version: int
    model: str
    limit: int
    timings: Mapping[str, float] = field(default_factory=dict)
    ranking: Ranking = field(
        default_factory=lambda: Ranking(view=EMPTY, dense=(), keyword=(), fused=()), repr=False
    )


def explain_search(
    *,
    role: Role,
    membership: Membership,
    question: str,
    vector: Vectors,
    k: int,
    filters: Filters,
    config: RetrievalConfig,
    model: str = "",
    timings: Mapping[str, float] | None = None,
) -> Explanation:
    """Searches as a member with ``role`` would; to be called in the scope of the one who looks.

    Args:
        membership: of the one who looks.
        vector: of the question, shape ``(dimensions,)``, of length 1.
        model: that made it; empty: the tenant's active one.
        timings: milliseconds of what was done before.
    """
    member, spent = as_member(role, membership), dict(timings or {})
    limit = max(config.candidates, 4 * k)
    asked: dict[str, Any] = {"membership": member, "question": question, "vector": vector, "config": config}
    asked["model"] = model
    with eyes_of(role):
        with _timed(spent, _("rows the role may read")):
            view, selection, languages = readable_rows(membership=member, filters=filters, model=model)
            whole = readable_rows(membership=member, filters=Filters(), model=model).selection
        with _timed(spent, _("terms of the question")):
            counted = question_terms(question, languages=languages)
            forms = question_forms(question, languages=languages)
        with _timed(spent, _("by words")):
            search_keywords(
                view=view,
                selection=selection,
                terms=counted,
                forms=forms,
                k1=config.bm25_k1,
                b=config.bm25_b,
            )
        with _timed(spent, _("by meaning")):
            search_vectors(view=view, selection=selection, vector=vector, limit=limit)
        with _timed(spent, _("ranking, both arms")):
            ranking = rank_chunks(**asked, filters=filters, limit=limit)
        with _timed(spent, _("the whole search")):
            passages = search_passages(**asked, filters=filters, k=k)
        own_sets = TagSet.objects.visible_to(member)
        tag_sets = [str(each) for each in own_sets.order_by("tags")[:SHOWN_TAG_SETS]]
        tag_set_count = own_sets.count()
    with scope(tenant_id=require_tenant_id(), tags=None):  # a number alone
        all_tag_sets = TagSet.objects.count()
    terms = sorted(
        (
            Term(text, times, holding, idf_of(holding=holding, total=selection.total))
            for text, times in counted.items()
            for holding in [count_holding(view=view, selection=selection, term=text)]
        ),
        key=lambda term: (-term.idf, term.text.isalpha(), -len(term.text)),
    )
    complete = reads_all_of(membership.role, role)
    shown = _explain_passages(membership, passages, ranking=ranking, terms=terms, complete=complete)
    confidence = judge_evidence(passages=passages, config=config)
    space = None if model else EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.ACTIVE).first()
    return Explanation(
        terms=tuple(terms) if complete else (),
        complete=complete,
        chunks=view.size,
        readable=whole.total,
        remaining=selection.total,
        tag_sets=tuple(tag_sets),
        tag_set_count=tag_set_count,
        all_tag_sets=all_tag_sets,
        passages=tuple(shown),
        beyond=len(passages) - len(shown),
        answered=confidence >= config.evidence_floor,
        confidence=confidence if complete else None,
        version=view.version,
        model=space.model if space else model,
        limit=limit,
        timings=spent,
        ranking=ranking,
    )


def reads_all_of(own: Role, other: Role) -> bool:
    """Whether a role reads all that another one reads."""
    mine, theirs = own.readable_tags, other.readable_tags
    return mine is None or (theirs is not None and set(theirs) <= set(mine))


@contextmanager
def _timed(spent: dict[str, float], stage: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    spent[stage] = round((time.perf_counter() - begun) * 1000, 2)


def _explain_passages(
    membership: Membership,
    passages: Sequence[FoundPassage],
    *,
    ranking: Ranking,
    terms: Sequence[Term],
    complete: bool,
) -> list[ExplainedPassage]:
    chunks = (
        Chunk.objects.visible_to(membership)
        .select_related("collection", "document")
        .only("id", "terms", "text", "heading_path", "collection__language", "document__title", "tenant_id")
        .in_bulk([passage.chunk_id for passage in passages])
    )
    of_chunk = {each.chunk_id: each for each in ranking.fused}
    shown = []
    for passage in passages:
        chunk = chunks.get(passage.chunk_id)
        if chunk is None:
            continue
        hashes = _hashes_of(chunk)
        held = tuple(term.text for term in terms if hash_term(term.text) in hashes)
        places = places_of(ranking, passage.chunk_id)
        rarest = terms[0].text if terms and complete else ""
        spans = find_terms(
            passage.text, terms={term.text for term in terms}, language=chunk.collection.language
        )
        shown.append(
            ExplainedPassage(
                passage=passage,
                ranked=of_chunk.get(passage.chunk_id),
                places=places,
                held=held,
                pieces=tuple(cut_at(passage.text, spans)),
                sentence=describe_place(places, held=held, rarest=rarest),
            )
        )
    return shown


def _hashes_of(chunk: Chunk) -> set[int]:
    if chunk.terms is not None:
        return {int(each) for each in unpack_terms([bytes(chunk.terms)])["hash"]}
    words = chunk_words(chunk.document.title, chunk.heading_path, chunk.text)
    return {hash_term(term) for term in count_terms(words, language=chunk.collection.language)}


def places_of(ranking: Ranking, chunk_id: UUID) -> Places:
    """Where a chunk stands in each list of a ranking."""

    def place(of: Sequence[Ranked]) -> int | None:
        return next((n for n, each in enumerate(of, start=1) if each.chunk_id == chunk_id), None)

    return Places(
        by_meaning=place(ranking.dense), by_words=place(ranking.keyword), together=place(ranking.fused)
    )


def describe_place(places: Places, *, held: Sequence[str], rarest: str = "") -> str:
    """A chunk's place in plain words: “4th by meaning, 1st by words: holds ge-0/0/1, the rarest term of the question”.

    Args:
        held: the question's terms that it holds, the most telling first.
        rarest: the most telling term of all; empty where that is not to be said.
    """
    by_meaning = (
        _("%(place)s by meaning") % {"place": ordinal(places.by_meaning)}
        if places.by_meaning
        else _("not near by meaning")
    )
    by_words = (
        _("%(place)s by words") % {"place": ordinal(places.by_words)}
        if places.by_words
        else _("not found by words")
    )
    if not held:
        why = _("holds none of the question's terms")
    elif held[0] == rarest:
        others = len(held) - 1
        why = _("holds %(term)s, the rarest term of the question") % {"term": held[0]}
        if others:
            why = _("%(why)s, and %(n)d more") % {"why": why, "n": others}
    else:
        names = get_text_list(list(held[:4]), _("and"))
        why = _("holds %(terms)s") % {"terms": names}
    return f"{by_meaning}, {by_words}: {why}."


def cut_at(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """A text in pieces, each with whether it is one of the spans, which are in order and apart."""
    last = 0
    for start, end in spans:
        if start > last:
            yield text[last:start], False
        yield text[start:end], True
        last = end
    if last < len(text):
        yield text[last:], False


# One document


@dataclass(frozen=True)
class Fate:
    """What becomes of a document in a search.

    Attributes:
        found: whether it is among the passages.
        reason: a sentence.
        best: its best chunk in the ranking, if one got that far.
    """

    document: Document
    found: bool
    reason: str
    best: Ranked | None = None


def find_document(membership: Membership, wanted: str) -> Document | None:
    """A document by id or address, deleted ones too, among what the member may read; the newest of several."""
    for rows in (Document.objects.visible_to(membership), Document.objects.restorable_by(membership)):
        rows = rows.without_text().select_related("collection")
        try:
            found = rows.filter(pk=UUID(wanted)).first()
        except ValueError:
            found = rows.filter(uri=wanted).order_by("-created_at").first()
        if found is not None:
            document: Document = found
            return document
    return None


def explain_document(
    *, document: Document, role: Role, membership: Membership, filters: Filters, explanation: Explanation
) -> Fate:
    """Why a document, which the one who looks may read, is found for a role or is not."""
    reason = _barrier(document, role=role, membership=membership, filters=filters)
    if reason:
        return Fate(document, found=False, reason=reason)
    best = next((each for each in explanation.ranking.fused if each.document_id == document.pk), None)
    if best is None:
        return Fate(
            document,
            found=False,
            reason=_(
                "It can be found, but none of its passages is among the %(n)d nearest by meaning, nor among the %(n)d"
                " best by words."
            )
            % {"n": explanation.limit},
        )
    found = any(each.passage.document_id == document.pk for each in explanation.passages)
    places = places_of(explanation.ranking, best.chunk_id)
    together = _("Its best passage is %(place)s of all") % {"place": ordinal(places.together or 0)}
    arms = describe_arms(places)
    return Fate(document, found=found, reason=f"{together}: {arms}.", best=best)


def describe_arms(places: Places) -> str:
    """The places in both arms alone."""
    return describe_place(places, held=()).split(":")[0]


def _barrier(document: Document, *, role: Role, membership: Membership, filters: Filters) -> str:
    """What keeps a document from being looked at by this search; empty if nothing does."""
    if document.deleted_at is not None:
        return _("It is deleted: nobody finds it unless it is restored.")
    member = as_member(role, membership)
    with eyes_of(role):
        is_readable = Document.objects.visible_to(member).filter(pk=document.pk).exists()
    if not is_readable:
        tags = ", ".join(document.tags) or _("no tag")
        reads = ", ".join(role.readable_tags or ()) or _("no tag")
        return _("The role may not read it: it has %(tags)s, the role reads %(reads)s.") % {
            "tags": tags,
            "reads": reads,
        }
    if filters.collection_ids and document.collection_id not in filters.collection_ids:
        return _("It is in the collection “%(name)s”, which the filter leaves out.") % {
            "name": document.collection.name
        }
    if filters.tags and not set(filters.tags) & set(document.tags):
        return _("It has none of the tags that the filter asks for.")
    if not document.chunk_count:
        if document.status == Document.Status.FAILED:
            return _("It could not be indexed: %(error)s") % {"error": document.error}
        if document.status == Document.Status.PENDING:
            return _("It is not indexed yet.")
        return _("No text was found in it: it has no passages.")
    return ""
