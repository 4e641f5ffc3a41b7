"""Device configurations and structured data (JSON, YAML, TOML, INI, XML): the text as it is, with its
stanzas found.

A stanza such as "interface ge-0/0/1 { … }" or "router bgp 64512" stays one block, and its first line becomes
a heading, so that a passage from its middle still says what it configures. Four layouts are told apart:
Junos "set" lines, [sections], braces, and indentation, which covers nearly everything else (IOS, EOS, FRR,
YAML, XML, FortiOS).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from knowledge.ingestion.formats.base import (
    CONFIG,
    HEADING,
    Block,
    Heading,
    ParsedDocument,
    ParseLimits,
    list_lines,
    shorten_title,
)
from knowledge.ingestion.formats.text import decode_text, find_paragraphs

# A stanza up to this long is left whole even if it holds stanzas of its own: about one chunk.
_WHOLE_CHARACTERS = 500
_MAX_LEVEL = 4
_MAX_DEPTH = 8

_SET_LINE = re.compile(r"(?:set|delete|deactivate|activate|protect)\s+(\S+)(?:\s+(\S+))?(?:\s+(\S+))?")
_SECTION = re.compile(r"\[{1,2}\s*([^\[\]\n]+?)\s*\]{1,2}\s*(?:[#;].*)?$|(/[a-z][\w /-]*)$")
_OPENING = re.compile(r"[{\[(]\s*(?:(?:#|//).*)?$")
_CLOSING = re.compile(r"[}\])]")
# Lines that end a stanza and belong to it, though they stand where a new one would begin.
_ENDING = re.compile(
    r"(?:[}\])]+[;,]?|!|#|;|exit|end|next|quit|return|commit|exit-[\w-]+|\.\.\.|---|</[\w:.-]+>)\s*(?:(?:##?|!).*)?$"
)
_COMMENT = re.compile(r"[!#;]+\s*\S|//|/\*|<!--|--\s")
_BANNER = re.compile(r"banner\s+\S+(?:\s+(\S.*))?$")
_NAMES_CHILD = re.compile(r"[-\"']*\s*(?:name|hostname|id|title)[\"']?\s*[:=]", re.IGNORECASE)


@dataclass(frozen=True)
class _Line:
    start: int
    end: int
    depth: int
    text: str  # stripped; empty for a blank line
    is_ending: bool  # of a stanza


@dataclass(frozen=True)
class _Entry:
    """Lines [first, last): a line at the outermost depth with all that belongs to it; `head` is that line."""

    first: int
    head: int
    last: int
    nested: bool


def parse_config(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """The text as it is; headings are the stanzas. The title is the file's name, by which people call a
    configuration.
    """
    text = decode_text(data, filename=filename, limits=limits)
    spans = list_lines(text)
    stripped = [text[start:end].strip() for start, end in spans]
    headings: list[Heading]
    blocks: list[Block]
    if _count(_SET_LINE, stripped) > 0.6 * sum(map(bool, stripped)):
        headings, blocks = _read_set_lines(spans, stripped)
    elif _has_sections(text, spans, filename):
        headings, blocks = _read_sections(text, spans)
    else:
        reader = _StanzaReader(_measure_depths(text, spans, stripped))
        reader.read(0, len(spans), level=1)
        headings, blocks = reader.headings, reader.blocks
    return ParsedDocument(filename, text, media_type, tuple(headings), tuple(blocks), ())


def _count(pattern: re.Pattern[str], lines: Sequence[str]) -> int:
    return sum(1 for line in lines if pattern.match(line))


def _read_set_lines(spans: list[tuple[int, int]], stripped: list[str]) -> tuple[list[Heading], list[Block]]:
    """Runs of lines of one hierarchy: "interfaces" as a section, "interfaces ge-0/0/1" as one below it."""
    headings: list[Heading] = []
    blocks: list[Block] = []
    open_key: tuple[str, str] | None = None
    pending: int | None = None  # where comments before the next statement begin
    for (start, end), line in zip(spans, stripped, strict=True):
        match = _SET_LINE.match(line)
        if match is None:
            if line and pending is None:
                pending = start
            continue
        top, second = match[1], match[2] or ""
        if second in (
            "family",
            "policy-statement",
            "community",
            "prefix-list",
            "group",
            "from-zone",
            "instance",
        ):
            second = f"{second} {match[3] or ''}".rstrip()
        begin = pending if pending is not None else start
        pending = None
        if open_key is None or open_key[0] != top:
            headings.append(Heading(begin, 1, shorten_title(top, 80)))
        elif open_key == (top, second):
            blocks[-1] = Block(blocks[-1].start, end, CONFIG)
            continue
        if second and top in (
            "interfaces",
            "protocols",
            "policy-options",
            "firewall",
            "routing-instances",
            "security",
        ):
            headings.append(Heading(begin, 2, shorten_title(second, 80)))
            # Both begin at this line: the outer is passed through at once.
        blocks.append(Block(begin, end, CONFIG))
        open_key = (top, second)
    return headings, blocks


def _has_sections(text: str, spans: list[tuple[int, int]], filename: str) -> bool:
    sections = sum(1 for start, end in spans if _SECTION.match(text[start:end]))
    return sections >= (2 if filename.lower().endswith(".json") else 1) and not text.lstrip().startswith(
        ("[{", "[\n", "{")
    )


def _read_sections(text: str, spans: list[tuple[int, int]]) -> tuple[list[Heading], list[Block]]:
    """[section] headers (INI, TOML, systemd) and /menu lines (RouterOS), each with the comments above it."""
    headings: list[Heading] = []
    blocks: list[Block] = []
    for run in find_paragraphs(text, spans):
        first = above = (
            0  # the first line of the open block, and of the comments directly above the line at hand
        )
        for index, (start, end) in enumerate(run):
            match = _SECTION.match(text[start:end])
            if match:
                if above > first:
                    blocks.append(Block(run[first][0], run[above - 1][1], CONFIG))
                    first = above
                headings.append(Heading(run[first][0], 1, shorten_title(match[1] or match[2], 80)))
            if match or not _COMMENT.match(text[start:end]):
                above = index + 1
        blocks.append(Block(run[first][0], run[-1][1], CONFIG))
    return headings, blocks


def _measure_depths(text: str, spans: list[tuple[int, int]], stripped: list[str]) -> list[_Line]:
    """Each line with its nesting depth: by braces where they carry the structure unindented, else by
    indentation.
    """
    opening = sum(1 for line in stripped if _OPENING.search(line))
    indented = sum(1 for start, _ in spans if text[start : start + 1] in (" ", "\t"))
    by_brace = opening >= 3 and indented < opening
    lines: list[_Line] = []
    depth = 0
    banner: str | None = None
    for (start, end), line in zip(spans, stripped, strict=True):
        if banner is not None:  # free text up to its delimiter: part of the banner, whatever its indentation
            lines.append(_Line(start, end, 10_000, line, bool(_ENDING.match(line))))
            if line.endswith(banner):
                banner = None
            continue
        if by_brace:
            if _CLOSING.match(line):
                depth = max(0, depth - 1)
            lines.append(_Line(start, end, depth, line, bool(_ENDING.match(line))))
            depth += bool(_OPENING.search(line))
        else:
            margin = text[start : start + len(text[start:end]) - len(text[start:end].lstrip())]
            width = len(margin.expandtabs(8))
            lines.append(_Line(start, end, width, line, bool(_ENDING.match(line))))
        banner = _open_banner(line)
    return lines


def _open_banner(line: str) -> str | None:
    """The delimiter that ends a multi-line banner begun by this line, or None."""
    match = _BANNER.match(line)
    if match is None:
        return None
    rest = match[1]
    if rest is None:
        return "EOF"
    delimiter = rest[:2] if rest.startswith("^") else rest[0]
    if delimiter.isalnum() or rest.startswith("EOF"):
        return "EOF" if rest.startswith("EOF") else None
    return None if rest.endswith(delimiter) and len(rest) > len(delimiter) else delimiter


class _StanzaReader:
    """Walks the nesting from the outside in and writes headings and blocks in text order."""

    def __init__(self, lines: list[_Line]) -> None:
        self.headings: list[Heading] = []
        self.blocks: list[Block] = []
        self._lines = lines

    def read(self, first: int, last: int, *, level: int, depth: int = 0) -> None:
        """Lines [first, last) as entries of `level`; `depth` also counts the levels that have no title."""
        run: list[_Entry] = []
        for entry in self._list_entries(first, last):
            if not entry.nested:
                run.append(entry)
                continue
            self._write_leaves(run, level=level)
            run = []
            self._write_stanza(entry, level=level, depth=depth)
        self._write_leaves(run, level=level)

    def _list_entries(self, first: int, last: int) -> list[_Entry]:
        depths = [line.depth for line in self._lines[first:last] if line.text and not line.is_ending]
        if not depths:
            return [_Entry(first, first, last, nested=False)] if first < last else []
        base = min(depths)
        starts: list[tuple[int, int]] = []  # (first line with its comments, head line)
        pending: int | None = None
        for index in range(first, last):
            line = self._lines[index]
            if not line.text or line.depth > base or line.is_ending:
                if not line.text and pending is None:
                    continue
                if line.depth > base and pending is not None and line.text:
                    pending = None  # a comment inside a stanza's body, not above a new one
                continue
            if _COMMENT.match(line.text):
                pending = index if pending is None else pending
                continue
            starts.append((index if pending is None else pending, index))
            pending = None
        if not starts:
            return [_Entry(first, first, last, nested=False)]
        entries = []
        for position, (begin, head) in enumerate(starts):
            stop = starts[position + 1][0] if position + 1 < len(starts) else last
            nested = any(
                line.text and line.depth > base and not line.is_ending
                for line in self._lines[head + 1 : stop]
            )
            entries.append(_Entry(first if position == 0 else begin, head, stop, nested))
        return entries

    def _write_stanza(self, entry: _Entry, *, level: int, depth: int) -> None:
        begin, end = self._span(entry.first, entry.last)
        title = self._title_of(entry)
        if title:
            self.headings.append(Heading(begin, level, title))
        body_first, body_last = entry.head + 1, entry.last
        # A stanza's own ending line stays with its last part.
        inner = self._list_entries(body_first, body_last)
        whole = level >= _MAX_LEVEL or depth >= _MAX_DEPTH or (title and end - begin <= _WHOLE_CHARACTERS)
        if whole or not any(child.nested for child in inner):
            self.blocks.append(Block(begin, end, CONFIG))
            return
        leading = 0
        while title and leading < len(inner) and not inner[leading].nested:
            leading += 1
        if leading:
            _, head_end = self._span(entry.first, inner[leading - 1].last)
            self.blocks.append(Block(begin, head_end, CONFIG))
        else:
            _, head_end = self._span(entry.first, max(inner[0].first, entry.head + 1))
            self.blocks.append(Block(begin, head_end, HEADING))
        self.read(inner[leading].first, body_last, level=level + 1 if title else level, depth=depth + 1)

    def _write_leaves(self, run: list[_Entry], *, level: int) -> None:
        """One-line settings side by side: one section, a block for each group of equal first words."""
        if not run:
            return
        title = self._title_leaves(run)
        if title:
            self.headings.append(Heading(self._span(run[0].first, run[0].last)[0], level, title))
        group: list[_Entry] = []
        for entry in run:
            if group and self._key_of(entry) != self._key_of(group[-1]):
                self.blocks.append(Block(*self._span(group[0].first, group[-1].last), CONFIG))
                group = []
            group.append(entry)
        self.blocks.append(Block(*self._span(group[0].first, group[-1].last), CONFIG))

    def _span(self, first: int, last: int) -> tuple[int, int]:
        """The characters of lines [first, last) without blank lines at either end."""
        while last - 1 > first and not self._lines[last - 1].text:
            last -= 1
        while first < last - 1 and not self._lines[first].text:
            first += 1
        return self._lines[first].start, self._lines[last - 1].end

    def _key_of(self, entry: _Entry) -> str:
        return _split_words(self._lines[entry.head].text)[0]

    def _title_leaves(self, run: list[_Entry]) -> str:
        """Up to four distinct beginnings: "hostname, ip domain-name, ntp server"."""
        counts = Counter(map(self._key_of, run))
        names: list[str] = []
        for entry in run:
            words = _split_words(self._lines[entry.head].text)
            name = " ".join(words[:2]) if counts[words[0]] > 1 and len(words) > 2 else words[0]
            if name and name not in names:
                names.append(name)
            if len(names) > 4:
                break
        return shorten_title(", ".join(names[:4]) + (", …" if len(names) > 4 else ""), 80)

    def _title_of(self, entry: _Entry) -> str:
        title = _clean_title(self._lines[entry.head].text)
        if title:
            return title
        inside = [line for line in self._lines[entry.head + 1 : min(entry.last, entry.head + 6)] if line.text]
        for line in inside:
            # What stands deeper names something inside the stanza, not the stanza.
            if line.depth == inside[0].depth and _NAMES_CHILD.match(line.text):
                return _clean_title(line.text)
        return ""


def _split_words(line: str) -> list[str]:
    """The words by which a setting is known: without a leading "no" and the value after ":" or "="."""
    words = re.split(r"\s*[:=]\s|\s+", line.strip("\"'-,;{ "))
    words = words[1:] if len(words) > 1 and words[0] in ("no", "default") else words
    return [word.strip("\"',;:=") for word in words] or [""]


def _clean_title(line: str) -> str:
    """ "interface ge-0/0/1 {" → interface ge-0/0/1, '"uplinks": [' → uplinks, '<vlan id="10">' → vlan
    id="10".
    """
    title = re.sub(r"\s*(?:##?\s.*|//.*)$", "", line)
    if title.startswith("<"):
        return shorten_title(re.sub(r"^<[?!]?|/?>.*$", "", title), 80)
    title = re.sub(r"^-\s+", "", title)
    title = re.sub(r"\s*[=:]?\s*[{\[(|>]*[-+]?\s*$", "", title).rstrip(" :=")
    title = re.sub(r"^[\"'](.+?)[\"'](?=$|\s*:)", r"\1", title).replace('": "', ": ")
    title = re.sub(r"^([\w.-]+)[\"']?: [\"']", r"\1: ", title.strip("\"',;{}[]() "))
    return shorten_title(title, 80)
