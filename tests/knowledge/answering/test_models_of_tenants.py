"""A tenant's own models, which questions the small ones get, and how much of the passages is sent."""

from dataclasses import replace
from typing import Any

import pytest

from knowledge.answering.citations import AnswerAssembler
from knowledge.answering.compress import compress_passages, count_passage_tokens
from knowledge.llm.base import BlockEnd, Cited, Passage, TextDelta
from knowledge.llm.extractive import NOTICE
from knowledge.llm.routing import classify_by_rules, read_classification
from tests.knowledge.answering.test_model_answers import ledger
from tests.knowledge.helpers import ask, check_problem, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
LARGE, SMALL = "claude-sonnet-5-5", "claude-haiku-5-5"
COMPLEX = "Why is the hold timer on edge routers what it is?"


@pytest.fixture
def routed(model: StubProvider, configure: Any) -> StubProvider:
    configure(RAGSITE_ROUTING="rules")
    return model


@pytest.fixture
def settings_of(shared: Any) -> Any:
    """Changes acme's, and puts them back."""

    def change(**changes: Any) -> Any:
        return send(shared.ada, "patch", "model-settings", changes)

    yield change
    assert change(order=[], routing="", prompt_tokens=None).status_code == 200


@pytest.mark.parametrize(
    ("question", "complexity"),
    [
        ("What is the hold timer on edge routers?", "simple"),
        ("Which VLAN do cameras use?", "simple"),
        ("How do I restart the IKE service?", "simple"),
        ("Wie lautet die Durchwahl der Bereitschaft?", "simple"),
        (COMPLEX, "complex"),
        ("Compare the timers of both sites", "complex"),
        ("What is the MTU and how is it checked?", "complex"),
        ("Is BFD on? What about OSPF?", "complex"),
        ("How do I drain a router while a change is under way?", "complex"),
        ("Warum ist BFD aus?", "complex"),
        ("one two three " * 7, "complex"),
    ],
)
def test_rules_of_complexity(question: str, complexity: str) -> None:
    assert classify_by_rules(question) == complexity


def test_a_models_word() -> None:
    assert [read_classification(word) for word in ("Simple.", '"complex"', "maybe", "")] == [
        "simple",
        "complex",
        None,
        None,
    ]


def test_simple_questions_go_to_the_small_model(shared: Any, routed: StubProvider) -> None:
    assert ask(shared.nina, cache=False)["model"] == SMALL
    assert ask(shared.nina, COMPLEX, cache=False)["model"] == LARGE
    # Where the small one fails for good, the large one is asked before the documents are quoted.
    routed.script(Reply(status=404))
    body = ask(shared.nina, cache=False)
    assert (body["model"], body["provider"], body["fallback"]) == (LARGE, "anthropic", True)


def test_a_model_decides_where_the_tenant_wants_it(
    shared: Any, routed: StubProvider, settings_of: Any
) -> None:
    assert settings_of(routing="model").status_code == 200
    routed.script(Reply(blocks=(Block("complex"),)), Reply())
    body = ask(shared.nina, cache=False)
    assert body["model"] == LARGE
    assert {(r.kind, r.model) for r in ledger(shared.nina, body["request_id"])} == {
        ("classify", SMALL),
        ("answer", LARGE),
    }
    # When that fails the rules decide; another tenant has its own way.
    routed.script(Reply(status=401), Reply())
    assert ask(shared.nina, cache=False)["model"] == SMALL
    count = len(routed.requests)
    assert ask(shared.gina, cache=False)["model"] == SMALL and len(routed.requests) == count + 1


def test_a_tenants_order_and_models(
    shared: Any, routed: StubProvider, configure: Any, settings_of: Any
) -> None:
    configure(OPENAI_API_KEY="sk", OPENAI_BASE_URL=f"{routed.url}/v1", RAGSITE_OPENAI_MODEL="gpt-4o")
    order = [
        {"provider": "openai", "model": "gpt-4o", "small_model": "gpt-4o-mini"},
        {"provider": "anthropic", "model": SMALL},
    ]
    changed = settings_of(order=order, prompt_tokens=500)
    assert changed.json() == {
        "order": [order[0], order[1] | {"small_model": SMALL}],
        "routing": "",
        "prompt_tokens": 500,
        "cache_seconds": {},
        "semantic_cache": True,
        "semantic_threshold": None,
    }
    assert send(shared.ada, "get", "model-settings").json() == changed.json()
    assert ask(shared.nina, cache=False)["model"] == "gpt-4o-mini-2024-08-06"
    assert ask(shared.nina, COMPLEX, cache=False)["model"] == "gpt-4o-2024-08-06"
    assert ask(shared.gina, cache=False)["model"] == SMALL
    settings_of(order=[{"provider": "extractive"}])
    quoted = ask(shared.nina, cache=False)
    assert quoted["provider"] == "extractive" and quoted["fallback"] is False
    settings_of(order=[order[0]])
    configure(OPENAI_API_KEY="", OPENAI_BASE_URL="")
    assert ask(shared.nina, cache=False)["provider"] == "extractive"  # its key is gone


