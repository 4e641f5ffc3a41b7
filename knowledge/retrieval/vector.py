"""The dense arm: the nearest vectors by cosine, among the rows that the asker may be shown.

Few rows are compared one by one. Of many, the signs of the components pick those to compare: two vectors whose signs
differ in few places are near each other, and counting them takes a hundredth of the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knowledge.retrieval.segment import REACH, SCALE, Rows, Vectors, sign_bits
from knowledge.retrieval.view import IndexView, Selection

EXACT_ROWS = 3000
# Rows compared by their whole vectors: for each row wanted, at the least and at the most.
OVERSAMPLING = 24
MIN_COMPARED, MAX_COMPARED = 1000, 16000
# What a chunk's surroundings count of the vector that it is searched by.
SURROUNDINGS = 0.65


@dataclass(frozen=True)
class NearRows:
    """Rows near a vector, those nearest to it surely among them; ``scaled`` are their vectors times ``SCALE``, float32, in
    their order."""

    rows: Rows
    scaled: Vectors

    def best(self, *, vector: Vectors, limit: int) -> tuple[Rows, Vectors]:
        """The ``limit`` nearest to this vector, that one or one beside it, and their cosines, best first; equal ones by
        row number."""
        return best_of(self.rows, self.scaled @ (vector / np.float32(SCALE)), limit)


def near_rows(*, view: IndexView, selection: Selection, vector: Vectors, limit: int) -> NearRows:
    """The rows that are worth comparing with a vector whose ``limit`` nearest are wanted.

    Args:
        vector: shape ``(dimensions,)``, of length 1.
    """
    found: list[Rows] = []
    scaled: list[Vectors] = []
    for part, base, rows in zip(view.parts, view.bases, selection.rows, strict=True):
        if not len(rows):
            continue
        segment = part.segment
        near = rows
        if len(rows) > EXACT_ROWS:
            share = max(1, round(len(rows) / max(1, selection.total) * 100)) / 100
            near = _pick(
                bits=segment.bits, rows=rows, vector=vector, count=compared_rows(len(rows), limit, share)
            )
        found.append(near + base)
        scaled.append(segment.scaled(near))
    if not found:
        return NearRows(np.zeros(0, dtype=np.int64), np.zeros((0, len(vector)), dtype=np.float32))
    if len(found) == 1:  # one segment, as nearly always: nothing to copy
        return NearRows(found[0], scaled[0])
    return NearRows(np.concatenate(found), np.concatenate(scaled))


def search_vectors(
    *, view: IndexView, selection: Selection, vector: Vectors, limit: int
) -> tuple[Rows, Vectors]:
    """The ``limit`` nearest rows and their cosines, best first; equal ones in the order of their ids."""
    near = near_rows(view=view, selection=selection, vector=vector, limit=limit)
    return near.best(vector=vector, limit=limit)


def compared_rows(rows: int, limit: int, share: float = 1.0) -> int:
    """How many of ``rows`` are compared by their whole vectors to find ``limit``."""
    wanted = OVERSAMPLING * limit + rows // 24
    return int(min(rows, MAX_COMPARED, max(MIN_COMPARED, wanted * share)))


def _pick(
    *, bits: "np.ndarray[tuple[int, int], np.dtype[np.uint64]]", rows: Rows, vector: Vectors, count: int
) -> Rows:
    """The rows whose signs differ least from the vector's: the larger half of its components counts twice, and the
    largest quarter three times."""
    wanted = sign_bits(vector[None, :])[:, 0]
    sizes = np.abs(vector)
    half, quarter = (sign_bits((sizes > np.quantile(sizes, q))[None, :])[:, 0] for q in (0.5, 0.75))
    every = len(rows) > bits.shape[1] // 2
    size = bits.shape[1] if every else len(rows)
    differing = np.zeros(size, dtype=np.uint16)
    buffer = np.empty(size, dtype=np.uint64)
    counted = np.empty(size, dtype=np.uint8)
    for word, own, larger, largest in zip(bits, wanted, half, quarter, strict=True):
        np.bitwise_xor(word if every else word[rows], own, out=buffer)
        differing += np.bitwise_count(buffer, out=counted)
        for mask in (larger, largest):
            np.bitwise_and(buffer, mask, out=buffer)
            differing += np.bitwise_count(buffer, out=counted)
    if every:
        differing = differing[rows]
    if count >= len(rows):
        return rows
    return np.sort(rows[np.argpartition(differing, count)[:count]])


def move_towards(vector: Vectors, passages: Vectors, *, weight: float) -> Vectors:
    """One step of Rocchio's relevance feedback: ``norm(q + weight · norm(mean of the passages))``.

    Args:
        vector: shape ``(dimensions,)``; passages: ``(n, dimensions)``, n > 0.
    """
    mean = passages.mean(axis=0)
    length = np.linalg.norm(mean)
    moved = vector + (weight / length * mean if length > 0 else 0)
    return np.asarray(moved / np.linalg.norm(moved), dtype=np.float32)


def with_surroundings(vectors: Vectors, documents: Sequence[bytes]) -> Vectors:
    """The vectors that chunks are searched by: ``(1 - s)·v + s·norm(mean of v and its neighbours in the document)``.

    A chunk that lies among others of its subject is found before one that only sounds alike; where the two disagree, the
    vector is shorter than 1 and the chunk found later. Rows without a vector stay so and tell their neighbours nothing.

    Args:
        vectors: shape ``(n, dimensions)``, of length 1 or 0, in the documents' order.
        documents: of each row, the id (16 bytes) of the document that it is of.
    """
    of_document: NDArray[np.int64] = np.unique(np.array(documents, dtype="V16"), return_inverse=True)[1]
    around = vectors.copy()
    for distance in range(1, min(REACH, len(vectors) - 1) + 1):
        same = np.equal(of_document[distance:], of_document[:-distance])[:, None]
        around[distance:] += np.where(same, vectors[:-distance], 0)
        around[:-distance] += np.where(same, vectors[distance:], 0)
    lengths = np.linalg.norm(around, axis=1, keepdims=True)
    mixed = (1 - SURROUNDINGS) * vectors + SURROUNDINGS / np.where(lengths > 0, lengths, 1) * around
    return np.asarray(np.where(vectors.any(axis=1, keepdims=True), mixed, 0), dtype=np.float32)


def best_of(rows: Rows, scores: Vectors, limit: int) -> tuple[Rows, Vectors]:
    """The ``limit`` highest, best first; equal ones by row number."""
    if len(rows) > limit:
        # Those on the edge too, so that it is not chance which of equal ones stay.
        edge = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        kept = np.flatnonzero(scores >= edge)
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:limit]
    return rows[order], scores[order]
