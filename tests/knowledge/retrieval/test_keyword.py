"""BM25, against a hand-computed example."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from knowledge.retrieval.analysis import hash_term
from knowledge.retrieval.keyword import KeywordScores, search_keywords
from knowledge.retrieval.segment import REACH
from knowledge.retrieval.view import IndexView
from tests.knowledge.retrieval.rows import PUBLIC, SECRET, make_segment, make_view

# Lengths 3, 4 and 8: the mean is 5
TEXTS = ("router a router", "the router is up", "bgp neighbours of a plant more words here")


def search(
    view: IndexView, *terms: str, forms: Mapping[str, float] | None = None, tag_sets: Any = (PUBLIC,)
) -> KeywordScores:
    selection = view.select(tag_sets=frozenset(tag_sets), collections=None)
    return search_keywords(
        view=view, selection=selection, terms=Counter(terms), forms=forms or {}, k1=0.9, b=0.5
    )


def best(view: IndexView, *terms: str, limit: int = 10, **options: Any) -> list[tuple[int, float]]:
    rows, scores = search(view, *terms, **options).best(view=view, limit=limit)
    return list(zip(rows.tolist(), [round(float(each), 5) for each in scores], strict=True))


def test_bm25_by_hand() -> None:
    view = make_view(make_segment(TEXTS))
    # idf = ln(1 + (3 - 2 + 0.5) / (2 + 0.5)) = 0.470004. Norms: 0.9 · (0.5 + 0.5 · 3 / 5) = 0.72 and
    # 0.9 · (0.5 + 0.5 · 4 / 5) = 0.81: 0.470004 · 2 / 2.72 and 0.470004 · 1 / 1.81
    assert best(view, "router") == [
        (0, pytest.approx(0.34559, abs=1e-5)),
        (1, pytest.approx(0.25967, abs=1e-5)),
    ]
    # Over all three, the third scoring 0: mean 0.201753, mean square 0.062288
    assert search(view, "router").deviation == pytest.approx(0.146915, abs=1e-5)
    # idf = ln(1 + 2.5 / 1.5) = 0.980829; norm 0.9 · (0.5 + 0.5 · 8 / 5) = 1.17
    assert best(view, "bgp") == [(2, pytest.approx(0.45200, abs=1e-5))]
    assert [row for row, _ in best(view, "bgp", "router")] == [2, 0, 1]
    assert [row for row, _ in best(view, "bgp", "router", limit=1)] == [2]
    # A word that the question says twice counts twice.
    assert best(view, "bgp", "bgp") == [(2, pytest.approx(0.90399, abs=1e-5))]
    # Half of what was asked, by weight: the absent word is the most telling one.
    arm = search(view, "router", "absent")
    idf = float(np.log(1 + 3.5 / 0.5))
    assert arm.covered[0].tolist() == pytest.approx([0.470004 / (0.470004 + idf)] * 2 + [0.0])


def test_the_words_of_the_chunks_beside_count_too() -> None:
    first, second = b"1" * 16, b"2" * 16
    texts = ("router a", "plain words here now", "more words", "near words", "far words", "router alone")
    view = make_view(make_segment(texts, documents=[first] * 5 + [second]))
    # Alone: lengths 2 and 2, mean 14 / 6; idf ln(1 + 4.5 / 2.5). With neighbours: lengths 10, 12, 12, 12, 10 and 2, mean
    # 58 / 6; the first four and the last hold the word, idf ln(1 + 1.5 / 5.5).
    alone, around = float(np.log(1 + 4.5 / 2.5)), float(np.log(1 + 1.5 / 5.5))

    def score(idf: float, length: float, mean: float) -> float:
        return idf / (1 + 0.9 * (0.5 + 0.5 * length / mean))

    own = 0.25 * score(alone, 2, 14 / 6)
    expected = [
        (5, own + 0.75 * score(around, 2, 58 / 6)),
        (0, own + 0.75 * score(around, 10, 58 / 6)),
        *((row, 0.75 * score(around, 12, 58 / 6)) for row in (1, 2, 3)),
    ]
    found = best(view, "router")
    assert [row for row, _ in found] == [row for row, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], abs=1e-4)
    # What a chunk covers of the question is its own.
    assert search(view, "router").covered[0].tolist() == [1, 0, 0, 0, 0, 1]


def test_a_word_as_it_is_written_and_words_that_stand_together_count_for_more() -> None:
    texts = ("routes reflect a route", "reflector of routes", "route reflector", "else", "more", "words")
    view = make_view(make_segment(texts, language="simple"))
    plain = search(view, "route", "reflector").scores[0]
    written = search(view, "route", "reflector", forms={"=reflector": 0.3}).scores[0] - plain
    together = search(view, "route", "reflector", forms={"route reflector": 0.25}).scores[0] - plain
    assert np.flatnonzero(written).tolist() == [1, 2] and np.flatnonzero(together).tolist() == [2]
    # Lengths 4, 3, 2, 1, 1 and 1, mean 2: forms do not count in them. idf = ln(1 + 4.5 / 2.5) and ln(1 + 5.5 / 1.5).
    assert float(written[2]) == pytest.approx(0.3 * np.log(1 + 4.5 / 2.5) / 1.9, abs=1e-5)
    assert float(together[2]) == pytest.approx(0.25 * np.log(1 + 5.5 / 1.5) / 1.9, abs=1e-5)
    # What a chunk covers of the question is of terms alone.
    covered = search(view, "route", forms={"=absent": 0.3}).covered[0]
    assert covered.tolist() == search(view, "route").covered[0].tolist() == [1, 0, 1, 0, 0, 0]


def test_an_identifier_counts_where_it_stands() -> None:
    texts = ("rule plain words", "rule fw-0231 words", "rule other words")
    view = make_view(make_segment(texts, documents=[b"1" * 16] * 3))
    own = search(view, "fw-0231").scores[0]
    # idf alone ln(1 + 2.5 / 1.5), around ln(1 + 0.5 / 3.5); lengths 3, 6 (its parts, too) and 3, with neighbours 12.
    alone = float(np.log(1 + 2.5 / 1.5)) / (1 + 0.9 * (0.5 + 0.5 * 6 / 4))
    around = float(np.log(1 + 0.5 / 3.5)) / 1.9
    assert own.tolist() == pytest.approx([0.25 * around, 0.75 * alone + 0.25 * around, 0.25 * around])


@pytest.mark.parametrize("others", [0, 400])  # few rows of many are added up in another way than many of few
def test_what_the_chunks_beside_hold_is_added_up_within_the_document(others: int) -> None:
    lengths = [1, 2, 5, 7]
    documents = [b"%016d" % number for number, length in enumerate(lengths) for _ in range(length)]
    texts = [f"router {'router ' * (place % 3)}" for place in range(len(documents))]
    texts += ["else"] * others
    segment = make_segment(texts, documents=[*documents, *(b"%016d" % (10 + n) for n in range(others))])
    near, often = segment.windows(*segment.postings(hash_term("router")))
    rows = np.arange(segment.size)[near][often > 0]
    often = often[often > 0]
    counts = [1 + place % 3 for place in range(len(documents))]
    expected = [
        sum(
            count
            for other, count in enumerate(counts)
            if abs(other - row) <= REACH and documents[other] == documents[row]
        )
        for row in range(len(documents))
    ]
    assert rows.tolist() == list(range(len(documents))) and often.tolist() == expected
    assert segment.window_lengths[: len(documents)].tolist() == expected


def test_what_no_chunk_holds() -> None:
    view = make_view(make_segment(TEXTS))
    assert best(view, "absent") == [] and search(view, "absent").deviation == 0
    assert best(view) == []
    assert best(make_view(), "router") == []
    assert best(view, "router", tag_sets=()) == []


def test_segments_count_as_one_corpus() -> None:
    whole = make_view(make_segment(TEXTS))
    parts = make_view(*(make_segment([text]) for text in TEXTS))
    for terms in (("router",), ("bgp", "router"), ("word", "absent")):
        assert best(parts, *terms) == best(whole, *terms)
        assert search(parts, *terms).deviation == pytest.approx(search(whole, *terms).deviation)


def test_figures_are_of_what_the_asker_reads_alone() -> None:
    alone = make_view(make_segment(TEXTS))
    more = ["router secret router", "secret secret bgp"]
    hidden = make_view(make_segment([*TEXTS, *more], tag_sets=[PUBLIC] * 3 + [SECRET] * 2))
    for terms in (("router",), ("bgp", "secret"), ("router", "up")):
        assert best(hidden, *terms) == best(alone, *terms)
        assert search(hidden, *terms).deviation == search(alone, *terms).deviation
        assert search(hidden, *terms).covered[0][:3].tolist() == search(alone, *terms).covered[0].tolist()
    assert {row for row, _ in best(hidden, "secret", tag_sets=(PUBLIC, SECRET))} == {3, 4}