def test_settings_are_for_those_who_manage_and_say_what_is_wrong(shared: Any, settings_of: Any) -> None:
    check_problem(send(shared.nina, "get", "model-settings"), 403)
    check_problem(send(shared.nina, "patch", "model-settings", {"routing": "off"}), 403)
    wrong = check_problem(settings_of(order=[{"provider": "azure", "model": "x"}]), 400)
    assert "“azure” is not configured here" in str(wrong["errors"])
    nameless = check_problem(settings_of(order=[{"model": "x"}]), 400)
    assert "Name one of" in str(nameless["errors"])
    check_problem(settings_of(routing="sometimes"), 400)
    check_problem(settings_of(prompt_tokens=-1), 400)
    assert send(shared.gus, "get", "model-settings").json()["order"] == []


FILLER = "The cafeteria opens at noon on every working day of the week. " * 30
LONG = (
    Passage(
        1, "BGP", "bgp.md", "Timers", f"{FILLER}\n\nThe hold timer on edge routers is 30 seconds. {FILLER}"
    ),
    Passage(
        2, "Copy", "copy.md", "", "The hold timer on edge routers is 30 seconds.\n\nBFD is off on edge-7."
    ),
    Passage(3, "Other", "other.md", "", f"Nothing of that.\n\n{FILLER}"),
)


def test_passages_are_cut_down_to_what_matters() -> None:
    question = "What is the hold timer on edge routers?"
    cut = compress_passages(LONG, question=question, tokens=60)
    assert [p.n for p in cut] == [1, 2, 3] and all(p.text for p in cut)
    assert count_passage_tokens(cut) <= 60 < count_passage_tokens(LONG)
    assert "The hold timer on edge routers is 30 seconds." in cut[0].text
    assert "hold timer" not in cut[1].text and "BFD is off" in cut[1].text  # said once
    for before, after in zip(LONG, cut, strict=True):
        assert all(part in before.text for part in after.text.split("\n\n"))  # word for word
    assert compress_passages(LONG, question=question, tokens=0) == LONG
    short = (replace(LONG[1]),)
    assert compress_passages(short, question=question, tokens=60) == short


def test_citations_stay_right_when_passages_are_cut(shared: Any, model: StubProvider, configure: Any) -> None:
    configure(RAGSITE_PROMPT_TOKENS=40)
    body = ask(shared.nina, cache=False)
    (cut,) = model.requests
    configure(RAGSITE_PROMPT_TOKENS=0)
    whole = ask(shared.nina, cache=False)
    assert body["usage"]["input_tokens"] < whole["usage"]["input_tokens"]
    assert body["sources"] == whole["sources"] and body["citations"] and body["grounded"]
    for citation in body["citations"]:
        said = " ".join(body["answer"][citation["start"] : citation["end"]].split())
        assert said in " ".join(body["sources"][citation["source"] - 1]["text"].split())
    assert "30 seconds" in str(cut.body) and "30 seconds" in body["answer"]
    # What quotes has no tokens to save, and what was left out is no false premise.
    configure(RAGSITE_PROMPT_TOKENS=40)
    model.script(Reply(status=401))
    quoted = ask(shared.nina, cache=False)
    configure(ANTHROPIC_API_KEY="")
    assert quoted["answer"] == ask(shared.nina, cache=False)["answer"].partition(f"\n\n{NOTICE}")[0]


def test_a_quote_may_span_what_was_left_out() -> None:
    cut = (replace(LONG[0], text="Cafeteria first.\n\nThe hold timer is here."),)
    whole = (replace(LONG[0], text="Cafeteria first. Much between.\n\nThe hold timer is here."),)
    assembler = AnswerAssembler(whole, sent=cut)
    assembler.feed(TextDelta("The hold timer is here."))
    assembler.feed(Cited(1, cut[0].text))
    assembler.feed(BlockEnd())
    assert assembler.dropped == 0 and assembler.is_grounded
