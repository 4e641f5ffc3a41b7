"""Exports that a browser downloads: CSV with cells that no spreadsheet runs, and JSON lines; streamed, in bounded memory.

The body runs after the middleware has left its scope, so scope and time zone are captured and entered again for every
batch; each batch is fetched in a thread and gives its connection back. A source of many rows pages by key itself
(``TenantQuerySet.iterator`` would load them all: a server-side cursor would outlive the transaction of its scope).
"""

import csv
import io
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import chain, islice
from typing import Any

from django.http import StreamingHttpResponse
from django.utils import timezone
from django.utils.http import content_disposition_header

from ragsite.core.hops import run_db
from tenants.scope import current_scope, enter

BATCH = 500
# Spreadsheets take a cell that begins so for a formula (OWASP, "CSV Injection"); the wide forms count as well. One whose
# list separator is another than the comma begins a cell behind that, and behind a line's end, within ours.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_FORMULA_WITHIN = re.compile(r"([;\t\r\n][\s\"']*)(?=[=+\-@＝＋－＠])")


def escape_cell(value: Any) -> str:
    """``value`` as text that a spreadsheet shows and never runs. A number stays one, the negative too."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return str(value)
        case Decimal():
            return f"{value:f}"
        case datetime() | date():
            return value.isoformat()
    text = _FORMULA_WITHIN.sub(r"\1'", str(value).replace("\0", ""))
    return f"'{text}" if text.startswith(_FORMULA) else text


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """The lines of a CSV file (RFC 4180), every cell escaped."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for row in chain([header], rows):
        buffer.seek(0)
        buffer.truncate()
        writer.writerow([escape_cell(cell) for cell in row])
        yield buffer.getvalue()


def csv_response(*, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> StreamingHttpResponse:
    """A CSV file called ``name`` to download. ``rows`` is read lazily, in the scope in force now."""
    return lines_response(name=name, content_type="text/csv; charset=utf-8", lines=csv_lines(header, rows))


def lines_response(*, name: str, content_type: str, lines: Iterable[str]) -> StreamingHttpResponse:
    """A file of ``lines`` (each with its end) to download. They are made lazily, in the scope in force now."""
    response = StreamingHttpResponse(_batches(lines), content_type=content_type)
    response.headers["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _batches(lines: Iterable[str]) -> AsyncIterator[bytes]:
    scope, zone = current_scope(), timezone.get_current_timezone()
    source = iter(lines)

    def pull() -> bytes:
        with enter(scope), timezone.override(zone):
            return "".join(islice(source, BATCH)).encode("utf-8", "replace")

    async def stream() -> AsyncIterator[bytes]:
        while batch := await run_db(pull):
            yield batch

    return stream()
