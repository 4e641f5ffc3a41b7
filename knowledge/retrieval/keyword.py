"""The keyword arm: BM25 over the terms of ``analysis.py``, among the rows that the asker may be shown.

The statistics (how many chunks hold a term, how long chunks are) are those of what the asker may read, so a score tells
nothing of what they may not. Any term may match: long questions rarely have all their words in one passage.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knowledge.retrieval.analysis import hash_term
from knowledge.retrieval.segment import Rows, Vectors
from knowledge.retrieval.view import IndexView, Selection

# What a chunk scores by itself, the rest with its neighbours.
OWN_SHARE = 0.25


@dataclass(frozen=True)
class KeywordScores:
    """BM25 of every row of a view.

    Attributes:
        scores: of each part's rows; 0 where no term matches or the asker may not look.
        covered: the share of the question's terms that a row holds, each weighed by its idf, 0–1.
        deviation: the standard deviation of the scores over the selection, those of 0 too.
    """

    scores: tuple[NDArray[np.float32], ...]
    covered: tuple[NDArray[np.float32], ...]
    deviation: float

    def best(self, *, view: IndexView, limit: int) -> tuple[Rows, Vectors]:
        """The ``limit`` best rows that match at all, best first."""
        from knowledge.retrieval.vector import best_of

        rows, scores = [], []
        for base, each in zip(view.bases, self.scores, strict=True):
            matching = np.flatnonzero(each)
            rows.append(matching + base)
            scores.append(each[matching])
        if not rows:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        return best_of(np.concatenate(rows), np.concatenate(scores), limit)

    def of(self, *, view: IndexView, rows: Rows) -> tuple[Vectors, Vectors]:
        """``(scores, covered)`` of given rows."""
        scores, covered = np.zeros(len(rows), dtype=np.float32), np.zeros(len(rows), dtype=np.float32)
        for part, places, own in view.split(rows):
            scores[places], covered[places] = self.scores[part][own], self.covered[part][own]
        return scores, covered


def search_keywords(
    *, view: IndexView, selection: Selection, terms: Mapping[str, int], k1: float, b: float
) -> KeywordScores:
    """BM25 as Lucene computes it: ``Σ qtf · idf · tf / (tf + k1 · (1 - b + b · length / mean))`` with
    ``idf = log(1 + (N - n + 0.5) / (n + 0.5))``; a quarter for the chunk by itself, three for it with its neighbours as
    one text: the words of a question rarely stand in one chunk, but mostly near it (docs/decisions/0005).

    Args:
        terms: of ``question_terms``: each with its times in the question (qtf).
        k1, b: saturation and length normalisation (Robertson & Zaragoza, "The Probabilistic Relevance Framework", 2009).
    """
    scores = tuple(np.zeros(part.segment.size, dtype=np.float32) for part in view.parts)
    covered = tuple(np.zeros(part.segment.size, dtype=np.float32) for part in view.parts)
    # A term that no chunk holds is the most telling one: it counts in what a chunk could have covered.
    most = 0.0
    for term, times in terms.items():
        own, around = [], []
        for part, mask in zip(view.parts, selection.masks, strict=True):
            rows, counts = part.segment.postings(hash_term(term))
            kept = mask[rows]
            own.append((rows[kept], counts[kept]))
            around.append(part.segment.windows(*own[-1]))  # a document's rows are all kept, or none
        idf, idf_around = (
            idf_of(holding=holding, total=selection.total)
            for holding in (sum(len(rows) for rows, _ in own), sum(len(rows) for rows, _ in around))
        )
        most += idf
        for number, part in enumerate(view.parts):
            segment, (rows, counts) = part.segment, own[number]
            norm = _norm(segment.lengths[rows], selection.mean_length, k1=k1, b=b)
            tf = counts.astype(np.float32)
            scores[number][rows] += np.float32(OWN_SHARE * times * idf) * tf / (tf + norm)
            covered[number][rows] += np.float32(idf)
            near, often = around[number]
            norm = _norm(segment.window_lengths[near], selection.mean_window, k1=k1, b=b)
            scores[number][near] += np.float32((1 - OWN_SHARE) * times * idf_around) * often / (often + norm)
    total = max(1, selection.total)
    mean = sum(float(each.sum(dtype=np.float64)) for each in scores) / total
    square = sum(float(np.square(each, dtype=np.float64).sum()) for each in scores) / total
    if most:
        for each in covered:
            each /= np.float32(most)
    return KeywordScores(scores=scores, covered=covered, deviation=math.sqrt(max(0.0, square - mean * mean)))


def _norm(lengths: NDArray[np.int32], mean: float, *, k1: float, b: float) -> NDArray[np.float32]:
    return np.float32(k1 * (1 - b)) + np.float32(k1 * b / mean) * lengths.astype(np.float32)


def idf_of(*, holding: int, total: int) -> float:
    """How telling a term is that ``holding`` of ``total`` chunks hold."""
    return math.log(1 + (total - holding + 0.5) / (holding + 0.5))


def count_holding(*, view: IndexView, selection: Selection, term: str) -> int:
    """How many of the rows that the asker may be shown hold a term."""
    return sum(
        int(mask[part.segment.postings(hash_term(term))[0]].sum())
        for part, mask in zip(view.parts, selection.masks, strict=True)
    )
