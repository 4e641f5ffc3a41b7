"""Cuts a parsed document into passages that can be embedded, found and cited one by one.

The text becomes *atoms* (the parser's blocks), an atom too long for a chunk becomes several *units*, and
units are packed into chunks section by section. Every piece of text is counted a fixed number of times, so
the work grows linearly with the document whatever the tokenizer costs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from knowledge.ingestion.cut import Cutter, Span, list_cutters, split_sentences
from knowledge.ingestion.formats.base import CODE, CONFIG, HEADING, LIST, PARAGRAPH, TABLE, ParsedDocument

# A section below this many tokens is too little to be found by itself and may join the one that follows it.
TINY_TOKENS = 40
# Sections of these levels are subjects of their own: chunks do not cross from one into another.
_SUBJECT_LEVEL = 2
# "Run the following:" stays with what follows it, if it is no longer than this.
_LEAD_IN_TOKENS = 60
# A tokenizer may call a whole line of base64 one unknown token; no language has words this long on average.
_CHARACTERS_PER_TOKEN = 12


@dataclass(frozen=True)
class ChunkConfig:
    """Sizes in tokens of the embedding model. The model also needs room for title and heading path."""

    max_tokens: int = 140
    overlap_tokens: int = 20

    def __post_init__(self) -> None:
        if self.max_tokens < 8 or not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            raise ValueError(
                "Set max_tokens to at least 8 and overlap_tokens to between 0 and half of max_tokens."
            )


@dataclass(frozen=True)
class ChunkSpan:
    """text == parsed.text[start:end]; `page` counts from 1; `heading_path` goes from the outermost section
    inwards.
    """

    ordinal: int
    start: int
    end: int
    page: int | None
    heading_path: tuple[str, ...]
    text: str
    tokens: int
    kind: str


@dataclass(frozen=True)
class _Section:
    start: int
    level: int
    path: tuple[str, ...]


@dataclass(frozen=True)
class _Unit:
    """A piece of text that packing moves as one.

    `sticky` wants to stay with its successor, `whole` begins and ends where sentences do, and `repeated` is
    what the chunk before ends with.
    """

    start: int
    end: int
    tokens: int
    kind: str
    section: int
    sticky: bool = False
    whole: bool = True
    repeated: bool = False


def chunk_document(
    parsed: ParsedDocument, *, count_tokens: Callable[[str], int], config: ChunkConfig = ChunkConfig()
) -> list[ChunkSpan]:
    """The document's chunks in text order; together they hold every non-blank character of it.

    `count_tokens` gives the tokens of a text without the model's special tokens. No chunk counts more than
    config.max_tokens. Chunks overlap only within one section, by whole sentences of at most
    config.overlap_tokens. Lists, tables, code and configuration stanzas stay whole where they fit together
    with their heading.
    """
    return _Chunker(parsed, count_tokens, config).chunk()


class _Chunker:
    def __init__(
        self, parsed: ParsedDocument, count_tokens: Callable[[str], int], config: ChunkConfig
    ) -> None:
        self._parsed, self._text = parsed, parsed.text
        self._count, self._config = count_tokens, config
        self._sections = _list_sections(parsed)
        self._body_tokens: defaultdict[int, int] = defaultdict(int)

    def chunk(self) -> list[ChunkSpan]:
        atoms = self._list_atoms()
        for atom in atoms:
            self._body_tokens[atom.section] += atom.tokens
        regions = self._list_regions({atom.section for atom in atoms if atom.kind != HEADING})
        groups: list[list[_Unit]] = []
        region: list[_Unit] = []
        for atom in atoms:
            if region and regions[region[-1].section] != regions[atom.section]:
                groups += self._pack(self._cut_units(region))
                region = []
            region.append(atom)
        groups += self._pack(self._cut_units(region))
        fitting: list[list[_Unit]] = []
        for group in self._join_tiny(groups):
            # The chunk before may have had to be parted and now be no more than what is repeated here.
            if group[0].repeated and group[0].start <= fitting[-1][0].start:
                group = group[1:]
            fitting += self._fit(group)
        return [self._make_span(ordinal, group) for ordinal, group in enumerate(fitting)]

    def _measure(self, start: int, end: int) -> int:
        # Never nothing, or a thousand pieces that a tokenizer counts as nothing would make one endless chunk.
        return max(self._count(self._text[start:end]), (end - start) // _CHARACTERS_PER_TOKEN, 1)

    def _list_atoms(self) -> list[_Unit]:
        """The blocks, what lies between them, each cut where a section begins and without blank edges."""
        marks = [section.start for section in self._sections]
        spans: list[tuple[int, int, str]] = []
        position = 0
        for block in self._parsed.blocks:
            spans.append((position, block.start, PARAGRAPH))
            spans.append((max(block.start, position), block.end, block.kind))
            position = max(position, block.end)
        spans.append((position, len(self._text), PARAGRAPH))
        atoms: list[_Unit] = []
        for start, end, kind in spans:
            inner = marks[bisect_right(marks, start) : bisect_right(marks, end - 1)] if end > start else []
            for left, right in pairwise([start, *inner, end]):
                trimmed = self._trim(left, right)
                if trimmed:
                    section = bisect_right(marks, trimmed[0]) - 1
                    atoms.append(_Unit(*trimmed, self._measure(*trimmed), kind, section))
        return atoms

    def _trim(self, start: int, end: int) -> Span | None:
        """Without blank lines before and blanks after; the first line keeps its indentation."""
        piece = self._text[start:end]
        body = piece.lstrip()
        if not body:
            return None
        first = start + len(piece) - len(body)
        line = self._text.rfind("\n", start, first) + 1
        return max(line, start), start + len(piece.rstrip())

    def _list_regions(self, with_body: set[int]) -> list[int]:
        """For each section the region it is packed in. A bare heading goes with the section that follows
        below it.
        """
        regions: list[int] = []
        for index, section in enumerate(self._sections):
            regions.append(index if index == 0 or section.level <= _SUBJECT_LEVEL else regions[-1])
        for index in range(len(regions) - 2, -1, -1):
            if index not in with_body and self._sections[index + 1].level >= self._sections[index].level:
                regions[index] = regions[index + 1]
        return regions

    def _cut_units(self, atoms: Sequence[_Unit]) -> list[_Unit]:
        """Atoms of one region, the too long ones in parts; headings and lead-ins marked to stay with what
        follows.
        """
        units: list[_Unit] = []
        held = 0  # tokens of the sticky units just before
        maximum = self._config.max_tokens
        for index, atom in enumerate(atoms):
            follower = atoms[index + 1] if index + 1 < len(atoms) else None
            room = maximum - held if held <= maximum // 2 else maximum
            if atom.tokens > room:
                units += self._split(atom, room)
                held = 0
                continue
            sticky = follower is not None and (
                atom.kind == HEADING or self._is_lead_in(atom, follower, held=held, maximum=maximum)
            )
            units.append(_Unit(atom.start, atom.end, atom.tokens, atom.kind, atom.section, sticky))
            held = held + atom.tokens if sticky else 0
        return units

    def _is_lead_in(self, atom: _Unit, follower: _Unit, *, held: int, maximum: int) -> bool:
        if atom.kind != PARAGRAPH or follower.kind not in (LIST, TABLE, CODE, CONFIG):
            return False
        if (
            atom.tokens > _LEAD_IN_TOKENS
            or self._text[atom.end - 1] != ":"
            or atom.section != follower.section
        ):
            return False
        # Not at the price of cutting a block that fits without it.
        return follower.tokens > maximum or held + atom.tokens + follower.tokens <= maximum

    def _split(self, atom: _Unit, room: int) -> list[_Unit]:
        """An atom in parts of about equal size, each at most `room` tokens, cut at the best places that
        allow it.
        """
        if atom.kind == PARAGRAPH and self._config.overlap_tokens <= room // 2:
            room -= self._config.overlap_tokens
        pieces = list(self._cut(atom.start, atom.end, list_cutters(atom.kind, room), room))
        units: list[_Unit] = []
        left = sum(tokens for _, _, tokens, _ in pieces)
        part: list[tuple[int, int, int, bool]] = []
        size = 0
        target = left / max(1, ceil(left / room))

        def close() -> None:
            whole = atom.kind == PARAGRAPH and all(clean for *_, clean in part)
            trimmed = self._trim(part[0][0], part[-1][1])
            if trimmed:
                units.append(_Unit(*trimmed, size, atom.kind, atom.section, whole=whole))

        for piece in pieces:
            if part and (size + piece[2] > room or size + piece[2] / 2 > target):
                close()
                left -= size
                part, size = [], 0
                target = left / max(1, ceil(left / room))
            part.append(piece)
            size += piece[2]
        if part:
            close()
        return units

    def _cut(
        self, start: int, end: int, cutters: Sequence[Cutter], room: int, *, clean: bool = True
    ) -> Iterable[tuple[int, int, int, bool]]:
        """(start, end, tokens, clean): pieces by the first cutter; one still too long by the next, and
        unclean.
        """
        for left, right in cutters[0](self._text, start, end):
            tokens = self._measure(left, right)
            if tokens <= room or len(cutters) == 1:
                yield left, right, tokens, clean
            else:
                yield from self._cut(left, right, cutters[1:], room, clean=False)

    def _pack(self, units: Sequence[_Unit]) -> list[list[_Unit]]:
        """Units of one region as chunks: filled in order, ended early where a subsection begins."""
        groups: list[list[_Unit]] = []
        current: list[_Unit] = []
        size = 0
        for unit in units:
            if current and self._ends_before(unit, current[-1], size):
                carried: list[_Unit] = []
                while len(current) > 1 and current[-1].sticky:
                    carried.insert(0, current.pop())
                if current[
                    -1
                ].sticky:  # nothing but headings so far: they are only parted if they cannot be kept
                    carried, current = [*current, *carried], []
                # Not what only repeats the chunk before: its lead-in has gone on to the next.
                if any(not held.repeated for held in current):
                    groups.append(current)
                carried_size = sum(held.tokens for held in carried)
                if carried_size + unit.tokens > self._config.max_tokens and carried:
                    groups.append(carried)
                    carried, carried_size = [], 0
                overlap = [] if carried or not current else self._find_overlap(current, unit)
                current = [*overlap, *carried]
                size = carried_size + sum(part.tokens for part in overlap)
            current.append(unit)
            size += unit.tokens
        if current:
            groups.append(current)
        return groups

    def _ends_before(self, unit: _Unit, last: _Unit, size: int) -> bool:
        maximum = self._config.max_tokens
        if size + unit.tokens > maximum:
            return True
        if unit.section == last.section or last.sticky:
            return False
        section = self._body_tokens[unit.section]
        if section < TINY_TOKENS:
            return False
        # A subsection that would be torn, or that meets a well filled chunk, is better off beginning its own.
        return size >= maximum // 2 or (size >= TINY_TOKENS and size + section > maximum >= section)

    def _find_overlap(self, group: Sequence[_Unit], unit: _Unit) -> list[_Unit]:
        """The last whole sentences of a chunk, as a unit to begin the next with."""
        last = group[-1]
        allowed = min(self._config.overlap_tokens, self._config.max_tokens - unit.tokens)
        if last.kind != PARAGRAPH or last.section != unit.section or not last.whole:
            return []
        start, tokens = last.end, 0
        for left, _ in reversed(split_sentences(self._text, last.start, last.end)):
            count = self._measure(left, last.end)
            if count > allowed or left <= group[0].start:
                break
            start, tokens = left, count
        return [_Unit(start, last.end, tokens, PARAGRAPH, last.section, repeated=True)] if tokens else []

    def _join_tiny(self, groups: Sequence[list[_Unit]]) -> list[list[_Unit]]:
        """Tiny chunks joined with the next, if that is below the same parent or below the tiny one itself."""
        joined: list[list[_Unit]] = []
        for group in groups:
            if joined:
                before = joined[-1]
                size = sum(unit.tokens for unit in before)
                between = self._sections[before[-1].section + 1 : group[0].section + 1]
                outermost = min(self._sections[unit.section].level for unit in before)
                if (
                    between
                    and size < TINY_TOKENS
                    and size + sum(unit.tokens for unit in group) <= self._config.max_tokens
                    and min(section.level for section in between) >= outermost
                ):
                    before += group
                    continue
            joined.append(list(group))
        return joined

    def _fit(self, group: list[_Unit]) -> list[list[_Unit]]:
        """The group, or parts of it if the tokenizer counts the whole as more than the sum of its parts."""
        if self._measure(group[0].start, group[-1].end) <= self._config.max_tokens:
            return [group]
        if group[0].repeated:
            return self._fit(group[1:])
        if len(group) == 1:
            room = min(self._config.max_tokens, group[0].tokens)
            parts = group
            while len(parts) < 2 and room > 1:
                room //= 2
                parts = self._split(group[0], room)
            if len(parts) < 2:
                return [group]
            return [part for half in _halve(parts) for part in self._fit(half)]
        return [part for half in _halve(group) for part in self._fit(half)]

    def _make_span(self, ordinal: int, group: Sequence[_Unit]) -> ChunkSpan:
        start, end = group[0].start, group[-1].end
        weights: defaultdict[str, int] = defaultdict(int)
        for unit in group:
            if unit.kind != HEADING:
                weights[unit.kind] += unit.tokens
        text = self._text[start:end]
        pages = self._parsed.pages
        return ChunkSpan(
            ordinal=ordinal,
            start=start,
            end=end,
            page=max(1, bisect_right(pages, start)) if pages else None,
            heading_path=self._find_path(group),
            text=text,
            tokens=self._count(text),
            kind=max(weights, key=weights.__getitem__) if weights else HEADING,
        )

    def _find_path(self, group: Sequence[_Unit]) -> tuple[str, ...]:
        """What the sections of a chunk have in common; bare headings passed through do not count."""
        sections = {unit.section for unit in group if unit.kind != HEADING} or {group[-1].section}
        paths = [self._sections[section].path for section in sorted(sections)]
        common = paths[0]
        for path in paths[1:]:
            length = 0
            while length < min(len(common), len(path)) and common[length] == path[length]:
                length += 1
            common = common[:length]
        return common


def _halve(units: list[_Unit]) -> tuple[list[_Unit], list[_Unit]]:
    middle = len(units) // 2
    return units[:middle], units[middle:]


def _list_sections(parsed: ParsedDocument) -> list[_Section]:
    """The sections in order; the first holds what stands before any heading."""
    sections = [_Section(0, 0, ())]
    stack: list[tuple[int, str]] = []
    for heading in parsed.headings:
        while stack and stack[-1][0] >= heading.level:
            stack.pop()
        stack.append((heading.level, heading.title))
        sections.append(_Section(heading.start, heading.level, tuple(title for _, title in stack)))
    return sections
