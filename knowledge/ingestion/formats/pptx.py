"""Presentations (.pptx): each slide a page and a section, with its lists, tables, diagrams and speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pptx
from lxml import etree
from pptx.enum.shapes import PP_PLACEHOLDER

from knowledge.ingestion.formats.archive import open_archive
from knowledge.ingestion.formats.base import (
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

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_DIAGRAM = "http://schemas.openxmlformats.org/drawingml/2006/diagram"
_CHART_TEXT = "{http://schemas.openxmlformats.org/drawingml/2006/chart}v"
_SKIPPED = {PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.SLIDE_NUMBER, PP_PLACEHOLDER.HEADER}
_TITLES = {PP_PLACEHOLDER.TITLE, PP_PLACEHOLDER.CENTER_TITLE, PP_PLACEHOLDER.VERTICAL_TITLE}
_LISTS = {
    PP_PLACEHOLDER.BODY,
    PP_PLACEHOLDER.OBJECT,
    PP_PLACEHOLDER.VERTICAL_BODY,
    PP_PLACEHOLDER.VERTICAL_OBJECT,
}
_XML = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)


def parse_pptx(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """Slides in order; ParsedDocument.pages holds where each begins.

    Raises ParseError too_large, encrypted, wrong_type, damaged and no_text.
    """
    builder = DocumentBuilder(filename=filename, limits=limits)
    starts: list[int] = []
    with open_archive(
        data, filename=filename, limits=limits, marks="ppt/", kind="a PowerPoint presentation"
    ) as file:
        presentation = pptx.Presentation(file)
        title = shorten_title(presentation.core_properties.title or "")
        slides = list(presentation.slides)
        if len(slides) > limits.max_pages:
            raise ParseError(
                "too_large",
                f"{filename} has {len(slides):,} slides, {limits.max_pages:,} are allowed: split it.",
            )
        for number, slide in enumerate(slides, 1):
            starts.append(builder.length + 2 if builder.length else 0)
            _write_slide(builder, slide, number)
    if all(block.kind == HEADING for block in builder.blocks) and not any(
        _has_own_title(h.title) for h in builder.headings
    ):
        raise ParseError("no_text", f"{filename} holds no text: upload slides whose text is not a picture.")
    starts = [min(start, builder.length) for start in starts]
    if title.lower() in ("powerpoint presentation", "presentation", "slide 1"):
        title = ""
    first = next((heading.title for heading in builder.headings if _has_own_title(heading.title)), "")
    return builder.build(
        title=title or first or make_title(filename), media_type=media_type, pages=tuple(starts)
    )


def _has_own_title(title: str) -> bool:
    return not title.startswith("Slide ")


def _write_slide(builder: DocumentBuilder, slide: Any, number: int) -> None:
    shapes = list(_list_shapes(slide.shapes))
    titles = [clean_cell(shape.text_frame.text) for shape in shapes if _placeholder_of(shape) in _TITLES]
    builder.add(" – ".join(filter(None, titles)) or f"Slide {number}", HEADING, level=1)
    for shape in shapes:
        kind = _placeholder_of(shape)
        if kind in _TITLES or kind in _SKIPPED:
            continue
        if getattr(shape, "has_table", False):
            builder.add(write_table(_list_rows(shape.table), has_header=shape.table.first_row or None), TABLE)
        elif shape.has_text_frame:
            _write_frame(builder, shape.text_frame, is_list=kind in _LISTS)
        else:
            texts = _read_graphic(shape)
            if getattr(shape, "has_chart", False):
                builder.add("Chart: " + ", ".join(texts) if texts else "", PARAGRAPH)
            else:
                builder.add("\n".join(f"- {text}" for text in texts), LIST)
    if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame):
        notes = _read_paragraphs(frame)
        if notes:
            builder.add("Notes: " + "\n".join(text for text, _ in notes), PARAGRAPH)


def _list_shapes(shapes: Any) -> Iterator[Any]:
    """Those inside groups too, in reading order."""
    stack = [iter(shapes)]
    while stack:
        shape = next(stack[-1], None)
        if shape is None:
            stack.pop()
        elif hasattr(shape, "shapes"):
            stack.append(iter(shape.shapes))
        else:
            yield shape


def _placeholder_of(shape: Any) -> Any:
    return shape.placeholder_format.type if shape.is_placeholder else None


def _read_paragraphs(frame: Any) -> list[tuple[str, int]]:
    """(text, depth) of the paragraphs that hold any."""
    found = []
    for paragraph in frame.paragraphs:
        text = clean_cell("".join(_read_pieces(paragraph._p)))
        if text:
            found.append((text, min(paragraph.level, 8)))
    return found


def _read_pieces(element: Any) -> Iterator[str]:
    """The text of runs, fields and links; a line break is a space."""
    for node in element.iter(_A + "t", _A + "br"):
        yield " " if node.tag == _A + "br" else node.text or ""


def _write_frame(builder: DocumentBuilder, frame: Any, *, is_list: bool) -> None:
    paragraphs = _read_paragraphs(frame)
    if is_list and (len(paragraphs) > 1 or any(depth for _, depth in paragraphs)):
        builder.add("\n".join(f"{'  ' * depth}- {text}" for text, depth in paragraphs), LIST)
    else:
        builder.add("\n".join(text for text, _ in paragraphs), PARAGRAPH)


def _list_rows(table: Any) -> list[list[str]]:
    return [
        [clean_cell("".join(_read_cell(cell))) for cell in row.iterchildren(_A + "tc")]
        for row in table._tbl.tr_lst
    ]


def _read_cell(cell: Any) -> Iterator[str]:
    for paragraph in cell.iter(_A + "p"):
        yield from _read_pieces(paragraph)
        yield " "


def _read_graphic(shape: Any) -> list[str]:
    """The texts of a diagram, or the names in a chart; their parts lie beside the slide."""
    for node in shape._element.iter():
        identifier = node.get(_R + "dm") or (node.get(_R + "id") if "chart" in str(node.tag) else None)
        if not identifier or identifier not in shape.part.rels:
            continue
        relation = shape.part.rels[identifier]
        if relation.is_external:
            continue
        root = etree.fromstring(relation.target_part.blob, _XML)
        texts = [clean_cell("".join(_read_pieces(paragraph))) for paragraph in root.iter(_A + "p")]
        names = [clean_cell(value.text or "") for value in root.iter(_CHART_TEXT)]
        names = [name for name in names if any(map(str.isalpha, name))]
        return list(dict.fromkeys(filter(None, [*texts, *names])))[:200]
    return []
