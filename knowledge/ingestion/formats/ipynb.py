"""Jupyter notebooks (.ipynb): the cells in order; Markdown with its sections, code, and what the code printed."""

from __future__ import annotations

import json
from typing import Any

from knowledge.ingestion.formats.base import (
    CODE,
    PARAGRAPH,
    DocumentBuilder,
    ParsedDocument,
    ParseError,
    ParseLimits,
    clean_text,
    make_title,
)
from knowledge.ingestion.formats.markdown import read_markdown
from knowledge.ingestion.formats.text import decode_text

_OUTPUT_CHARACTERS = 2000  # of a cell; the rest of a log or a table helps nobody


def parse_ipynb(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """Text outputs only, cut where they are long; pictures and widgets are left out.

    Raises ParseError damaged, wrong_type and no_text.
    """
    text = decode_text(data, filename=filename, limits=limits)
    try:
        notebook = json.loads(text)
    except ValueError as error:
        raise ParseError(
            "damaged", f"{filename} is damaged and cannot be opened: save it again from Jupyter."
        ) from error
    cells = _list_cells(notebook)
    if cells is None:
        raise ParseError("wrong_type", f"{filename} is not a notebook: upload it as .json instead.")
    builder = DocumentBuilder(filename=filename, limits=limits)
    for cell in cells:
        if isinstance(cell, dict):
            _write_cell(builder, cell)
    if not builder.blocks:
        raise ParseError("no_text", f"{filename} holds no text: its cells are empty.")
    title = next((heading.title for heading in builder.headings if heading.level == 1), "")
    return builder.build(title=title or make_title(filename), media_type=media_type)


def _list_cells(notebook: Any) -> list[Any] | None:
    if not isinstance(notebook, dict):
        return None
    cells = notebook.get("cells")
    if cells is None:  # format 3, before 2015
        sheets = notebook.get("worksheets")
        first = sheets[0] if isinstance(sheets, list) and sheets else None
        cells = first.get("cells") if isinstance(first, dict) else None
    return cells if isinstance(cells, list) else None


def _read_lines(value: Any) -> str:
    """A text, which notebooks also store as a list of lines."""
    if isinstance(value, list):
        value = "".join(part for part in value if isinstance(part, str))
    return clean_text(value) if isinstance(value, str) else ""


def _write_cell(builder: DocumentBuilder, cell: dict[str, Any]) -> None:
    source = _read_lines(cell.get("source", cell.get("input")))
    kind = cell.get("cell_type")
    if kind in ("markdown", "heading"):
        if kind == "heading":
            source = f"{'#' * min(6, int(cell.get('level', 1)))} {source}"
        headings, blocks = read_markdown(source)
        levels = {heading.start: (heading.level, heading.title) for heading in headings}
        for block in blocks:
            level, title = levels.get(block.start, (None, ""))
            builder.add(source[block.start : block.end] if level is None else title, block.kind, level=level)
    elif kind == "code":
        builder.add(source, CODE)
        outputs = cell.get("outputs")
        builder.add(_read_outputs(outputs if isinstance(outputs, list) else []), CODE)
    else:
        builder.add(source, PARAGRAPH)


def _read_outputs(outputs: list[Any]) -> str:
    parts = []
    for output in outputs:
        if not isinstance(output, dict):
            continue
        shown = output.get("data", output)
        text = _read_lines(output.get("text"))
        if not text and isinstance(shown, dict):
            text = _read_lines(shown.get("text/plain", shown.get("text")))
        if output.get("output_type") in ("error", "pyerr"):
            text = clean_text(f"{output.get('ename', 'Error')}: {output.get('evalue', '')}")
        if text.strip() and not text.startswith("<Figure size"):
            parts.append(text.strip("\n"))
    joined = "\n".join(parts)
    if not joined:
        return ""
    if len(joined) > _OUTPUT_CHARACTERS:
        joined = joined[:_OUTPUT_CHARACTERS].rstrip() + "\n…"
    return "Output:\n" + joined
