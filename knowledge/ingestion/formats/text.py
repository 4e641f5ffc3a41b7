"""Plain text and logs; also the decoding that every textual format shares."""

from __future__ import annotations

import codecs
import re

from knowledge.ingestion.formats.base import (
    CODE,
    HEADING,
    LIST,
    PARAGRAPH,
    TABLE,
    Block,
    Heading,
    ParsedDocument,
    ParseError,
    ParseLimits,
    check_characters,
    clean_text,
    list_lines,
    make_title,
    shorten_title,
)
from knowledge.ingestion.formats.encoding import guess_encoding, read_escapes

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\r\x0b\x0c\x1b")
_SAMPLE = 1 << 16


def decode_text(data: bytes, *, filename: str, limits: ParseLimits) -> str:
    """The clean text of a textual file: by its byte order mark, else UTF-8, else the likeliest legacy
    encoding.

    Raises ParseError wrong_type for binary data, too_large and empty.
    """
    text = clean_text(_decode(data, filename=filename))
    check_characters(len(text), filename=filename, limits=limits)
    if not text.strip():
        raise ParseError("empty", f"{filename} is empty: upload a file that holds text.")
    return text


def _decode(data: bytes, *, filename: str) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    sample = data[:_SAMPLE]
    wide = _guess_wide(sample)
    if wide:
        return data.decode(wide, "replace")
    escaped = read_escapes(data) if b"\x1b$" in sample else None
    if escaped:
        return data.decode(escaped)
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        if b"\0" in sample or controls > len(sample) * 0.02:
            raise _refuse_binary(filename) from None
        return _decode_legacy(data, filename=filename)
    if controls > len(sample) * 0.2:
        raise _refuse_binary(filename)
    return text


def _guess_wide(sample: bytes) -> str | None:
    """UTF-16 without a mark shows as a NUL in every other place of mostly Latin text."""
    half = len(sample) // 2
    if half < 4:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd > half * 0.7 and even < half * 0.05:
        return "utf-16-le"
    if even > half * 0.7 and odd < half * 0.05:
        return "utf-16-be"
    return None


def _decode_legacy(data: bytes, *, filename: str) -> str:
    # A UTF-8 file with a few broken bytes must not be read as Latin-1 because of them.
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    wide = sum(1 for character in text[: _SAMPLE * 16] if character > "\x7f") - broken
    if wide > 4 * broken:
        return text
    guess = guess_encoding(data)
    if guess is None:
        raise ParseError(
            "wrong_type",
            f"{filename} holds binary data, or text in an encoding that cannot be told: save it as UTF-8 and upload it "
            "again, or under the ending of its real format.",
        )
    return data.decode(guess, "replace")


def _refuse_binary(filename: str) -> ParseError:
    return ParseError(
        "wrong_type",
        f"{filename} holds binary data, not text: upload it under the ending of its real format.",
    )


_BULLET = re.compile(r"[ \t]*(?:[-*+•–▪◦]|\(?(?:\d{1,3}|[a-zA-Z])[.)])[ \t]+\S")
_NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,3})[.)]?[ \t]+(?=[^\W\d_])")
_ADORNMENT = re.compile(r"([=\-~^\"'`#*+.:_])\1{2,}[ \t]*$")


def classify_block(text: str) -> str:
    """The kind of a blank-line separated run of lines of plain text."""
    lines = text.split("\n")
    if _BULLET.match(lines[0]) and (
        len(lines) == 1 or any(_BULLET.match(line) for line in lines[1:]) or len(text) < 400
    ):
        return LIST
    # A line that names the list, then its items.
    if len(lines) > 2 and sum(1 for line in lines if _BULLET.match(line)) >= len(lines) * 0.4:
        return LIST
    if len(lines) > 1:
        bars = sum(1 for line in lines if line.count("|") >= 2 or line.lstrip().startswith("+-"))
        if bars >= len(lines) * 0.8:
            return TABLE
        # Columns held apart by runs of spaces, as command output and hand-made tables are.
        columns = sum(1 for line in lines if re.search(r"\S {3,}\S", line))
        if columns >= len(lines) * 0.7:
            return TABLE
    return PARAGRAPH


