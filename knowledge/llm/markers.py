"""Citations of models that have no citations of their own: numbers in brackets, told apart from the text as it comes."""

import re

from knowledge.llm.base import BlockEnd, Cited, TextDelta
from knowledge.llm.sentences import split_sentences

INSTRUCTION = """\
- Each document has a number. End every sentence, list item and table row that rests on documents with their numbers \
in square brackets, for instance [1] or [2][3]. Write no other notes or lists of sources.
"""
_MARK = re.compile(r"[ \t]*\[\s*(\d{1,2}(?:\s*[,;]\s*\d{1,2})*)\s*\]")
_MARKS_BEFORE = re.compile(r"\s*(?:\[[\d\s,;]*\][ \t]*)+")
_MAYBE_MARK = re.compile(r"\s*(?:\[[\d\s,;]*(?:\][ \t]*|$))*$")


class MarkerReader:
    """Takes a model's text in pieces; gives whole sentences and lines, each a block with its citations.

    What is cited is the passage, no part of it in particular: `Cited.quote` is empty. Brackets in code are text.
    """

    def __init__(self) -> None:
        self._waiting = ""

    def feed(self, text: str) -> list[TextDelta | Cited | BlockEnd]:
        self._waiting += text
        events: list[TextDelta | Cited | BlockEnd] = []
        while cut := self._find_cut():
            events += _block(self._waiting[:cut])
            self._waiting = self._waiting[cut:]
        return events

    def finish(self) -> list[TextDelta | Cited | BlockEnd]:
        rest, self._waiting = self._waiting, ""
        return _block(rest) if rest else []

    def _find_cut(self) -> int:
        """How much of what waits is a sentence or a line with its marks; 0: not known yet."""
        text = self._waiting
        fence = text.find("```")
        head = text if fence < 0 else text[:fence]
        line = head.find("\n", len(head) - len(head.lstrip()))
        spans = split_sentences(head if line < 0 else head[:line])
        if len(spans) > 1:
            return self._after_marks(spans[0][1], spans[1][0])
        if line < 0 and fence >= 0:  # a code block goes with the line that ends it
            end = text.find("```", fence + 3)
            line = text.find("\n", end) if end >= 0 else -1
        return line + 1

    def _after_marks(self, end: int, start: int) -> int:
        """Marks after the full stop belong to the sentence before it; they may not be whole yet."""
        if self._waiting[start] != "[":
            return start
        if _MAYBE_MARK.match(self._waiting, end):
            return 0
        marks = _MARKS_BEFORE.match(self._waiting, end)
        return marks.end() if marks and marks.end() > start else start


def _block(text: str) -> list[TextDelta | Cited | BlockEnd]:
    cited: list[int] = []

    def take(match: re.Match[str]) -> str:
        if text.count("`", 0, match.start()) % 2:
            return match.group()
        cited.extend(int(number) for number in re.findall(r"\d+", match.group(1)))
        return ""

    shown = _MARK.sub(take, text)
    if not shown:
        return []
    return [TextDelta(shown), *(Cited(source=n, quote="") for n in dict.fromkeys(cited)), BlockEnd()]
