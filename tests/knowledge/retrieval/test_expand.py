"""From the found chunk to its section: neighbours, budgets, and no swallowing."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from knowledge.retrieval.expand import NEIGHBOURS, Span, expand_spans


@dataclass(frozen=True)
class Row:
    document_id: UUID
    ordinal: int
    tokens: int = 100
    heading_path: tuple[str, ...] = ("Section",)
    pk: UUID = field(default_factory=uuid4)

    @property
    def start(self) -> int:
        return self.ordinal * 10

    @property
    def end(self) -> int:
        return self.ordinal * 10 + 9


class Rows:
    """What ``expand_spans`` asks of a queryset; which rows are near is its own filter, checked against PostgreSQL in
    ``test_search``."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def filter(self, *_: Any) -> "Rows":
        return self

    def order_by(self, *_: Any) -> "Rows":
        return self

    def values_list(self, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(getattr(row, name) for name in names) for row in self._rows]


def expand(rows: list[Row], found: list[Row], *, section: int = 10_000, context: int = 10_000) -> list[Span]:
    chunks: Any = Rows(rows)
    spans = expand_spans(chunks=chunks, found=found, section_tokens=section, context_tokens=context)
    return [spans[row.pk] for row in found]


def document(count: int, **options: Any) -> list[Row]:
    name = uuid4()
    return [Row(name, number, **options) for number in range(count)]


def test_a_passage_grows_to_both_sides_and_not_beyond_three() -> None:
    rows = document(12)
    assert expand(rows, [rows[5]]) == [Span(rows[5 - NEIGHBOURS].start, rows[5 + NEIGHBOURS].end)]
    assert expand(rows, [rows[0]]) == [Span(0, rows[NEIGHBOURS].end)]
    assert expand(rows, [rows[11]]) == [Span(rows[11 - NEIGHBOURS].start, rows[11].end)]


def test_another_section_stays_out() -> None:
    name = uuid4()
    rows = [Row(name, n, heading_path=("A",) if n < 3 else ("B",)) for n in range(6)]
    assert expand(rows, [rows[2]]) == [Span(0, rows[2].end)]
    assert expand(rows, [rows[3]]) == [Span(rows[3].start, rows[5].end)]


def test_the_budget_of_a_section_is_kept_nearest_first() -> None:
    rows = document(9)
    assert expand(rows, [rows[4]], section=350) == [Span(rows[3].start, rows[5].end)]
    assert expand(rows, [rows[4]], section=250) == [Span(rows[3].start, rows[4].end)]
    assert expand(rows, [rows[4]], section=99) == [Span(rows[4].start, rows[4].end)]


def test_the_budget_of_all_goes_to_the_better_places() -> None:
    one, two = document(5), document(5)
    spans = expand(one + two, [one[0], two[0]], context=500)
    assert spans == [Span(0, one[3].end), Span(0, two[0].end)]
    assert expand(one + two, [one[0], two[0]], context=0) == [Span(0, 9), Span(0, 9)]


def test_what_was_found_itself_is_not_swallowed_and_nothing_is_shown_twice() -> None:
    rows = document(10)
    spans = expand(rows, [rows[4], rows[5]])
    assert spans == [Span(rows[1].start, rows[4].end), Span(rows[5].start, rows[8].end)]
    far = expand(rows, [rows[2], rows[5]])
    assert far == [Span(0, rows[4].end), Span(rows[5].start, rows[8].end)]


def test_gaps_end_the_growth() -> None:
    rows = document(6)
    assert expand([r for r in rows if r.ordinal != 3], [rows[2]]) == [Span(0, rows[2].end)]
