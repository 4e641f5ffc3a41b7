"""Markdown: the source text is the text; markdown-it finds where its sections and blocks lie."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import replace
from functools import cache

import yaml
from markdown_it import MarkdownIt

from knowledge.ingestion.formats.base import (
    CODE,
    HEADING,
    LIST,
    PARAGRAPH,
    TABLE,
    Block,
    Heading,
    ParsedDocument,
    ParseLimits,
    check_characters,
    clean_text,
    list_lines,
    make_title,
    shorten_title,
)
from knowledge.ingestion.formats.table import clean_cell, write_table
from knowledge.ingestion.formats.text import decode_text

_KINDS = {
    "heading_open": HEADING,
    "fence": CODE,
    "code_block": CODE,
    "bullet_list_open": LIST,
    "ordered_list_open": LIST,
}
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.{0,20000}?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_MAX_FLOWS = 500
_TITLE_SOURCE = 1000  # characters of a heading that its title is read from
# The line below a table's header: match begins at the line end before it.
_DELIMITER_CELL = r"[ \t]*:?-+:?[ \t]*"
_DELIMITER_ROW = re.compile(
    rf"\n {{0,3}}(?=[-:| \t]*\|)\|?{_DELIMITER_CELL}(?:\|{_DELIMITER_CELL})*\|?[ \t]*$", re.MULTILINE
)
_WHOLE_TABLE = 600  # characters; about a passage
_BAR = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"!?\[([^\]\n]*)\](?:\([^)\n]*\)|\[[^\]\n]*\])")
_ATTRIBUTES = re.compile(r"\s*\{[#.:][^}\n]*\}\s*$")


@cache
def _parser() -> MarkdownIt:
    # Only the outermost structure is wanted. Leaving inline markup, references and the cells of tables
    # unparsed makes this several times faster; a table then comes as a paragraph, known by its delimiter row.
    return MarkdownIt("commonmark").disable(["inline", "text_join", "reference"])


def parse_markdown(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """The Markdown text without its front matter; the title is the front matter's, else the first level-1
    heading. Long tables are written with their headers in each row.
    """
    text, front_title = _take_front_matter(decode_text(data, filename=filename, limits=limits))
    headings, blocks = read_markdown(text)
    text, headings, blocks = _rewrite_tables(text, headings, blocks)
    check_characters(len(text), filename=filename, limits=limits)
    first_title = next((heading.title for heading in headings if heading.level == 1), None)
    return ParsedDocument(
        title=front_title or first_title or make_title(filename),
        text=text,
        media_type=media_type,
        headings=tuple(headings),
        blocks=tuple(blocks),
        pages=(),
    )


def read_markdown(text: str) -> tuple[list[Heading], list[Block]]:
    """Where the sections and blocks of a text lie."""
    lines = list_lines(text)
    headings: list[Heading] = []
    blocks: list[Block] = []
    tokens = _parser().parse(text)
    for index, token in enumerate(tokens):
        if token.level or token.map is None or token.nesting < 0:
            continue
        first, last = token.map[0], min(token.map[1], len(lines)) - 1
        while last > first and not text[slice(*lines[last])].strip():
            last -= 1
        start, end = lines[first][0], lines[last][1]
        if token.type == "heading_open":
            title = shorten_title(strip_inline_markup(tokens[index + 1].content[:_TITLE_SOURCE]))
            if title:
                headings.append(Heading(start, int(token.tag[1]), title))
        table = _DELIMITER_ROW.search(text, start, end) if token.type == "paragraph_open" else None
        if table is None:
            blocks.append(Block(start, end, _KINDS.get(token.type, PARAGRAPH)))
            continue
        head = (
            text.rfind("\n", start, table.start()) + 1
        )  # a table may follow its introduction without a blank line
        if head > start:
            blocks.append(Block(start, head - 1, PARAGRAPH))
        blocks.append(Block(max(head, start), end, TABLE))
    return headings, blocks


def _rewrite_tables(
    text: str, headings: list[Heading], blocks: list[Block]
) -> tuple[str, list[Heading], list[Block]]:
    """Tables that are too long for one passage as rows that name their columns; short ones stay as they are."""
    parts: list[str] = []
    moved: list[Block] = []
    edges, shifts = [0], [0]  # from each edge on, offsets have moved by the shift
    position = shift = 0
    for block in blocks:
        source = text[block.start : block.end]
        written = source
        if block.kind == TABLE and len(source) > _WHOLE_TABLE:
            rows = [_split_row(line) for line in source.split("\n")]
            written = clean_text(write_table([rows[0], *rows[2:]], has_header=True)) or source
        moved.append(Block(block.start + shift, block.start + shift + len(written), block.kind))
        if written is not source:
            parts += [text[position : block.start], written]
            position = block.end
            shift += len(written) - len(source)
            edges.append(block.end)
            shifts.append(shift)
    if not parts:
        return text, headings, blocks
    parts.append(text[position:])
    return (
        "".join(parts),
        [replace(h, start=h.start + shifts[bisect_right(edges, h.start) - 1]) for h in headings],
        moved,
    )


def _split_row(line: str) -> list[str]:
    """The cells of a table's line as they read: a bar with a backslash before it is part of its cell."""
    cells = _BAR.split(line.strip().removeprefix("|"))
    if len(cells) > 1 and not cells[-1].strip():
        cells.pop()
    return [clean_cell(strip_inline_markup(cell.replace("\\|", "|"))) for cell in cells]


def strip_inline_markup(text: str) -> str:
    """A heading as it reads: links by their text, no emphasis marks, no {#anchor}."""
    text = _LINK.sub(r"\1", _ATTRIBUTES.sub("", text))
    return re.sub(r"`+|\*\*|__|(?<!\w)[*_]|[*_](?!\w)", "", text).strip()


def _take_front_matter(text: str) -> tuple[str, str | None]:
    match = _FRONT_MATTER.match(text)
    if match is None:
        return text, None
    if (
        match[1].count("[") + match[1].count("{") > _MAX_FLOWS
    ):  # the time of PyYAML's scanner grows with their square
        return text, None
    try:
        # Every value is text, and aliases stay what they are: merge keys could grow a few lines without end.
        fields = yaml.load(match[1], Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError):
        return text, None
    if not isinstance(fields, dict):  # two thematic breaks with prose between them
        return text, None
    rest = text[match.end() :]
    if not rest.strip():
        return text, None
    title = fields.get("title")
    return rest, shorten_title(title) or None if isinstance(title, str) else None
