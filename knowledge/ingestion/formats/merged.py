"""Merged cells of a spreadsheet, which say their text only where they begin."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import IO

from openpyxl.utils.cell import column_index_from_string

from knowledge.ingestion.formats.table import is_header

_MERGE = re.compile(rb"<(?:\w+:)?mergeCell\s[^<>]*?ref=[\"']([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})[\"']")
_LONGEST = 300  # of such an element
_PIECE = 1 << 20
_MAX_MERGES = 50_000
_MAX_WIDTH = 256


@dataclass
class Merges:
    """Of one sheet, whose rows are asked for from the first on; rows and columns are counted from 0.

    Attributes:
        begin: row → the merged cells that begin there, each with its first and last column and its last row.
    """

    begin: dict[int, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    _open: dict[int, tuple[int, str]] = field(default_factory=dict)

    def fill(self, number: int, row: list[str]) -> list[str]:
        """The row with the texts of cells merged with those above; a row that has no text of its own stays empty."""
        if any(row):
            for column, (last, text) in list(self._open.items()):
                if last < number:
                    del self._open[column]
                elif text and not (column < len(row) and row[column]):
                    row = [*row, *[""] * (column + 1 - len(row))]
                    row[column] = text
        for first, _, last in self.begin.get(number, ()):
            if last > number and len(self._open) < _MAX_WIDTH:
                self._open[first] = last, row[first] if first < len(row) else ""
        return row

    def over(self, number: int, row: list[str]) -> list[str]:
        """For each column the text of a cell of the row that is merged over it and others; else empty."""
        over: list[str] = []
        for first, last, _ in self.begin.get(number, ()):
            if last > first and first < len(row) and row[first]:
                last = min(last, first + _MAX_WIDTH)
                over += [""] * (last + 1 - len(over))
                over[first : last + 1] = [row[first]] * (last + 1 - first)
        return over


def read_merges(sheet: IO[bytes]) -> Merges:
    """The merged cells of a sheet's XML, where they stand behind all rows."""
    found: set[tuple[bytes, ...]] = set()
    rest = b""
    while len(found) < _MAX_MERGES and (piece := sheet.read(_PIECE)):
        piece = rest + piece
        found.update(match.groups() for match in _MERGE.finditer(piece))
        rest = piece[-_LONGEST:]
    merges = Merges()
    for left, top, right, bottom in sorted(found, key=lambda each: (int(each[1]), len(each[0]), each[0])):
        columns = (column_index_from_string(letters.decode()) - 1 for letters in (left, right))
        merges.begin[int(top) - 1].append((*columns, int(bottom) - 1))
    return merges


def join_headers(upper: list[str], over: list[str], lower: list[str]) -> list[str] | None:
    """One row of names from two, the upper of which has names over several columns; ``None`` where the lower one is none.

    Args:
        over: for each column the wide name above it, as ``Merges.over`` gives it.
    """
    width = max(len(upper), len(over), len(lower))
    upper, over, lower = ([*row, *[""] * (width - len(row))] for row in (upper, over, lower))
    if not all(is_header([[cell], [cell]]) for cell in lower if cell):
        return None
    names = []
    for above, wide, below in zip(upper, over, lower, strict=True):
        # A wide cell over nothing parts no columns; where both say what their column is about, the lower one is data.
        if (wide and not below) or (not wide and above and below and above != below):
            return None
        names.append(f"{wide} {below}" if wide else above or below)
    return names
