"""HTML: the readable text in reading order. Nothing is fetched, and entities of a DTD do not exist in HTML
parsing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from selectolax.lexbor import LexborHTMLParser, LexborNode

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
from knowledge.ingestion.formats.table import write_table
from knowledge.ingestion.formats.text import decode_text

_DROPPED = frozenset(
    [
        "script",
        "style",
        "nav",
        "footer",
        "noscript",
        "template",
        "svg",
        "math",
        "iframe",
        "object",
        "embed",
        "canvas",
        "audio",
        "video",
        "head",
        "select",
        "button",
        "input",
        "textarea",
        "dialog",
    ]
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "details",
        "dd",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "form",
        "header",
        "hgroup",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "ol",
        "p",
        "section",
        "summary",
        "ul",
        "table",
        "caption",
        "pre",
    ]
)
_HIDDEN_STYLE = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE)
_SPACES = re.compile(r"[ \t\n\r\f]+")
_OPEN, _CLOSE = True, False
_MAX_INDENT = 8
_MAX_DEPTH = 5000
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements that have no end, or whose end is often left out because the next one is it.
_FREELY_OPEN = frozenset(
    "area base br col embed hr img input link meta param source track wbr p li dt dd tr td th thead tbody tfoot"  # noqa: SIM905
    " colgroup caption option optgroup rp rt body html head".split()
)
_MAX_SPAN = 64


def parse_html(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """Headings, paragraphs, lists as "- ", tables as "cell | cell" rows, preformatted text as it is.

    Scripts, styles, navigation, footers and hidden elements are left out.
    """
    builder = DocumentBuilder(filename=filename, limits=limits)
    title = write_html(builder, _decode_html(data, filename=filename, limits=limits))
    if not builder.blocks:
        raise ParseError(
            "no_text", f"{filename} shows no text: upload a page whose text is in the HTML itself."
        )
    first = next((heading.title for heading in builder.headings if heading.level == 1), "")
    return builder.build(title=title or shorten_title(first) or make_title(filename), media_type=media_type)


def write_html(builder: DocumentBuilder, html: str) -> str:
    """Appends what a page shows; returns its title, which may be empty.

    Raises RecursionError for elements nested so deeply that building their tree, quadratic in the depth, would take
    minutes.
    """
    _check_depth(html)
    tree = LexborHTMLParser(html)
    root = tree.body or tree.root
    if root is not None:
        _Writer(builder).write(root)
    title = tree.css_first("title")
    return shorten_title(title.text() if title else "")


def _check_depth(html: str) -> None:
    if html.count("<") <= _MAX_DEPTH:
        return
    depth = 0
    for match in _TAG.finditer(html):
        if match[2].lower() in _FREELY_OPEN:
            continue
        depth = max(0, depth - 1) if match[1] else depth + 1
        if depth > _MAX_DEPTH:
            raise RecursionError


def _decode_html(data: bytes, *, filename: str, limits: ParseLimits) -> str:
    declared = _CHARSET.search(data[:4096])
    if declared:
        # The declaration may lie; bytes that do not fit it are decoded as any other text.
        with suppress(LookupError, UnicodeError):
            data = data.decode(declared[1].decode("ascii")).encode("utf-8", "replace")
    return decode_text(data, filename=filename, limits=limits)


def _is_left_out(node: LexborNode) -> bool:
    if node.tag in _DROPPED:
        return True
    attributes = node.attributes
    return bool(attributes) and (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in ("navigation", "search")
        or bool(_HIDDEN_STYLE.search(attributes.get("style") or ""))
    )


def _walk(root: LexborNode) -> Iterator[tuple[bool, LexborNode]]:
    """(opening or closing, node) in document order; with a stack, so that depth cannot exhaust Python's."""
    stack = [(_CLOSE, root), (_OPEN, root)]
    while stack:
        opening, node = stack.pop()
        if opening and node is not root and node.tag != "-text" and _is_left_out(node):
            stack.pop()  # its closing
            continue
        yield opening, node
        if opening:
            children = []
            child = node.child
            while child is not None:
                if child.tag != "-comment":
                    children.append(child)
                child = child.next
            for child in reversed(children):
                stack.append((_CLOSE, child))
                stack.append((_OPEN, child))


class _Rows:
    """The rows of a table. A cell that spans rows says its text in each; one that spans columns leaves those after
    it empty, so that every cell stays below its header.
    """

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.has_header: bool | None = None
        self._row: list[str] = []
        self._spans = (1, 1)
        self._plain = False  # the open row has cells that are no headers
        self._hanging: dict[int, tuple[int, str]] = {}  # column → rows still to fill, their text

    def open_cell(self, node: LexborNode) -> None:
        attributes = node.attributes
        self._spans = _read_span(attributes.get("colspan")), _read_span(attributes.get("rowspan"))
        self._plain = self._plain or node.tag == "td"

    def add_cell(self, text: str) -> None:
        self._fill_hanging()
        columns, rows = self._spans
        self._spans = (1, 1)
        for number in range(columns):
            if rows > 1:
                self._hanging[len(self._row)] = (rows - 1, "" if number else text)
            self._row.append("" if number else text)

    def end_row(self) -> None:
        if not self._row:
            return
        self._fill_hanging()
        if any(self._row):
            if not self.rows and not self._plain:
                self.has_header = True
            while not self._row[-1]:
                self._row.pop()
            self.rows.append(self._row)
        self._row, self._plain = [], False

    def _fill_hanging(self) -> None:
        while hanging := self._hanging.pop(len(self._row), None):
            left, text = hanging
            if left > 1:
                self._hanging[len(self._row)] = (left - 1, text)
            self._row.append(text)


