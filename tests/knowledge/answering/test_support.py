"""Whether sentences hold: the judge alone, the assembler's marks, and what the reader is told."""

from typing import Any

import pytest

from knowledge.answering.citations import AnswerAssembler
from knowledge.answering.support import is_claim, judge_sentence, read_evidence
from knowledge.llm.base import BlockEnd, Cited, Passage, TextDelta
from knowledge.llm.premise import find_unconfirmed
from tests.knowledge.helpers import HOLD_TIMER, ask, check_answer, check_stream, read_events
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
TIMERS = (
    "The hold timer on acme edge routers is 30 seconds. BFD must not be enabled on route-server sessions. "
    "Call the backbone duty officer at extension 7741 when the session stays down for ten minutes."
)
PASSAGES = (
    Passage(1, "BGP session down", "bgp.md", "Timers", TIMERS),
    Passage(
        2, "Edge policy", "edge.md", "", "Every transit session carries a maximum-prefix limit of 950000."
    ),
)


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("The edge routers use a hold timer of 30 seconds.", None),
        ("On acme's edge, the hold timer is set to 30 seconds.", None),
        ("If the session stays down for ten minutes, call extension 7741.", None),
        ("The hold timer on acme edge routers is 90 seconds.", "names"),
        ("Call the backbone duty officer at extension 7742.", "names"),
        ("BFD must be enabled on route-server sessions.", "negation"),
        ("The hold timer on acme edge routers is not 30 seconds.", "negation"),
        ("Restart the firewall cluster and clear its state tables first.", "unsupported"),
        ("Der Hold-Timer der Router im Netz von acme ist 30 Sekunden.", None),
        ("Der Hold-Timer der Router im Netz von acme ist 90 Sekunden.", "names"),
    ],
)
def test_sentences_are_judged_by_words_names_and_negation(sentence: str, reason: str | None) -> None:
    assert judge_sentence(sentence, evidence=[read_evidence(TIMERS)], known=frozenset()) == reason


def test_what_claims_nothing_needs_no_source() -> None:
    for text in (
        "Do the following:",
        "## Timers",
        "Yes.",
        "The documents do not say which vendor.",
        "Is it so?",
    ):
        assert not is_claim(text), text
    assert is_claim("The hold timer is 30 seconds.")


def assemble(*blocks: tuple[str, tuple[int, ...]], is_cut: bool = False) -> AnswerAssembler:
    assembler = AnswerAssembler(PASSAGES, question="What is the hold timer on edge-7?")
    for text, sources in blocks:
        assembler.feed(TextDelta(text))
        for source in sources:
            assembler.feed(Cited(source, ""))
        assembler.feed(BlockEnd())
    assembler.finish(is_cut=is_cut)
    return assembler


def marked(assembler: AnswerAssembler) -> list[tuple[str, str]]:
    return [(assembler.text[mark.start : mark.end], mark.reason) for mark in assembler.marks]


def test_an_answer_that_holds_has_no_marks() -> None:
    good = assemble(
        ("On edge-7 the hold timer is 30 seconds.", (1,)),
        (" Every transit session has a maximum-prefix limit of 950000.", ()),
    )
    assert marked(good) == [] and good.is_grounded and good.support == 1


def test_a_sentence_is_judged_by_what_it_cites() -> None:
    wrong = assemble(
        ("The hold timer is 30 seconds.", (2,)),
        (
            "\n\n- Transit sessions have a maximum-prefix limit of 950000. They are torn down at 90 percent.",
            (2,),
        ),
    )
    assert marked(wrong) == [
        ("The hold timer is 30 seconds.", "names"),
        (
            "- Transit sessions have a maximum-prefix limit of 950000. They are torn down at 90 percent.",
            "names",
        ),
    ]
    assert not wrong.is_grounded and wrong.support == 0
    half = assemble(
        ("The hold timer is 30 seconds.", (1,)), (" Reboot the chassis after every maintenance.", ())
    )
    assert marked(half) == [("Reboot the chassis after every maintenance.", "unsupported")]
    assert not half.is_grounded and 0.3 < half.support < 0.7


