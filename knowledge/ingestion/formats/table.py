"""Tables as text: each row can be understood where it stands.

A table that fits into one passage stays a grid. A longer one is going to be cut between its rows, so each of
them names its columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Grids up to this long are about as long as a passage.
_GRID_CHARACTERS = 600
# Cells that are data, not the name of a column: numbers, dates, addresses.
_VALUE = re.compile(
    r"[-+]?[\d.,:/\-%\sTZ]+$|[0-9a-fA-F:.]+/\d{1,3}$|(?:[0-9a-fA-F]{1,4}[:.-]){3,}[0-9a-fA-F]{1,4}$"
)
_MAX_NAME = 80
Row = Sequence[str]


def clean_cell(text: str) -> str:
    """One line."""
    return " ".join(text.split())


def is_header(rows: Sequence[Row]) -> bool:
    """Whether the first row names the columns: names are unique, short and never values.

    csv.Sniffer.has_header guesses by lengths and is often wrong.
    """
    if len(rows) < 2:
        return False
    first = [cell for cell in rows[0] if cell]
    return len(set(first)) == len(first) > 0 and not any(
        _VALUE.match(cell) or len(cell) > _MAX_NAME for cell in first
    )


def write_row(row: Row, header: Row) -> str:
    """ "Header: value; Header: value", or "value; value" where the table has no header."""
    cells = []
    for index, value in enumerate(row):
        name = header[index] if index < len(header) else ""
        if value:
            cells.append(f"{name}: {value}" if name else value)
    return "; ".join(cells)


def write_grid(rows: Sequence[Row]) -> str:
    """ "| a | b |" lines."""
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows)


def write_table(rows: Sequence[Row], *, has_header: bool | None = None) -> str:
    """The rows that hold anything; `has_header` where the document says so, else it is guessed. Cells are one
    line each.
    """
    rows = [row for row in rows if any(row)]
    size = sum(len(cell) + 3 for row in rows for cell in row)
    if size <= _GRID_CHARACTERS or len(rows) < 2 or max(map(len, rows)) < 2:
        return write_grid(rows)
    if has_header is None:
        has_header = is_header(rows)
    if not has_header:
        return write_grid(rows)
    return "\n".join(line for row in rows[1:] if (line := write_row(row, rows[0])))
