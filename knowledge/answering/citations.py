"""Putting an answer together from a provider's blocks, with every citation checked before it goes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from knowledge.llm.base import BlockEnd, Cited, Passage, TextDelta
from knowledge.llm.sentences import split_sentences

# A block this long without a citation is prose by itself; its sentences need not wait for its end.
UNCITED_CHARS = 400


@dataclass(frozen=True)
class Citation:
    """`answer[start:end]` rests on the passage with `n == source`."""

    source: int
    start: int
    end: int


class Piece(NamedTuple):
    """The next part of the answer and the citations that are known with it."""

    text: str
    citations: list[Citation]


class AnswerAssembler:
    """Takes a provider's events and gives out checked pieces; joined, they are the answer.

    A block goes out when it is complete and its citations have been checked: the source is among the
    passages and holds the quoted text, white space aside. Other citations are dropped and counted in
    `dropped`. Offsets are characters of the whole answer; a citation may begin in a piece already given out.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = {passage.n: _squeeze(passage.text) for passage in passages}
        self.dropped = 0
        self.restart()

    def restart(self) -> None:
        """Forgets the answer so far; what was dropped stays counted."""
        self._given = ""
        self._block = ""
        self._block_start = 0
        self._cited: list[Cited] = []
        self._citations: list[Citation] = []

    @property
    def text(self) -> str:
        """The answer as given out so far."""
        return self._given

    @property
    def citations(self) -> tuple[Citation, ...]:
        return tuple(self._citations)

    def feed(self, event: TextDelta | Cited | BlockEnd) -> list[Piece]:
        """Takes one event; returns what can go out now, often nothing."""
        if isinstance(event, TextDelta):
            self._block += event.text
            return self._release_sentences()
        if isinstance(event, Cited):
            self._cited.append(event)
            return []
        return self._close_block()

    def finish(self) -> list[Piece]:
        """Gives out what is left when the stream has ended."""
        return self._close_block()

    def _release_sentences(self) -> list[Piece]:
        waiting = self._block[len(self._given) - self._block_start :]
        if self._cited or len(waiting) < UNCITED_CHARS or "```" in waiting:
            return []
        spans = split_sentences(waiting)
        if len(spans) < 2:
            return []
        text = waiting[: spans[-1][0]]
        self._given += text
        return [Piece(text, [])]

    def _close_block(self) -> list[Piece]:
        text = self._block[len(self._given) - self._block_start :]
        start = self._block_start + len(self._block) - len(self._block.lstrip())
        end = self._block_start + len(self._block.rstrip())
        citations: list[Citation] = []
        for cited in self._cited:
            if start >= end or not self._holds(cited):
                self.dropped += 1
                continue
            citation = Citation(source=cited.source, start=start, end=end)
            if citation not in citations:
                citations.append(citation)
        self._given += text
        self._citations += citations
        self._block, self._cited = "", []
        self._block_start = len(self._given)
        return [Piece(text, citations)] if text or citations else []

    def _holds(self, cited: Cited) -> bool:
        if cited.source not in self._passages:
            return False
        quote = _squeeze(cited.quote)
        # An empty quote stands for the whole passage; one of white space alone for nothing.
        return quote in self._passages[cited.source] if quote else not cited.quote


def _squeeze(text: str) -> str:
    # Providers join the blocks of a quote without what parted them, so white space cannot count at all.
    return "".join(text.split())
