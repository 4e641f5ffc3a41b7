"""The values that the stages of retrieval pass on."""

from dataclasses import dataclass
from uuid import UUID

from knowledge.retrieval.view import IndexView


@dataclass(frozen=True)
class Filters:
    """What the asker narrowed the search to; empty means everything they may read."""

    collection_ids: tuple[UUID, ...] = ()
    tags: tuple[str, ...] = ()

    def as_key(self) -> tuple[list[str], list[str]]:
        """The same for filters that let the same through, whatever the order; for cache keys."""
        return sorted(str(pk) for pk in self.collection_ids), sorted(self.tags)


@dataclass(frozen=True)
class Ranked:
    """A chunk in a ranking.

    Attributes:
        row: its number in the index that was searched.
        fused: the score of both arms together.
        cosine: similarity of question and chunk.
        keyword: BM25, 0 when no term matches.
        coverage: the share of the question's terms that the chunk holds, each weighed by its idf, 0–1.
    """

    row: int
    chunk_id: UUID
    document_id: UUID
    fused: float
    cosine: float
    keyword: float
    coverage: float


@dataclass(frozen=True)
class Ranking:
    """What the arms found, each best first, and what they come to together; the fused list holds both others.

    ``view`` is the index that was searched.
    """

    view: IndexView
    dense: tuple[Ranked, ...]
    keyword: tuple[Ranked, ...]
    fused: tuple[Ranked, ...]


@dataclass(frozen=True)
class FoundPassage:
    """A passage to show and to answer from.

    Attributes:
        n: 1-based place in the list.
        start, end: offsets in the document's text, in characters; ``text`` is exactly what lies between.
        score: 0–1, falling with ``n``.
        cosine: similarity of question and chunk.
        keyword: BM25 score of the chunk, 0 when no word matches.
        coverage: share of the question's words that the chunk holds, weighed by idf, 0–1.
    """

    n: int
    document_id: UUID
    document_version: int
    chunk_id: UUID
    title: str
    uri: str
    collection: str
    heading: str
    text: str
    score: float
    page: int | None
    start: int
    end: int
    cosine: float
    keyword: float
    coverage: float
    updated_at: str
