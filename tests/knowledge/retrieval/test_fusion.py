"""Two arms into one score, and neighbours apart."""

from typing import Any

import numpy as np
import pytest

from knowledge.retrieval.fusion import DISCOUNT, ENOUGH, fuse_scores, spread_passages
from tests.knowledge.retrieval.rows import make_segment, make_view


def test_fusion_counts_each_arm_by_how_far_it_stands_out() -> None:
    options: dict[str, Any] = {
        "cosines": np.array([0.5, 0.4, 0.1], dtype=np.float32),
        "keywords": np.array([0, 2, 1], dtype=np.float32),
        "dense_deviation": 0.1,
        "keyword_weight": 0.3,
    }
    # 0.7·5; 0.7·4 + 0.3·4; 0.7·1 + 0.3·2
    fused = fuse_scores(keyword_deviation=0.5, **options)
    assert fused.tolist() == pytest.approx([3.5, 4.0, 1.3])
    # Every chunk scores the same: the words say nothing.
    assert fuse_scores(keyword_deviation=0.0, **options).tolist() == pytest.approx([3.5, 2.8, 0.7])


def spread(documents: list[int], rows: list[int], scores: list[float]) -> list[tuple[int, float]]:
    segment = make_segment(["text"] * len(documents), documents=[b"%016d" % each for each in documents])
    around = make_view(segment).neighbourhoods(np.array(rows))
    found, left = spread_passages(scores=np.array(scores, dtype=np.float32), around=around)
    return list(zip(found.tolist(), left.tolist(), strict=True))


def test_what_stands_beside_what_was_found_comes_later() -> None:
    once = float(DISCOUNT)
    # Five chunks of one document, of which one was not found, then two others; the last of the five is out of the
    # first one's reach.
    found = spread([1, 1, 1, 1, 1, 2, 3], [0, 1, 2, 4, 5, 6], [5.0, 4.9, 4.8, 4.7, 4.6, 3.0])
    assert [row for row, _ in found] == [0, 4, 5, 1, 2, 6]
    # A neighbour counts once, and for less at the end of the reach; the third of a document loses that much again.
    assert [left for _, left in found] == pytest.approx([5.0, 4.7, 4.6, 4.9 - once, 4.8 - 2 * once, 3.0])
    found = spread([1, 1, 1, 1, 2], [0, 3, 4], [5.0, 4.9, 4.6])
    assert [row for row, _ in found] == [0, 4, 3]
    assert [left for _, left in found] == pytest.approx([5.0, 4.6, 4.5])
    # A neighbour that is far better than the rest stays before them.
    assert [row for row, _ in spread([1, 1, 2], [0, 1, 2], [5.0, 4.9, 4.9 - once - 0.1])] == [0, 1, 2]
    # Between documents nothing is taken off; equal ones in the order of their rows.
    assert spread([1, 2, 3], [0, 1, 2], [1.0, 1.0, 2.0]) == [(2, 2.0), (0, 1.0), (1, 1.0)]
    assert spread([1, 1], [1], [1.0]) == [(1, 1.0)]


def test_after_three_of_a_document_another_may_hold_what_it_lacks() -> None:
    assert ENOUGH == 3
    # Of one document every fourth row, so that none is another's neighbour; a second one scores less.
    apart, once = [0, 4, 8, 12, 16], float(DISCOUNT)
    scores = [5.0, 4.9, 4.8, 4.7, 4.6, 4.3]
    found = spread([1] * 20 + [2], [*apart, 20], scores)
    assert [row for row, _ in found] == [0, 4, 8, 20, 12, 16]
    assert [left for _, left in found] == pytest.approx([5.0, 4.9, 4.8, 4.3, 4.7 - once, 4.6 - 2 * once])
    # With nothing else to show it is all of that document, in its order.
    assert [row for row, _ in spread([1] * 20, apart, scores[:5])] == apart


def test_of_many_the_rest_follows_by_score() -> None:
    count = 60
    found = spread(list(range(count)), list(range(count)), [float(place % 7) for place in range(count)])
    assert sorted(row for row, _ in found) == list(range(count))
    scores = [left for _, left in found]
    assert scores == sorted(scores, reverse=True)