def find_paragraphs(text: str, lines: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Runs of consecutive non-blank lines."""
    runs: list[list[tuple[int, int]]] = []
    open_run = False
    for start, end in lines:
        if not text[start:end].strip():
            open_run = False
        elif open_run:
            runs[-1].append((start, end))
        else:
            runs.append([(start, end)])
            open_run = True
    return runs


def read_adorned_title(text: str, run: list[tuple[int, int]]) -> tuple[int, str, str] | None:
    """An underlined (or over- and underlined) title at the start of a run of lines.

    Returns (number of lines it takes, the title, its adornment: one or two characters), or None.
    """

    def line(index: int) -> str:
        return text[slice(*run[index])] if index < len(run) else ""

    first, second, third = line(0), line(1), line(2)
    if _ADORNMENT.match(first) and second.strip() and _ADORNMENT.match(third) and third[0] == first[0]:
        return (3, second.strip(), first[0] * 2) if len(first.rstrip()) >= len(second.strip()) else None
    if not second or first[:1].isspace() or _ADORNMENT.match(first) or not _ADORNMENT.match(second):
        return None
    adornment, title = second.rstrip(), first.rstrip()
    if len(adornment) < min(len(title), 4):
        return None
    return 2, title, adornment[0]


def parse_text(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """Plain text: blank lines part the blocks; underlined, numbered and all-capitals lines are headings."""
    text = decode_text(data, filename=filename, limits=limits)
    runs = find_paragraphs(text, list_lines(text))
    headings: list[Heading] = []
    blocks: list[Block] = []
    adornments: list[str] = []
    for index, run in enumerate(runs):
        adorned = read_adorned_title(text, run)
        if adorned:
            taken, title, adornment = adorned
            if adornment not in adornments:
                adornments.append(adornment)
            headings.append(Heading(run[0][0], adornments.index(adornment) + 1, shorten_title(title)))
            blocks.append(Block(run[0][0], run[taken - 1][1], HEADING))
            run = run[taken:]
        elif len(run) == 1:
            follower = text[slice(*runs[index + 1][0])] if index + 1 < len(runs) else ""
            level = _read_heading_level(text[slice(*run[0])], follower=follower, offset=len(adornments))
            if level:
                headings.append(Heading(run[0][0], level, shorten_title(text[slice(*run[0])])))
                blocks.append(Block(*run[0], HEADING))
                continue
        if run:
            start, end = run[0][0], run[-1][1]
            blocks.append(Block(start, end, classify_block(text[start:end])))
    begins_titled = bool(headings) and headings[0].start == blocks[0].start
    title = headings[0].title if begins_titled else _read_title_line(text, runs) or make_title(filename)
    return ParsedDocument(
        title=title,
        text=text,
        media_type=media_type,
        headings=tuple(headings),
        blocks=tuple(blocks),
        pages=(),
    )


def read_numbered_level(line: str) -> int | None:
    """2 for "2.1 Title", 1 for "2 Title": the depth of a numbered heading, None for other lines."""
    match = _NUMBERED.match(line)
    if match is None or len(line) > 90 or line.rstrip()[-1] in ".:;,!?":
        return None
    return match[1].count(".") + 1


def _read_heading_level(line: str, *, follower: str, offset: int) -> int | None:
    """The level of a line that stands alone, or None. `offset` levels are already taken by underlined
    titles.
    """
    if not follower or line[:1].isspace():
        return None
    # "1. Stop the session" followed by "2. Clear it" is a list with blank lines in it, not two sections.
    level = read_numbered_level(line)
    if level and not (level == 1 and _NUMBERED.match(follower)):
        return level + offset
    letters = sum(map(str.isalpha, line))
    if (
        len(line) <= 70
        and letters >= 4
        and line.isupper()
        and letters > len(line) * 0.6
        and line.rstrip()[-1] not in ".;,"
    ):
        return offset + 1
    return None


def _read_title_line(text: str, runs: list[list[tuple[int, int]]]) -> str | None:
    line = text[slice(*runs[0][0])].strip()
    if len(runs) > 1 and len(runs[0]) == 1 and 3 <= len(line) <= 90 and line[-1] not in ".:;,":
        return shorten_title(line)
    return None


def parse_log(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """A log: lines that belong together only where no blank line parts them."""
    text = decode_text(data, filename=filename, limits=limits)
    runs = find_paragraphs(text, list_lines(text))
    blocks = tuple(Block(run[0][0], run[-1][1], CODE) for run in runs)
    return ParsedDocument(make_title(filename), text, media_type, (), blocks, ())
