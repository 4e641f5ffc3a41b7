"""Quoted units as Markdown blocks, each with the one verbatim quote that it rests on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from knowledge.llm.base import Passage
from knowledge.llm.sentences import Unit

_BULLET = re.compile(r"^[ \t]*[*+•‣–-][ \t]+")
_BULLET_OR_NUMBER = re.compile(r"^[ \t]*(?:[*+•‣–-]|\(?(?:\d{1,3}|[a-z])[.)])[ \t]+")
_FENCED = re.compile(r"\s*(?:```|~~~)")


@dataclass
class Candidate:
    """A unit of a passage with its terms and its score."""

    passage: Passage
    unit: Unit
    index: int
    terms: frozenset[str]
    context: frozenset[str]
    score: float = 0.0

    @property
    def text(self) -> str:
        return self.passage.text[self.unit.start : self.unit.end]

    @property
    def words(self) -> int:
        return len(self.text.split())


@dataclass(frozen=True)
class Block:
    """`text` is Markdown to show, with the white space that parts it from the block before."""

    source: int
    text: str
    quote: str


def render_blocks(chosen: Sequence[Candidate]) -> list[Block]:
    """Joins adjoining units of a kind into blocks, in the order given."""
    runs: list[list[Candidate]] = []
    for candidate in chosen:
        if runs and _adjoins(runs[-1][-1], candidate):
            runs[-1].append(candidate)
        else:
            runs.append([candidate])
    blocks: list[Block] = []
    previous: list[Candidate] | None = None
    table_head: Candidate | None = None
    for run in runs:
        first = run[0]
        # A table's head is shown with its rows and is no evidence by itself.
        if first.unit.kind == "row" and first.unit.lead and len(run) == 1:
            table_head = first
            continue
        if table_head is not None and _table(table_head) != _table(first):
            table_head = None
        quote = first.passage.text[first.unit.start : run[-1].unit.end]
        continued = (
            previous is not None and first.unit.kind == "row" and _table(previous[-1]) == _table(first)
        )
        shown = _show(run, table_head=None if continued else table_head)
        parting = "\n" if continued else _separate(previous, run)
        blocks.append(Block(source=first.passage.n, text=parting + shown, quote=quote))
        previous = run
    return blocks


def _table(candidate: Candidate) -> tuple[int, int]:
    return candidate.passage.n, candidate.unit.paragraph


def _adjoins(one: Candidate, other: Candidate) -> bool:
    return (
        one.passage.n == other.passage.n
        and other.index == one.index + 1
        and one.unit.kind == other.unit.kind
        and one.unit.above == other.unit.above
        and (one.unit.kind != "sentence" or one.unit.paragraph == other.unit.paragraph)
    )


def _separate(previous: list[Candidate] | None, run: list[Candidate]) -> str:
    if previous is None:
        return ""
    same = previous[0].passage.n == run[0].passage.n
    prose = previous[0].unit.kind == run[0].unit.kind == "sentence"
    if same and prose and not previous[-1].unit.lead:
        return " "
    if same and previous[0].unit.kind == run[0].unit.kind == "item":
        return "\n"
    return "\n\n"


def _show(run: list[Candidate], *, table_head: Candidate | None) -> str:
    kind = run[0].unit.kind
    passage = run[0].passage.text
    if kind == "sentence":
        return " ".join(" ".join(candidate.text.split()) for candidate in run)
    if kind == "item":
        # A number tells an order only among its neighbours; alone, Markdown would count it anew.
        bullet = _BULLET if len(run) > 1 else _BULLET_OR_NUMBER
        lines = [bullet.sub("- ", " ".join(candidate.text.split())) for candidate in run]
        return "\n".join(line if _BULLET_OR_NUMBER.match(line) else f"- {line}" for line in lines)
    if kind == "row":
        lines = [line.strip() for candidate in run for line in candidate.text.splitlines()]
        if table_head is not None:
            lines = [*(line.strip() for line in table_head.text.splitlines()), *lines]
        return "\n".join(lines)
    shown = passage[run[0].unit.start : run[-1].unit.end]
    if _FENCED.match(shown):
        return shown
    # The opening lines of the blocks around it tell a reader whose lines these are.
    above = "".join(f"{line}\n" for line in run[0].unit.above)
    fence = "````" if "```" in shown else "```"
    return f"{fence}\n{above}{shown}\n{fence}"
