"""From the found chunk to its section: neighbours, budgets, and no swallowing."""

from uuid import UUID, uuid4

from knowledge.retrieval.expand import NEIGHBOURS, Place, Span, expand_spans


def row(document_id: UUID, ordinal: int, *, heading_path: tuple[str, ...] = ("Section",)) -> Place:
    return Place(uuid4(), document_id, ordinal, ordinal * 10, ordinal * 10 + 9, 100, heading_path, "")


def expand(
    rows: list[Place], found: list[Place], *, section: int = 10_000, context: int = 10_000
) -> list[Span]:
    spans = expand_spans(places=rows, found=found, section_tokens=section, context_tokens=context)
    return [spans[each.pk] for each in found]


def document(count: int) -> list[Place]:
    name = uuid4()
    return [row(name, number) for number in range(count)]


def test_a_passage_grows_to_both_sides_and_not_beyond_five() -> None:
    rows = document(12)
    assert expand(rows, [rows[5]]) == [Span(rows[5 - NEIGHBOURS].start, rows[5 + NEIGHBOURS].end)]
    assert expand(rows, [rows[0]]) == [Span(0, rows[NEIGHBOURS].end)]
    assert expand(rows, [rows[11]]) == [Span(rows[11 - NEIGHBOURS].start, rows[11].end)]


def test_another_section_stays_out() -> None:
    name = uuid4()
    rows = [row(name, n, heading_path=("A",) if n < 3 else ("B",)) for n in range(6)]
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
    assert NEIGHBOURS == 5
    rows = document(14)
    spans = expand(rows, [rows[6], rows[7]])
    assert spans == [Span(rows[1].start, rows[6].end), Span(rows[7].start, rows[12].end)]
    far = expand(rows, [rows[2], rows[5]])
    assert far == [Span(0, rows[4].end), Span(rows[5].start, rows[10].end)]


def test_gaps_end_the_growth() -> None:
    rows = document(6)
    assert expand([r for r in rows if r.ordinal != 3], [rows[2]]) == [Span(0, rows[2].end)]
