"""A second look at the best candidates: the port to rerankers, and one that needs no model."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from math import log
from typing import Protocol
from uuid import UUID

import structlog

from knowledge.config import RetrievalConfig
from knowledge.retrieval.analysis import normalise, question_terms, stemmer_of
from ragsite.core.observability import RERANKED

logger = structlog.get_logger(__name__)

# Terms of a question that lie this close in a passage belong together.
NEAR = 8
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Candidate:
    """A chunk that the arms found: ``score`` is the fused one, ``language`` its collection's."""

    chunk_id: UUID
    score: float
    title: str
    headings: tuple[str, ...]
    text: str
    updated_at: datetime
    language: str = "english"


class RerankError(Exception):
    """The reranker gave no scores; the order that it was given stands. ``status`` is a metric label."""

    permanent = False

    def __init__(self, message: str, *, status: str = "failed") -> None:
        super().__init__(message)
        self.status = status


class Reranker(Protocol):
    """Judges passages for a question."""

    name: str

    def rerank(self, question: str, passages: Sequence[Candidate]) -> list[float]:
        """A score for each passage, the higher the better; only their order means anything.

        Raises:
            RerankError: no scores, or not in time.
        """
        ...


def rerank_candidates(
    *, reranker: Reranker | None, question: str, candidates: Sequence[Candidate]
) -> list[Candidate]:
    """The candidates in the reranker's order, or in their own when there is none or it fails."""
    if reranker is None or len(candidates) < 2:
        return list(candidates)
    try:
        scores = reranker.rerank(question, candidates)
    except RerankError as error:
        RERANKED.labels(error.status).inc()
        logger.warning("not reranked", reranker=reranker.name, reason=str(error))
        return list(candidates)
    RERANKED.labels("success").inc()
    order = sorted(range(len(candidates)), key=lambda place: -scores[place])
    return [candidates[place] for place in order]


class FeatureReranker:
    """Adds to the fused score what its parts cannot see: where the question's terms stand.

    ``score + w_phrase·phrase + w_proximity·proximity + w_title·title + w_recency·recency``, each feature 0–1. Phrase and
    proximity follow the ordered and unordered windows of Metzler & Croft, "A Markov random field model for term
    dependencies" (2005).
    """

    name = "features"

    def __init__(
        self,
        config: RetrievalConfig,
        *,
        content_terms: Callable[[str, str], Iterable[str]] = lambda question, language: question_terms(
            question, languages=[language]
        ),
    ) -> None:
        """``content_terms(question, language)`` gives the stems that are no stop words."""
        self._config = config
        self._content_terms = content_terms

    def rerank(self, question: str, passages: Sequence[Candidate]) -> list[float]:
        config = self._config
        rows = self.features(question, passages)
        weights = (
            config.rerank_phrase,
            config.rerank_proximity,
            config.rerank_title,
            config.rerank_recency,
        )
        return [
            passage.score + sum(weight * value for weight, value in zip(weights, row, strict=True))
            for passage, row in zip(passages, rows, strict=True)
        ]

    def features(self, question: str, passages: Sequence[Candidate]) -> list[tuple[float, ...]]:
        """``(phrase, proximity, title, recency)`` of each passage."""
        languages = {each.language for each in passages}
        readings = {language: self._read_question(question, language) for language in languages}
        found = [readings[each.language].occurrences(each.text) for each in passages]
        heads = [
            {term for _, term in readings[each.language].occurrences("\n".join((each.title, *each.headings)))}
            for each in passages
        ]
        weights = {
            language: _idf(
                reading.size,
                [
                    {term for _, term in places} | head
                    for places, head, each in zip(found, heads, passages, strict=True)
                    if each.language == language
                ],
            )
            for language, reading in readings.items()
        }
        newest = sorted({each.updated_at for each in passages})
        age = {moment: place / max(1, len(newest) - 1) for place, moment in enumerate(newest)}
        rows: list[tuple[float, ...]] = []
        for each, places, head in zip(passages, found, heads, strict=True):
            reading, idf = readings[each.language], weights[each.language]
            total = sum(idf) or 1.0
            rows.append(
                (
                    reading.phrase(places),
                    reading.proximity(places),
                    sum(idf[term] for term in head) / total,
                    age[each.updated_at],
                )
            )
        return rows

    def _read_question(self, question: str, language: str) -> "_Question":
        content = set(self._content_terms(question, language))
        return _Question(normalise(question), language=language, content=content)


def _idf(size: int, holders: Sequence[set[int]]) -> list[float]:
    """How telling each of the question's terms is among these passages: ``log(1 + (N - n + 0.5) / (n + 0.5))``."""
    counts = [sum(term in held for held in holders) for term in range(size)]
    return [log(1 + (len(holders) - count + 0.5) / (count + 0.5)) for count in counts]


@lru_cache(maxsize=50_000)
def _stem(language: str, word: str) -> str:
    stemmer = stemmer_of(language)
    return word if stemmer is None or not word.isalpha() else str(stemmer.stemWord(word))


class _Question:
    """A question's terms in order: ``sequence`` holds ``(place among its words, number of the term)``."""

    def __init__(self, text: str, *, language: str, content: set[str]) -> None:
        self._language = language
        self._terms: dict[str, int] = {}
        self._known: dict[str, int | None] = {}
        self.sequence: list[tuple[int, int]] = []
        for place, word in enumerate(_WORD.findall(text)):
            stem = _stem(language, word)
            if stem in content or word in content or not word.isalpha():
                self.sequence.append((place, self._terms.setdefault(stem, len(self._terms))))
        self._beginnings = {stem[:2] for stem in self._terms}
        # Neighbours in the question, and how far apart they stand there.
        self._neighbours: dict[tuple[int, int], int] = {}
        for (left, first), (right, second) in pairwise(self.sequence):
            self._neighbours.setdefault((first, second), right - left)
        self._pairs = {pair for pair in self._neighbours if pair[0] != pair[1]}

    @property
    def size(self) -> int:
        return len(self._terms)

    def occurrences(self, text: str) -> list[tuple[int, int]]:
        """``(place, term)`` of the question's terms in a text."""
        known = self._known
        words = _WORD.findall(text.lower() if text.isascii() else normalise(text))
        for word in set(words).difference(known):
            # A stem begins as its word does: most words need not be stemmed.
            alike = word[:2] in self._beginnings
            known[word] = self._terms.get(_stem(self._language, word)) if alike else None
        return [(place, term) for place, word in enumerate(words) if (term := known[word]) is not None]

    def phrase(self, places: Sequence[tuple[int, int]]) -> float:
        """The longest stretch of the question that stands so in the text, as a share of its terms; 0 below two."""
        longest = run = 1
        for (left, first), (right, second) in pairwise(places):
            run = run + 1 if self._neighbours.get((first, second)) == right - left else 1
            longest = max(longest, run)
        return min(1.0, longest / len(self.sequence)) if longest > 1 else 0.0

    def proximity(self, places: Sequence[tuple[int, int]]) -> float:
        """The share of neighbouring terms of the question that stand within ``NEAR`` words, in either order."""
        pairs = self._pairs
        if not pairs:
            return 0.0
        near: set[tuple[int, int]] = set()
        for index, (left, first) in enumerate(places):
            for right, second in places[index + 1 :]:
                if right - left > NEAR:
                    break
                if (first, second) in pairs:
                    near.add((first, second))
                if (second, first) in pairs:
                    near.add((second, first))
        return len(near) / len(pairs)