def test_code_is_judged_by_its_names_alone() -> None:
    code = assemble(("```\nset protocols bgp hold-time 30\nrun monitor traffic\n```", (1,)))
    assert marked(code) == []
    code = assemble(("```\nset interfaces ge-0/0/9 disable\nset system host-name x\n```", (1,)))
    assert [reason for _, reason in marked(code)] == ["names"]


def test_a_cut_answer_is_marked_where_it_ends_and_a_restart_forgets_marks() -> None:
    cut = assemble(("The hold timer is 30 seconds.", (1,)), (" Call the back", ()), is_cut=True)
    assert marked(cut) == [("Call the back", "cut_off")] and cut.is_grounded
    cut.restart()
    assert cut.marks == () and cut.support == 1


@pytest.mark.parametrize(
    ("question", "unconfirmed"),
    [
        ("Why is the hold timer 90 seconds?", ("90 seconds",)),
        ("What does ERR-4712 mean?", ("ERR-4712",)),
        ("What does code 809 mean?", ("809",)),
        ("Is the limit 950,000 prefixes, with a 30s timer?", ()),
        ("Who is called after 10 minutes?", ()),
        ("How do I bring up ge-0/0/9?", ("ge-0/0/9",)),
        ("What are the 2 ways of doing step 3?", ()),
    ],
)
def test_what_a_question_takes_for_granted(question: str, unconfirmed: tuple[str, ...]) -> None:
    assert find_unconfirmed(question, PASSAGES) == unconfirmed


def test_a_false_premise_is_not_accepted(shared: Any, model: StubProvider, configure: Any) -> None:
    question = "Why is the hold timer on edge routers 90 seconds?"
    ask(shared.nina, question, cache=False)
    sent = model.requests[0].body["messages"][-1]["content"][-1]["text"]
    assert sent.startswith(question) and "do not hold: 90 seconds" in sent
    configure(ANTHROPIC_API_KEY="")
    quoted = ask(shared.nina, question, cache=False)
    assert quoted["answer"].startswith("Your documents do not mention 90 seconds.")
    assert "30 seconds" in quoted["answer"] and quoted["marks"] == []


def test_the_reader_is_told_what_does_not_hold(shared: Any, model: StubProvider) -> None:
    blocks = (
        Block("The hold timer on acme edge routers is 30 seconds.", cites=((0, 0, 1),)),
        Block(" Reboot the chassis after every maintenance window."),
    )
    model.script(Reply(blocks=blocks[:1]), *[Reply(blocks=blocks)] * 2)
    good = ask(shared.nina, cache=False)
    assert good["grounded"] and good["marks"] == []
    events = read_events(shared.nina, "query/stream", {"question": HOLD_TIMER, "cache": False})
    body = check_stream(events)
    check_answer(body)
    (mark,) = body["marks"]
    assert body["answer"][mark["start"] : mark["end"]] == "Reboot the chassis after every maintenance window."
    assert mark["reason"] == "unsupported" and body["answered"] and not body["grounded"]
    assert body["confidence"] < good["confidence"]
    # Kept with the answer, and with what is remembered of it.
    question = "Which hold timer is used on edge routers?"
    first, again = ask(shared.nina, question), ask(shared.nina, question)
    assert again["cache"] == "exact" and again["marks"] == first["marks"] != []


def test_cut_off_refused_and_empty_answers_say_so(shared: Any, model: StubProvider) -> None:
    model.script(
        Reply(
            blocks=(
                Block("The hold timer on acme edge routers is 30 seconds.", cites=((0, 0, 1),)),
                Block(" Call the back"),
            ),
            stop_reason="max_tokens",
        )
    )
    cut = ask(shared.nina, cache=False)
    assert [(cut["answer"][m["start"] : m["end"]], m["reason"]) for m in cut["marks"]] == [
        ("Call the back", "cut_off")
    ]
    model.script(Reply(blocks=(), stop_reason="refusal"))
    refused = ask(shared.nina, cache=False)
    assert refused["fallback"] and refused["provider"] == "extractive" and refused["answer"]
