"""Among hundreds that differ in one character, the identifier that was asked for comes first."""

import random
from collections import Counter

import pytest

from knowledge.retrieval.analysis import count_terms, question_forms
from knowledge.retrieval.keyword import search_keywords
from knowledge.retrieval.view import IndexView
from tests.knowledge.retrieval.rows import PUBLIC, make_segment, make_view

CHANCE = random.Random(4711)
KINDS = {
    "interface": lambda: f"ge-{CHANCE.randrange(3)}/{CHANCE.randrange(3)}/{CHANCE.randrange(48)}",
    "prefix": lambda: f"10.{CHANCE.randrange(4)}.{CHANCE.randrange(20)}.0/{CHANCE.choice((16, 22, 24))}",
    "address": lambda: f"192.168.{CHANCE.randrange(4)}.{CHANCE.randrange(1, 200)}",
    "v6 prefix": lambda: f"2001:db8:{CHANCE.randrange(40):x}::/48",
    "error code": lambda: f"ERR-{CHANCE.randrange(4700, 4799)}",
    "RFC": lambda: f"RFC {CHANCE.randrange(7900, 7999)}",
    "MTU": lambda: f"MTU {CHANCE.randrange(9000, 9300)}",
    "VLAN": lambda: f"VLAN {CHANCE.randrange(100, 300)}",
    "AS": lambda: f"AS{CHANCE.randrange(64500, 64600)}",
    "community": lambda: f"64512:{CHANCE.randrange(100, 250)}",
    "version": lambda: f"v{CHANCE.randrange(3)}.{CHANCE.randrange(9)}.{CHANCE.randrange(20)}",
    "MAC": lambda: "00:1b:44:" + ":".join(f"{CHANCE.randrange(256):02x}" for _ in range(3)),
    "host": lambda: f"core-rtr-{CHANCE.randrange(40):02}.fra{CHANCE.randrange(3)}.example.net",
    "incident": lambda: f"INC-2026-{CHANCE.randrange(300):04}",
    "setting": lambda: f"max_prefix_limit_{CHANCE.randrange(60)}",
}
SENTENCES = (
    "The entry {} belongs to the branch office and was reviewed.",
    "Look at {} before the change window begins, then tell the desk.",
    "Nothing is known about {} beyond what the old table says.",
)
QUESTIONS = (
    "{}",
    "What about {}?",
    "Tell me what {} is and where it belongs",
    "is {} part of the branch office?",
)


def view_of(texts: list[str], language: str) -> IndexView:
    return make_view(make_segment(texts, language=language))


def best_row(view: IndexView, question: str, language: str) -> int:
    """The row that is first by words; with forms where no database has to tell what a stop word is."""
    scores = search_keywords(
        view=view,
        selection=view.select(tag_sets=frozenset([PUBLIC]), collections=None),
        terms=count_terms(question, language=language),
        forms=question_forms(question, languages=[language]) if language == "simple" else {},
        k1=0.9,
        b=0.5,
    )
    return int(scores.best(view=view, limit=1)[0][0])


@pytest.mark.parametrize("language", ["english", "simple"])
def test_the_very_one_is_first(language: str) -> None:
    names = [(kind, name) for kind, make in KINDS.items() for name in {make() for _ in range(40)}]
    texts = [SENTENCES[number % 3].format(name) for number, (_, name) in enumerate(names)]
    view = view_of(texts, language)
    asked, missed = Counter[str](), []
    for row, (kind, name) in enumerate(names):
        for form in QUESTIONS:
            question = form.format(name)
            found = best_row(view, question, language)
            asked[kind] += 1
            if found != row:
                missed.append((question, texts[found]))
    assert min(asked.values()) >= 80 and sum(asked.values()) > 1500
    assert len(missed) <= 0.01 * sum(asked.values()), (len(missed), missed[:10])


@pytest.mark.parametrize("language", ["english", "simple"])
def test_how_it_is_spelt_makes_no_difference(language: str) -> None:
    texts = [
        "See RFC 7938 for this.",
        "See RFC 793 for this.",
        "Port 7938 is closed.",
        "An error ERR-4711.",
        "Page 4711.",
    ]
    view = view_of(texts, language)
    for question, row in (
        ("rfc7938", 0),
        ("RFC-7938", 0),
        ("rfc 7938", 0),
        ("err4711", 3),
        ("err 4711", 3),
        ("Err-4711", 3),
    ):
        assert best_row(view, question, language) == row, question
