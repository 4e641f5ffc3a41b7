"""Two arms into one score, and an order in which more of what was found comes later."""

from collections import Counter

import numpy as np

from knowledge.retrieval.segment import Rows, Vectors
from knowledge.retrieval.view import Neighbourhoods

# What a chunk loses when a neighbour comes before it, by how far the nearest such one stands away (``REACH`` at most): its
# score is partly theirs, and a passage that is shown grows into its neighbours anyway.
DISCOUNTS = np.array([0.7, 0.7, 0.4], dtype=np.float32)
# And for each chunk of its document from the ENOUGH-th on that comes before it: another document may hold what this one
# lacks.
DISCOUNT = np.float32(0.7)
ENOUGH = 3
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


def spread_passages(*, scores: Vectors, around: Neighbourhoods) -> tuple[Rows, Vectors]:
    """The rows and their discounted scores, best first; equal ones by row number. The best of a document keeps its score.

    Args:
        around: the rows, ascending, and what stands beside them.
    """
    rows, left = around.rows, scores.astype(np.float32)
    lost = np.zeros(len(rows), dtype=np.float32)
    waiting = np.ones(len(rows), dtype=np.bool_)
    taken: Counter[int] = Counter()
    order: list[int] = []
    for _ in range(min(SPREAD, len(rows))):
        place = int(np.argmax(np.where(waiting, left, -np.inf)))
        waiting[place] = False
        order.append(place)
        document = int(around.documents[place])
        taken[document] += 1
        beside = np.flatnonzero(waiting & (rows >= around.first[place]) & (rows <= around.last[place]))
        due = np.maximum(DISCOUNTS[np.abs(rows[beside] - rows[place]) - 1], lost[beside])
        left[beside] -= due - lost[beside]
        lost[beside] = due
        if taken[document] >= ENOUGH:
            left[waiting & (around.documents == document)] -= DISCOUNT
    rest = np.flatnonzero(waiting)
    order += rest[np.argsort(-left[rest], kind="stable")].tolist()
    return rows[order], left[order]
