"""How a document goes into the child that parses it, and how its text comes back: sizes first, then bytes.

The child may have been taken over by what it parses. What it sends is therefore read as numbers and UTF-8 of
sizes that were agreed on before, every value is checked, and nothing of it is ever executed: no pickle, no
evaluated names. Numbers are in the byte order of the machine that both run on.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import astuple
from itertools import accumulate, pairwise

from knowledge.ingestion.formats.base import (
    CODE,
    CONFIG,
    CONTROL,
    HEADING,
    LIST,
    MAX_TITLE,
    PARAGRAPH,
    TABLE,
    Block,
    Heading,
    ParsedDocument,
    ParseError,
    ParseLimits,
)

_KINDS = (PARAGRAPH, LIST, TABLE, CODE, CONFIG, HEADING)
_KIND_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}

# The limits, then the bytes of the file's name and of the file.
REQUEST = struct.Struct("=qqqqqqdqII")
# What it is (D or E), then the bytes of: title or code, text or message, blocks, headings, their titles, pages, the note.
ANSWER = struct.Struct("=cIIIIIII")
_DOCUMENT, _ERROR = b"D", b"E"
_MAX_TITLE = 4000
_MAX_MESSAGE = 4000
_MAX_CHARACTER = 4  # bytes of UTF-8


class WireError(Exception):
    """What came is not what was agreed on."""


class TooMuchError(WireError):
    """More is coming than was agreed on."""


def write_request(*, filename: str, size: int, limits: ParseLimits) -> bytes:
    """What precedes the file's own bytes."""
    name = filename.encode("utf-8", "replace")
    return REQUEST.pack(*astuple(limits), len(name), size) + name


def read_request(head: bytes) -> tuple[ParseLimits, int, int]:
    """(limits, bytes of the name, bytes of the file)."""
    *limits, name, size = REQUEST.unpack(head)
    return ParseLimits(*limits), name, size


def write_document(document: ParsedDocument) -> list[bytes]:
    """The parts of an answer, to be sent one after the other."""
    titles = [heading.title for heading in document.headings]
    blocks = array("I", (n for b in document.blocks for n in (b.start, b.end, _KIND_NUMBERS[b.kind])))
    headings = array(
        "I",
        (
            n
            for heading, title in zip(document.headings, titles, strict=True)
            for n in (heading.start, heading.level, len(title))
        ),
    )
    parts = [
        document.title.encode(),
        document.text.encode(),
        blocks.tobytes(),
        headings.tobytes(),
        "".join(titles).encode(),
        array("I", document.pages).tobytes(),
        document.note.encode(),
    ]
    return [ANSWER.pack(_DOCUMENT, *map(len, parts)), *parts]


def write_error(error: ParseError) -> list[bytes]:
    parts = [error.code.encode(), str(error).encode("utf-8", "replace")[:_MAX_MESSAGE]]
    return [ANSWER.pack(_ERROR, *map(len, parts), 0, 0, 0, 0, 0), *parts]


def read_sizes(head: bytes, *, limits: ParseLimits) -> tuple[bytes, list[int]]:
    """The kind of the answer and the sizes of its parts. Raises TooMuchError for more than the limits allow."""
    kind, *sizes = ANSWER.unpack(head)
    if kind == _ERROR:
        bounds = [100, _MAX_MESSAGE, 0, 0, 0, 0, 0]
    elif kind == _DOCUMENT:
        most = limits.max_characters * _MAX_CHARACTER
        bounds = [_MAX_TITLE, most, most, most, most, 4 * (limits.max_pages + 1), _MAX_MESSAGE]
    else:
        raise WireError("an unknown kind of answer")
    if any(size > bound for size, bound in zip(sizes, bounds, strict=True)):
        raise TooMuchError("too much")
    return kind, sizes


def read_answer(kind: bytes, parts: list[bytearray], *, media_type: str) -> ParsedDocument:
    """The document.

    Raises:
        ParseError: what the parser had to say.
        WireError: the answer cannot have come from a parser in its right mind.
    """
    try:
        if kind == _ERROR:
            code, message = (_read_text(part) for part in parts[:2])
            if code not in ParseError.CODES:
                raise WireError("an unknown code")
            raise ParseError(code, message)
        title, text = _read_text(parts[0]), _read_text(parts[1])
        blocks, headings, pages = (_read_numbers(parts[index]) for index in (2, 3, 5))
        return ParsedDocument(
            title=title,
            text=text,
            media_type=media_type,
            headings=_read_headings(headings, _read_text(parts[4]), length=len(text)),
            blocks=_read_blocks(blocks, length=len(text)),
            pages=_check_ascending(pages, last=len(text)),
            note=_read_text(parts[6]),
        )
    except UnicodeDecodeError:
        raise WireError("no UTF-8") from None


def _read_text(part: bytearray) -> str:
    text = part.decode("utf-8")
    if CONTROL.search(text):
        raise WireError("control characters")
    return text


def _read_numbers(part: bytearray) -> array[int]:
    numbers = array("I")
    if len(part) % numbers.itemsize:
        raise WireError("half a number")
    numbers.frombytes(part)
    return numbers


def _check_ascending(numbers: array[int], *, last: int) -> tuple[int, ...]:
    if any(left > right for left, right in pairwise(numbers)) or (numbers and numbers[-1] > last):
        raise WireError("offsets out of order")
    return tuple(numbers)


def _read_blocks(numbers: array[int], *, length: int) -> tuple[Block, ...]:
    if len(numbers) % 3:
        raise WireError("half a block")
    blocks = []
    position = 0
    for start, end, kind in zip(numbers[0::3], numbers[1::3], numbers[2::3], strict=True):
        if not position <= start <= end <= length or kind >= len(_KINDS):
            raise WireError("a block out of place")
        position = end
        blocks.append(Block(start, end, _KINDS[kind]))
    return tuple(blocks)


def _read_headings(numbers: array[int], titles: str, *, length: int) -> tuple[Heading, ...]:
    if len(numbers) % 3:
        raise WireError("half a heading")
    starts, levels, sizes = numbers[0::3], numbers[1::3], numbers[2::3]
    _check_ascending(starts, last=length)
    if any(not 1 <= level <= 100 for level in levels) or any(size > MAX_TITLE for size in sizes):
        raise WireError("a heading out of bounds")
    if sum(sizes) != len(titles):
        raise WireError("a heading out of place")
    ends = accumulate(sizes)
    return tuple(
        Heading(start, level, titles[end - size : end])
        for start, level, size, end in zip(starts, levels, sizes, ends, strict=True)
    )
