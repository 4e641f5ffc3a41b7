"""Exports: cells that no spreadsheet runs, streamed in the scope of whoever asked, in bounded memory."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from tenants.exports import BATCH, csv_lines, csv_response, escape_cell, lines_response
from tenants.models import Membership
from tenants.scope import current_scope, scope
from tests.tenants.conftest import People


def read(response: Any) -> bytes:
    async def whole() -> bytes:
        return b"".join([part async for part in response.streaming_content])

    return async_to_sync(whole)()


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_a_cell_that_a_spreadsheet_would_run_is_text(start: str) -> None:
    assert escape_cell(f"{start}HYPERLINK(1)") == f"'{start}HYPERLINK(1)"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_cell_is_run_where_the_list_separator_is_another(separator: str) -> None:
    typed = [
        "how?;=HYPERLINK(1);x",
        "a\n=1+1;x, y",
        'b; "=1+1',
        "c;\t@SUM(1)",
        "d\r\n-2+3;＝4",
        "- a\n- b",
    ]
    lines = io.StringIO("".join(csv_lines(["asked"], [["2026", text] for text in typed])), newline="")
    cells = [cell.strip(" \t\"'") and cell for row in csv.reader(lines, delimiter=separator) for cell in row]
    if separator == ",":
        assert len(cells) == 1 + 2 * len(typed)
    assert [cell for cell in cells if cell.lstrip(' \t"').startswith(tuple("=+-@＝＋－＠"))] == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (-3, "-3"),
        (-0.5, "-0.5"),
        (Decimal("0.000000000001"), "0.000000000001"),
        (True, "yes"),
        (datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00+00:00"),
        ("a\0b", "ab"),
        ("\0=1", "'=1"),
        ("plain, with a comma", "plain, with a comma"),
    ],
)
def test_other_cells_stay_what_they_are(value: Any, shown: str) -> None:
    assert escape_cell(value) == shown


def test_what_is_written_reads_back() -> None:
    rows = [["a,b", 'say "x"'], ["two\nlines", "=1+1"]]
    found = list(csv.reader(io.StringIO("".join(csv_lines(["one", "=two"], rows)))))
    assert found == [["one", "'=two"], ["a,b", 'say "x"'], ["two\nlines", "'=1+1"]]


@pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
def test_rows_are_read_in_the_scope_of_whoever_asked(people: People) -> None:
    def rows() -> Iterator[list[str]]:
        for member in Membership.objects.select_related("user").order_by("user__username"):
            yield [member.user.username]

    with scope(tenant_id=people.acme.pk, tags=()):
        response = csv_response(name="=members.csv", header=["user"], rows=rows())
    assert current_scope() is None
    assert read(response) == b"user\r\nada\r\nnina\r\n"
    assert response.headers["Content-Disposition"] == 'attachment; filename="=members.csv"'
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"


def test_no_more_is_read_than_has_been_sent() -> None:
    read_so_far = 0

    def lines() -> Iterator[str]:
        nonlocal read_so_far
        for number in range(10 * BATCH):
            read_so_far = number + 1
            yield f"{number}\n"

    response = lines_response(name="x.jsonl", content_type="application/x-ndjson", lines=lines())
    assert read_so_far == 0

    async def two_parts() -> list[int]:
        parts = aiter(response.streaming_content)  # type: ignore[arg-type]
        return [(await anext(parts)).count(b"\n") for _ in range(2)]

    assert async_to_sync(two_parts)() == [BATCH, BATCH]
    assert read_so_far == 2 * BATCH