def _read_span(value: str | None) -> int:
    return max(1, min(int(value), _MAX_SPAN)) if value and value.isdecimal() and len(value) < 6 else 1


class _Writer:
    """Turns the walk's events into blocks. A list, a table and a <pre> are each collected as one block."""

    def __init__(self, builder: DocumentBuilder) -> None:
        self.builder = builder
        self._inline: list[str] = []  # the text of the open paragraph, heading, item or cell
        self._lines: list[str] = []  # the finished lines of the open list or table
        self._lists: list[tuple[str, int]] = []  # (tag, items so far), outermost first
        self._marker = ""  # what the next line of the open list begins with
        self._tables = 0
        self._rows = _Rows()
        self._heading: int | None = None
        self._pre = 0

    def write(self, root: LexborNode) -> None:
        for opening, node in _walk(root):
            tag = node.tag or ""
            if tag == "-text":
                if opening:
                    self._inline.append(node.text_content or "")
            elif tag == "br":
                if opening:
                    self._inline.append("\n" if self._pre else "\0")
            elif opening:
                self._open(tag, node)
            else:
                self._close(tag)
        self._end_paragraph()

    def _open(self, tag: str, node: LexborNode) -> None:
        if tag == "table":
            if not self._tables:
                self._end_paragraph()
                self._flush_lines(LIST)
                self._rows = _Rows()
            self._tables += 1
        elif self._tables:
            if self._tables == 1 and tag in ("td", "th"):
                self._rows.open_cell(node)
            if tag in _BLOCKS or tag in _HEADINGS:
                self._inline.append(" ")  # blocks inside a cell stay inside its line
        elif tag in ("ul", "ol"):
            self._end_paragraph()
            self._lists.append((tag, 0))
        elif tag == "li":
            self._end_paragraph()
            name, count = self._lists.pop() if self._lists else ("ul", 0)
            self._lists.append((name, count + 1))
            indent = "  " * min(len(self._lists) - 1, _MAX_INDENT)
            self._marker = f"{indent}{count + 1}. " if name == "ol" else f"{indent}- "
        elif tag == "pre":
            self._end_paragraph()
            self._pre += 1
        elif tag in _HEADINGS:
            self._end_paragraph()
            self._heading = _HEADINGS[tag]
        elif tag in _BLOCKS:
            self._end_paragraph()

    def _close(self, tag: str) -> None:
        if tag == "table":
            self._tables -= 1
            if not self._tables:
                self._end_row()
                self.builder.add(write_table(self._rows.rows, has_header=self._rows.has_header), TABLE)
        elif self._tables:
            if self._tables == 1 and tag in ("td", "th"):
                self._rows.add_cell(self._take_inline().replace("\n", " "))
            elif self._tables == 1 and tag == "tr":
                self._end_row()
            elif self._tables == 1 and tag == "caption":
                self.builder.add(self._take_inline().replace("\n", " "), PARAGRAPH)
        elif tag in ("ul", "ol"):
            self._end_paragraph()
            if self._lists:
                self._lists.pop()
            if not self._lists:
                self._flush_lines(LIST)
        elif tag == "pre":
            self._end_pre()
        elif tag in _HEADINGS:
            self._end_paragraph()
            self._heading = None
        elif tag in _BLOCKS:
            self._end_paragraph()

    def _take_inline(self) -> str:
        text = _SPACES.sub(" ", "".join(self._inline))
        self._inline.clear()
        return "\n".join(line.strip() for line in text.split("\0") if line.strip())

    def _end_paragraph(self) -> None:
        text = self._take_inline()
        if not text:
            return
        if self._lists:
            marker = self._marker or "  " * min(len(self._lists), _MAX_INDENT)
            self._marker = ""
            self._lines.append(marker + text.replace("\n", "\n" + " " * len(marker)))
        elif self._heading is not None:
            self.builder.add(text.replace("\n", " "), HEADING, level=self._heading)
        else:
            self.builder.add(text, PARAGRAPH)

    def _end_row(self) -> None:
        if rest := self._take_inline().replace("\n", " "):  # text outside of the cells
            self._rows.add_cell(rest)
        self._rows.end_row()

    def _end_pre(self) -> None:
        self._pre = max(0, self._pre - 1)
        text = "".join(self._inline).replace("\0", "\n")
        self._inline.clear()
        if not text.strip():
            return
        if self._lists:
            indent = self._marker or "  " * min(len(self._lists), _MAX_INDENT)
            self._marker = ""
            self._lines.append(indent + text.strip("\n").rstrip().replace("\n", "\n" + " " * len(indent)))
        else:
            self.builder.add(text, CODE)

    def _flush_lines(self, kind: str) -> None:
        if self._lines:
            self.builder.add("\n".join(self._lines), kind)
            self._lines = []
