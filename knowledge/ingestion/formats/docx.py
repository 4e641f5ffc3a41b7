"""Word documents (.docx), in document order. The archive is judged by its directory before anything is
unpacked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import docx

from knowledge.ingestion.formats.archive import open_archive
from knowledge.ingestion.formats.base import (
    CODE,
    HEADING,
    LIST,
    PARAGRAPH,
    TABLE,
    DocumentBuilder,
    ParsedDocument,
    ParseError,
    ParseLimits,
    make_title,
    shorten_title,
)
from knowledge.ingestion.formats.table import clean_cell, write_table

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_HEADING_STYLE = re.compile(r"heading (\d)$", re.IGNORECASE)
_CODE_STYLE = re.compile(r"code|preformatted|plain text|macro|console|terminal|listing", re.IGNORECASE)
_CODE_FONT = re.compile(r"mono|courier|consolas|menlo|lucida console", re.IGNORECASE)
_WRAPPERS = {_W + name for name in ("sdt", "sdtContent", "ins", "moveTo", "smartTag", "customXml", "body")}


def parse_docx(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """Headings by style, lists as "- " or "1. ", tables as "| a | b |" rows; tracked deletions are left out.

    Raises ParseError too_large for an archive that would unpack beyond the limits, damaged, and no_text.
    """
    with open_archive(data, filename=filename, limits=limits, marks="word/", kind="a Word document") as file:
        document = docx.Document(file)
        styles = {style.style_id: style.name or "" for style in document.styles}
        title = shorten_title(document.core_properties.title or "")
        body: Any = document.element.body
    writer = _Writer(DocumentBuilder(filename=filename, limits=limits), styles)
    for element in _list_body(body):
        writer.write(element)
    writer.flush()
    if not writer.builder.blocks:
        raise ParseError(
            "no_text", f"{filename} holds no text: upload a document whose text is not a picture."
        )
    return writer.builder.build(title=title or writer.title or make_title(filename), media_type=media_type)


def _list_body(parent: Any) -> Iterator[Any]:
    """Paragraphs and tables in document order, also those inside content controls and tracked insertions."""
    stack = [iter(parent)]
    while stack:
        element = next(stack[-1], None)
        if element is None:
            stack.pop()
        elif element.tag in (_W + "p", _W + "tbl"):
            yield element
        elif element.tag in _WRAPPERS:
            stack.append(iter(element))


def _read_text(element: Any) -> str:
    """The text of a paragraph as shown. Text boxes are stored twice (mc:Fallback): the second is skipped."""
    parts: list[str] = []
    stack = [element]
    while stack:
        node = stack.pop()
        if node.tag == _W + "t":
            parts.append(node.text or "")
        elif node.tag == _W + "tab":
            # Inside w:pPr a w:tab is a tab stop; w:pPr is never entered.
            parts.append("\t")
        elif node.tag in (_W + "br", _W + "cr"):
            parts.append("\n")
        elif node.tag == _W + "noBreakHyphen":
            parts.append("-")
        elif node.tag not in (_W + "pPr", _W + "rPr", _W + "del", _W + "moveFrom", _FALLBACK):
            stack.extend(reversed(node))
    return "".join(parts)


class _Writer:
    """Collects neighbouring list items and code lines into one block each."""

    def __init__(self, builder: DocumentBuilder, styles: dict[str, str]) -> None:
        self.builder, self.title = builder, ""
        self._styles = styles
        self._lines: list[str] = []
        self._kind = ""
        self._numbers: dict[str, int] = {}

    def write(self, element: Any) -> None:
        if element.tag == _W + "tbl":
            self.flush()
            self.builder.add(write_table(list(_list_rows(element)), has_header=_has_header(element)), TABLE)
            return
        text = _read_text(element)
        properties = element.find(_W + "pPr")
        style = self._read_style(properties)
        if not text.strip():
            if self._kind == CODE and self._lines:
                self._lines.append("")  # a blank line inside a listing
            return
        heading = _HEADING_STYLE.match(style)
        if heading or style.lower() in ("title", "subtitle"):
            self._write_heading(text, style=style, level=int(heading[1]) if heading else 1)
        elif style.lower().startswith("toc"):
            return
        elif marker := self._read_marker(properties, style):
            self._collect(LIST, marker + text.strip().replace("\n", "\n" + " " * len(marker)))
        elif _CODE_STYLE.search(style) or _is_monospaced(element):
            self._collect(CODE, text.rstrip())
        else:
            self.flush()
            self.builder.add(text.strip(), PARAGRAPH)

    def flush(self) -> None:
        if self._lines:
            self.builder.add("\n".join(self._lines), self._kind)
            self._lines = []

    def _collect(self, kind: str, line: str) -> None:
        if kind != self._kind:
            self.flush()
        self._kind = kind
        self._lines.append(line)

    def _write_heading(self, text: str, *, style: str, level: int) -> None:
        self.flush()
        self._numbers.clear()
        text = " ".join(text.split())
        if style.lower() == "title" or (level == 1 and not self.title and style.lower() != "subtitle"):
            self.title = self.title or shorten_title(text)
        if style.lower() == "subtitle":
            self.builder.add(text, PARAGRAPH)
        else:
            self.builder.add(text, HEADING, level=level)

    def _read_style(self, properties: Any) -> str:
        node = properties.find(_W + "pStyle") if properties is not None else None
        style_id = node.get(_W + "val", "") if node is not None else ""
        return self._styles.get(style_id, style_id)

    def _read_marker(self, properties: Any, style: str) -> str:
        """ "- " or "1. " with the item's indent, or "" for what is no list item."""
        numbering = properties.find(_W + "numPr") if properties is not None else None
        if numbering is None and not style.lower().startswith("list"):
            return ""
        depth, list_id = 0, style
        if numbering is not None:
            depth_node, id_node = numbering.find(_W + "ilvl"), numbering.find(_W + "numId")
            if id_node is not None and id_node.get(_W + "val") == "0":  # numbering switched off
                return ""
            depth = int(depth_node.get(_W + "val", "0")) if depth_node is not None else 0
        elif style[-1:].isdigit():
            depth = int(style[-1]) - 1
        indent = "  " * min(depth, 8)
        if not style.lower().startswith("list number"):
            return f"{indent}- "
        # Steps keep their numbers, so that an answer can name them; a heading starts a new count.
        self._numbers[list_id] = self._numbers.get(list_id, 0) + 1
        return f"{indent}{self._numbers[list_id]}. "


