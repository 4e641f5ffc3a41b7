import random
from itertools import pairwise

import pytest

from knowledge.evaluation.baselines import cut_fixed, cut_recursively
from knowledge.evaluation.spans import Piece, score_spans


def naive(answers: list[Piece], retrieved: list[Piece], chunks: list[Piece]) -> tuple[float, ...]:
    """The same, character by character."""

    def places(pieces: list[Piece]) -> set[tuple[str, int]]:
        return {(each.text, place) for each in pieces for place in range(each.start, each.end)}

    wanted, hit = places(answers), places(answers) & places(retrieved)
    taken = sum(each.length for each in retrieved)
    touching = [each for each in chunks if places([each]) & wanted]
    return (
        len(hit) / sum(each.length for each in answers),
        len(hit) / taken if taken else 0.0,
        len(places(touching) & wanted) / len(places(touching) | wanted),
        len(hit) / (taken + len(wanted - hit)) if taken else 0.0,
    )


def test_scores_are_those_of_counting_characters() -> None:
    dice = random.Random(4)
    for _ in range(200):
        edges = sorted(dice.sample(range(1, 200), 8))
        chunks = [Piece("a", left, right) for left, right in zip([0, *edges], [*edges, 200], strict=True)]
        chunks += [Piece("b", 0, 50)]
        if dice.random() < 0.5:  # chunks that overlap
            chunks = [Piece(each.text, max(0, each.start - 5), each.end) for each in chunks]
        start = dice.randint(0, 150)
        answers = [Piece("a", start, start + dice.randint(1, 20)), Piece("a", 170, 180)]
        retrieved = dice.sample(chunks, dice.randint(0, 4))
        found = score_spans(answers=answers, retrieved=retrieved, chunks=chunks)
        expected = naive(answers, retrieved, chunks)
        assert (found.recall, found.precision, found.precision_omega, found.iou) == pytest.approx(expected)


def test_a_chunk_that_is_the_answer_is_perfect_and_another_text_is_nothing() -> None:
    answer = Piece("a", 10, 20)
    perfect = score_spans(answers=[answer], retrieved=[answer], chunks=[Piece("a", 0, 10), answer])
    assert (perfect.recall, perfect.precision, perfect.precision_omega, perfect.iou) == (1, 1, 1, 1)
    elsewhere = score_spans(answers=[answer], retrieved=[Piece("b", 10, 20)], chunks=[Piece("b", 10, 20)])
    assert (elsewhere.recall, elsewhere.precision, elsewhere.iou) == (0, 0, 0)


TEXT = "\n\n".join(
    " ".join(f"Word{number} of paragraph {paragraph}." for number in range(paragraph * 3 + 1))
    for paragraph in range(12)
)


@pytest.mark.parametrize("cut", [cut_fixed, cut_recursively])
@pytest.mark.parametrize("overlap", [0, 10])
def test_baselines_cover_the_text_within_their_size(cut: object, overlap: int) -> None:
    def count(text: str) -> int:
        return len(text.split())

    spans = cut(TEXT, count_tokens=count, size=20, overlap=overlap)  # type: ignore[operator]
    assert spans[0][0] == 0 and spans[-1][1] == len(TEXT) and len(spans) > 10
    for (start, end), (following, after) in pairwise(spans):
        assert start < following <= end < after
        assert count(TEXT[start:end]) <= 20
        repeated = count(TEXT[following:end])
        assert repeated <= overlap


def test_recursive_chunks_end_where_paragraphs_do() -> None:
    spans = cut_recursively(
        "One two.\n\nThree four five.\n\nSix.", count_tokens=lambda text: len(text.split()), size=4, overlap=0
    )
    assert spans == [(0, 10), (10, 32)]


def test_a_word_longer_than_a_chunk_stands_alone() -> None:
    for cut in (cut_fixed, cut_recursively):
        spans = cut("aaaa bbbbbbbbbbbb cc", count_tokens=len, size=6, overlap=2)
        assert "".join("aaaa bbbbbbbbbbbb cc"[start:end] for start, end in spans) == "aaaa bbbbbbbbbbbb cc"
