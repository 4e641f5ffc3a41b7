"""The dense arm, against comparing everything."""

from typing import Any

import numpy as np
import pytest

from knowledge.retrieval.vector import (
    EXACT_ROWS,
    best_of,
    compared_rows,
    move_towards,
    search_vectors,
    with_surroundings,
)
from tests.knowledge.retrieval.rows import PUBLIC, SECRET, make_segment, make_view


def clustered(count: int, *, seed: int = 3) -> np.ndarray:
    """Vectors of length 1 around a hundred centres, as texts of a few subjects lie."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(100, 384))
    vectors = centres[generator.integers(0, 100, count)] + 0.8 * generator.normal(size=(count, 384))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_nearest_and_their_cosines() -> None:
    view = make_view(make_segment(["a", "b", "c"]))
    vector = np.zeros(384, dtype=np.float32)
    vector[0], vector[1] = 0.6, 0.8
    selection = view.select(tag_sets=frozenset([PUBLIC]), collections=None)
    rows, cosines = search_vectors(view=view, selection=selection, vector=vector, limit=2)
    assert rows.tolist() == [1, 0]
    assert cosines.tolist() == pytest.approx([0.8, 0.6], abs=1e-4)


@pytest.mark.parametrize("share", [0.01, 0.1, 1.0])
def test_of_many_rows_nothing_near_is_lost(share: float) -> None:
    count = 12_000
    vectors = clustered(count)
    mine = np.random.default_rng(5).random(count) < share
    tags = [PUBLIC if each else SECRET for each in mine]
    cut = count // 3
    view = make_view(
        make_segment([""] * cut, vectors=vectors[:cut], tag_sets=tags[:cut]),
        make_segment([""] * (count - cut), vectors=vectors[cut:], tag_sets=tags[cut:]),
    )
    selection = view.select(tag_sets=frozenset([PUBLIC]), collections=None)
    assert selection.total == mine.sum()
    found = 0
    noise = np.random.default_rng(9).normal(size=(40, 384)) / np.sqrt(384)
    # Questions lie about as far from their passages as in the evaluation sets: a cosine of 0.7.
    for vector in (vectors[:40] + noise).astype(np.float32):
        vector /= np.linalg.norm(vector)
        rows, _ = search_vectors(view=view, selection=selection, vector=vector, limit=100)
        rows = rows[:10]
        exact = np.flatnonzero(mine)[np.argsort(-(vectors[mine] @ vector))[:10]]
        assert mine[rows].all()
        found += len(set(rows.tolist()) & set(exact.tolist()))
    assert found / 400 >= 0.99


def test_how_many_are_compared() -> None:
    assert compared_rows(EXACT_ROWS, 10) <= EXACT_ROWS
    assert compared_rows(1_000_000, 100) <= 16_000
    assert compared_rows(64_000, 100) > compared_rows(20_000, 10)


def test_equal_ones_in_the_order_of_their_rows() -> None:
    rows, scores = best_of(np.array([7, 3, 5, 1]), np.array([0.5, 0.5, 0.9, 0.5], dtype=np.float32), 3)
    assert rows.tolist() == [5, 1, 3] and scores.tolist() == pytest.approx([0.9, 0.5, 0.5])


def test_a_step_towards_what_was_found() -> None:
    question = np.array([1, 0, 0], dtype=np.float32)
    passages = np.array([[0, 1, 0], [0, 1, 0]], dtype=np.float32)
    moved = move_towards(question, passages, weight=0.3)
    assert moved.tolist() == pytest.approx([1 / np.sqrt(1.09), 0.3 / np.sqrt(1.09), 0])
    opposite = np.array([[0, 1, 0], [0, -1, 0]], dtype=np.float32)
    assert move_towards(question, opposite, weight=0.3).tolist() == [1, 0, 0]


def test_a_chunk_is_searched_with_its_surroundings() -> None:
    one, two, three = np.eye(3, 4, dtype=np.float32)
    vectors = np.stack([one, two, two, three, one, one, three])
    first, second, third = b"1" * 16, b"2" * 16, b"3" * 16
    mixed = with_surroundings(vectors, [first] * 5 + [second, third])
    # Alone in its document: as it is.
    assert mixed[5] == pytest.approx(one) and mixed[6] == pytest.approx(three)

    def mix(own: Any, around: Any, length: float) -> Any:
        return pytest.approx(0.35 * own + 0.65 * around / np.sqrt(length), abs=1e-6)

    # Three on either side: of the first five all but the last one, of the second all.
    assert mixed[0] == mix(one, one + 2 * two + three, 6)
    assert mixed[1] == mix(two, 2 * one + 2 * two + three, 9)
    assert mixed[4] == mix(one, one + 2 * two + three, 6)
    # Without a vector: none, and nothing for those beside.
    vectors[1] = 0
    mixed = with_surroundings(vectors, [first] * 7)
    assert not mixed[1].any() and mixed[0] == mix(one, one + two + three, 3)
    assert with_surroundings(vectors[:0], []).shape == (0, 4)