def _is_monospaced(paragraph: Any) -> bool:
    runs = [run for run in paragraph.iter(_W + "r") if any(node.text for node in run.iter(_W + "t"))]
    fonts = [run.find(f"{_W}rPr/{_W}rFonts") for run in runs]
    return bool(runs) and all(
        font is not None and _CODE_FONT.search(font.get(_W + "ascii", "")) for font in fonts
    )


def _has_header(table: Any) -> bool | None:
    """Whether the table says that its first row is repeated on each page, as header rows are; else unknown."""
    first = next(table.iter(_W + "tr"), None)
    return True if first is not None and first.find(f"{_W}trPr/{_W}tblHeader") is not None else None


def _list_rows(table: Any) -> Iterator[list[str]]:
    """The cells of each row. A cell merged over rows says its text in each; one that spans columns leaves the others
    empty, so that those to its right stay below their headers.
    """
    above: dict[int, str] = {}  # column → the text of the cell that goes on below it
    for row in table.iter(_W + "tr"):
        if next(row.iterancestors(_W + "tbl")) is not table:
            continue  # a row of a table inside a cell: read with that cell
        cells: list[str] = []
        has_own = False
        for cell in row.iterchildren(_W + "tc", _W + "sdt"):
            paragraphs = (clean_cell(_read_text(paragraph)) for paragraph in cell.iter(_W + "p"))
            own, column = " ".join(text for text in paragraphs if text), len(cells)
            has_own = has_own or bool(own)
            merged = cell.find(f"{_W}tcPr/{_W}vMerge")
            if merged is None:
                above.pop(column, None)
            elif merged.get(_W + "val") == "restart":
                above[column] = own
            cells.append(own or above.get(column, ""))
            span = cell.find(f"{_W}tcPr/{_W}gridSpan")
            wide = span.get(_W + "val", "1") if span is not None else "1"
            cells += [""] * (min(int(wide), 64) - 1 if wide.isdigit() else 0)
        while cells and not cells[-1]:
            cells.pop()
        if cells and has_own:
            yield cells
