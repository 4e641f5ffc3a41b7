"""Tables of comma or tab separated values: each row becomes a line that can be read alone."""

from __future__ import annotations

import csv
import io

from knowledge.ingestion.formats.base import (
    TABLE,
    DocumentBuilder,
    ParsedDocument,
    ParseError,
    ParseLimits,
    make_title,
)
from knowledge.ingestion.formats.table import clean_cell, is_header, write_row
from knowledge.ingestion.formats.text import decode_text


def parse_csv(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """Each row as "Header: value; Header: value", or "value; value" where the table has no header.

    Raises ParseError damaged for a table that cannot be read as one.
    """
    text = decode_text(data, filename=filename, limits=limits)
    builder = DocumentBuilder(filename=filename, limits=limits)
    try:
        reader = csv.reader(io.StringIO(text), _sniff(text, filename))
        rows = [[clean_cell(cell) for cell in row] for row in reader]
    except csv.Error as error:
        raise ParseError(
            "damaged", f"{filename} cannot be read as a table ({error}): save it again as CSV."
        ) from error
    rows = [row for row in rows if any(row)]
    header = rows[0] if is_header(rows) else []
    for row in rows[1:] if header else rows:
        builder.add(write_row(row, header), TABLE, separator="\n")
    return builder.build(title=make_title(filename), media_type=media_type)


def _sniff(text: str, filename: str) -> type[csv.Dialect] | csv.Dialect:
    if filename.lower().endswith(".tsv"):
        return csv.excel_tab
    sample = "\n".join(text[:20_000].split("\n")[:50])
    try:
        dialect = csv.Sniffer().sniff(sample, delimiters=",;\t|")
    except csv.Error:
        return csv.excel
    dialect.doublequote = True  # the sniffer says False where the sample holds no doubled quote
    return dialect
