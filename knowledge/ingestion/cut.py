"""Where a text may be cut: at items, stanzas, lines, sentences, words, and only then anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from knowledge.ingestion.formats.base import CODE, CONFIG, LIST, TABLE

Span = tuple[int, int]
# (text, start, end) → spans in order that together hold every non-blank character of text[start:end].
Cutter = Callable[[str, int, int], list[Span]]

_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_`]*(?=\s)|[。！？]+[」』”]?")
# Words after which a full stop ends no sentence.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|resp|approx|incl|excl|ca|no|nos|fig|figs|sec|ch|vol|pp?|dr|mr|mrs|ms|st|inc|ltd|co|al|"
    r"min|max|dept|ref|rev|ver|ext)|\b[A-Z]|(?:^|\n)[ \t]*\d{1,3})\.$",
    re.IGNORECASE,
)


def split_sentences(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """(start, end) of each sentence of text[start:end], without the blanks between them."""
    stop = len(text) if end is None else end
    sentences: list[Span] = []
    begin = start
    for match in _SENTENCE_END.finditer(text, start, stop):
        rest = match.end()
        while rest < stop and text[rest].isspace():
            rest += 1
        if rest >= stop:
            break
        # A lower-case letter continues the sentence; so does what follows an abbreviation or a list number.
        if text[rest].islower() or _ABBREVIATION.search(
            text[max(begin, match.start() - 10) : match.start() + 1]
        ):
            continue
        sentences.append((begin, match.end()))
        begin = rest
    tail = stop
    while tail > begin and text[tail - 1].isspace():
        tail -= 1
    if tail > begin:
        sentences.append((begin, tail))
    return sentences


_ITEM = re.compile(r"^(?: {0,3}|\t)(?:[-*+•]|\d{1,3}[.)])[ \t]", re.MULTILINE)
_WORDS = re.compile(r"(?:\S+\s*){1,16}")
_WORD = re.compile(r"\S+\s*")


def list_cutters(kind: str, room: int) -> list[Cutter]:
    """From the best place to cut to the last resort, for a block of that kind."""
    last = [
        _cut_by(_WORDS),
        _cut_by(_WORD),
        *(_cut_windows(size) for size in (room * 4, room, max(1, room // 4), 1)),
    ]
    if kind == LIST:
        return [_cut_before(_ITEM), _cut_lines, split_sentences, *last]
    if kind in (CODE, CONFIG):
        return [_cut_stanzas, _cut_lines, *last]
    if kind == TABLE:
        return [_cut_lines, split_sentences, *last]
    return [split_sentences, _cut_lines, *last]


def _cut_lines(text: str, start: int, end: int) -> list[Span]:
    spans = []
    while start < end:
        stop = text.find("\n", start, end) + 1 or end
        if text[start:stop].strip():
            spans.append((start, stop))
        start = stop
    return spans


def _cut_stanzas(text: str, start: int, end: int) -> list[Span]:
    """Before each unindented line and after each blank one; comments stay with what is below them."""
    spans: list[Span] = []
    below_comment = False
    for left, right in _cut_lines(text, start, end):
        line = text[left:right]
        comment = line.startswith(("#", "//", "--", "/*", "! "))
        outermost = line[0] not in " \t})]!" or comment
        if not spans or spans[-1][1] < left or (outermost and not below_comment):
            spans.append((left, right))
        else:
            spans[-1] = (spans[-1][0], right)
        below_comment = comment
    return spans


def _cut_before(pattern: re.Pattern[str]) -> Cutter:
    def cut(text: str, start: int, end: int) -> list[Span]:
        edges = [start, *(match.start() for match in pattern.finditer(text, start + 1, end)), end]
        return [(left, right) for left, right in pairwise(edges) if text[left:right].strip()]

    return cut


def _cut_by(pattern: re.Pattern[str]) -> Cutter:
    def cut(text: str, start: int, end: int) -> list[Span]:
        return [match.span() for match in pattern.finditer(text, start, end)]

    return cut


def _cut_windows(size: int) -> Cutter:
    def cut(_: str, start: int, end: int) -> list[Span]:
        return [(left, min(left + size, end)) for left in range(start, end, size)]

    return cut
