"""Spreadsheets (.xlsx): each visible sheet a section, each row a line that names its columns. Values, not formulas.

Rows are read one after the other, so that a sheet costs the memory of its text and not of its cells.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import openpyxl

from knowledge.ingestion.formats.archive import open_archive
from knowledge.ingestion.formats.base import (
    HEADING,
    PARAGRAPH,
    TABLE,
    DocumentBuilder,
    ParsedDocument,
    ParseError,
    ParseLimits,
    make_title,
    shorten_title,
)
from knowledge.ingestion.formats.merged import Merges, join_headers, read_merges
from knowledge.ingestion.formats.table import clean_cell, is_header, write_row, write_table

_MAX_ROWS = 50_000  # of a sheet
_MAX_CELLS = 1_000_000  # of a workbook, empty ones between others included
_MAX_SHEETS = 200
# A table begins to be written when this many rows of it are known; a shorter one may be a grid.
_AHEAD = 30


def parse_xlsx(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """Rows as "Header: value; Header: value", small tables as grids; blank rows part tables; dates are ISO. Cells merged
    over rows say their text in each; names over several columns stand before those below them.

    A sheet that is too long says so at its end. Raises ParseError too_large, encrypted, wrong_type, damaged and no_text.
    """
    builder = DocumentBuilder(filename=filename, limits=limits)
    with open_archive(data, filename=filename, limits=limits, marks="xl/", kind="an Excel workbook") as file:
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        title = shorten_title(str(workbook.properties.title or ""))
        cells = _MAX_CELLS
        for sheet in workbook.worksheets[:_MAX_SHEETS]:
            if sheet.sheet_state == "visible":
                sheet.reset_dimensions()  # they are what some program said, not what is there
                with sheet._get_source() as source:  # read so, openpyxl does not tell what is merged
                    merges = read_merges(source)
                cells -= _SheetWriter(builder, sheet.title, merges).write(sheet.iter_rows(), cells=cells)
        workbook.close()
    if all(block.kind == HEADING for block in builder.blocks):
        raise ParseError("no_text", f"{filename} holds no values: upload a workbook whose sheets hold text.")
    return builder.build(title=title or make_title(filename), media_type=media_type)


class _SheetWriter:
    """Writes a sheet's tables; `_rows` are those of the open table that are not written yet."""

    def __init__(self, builder: DocumentBuilder, name: str, merges: Merges) -> None:
        self._builder, self._name, self._merges = builder, clean_cell(name), merges
        self._upper: tuple[list[str], list[str]] | None = (
            None  # a row with names over several columns, and those
        )
        self._is_named = False
        self._rows: list[list[str]] = []
        self._header: list[str] = []  # of the last table that was long
        self._is_open = False  # lines of the table at hand are written: those to come go below them

    def write(self, rows: Iterator[tuple[Any, ...]], *, cells: int) -> int:
        """Returns how many cells were looked at."""
        seen = 0
        for number, row in enumerate(rows):
            seen += len(row)
            if number >= _MAX_ROWS or seen > cells:
                self._end_table()
                self._builder.add(
                    f"(The sheet “{self._name}” goes on: only its first {number:,} rows are here.)", PARAGRAPH
                )
                break
            texts = [_write_value(cell) for cell in row]
            while texts and not texts[-1]:
                texts.pop()
            texts = self._merges.fill(number, texts)
            if texts:
                self._add(self._join_upper(texts, number), number)
            else:
                self._end_table()
        self._end_table()
        return seen

    def _join_upper(self, row: list[str], number: int) -> list[str]:
        """The names of the columns, when this row and the one above are their header."""
        upper, self._upper = self._upper, None
        if upper is None:
            return row
        over = self._merges.over(number, row)
        joined = join_headers(*upper, [wide or own for wide, own in zip_longest(over, row, fillvalue="")])
        if joined is None:
            return row
        self._rows.pop()
        return joined

    def _add(self, row: list[str], number: int) -> None:
        self._open_sheet()
        if not self._rows and not self._is_open and sum(map(bool, row)) == 1:
            self._builder.add(next(filter(None, row)), PARAGRAPH)  # a title or remark above a table
        elif self._is_open:
            self._write_lines([row])
        else:
            if not self._rows and (over := self._merges.over(number, row)):
                self._upper = row, over
            self._rows.append(row)
            if len(self._rows) > _AHEAD:
                self._open_table()

    def _open_sheet(self) -> None:
        if not self._is_named:
            self._builder.add(self._name, HEADING, level=1)
            self._is_named = True

    def _open_table(self) -> None:
        if is_header(self._rows):
            self._header = self._rows.pop(0)
        elif self._header and max(map(len, self._rows)) > len(self._header):
            self._header = []
        self._write_lines(self._rows)
        self._rows = []

    def _write_lines(self, rows: list[list[str]]) -> None:
        for row in rows:
            self._builder.add(
                write_row(row, self._header), TABLE, separator="\n" if self._is_open else "\n\n"
            )
            self._is_open = True

    def _end_table(self) -> None:
        """Below a blank row a long table may go on, or another one begin."""
        rows, self._rows = self._rows, []
        self._upper = None
        if rows and self._header and not is_header(rows) and max(map(len, rows)) <= len(self._header):
            self._write_lines(rows)
        elif rows:
            self._header = []
            self._builder.add(write_table(rows), TABLE)
        self._is_open = False


def _write_value(cell: Any) -> str:
    value = cell.value
    if value is None or cell.data_type == "e":  # "#N/A" and the like
        return ""
    if isinstance(value, str):
        return clean_cell(value)
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, (int, float)):
        if "%" in (cell.number_format or ""):
            return f"{value * 100:.10g}%"
        return f"{value:.15g}" if isinstance(value, float) else str(value)
    if isinstance(value, dt.datetime):
        is_day = value.time() == dt.time()
        return (
            value.date().isoformat()
            if is_day
            else value.isoformat(" ", "seconds" if value.second else "minutes")
        )
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    return clean_cell(str(value))
