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

# What a chunk scores by itself, the rest with its neighbours: a subject is spoken of in many chunks, an identifier stands
# where it stands.
OWN_SHARE, OWN_SHARE_IDENTIFIER = 0.25, 0.75


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
    *,
    view: IndexView,
    selection: Selection,
    terms: Mapping[str, int],
    forms: Mapping[str, float],
    k1: float,
    b: float,
) -> KeywordScores:
    """BM25 as Lucene computes it: ``Σ qtf · idf · tf / (tf + k1 · (1 - b + b · length / mean))`` with
    ``idf = log(1 + (N - n + 0.5) / (n + 0.5))``; a share for the chunk by itself, the rest for it with its neighbours as
    one text: the words of a question rarely stand in one chunk, but mostly near it (docs/decisions/0005).

    Args:
        terms: of ``question_terms``: each with its times in the question (qtf).
        forms: of ``question_forms``: each with what it counts in the place of those; looked for in the chunk and its
            neighbours as one text, and no part of what a chunk covers.
        k1, b: saturation and length normalisation (Robertson & Zaragoza, "The Probabilistic Relevance Framework", 2009).
    """
    scores = tuple(np.zeros(part.segment.size, dtype=np.float32) for part in view.parts)
    covered = tuple(np.zeros(part.segment.size, dtype=np.float32) for part in view.parts)
    own_norms = [_norm(each.segment.lengths, selection.mean_length, k1=k1, b=b) for each in view.parts]
    norms = [_norm(each.segment.window_lengths, selection.mean_window, k1=k1, b=b) for each in view.parts]
    # A term that no chunk holds is the most telling one: it counts in what a chunk could have covered.
    most = 0.0
    asked: list[tuple[str, float, bool]] = [(term, times, False) for term, times in terms.items()]
    asked += [(form, weight, True) for form, weight in forms.items()]
    for term, weight, is_form in asked:
        own, around = [], []
        for part, mask in zip(view.parts, selection.masks, strict=True):
            rows, counts = part.segment.postings(hash_term(term))
            kept = mask[rows]
            own.append((rows[kept], counts[kept]))
            around.append(part.segment.windows(*own[-1]))  # a document's rows are all kept, or none
        idf, idf_around = (
            idf_of(holding=holding, total=selection.total)
            for holding in (
                sum(len(rows) for rows, _ in own),
                sum(int(np.count_nonzero(often)) for _, often in around),
            )
        )
        most += 0 if is_form else idf
        own_share = 0.0 if is_form else own_share_of(term)
        share = np.float32((1 - own_share) * weight * idf_around)
        for number, ((rows, counts), (near, often)) in enumerate(zip(own, around, strict=True)):
            if not is_form:
                tf = counts.astype(np.float32)
                own_score = np.float32(own_share * weight * idf) * tf / (tf + own_norms[number][rows])
                scores[number][rows] += own_score
                covered[number][rows] += np.float32(idf)
            scores[number][near] += share * often / (often + norms[number][near])
    total = max(1, selection.total)
    mean = sum(float(each.sum(dtype=np.float64)) for each in scores) / total
    square = sum(float(np.square(each, dtype=np.float64).sum()) for each in scores) / total
    if most:
        for each in covered:
            each /= np.float32(most)
    return KeywordScores(scores=scores, covered=covered, deviation=math.sqrt(max(0.0, square - mean * mean)))


def own_share_of(term: str) -> float:
    """What of a term's score is the chunk's own."""
    return OWN_SHARE_IDENTIFIER if any(map(str.isdigit, term)) else OWN_SHARE


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
