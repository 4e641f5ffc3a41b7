"""Putting an answer together from a provider's blocks, with every citation and every sentence checked before it goes out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from knowledge.answering.support import Evidence, Reason, is_claim, judge_sentence, read_evidence
from knowledge.llm.base import BlockEnd, Cited, Passage, TextDelta
from knowledge.llm.sentences import split_sentences, split_units
from knowledge.llm.terms import extract_terms

# A block this long without a citation is prose by itself; its sentences need not wait for its end.
UNCITED_CHARS = 400


@dataclass(frozen=True)
class Citation:
    """`answer[start:end]` rests on the passage with `n == source`."""

    source: int
    start: int
    end: int


@dataclass(frozen=True)
class Mark:
    """`answer[start:end]` is not what its sources say, or no whole sentence."""

    start: int
    end: int
    reason: Reason


class Piece(NamedTuple):
    """The next part of the answer, with the citations and the marks that are known with it."""

    text: str
    citations: list[Citation]
    marks: tuple[Mark, ...] = ()


@dataclass
class _Tally:
    """Characters of sentences that claim something, and of those that hold."""

    claimed: int = 0
    held: int = 0
    marks: list[Mark] = field(default_factory=list)


class AnswerAssembler:
    """Takes a provider's events and gives out checked pieces; joined, they are the answer.

    A block goes out when it is complete and its citations have been checked: the source is among the
    passages and holds the quoted text, white space aside. Other citations are dropped and counted in
    `dropped`. Its sentences are judged by the passages that they cite, or by all where they cite none; those that
    do not hold are marked. Offsets are characters of the whole answer; a citation may begin in a piece already
    given out.

    Args:
        passages: as the reader is shown them.
        sent: as the model was, where they were cut down: a quote may span what was left out.
        question: its own words need no source.
    """

    def __init__(
        self, passages: Sequence[Passage], *, sent: Sequence[Passage] = (), question: str = ""
    ) -> None:
        self._passages = {passage.n: passage for passage in passages}
        self._squeezed = {passage.n: _squeeze(passage.text) for passage in passages}
        for passage in sent:
            self._squeezed[passage.n] += "\0" + _squeeze(passage.text)
        self._question = question
        self._evidence: dict[int, Evidence] = {}
        self.dropped = 0
        self.restart()

    def restart(self) -> None:
        """Forgets the answer so far; what was dropped stays counted."""
        self._given = ""
        self._block = ""
        self._block_start = 0
        self._cited: list[Cited] = []
        self._citations: list[Citation] = []
        self._tally = _Tally()

    @property
    def text(self) -> str:
        """The answer as given out so far."""
        return self._given

    @property
    def citations(self) -> tuple[Citation, ...]:
        return tuple(self._citations)

    @property
    def marks(self) -> tuple[Mark, ...]:
        return tuple(self._tally.marks)

    @property
    def is_grounded(self) -> bool:
        """It cites, every citation was right, and every sentence that claims something holds."""
        wrong = any(mark.reason != "cut_off" for mark in self._tally.marks)
        return bool(self._citations) and not self.dropped and not wrong

    @property
    def support(self) -> float:
        """Of what is claimed, the share that holds, by characters; 1 where nothing is."""
        return self._tally.held / self._tally.claimed if self._tally.claimed else 1.0

    def feed(self, event: TextDelta | Cited | BlockEnd) -> list[Piece]:
        """Takes one event; returns what can go out now, often nothing."""
        if isinstance(event, TextDelta):
            self._block += event.text
            return self._release_sentences()
        if isinstance(event, Cited):
            self._cited.append(event)
            return []
        return self._close_block()

    def finish(self, *, is_cut: bool = False) -> list[Piece]:
        """Gives out what is left when the stream has ended.

        Args:
            is_cut: the answer ended before its end: its last sentence is no whole one.
        """
        pieces = self._close_block()
        if is_cut and (spans := split_sentences(self._given)):
            mark = Mark(start=spans[-1][0], end=spans[-1][1], reason="cut_off")
            self._tally.marks.append(mark)
            pieces.append(Piece("", [], (mark,)))
        return pieces

    def _release_sentences(self) -> list[Piece]:
        waiting = self._block[len(self._given) - self._block_start :]
        if self._cited or len(waiting) < UNCITED_CHARS or "```" in waiting:
            return []
        spans = split_sentences(waiting)
        if len(spans) < 2:
            return []
        text = waiting[: spans[-1][0]]
        marks = self._judge(text, start=len(self._given), cited=())
        self._given += text
        return [Piece(text, [], marks)]

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
        marks = self._judge(text, start=len(self._given), cited=[c.source for c in citations])
        self._given += text
        self._citations += citations
        self._block, self._cited = "", []
        self._block_start = len(self._given)
        return [Piece(text, citations, marks)] if text or citations else []

    def _holds(self, cited: Cited) -> bool:
        if cited.source not in self._passages:
            return False
        quote = _squeeze(cited.quote)
        # An empty quote stands for the whole passage; one of white space alone for nothing.
        return quote in self._squeezed[cited.source] if quote else not cited.quote

    def _judge(self, text: str, *, start: int, cited: Sequence[int]) -> tuple[Mark, ...]:
        """The marks of a part that begins at `start` of the answer."""
        marks: list[Mark] = []
        by = list(dict.fromkeys(cited)) or list(self._passages)
        for unit in split_units(text):
            sentence = text[unit.start : unit.end]
            if unit.kind == "heading" or unit.lead or not is_claim(sentence):
                continue
            reason = self._reason(sentence, by=by, is_code=unit.kind == "code")
            self._tally.claimed += len(sentence)
            if reason is None:
                self._tally.held += len(sentence)
            else:
                marks.append(Mark(start=start + unit.start, end=start + unit.end, reason=reason))
        self._tally.marks += marks
        return tuple(marks)

    def _reason(self, sentence: str, *, by: Sequence[int], is_code: bool) -> Reason | None:
        bare = _squeeze(sentence).strip("-*`_#|")
        if any(bare in self._squeezed[n] for n in by):
            return None  # word for word
        evidence = []
        for n in by:
            if n not in self._evidence:
                self._evidence[n] = read_evidence(self._passages[n].text)
            evidence.append(self._evidence[n])
        reason = judge_sentence(sentence, evidence=evidence, known=self._known)
        return None if is_code and reason != "names" else reason

    @cached_property
    def _known(self) -> frozenset[str]:
        """Terms that need no source: the question's, and those of titles, headings and addresses."""
        about = (f"{p.title} {p.heading} {p.uri}" for p in self._passages.values())
        return frozenset(extract_terms(" ".join((self._question, *about))))


def _squeeze(text: str) -> str:
    # Providers join the blocks of a quote without what parted them, so white space cannot count at all.
    return "".join(text.split())
