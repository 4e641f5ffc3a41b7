"""reStructuredText, read by its layout alone.

docutils is not run: its include, raw and csv-table directives can read files and addresses. Here a directive
is text like any other, so nothing beyond the given bytes is ever opened.
"""

from __future__ import annotations

import re

from knowledge.ingestion.formats.base import (
    CODE,
    HEADING,
    PARAGRAPH,
    TABLE,
    Block,
    Heading,
    ParsedDocument,
    ParseLimits,
    list_lines,
    make_title,
    shorten_title,
)
from knowledge.ingestion.formats.text import classify_block, decode_text, find_paragraphs, read_adorned_title

_DIRECTIVE = re.compile(r"\.\. +([\w:+-]+)::")
_CODE_DIRECTIVES = {"code-block", "code", "sourcecode", "literalinclude", "parsed-literal", "prompt"}
_TABLE_DIRECTIVES = {"list-table", "csv-table", "table"}
_SIMPLE_TABLE = re.compile(r"=+(?: +=+)+ *$")
_ROLE = re.compile(r":[\w:+-]+:`([^`<]*?)\s*(?:<[^`>]*>)?`")


def parse_rst(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """The text as it is; adorned titles are headings, their levels in order of appearance."""
    text = decode_text(data, filename=filename, limits=limits)
    headings: list[Heading] = []
    blocks: list[Block] = []
    adornments: list[str] = []
    opens_body = False  # the block before wants the indented runs after it: a directive or a "::" paragraph
    for run in find_paragraphs(text, list_lines(text)):
        first = text[slice(*run[0])]
        if opens_body and first[:1].isspace():
            blocks[-1] = Block(blocks[-1].start, run[-1][1], blocks[-1].kind)
            continue
        adorned = None if _SIMPLE_TABLE.match(first) else read_adorned_title(text, run)
        if adorned:
            taken, title, adornment = adorned
            if adornment not in adornments:
                adornments.append(adornment)
            level = adornments.index(adornment) + 1
            headings.append(Heading(run[0][0], level, shorten_title(_strip_markup(title))))
            blocks.append(Block(run[0][0], run[taken - 1][1], HEADING))
            run = run[taken:]
            if not run:
                opens_body = False
                continue
        start, end = run[0][0], run[-1][1]
        kind, opens_body = _classify(text[start:end])
        blocks.append(Block(start, end, kind))
    title = headings[0].title if headings else make_title(filename)
    return ParsedDocument(title, text, media_type, tuple(headings), tuple(blocks), ())


def _classify(block: str) -> tuple[str, bool]:
    directive = _DIRECTIVE.match(block)
    if directive:
        name = directive[1].split(":")[-1]
        kind = CODE if name in _CODE_DIRECTIVES else TABLE if name in _TABLE_DIRECTIVES else PARAGRAPH
        return kind, True
    if _SIMPLE_TABLE.match(block.split("\n", 1)[0]):
        return TABLE, False
    if block.rstrip().endswith("::"):
        return CODE, True
    return classify_block(block), False


def _strip_markup(title: str) -> str:
    return _ROLE.sub(r"\1", title).replace("``", "").replace("**", "").strip("`*")
