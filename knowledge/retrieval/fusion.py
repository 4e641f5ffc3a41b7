"""Two arms into one score, and an order in which what stands beside what was found comes later."""

import numpy as np

from knowledge.retrieval.segment import Rows, Vectors

# What a chunk loses for each of its neighbours that comes before it: its score is partly theirs, and a passage that is
# shown grows into its neighbours anyway.
NEIGHBOUR_DISCOUNT = 0.7
# So many are put in order one by one; nobody is shown more.
SPREAD = 40


def fuse_scores(
    *,
    cosines: Vectors,
    keywords: Vectors,
    dense_deviation: float,
    keyword_deviation: float,
    keyword_weight: float,
) -> Vectors:
    """``w·keyword/sd_k + (1-w)·cosine/sd_d`` for each row: an arm counts by how far it stands out of its own scores.

    An arm whose scores do not vary says nothing and is left out.
    """
    fused = (1 - keyword_weight) / dense_deviation * cosines
    if keyword_deviation > 0:
        fused = fused + keyword_weight / keyword_deviation * keywords
    return fused


def spread_neighbours(*, rows: Rows, scores: Vectors, windows: tuple[Rows, Rows]) -> tuple[Rows, Vectors]:
    """The rows and their discounted scores, best first; equal ones by row number. The best of a document keeps its score.

    Args:
        rows: ascending.
        windows: of each row, the first and the last row that it has as neighbours.
    """
    left = scores.astype(np.float32)
    first, last = windows
    waiting = np.ones(len(rows), dtype=np.bool_)
    order: list[int] = []
    for _ in range(min(SPREAD, len(rows))):
        place = int(np.argmax(np.where(waiting, left, -np.inf)))
        waiting[place] = False
        order.append(place)
        near = waiting & (rows >= first[place]) & (rows <= last[place])
        left[near] -= np.float32(NEIGHBOUR_DISCOUNT)
    rest = np.flatnonzero(waiting)
    order += rest[np.argsort(-left[rest], kind="stable")].tolist()
    return rows[order], left[order]
