"""How well chunks fit answers that are exact spans of a text: recall, precision, precision omega and IoU.

Smith & Troynikov, "Evaluating chunking strategies for retrieval" (Chroma, 2024). As in the authors' own program, the
tokens of its formulas are counted in characters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Span = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """A chunk, or an answer: ``[start, end)`` in characters of the named text."""

    text: str
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class SpanScores:
    """Each 0–1.

    Attributes:
        recall: the share of the answers that was retrieved.
        precision: the share of what was retrieved that is answer; what overlapping chunks repeat counts each time.
        precision_omega: precision if all chunks with some of an answer, and only they, were retrieved, each place once.
        iou: answers retrieved ÷ (all that was retrieved + answers that were not).
    """

    recall: float
    precision: float
    precision_omega: float
    iou: float


def score_spans(
    *, answers: Sequence[Piece], retrieved: Sequence[Piece], chunks: Sequence[Piece]
) -> SpanScores:
    """The scores of one question.

    Args:
        answers: the spans that answer it, at least one.
        retrieved: the chunks that a search gave.
        chunks: all that it could have given.
    """
    wanted = sum(answer.length for answer in answers)
    hit = _size(_common(answers, retrieved))
    taken = sum(chunk.length for chunk in retrieved)
    missed = _size(_union((each.text, each.start, each.end) for each in answers)) - hit
    touching = [
        chunk
        for chunk in chunks
        if any(
            chunk.text == each.text and chunk.start < each.end and each.start < chunk.end for each in answers
        )
    ]
    reachable = _common(answers, touching)
    whole = _union((each.text, each.start, each.end) for each in (*touching, *answers))
    return SpanScores(
        recall=_share(hit, wanted),
        precision=_share(hit, taken),
        precision_omega=_share(_size(reachable), _size(whole)),
        iou=_share(hit, taken + missed),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _common(answers: Iterable[Piece], chunks: Sequence[Piece]) -> list[tuple[str, int, int]]:
    """Where chunks and answers are the same, each place once."""
    return _union(
        (answer.text, max(answer.start, chunk.start), min(answer.end, chunk.end))
        for answer in answers
        for chunk in chunks
        if answer.text == chunk.text and answer.start < chunk.end and chunk.start < answer.end
    )


def _union(spans: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    merged: list[tuple[str, int, int]] = []
    for text, start, end in sorted(spans):
        if merged and merged[-1][0] == text and start <= merged[-1][2]:
            merged[-1] = (text, merged[-1][1], max(end, merged[-1][2]))
        else:
            merged.append((text, start, end))
    return merged


def _size(spans: Iterable[tuple[str, int, int]]) -> int:
    return sum(end - start for _, start, end in spans)
