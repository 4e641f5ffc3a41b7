"""What every format parser takes and gives: the parsed document, the limits, the error, and small shared
helpers.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePath

# The kinds a Block may have. A chunk keeps a block whole where it fits.
PARAGRAPH, LIST, TABLE, CODE, CONFIG, HEADING = "paragraph", "list", "table", "code", "config", "heading"


MAX_TITLE = 200  # characters of a heading or a document's title that the file itself gives


@dataclass(frozen=True)
class Heading:
    """A section's beginning: `start` is an offset in ParsedDocument.text, 1 is the outermost level."""

    start: int
    level: int
    title: str


@dataclass(frozen=True)
class Block:
    """A unit a chunk should keep whole: text[start:end], with one of the kinds above."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class ParsedDocument:
    """The readable text of a document. Offsets everywhere are in characters (code points) of `text`.

    `blocks` and `headings` are in ascending order and blocks never overlap. `pages` holds the start offset of
    page 1, 2, … and is empty when the format has no pages. `note` is a sentence about what of the file is not in
    the text; empty for a file that was read whole.
    """

    title: str
    text: str
    media_type: str
    headings: tuple[Heading, ...]
    blocks: tuple[Block, ...]
    pages: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class ParseLimits:
    """Upper bounds, checked before the work they bound is done wherever the format allows it.

    The last three bound the child process that parses: processor time, time on the clock, and the memory it
    may take, its own libraries included.
    """

    max_bytes: int = 50 * 2**20
    max_unpacked_bytes: int = 500 * 2**20
    max_pages: int = 2000
    max_entries: int = 10_000
    max_characters: int = 20_000_000
    cpu_seconds: int = 60
    wall_seconds: float = 120
    memory_bytes: int = 2**30


class ParseError(Exception):
    """A document that cannot be read. Never retried: the same bytes fail again.

    `code` is one of CODES; the message is one sentence for the person who uploaded the file. The last four
    say how a parser ended that was run in a process of its own.
    """

    CODES = frozenset(
        [
            "too_large",
            "unsupported_type",
            "wrong_type",
            "empty",
            "no_text",
            "encrypted",
            "damaged",
            "too_deep",
            "out_of_memory",
            "too_slow",
            "crashed",
            "too_much_output",
        ]
    )
    permanent = True

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


_LINE_END = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_TERMINAL_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# C0 and C1 controls but tab and newline, the byte order mark, and the noncharacters. PostgreSQL refuses NUL.
# A lone surrogate (JSON's \\ud800) cannot be stored either.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")


def clean_text(text: str) -> str:
    """The text in NFC, with \\n as the only line end and without NUL and other control characters."""
    text = _LINE_END.sub("\n", text)
    text = CONTROL.sub("", _TERMINAL_ESCAPE.sub("", text))
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def check_characters(text_length: int, *, filename: str, limits: ParseLimits) -> None:
    if text_length > limits.max_characters:
        raise ParseError(
            "too_large",
            f"{filename} holds more than {limits.max_characters:,} characters of text: split it and upload "
            "the parts.",
        )


class DocumentBuilder:
    """Joins blocks into one text and keeps their offsets, for the formats whose text we compose ourselves."""

    def __init__(self, *, filename: str, limits: ParseLimits) -> None:
        self._filename, self._limits = filename, limits
        self._parts: list[str] = []
        self._length = 0
        self.headings: list[Heading] = []
        self.blocks: list[Block] = []

    @property
    def length(self) -> int:
        return self._length

    def add(self, text: str, kind: str, *, level: int | None = None, separator: str = "\n\n") -> None:
        """Append a block, after `separator` unless it is the first; with a level it also opens a section."""
        text = clean_text(text).strip("\n").rstrip()
        if not text.strip():
            return
        check_characters(
            self._length + len(separator) + len(text), filename=self._filename, limits=self._limits
        )
        if self._parts:
            self._parts.append(separator)
            self._length += len(separator)
        start = self._length
        self._parts.append(text)
        self._length += len(text)
        self.blocks.append(Block(start, self._length, kind))
        if level is not None:
            self.headings.append(Heading(start, level, shorten_title(text)))  # every chunk below repeats it

    @property
    def last_character(self) -> str:
        return self._parts[-1][-1] if self._parts else ""

    def extend(self, text: str) -> None:
        """Append lines to the last block."""
        last = self.blocks.pop()
        self.add(text, last.kind, separator="\n")
        self.blocks[-1:] = [Block(last.start, self._length, last.kind)]

    def append(self, other: DocumentBuilder) -> None:
        """The blocks and sections of another builder, below what is here."""
        titles = {heading.start: heading for heading in other.headings}
        text = "".join(other._parts)
        for block in other.blocks:
            heading = titles.get(block.start)
            self.add(text[block.start : block.end], block.kind, level=heading.level if heading else None)

    def build(
        self, *, title: str, media_type: str, pages: tuple[int, ...] = (), note: str = ""
    ) -> ParsedDocument:
        return ParsedDocument(
            title=title,
            text="".join(self._parts),
            media_type=media_type,
            headings=tuple(self.headings),
            blocks=tuple(self.blocks),
            pages=pages,
            note=note,
        )


def list_lines(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """(start, end) of each line of text[start:end], without its line end."""
    stop = len(text) if end is None else end
    lines = []
    while start < stop:
        line_end = text.find("\n", start, stop)
        if line_end < 0:
            line_end = stop
        lines.append((start, line_end))
        start = line_end + 1
    return lines


# As people write them in a title; a word without a vowel is taken for an acronym anyway (BGP, MPLS, DNS).
_SPELLED = """
ACL API ARP ASN AWS BFD CLI CPU DMZ EVPN FAQ IAM ICMP IGMP IKE IOS IP IPsec IPv4 IPv6 ISIS ISP IT JSON LACP
LAN LLDP MTU NAT NOC NTP OSPF OT PDF PE PIM QoS RADIUS RCA SLA SLO SOC SSO STP TACACS UDP UPS URL VLAN VoIP VPN
VXLAN WAN WiFi YAML
"""
_SPELLING = {word.lower(): word for word in _SPELLED.split()}


def make_title(filename: str) -> str:
    """A title for a document that has none: the file name without its ending, as words."""
    stem = PurePath(filename).stem or filename
    words = re.split(r"[\s_-]+", stem.strip(" _-"))
    spelled = []
    for word in words:
        acronym = re.fullmatch("[b-df-hj-np-tv-xz]{2,5}", word)
        spelled.append(_SPELLING.get(word.lower(), word.upper() if acronym else word))
    title = " ".join(word for word in spelled if word)
    return title[:1].upper() + title[1:] if title else filename


def shorten_title(title: str, limit: int = MAX_TITLE) -> str:
    """One line of at most `limit` characters."""
    title = " ".join(clean_text(title).split())
    return title if len(title) <= limit else title[: limit - 1].rstrip() + "…"
