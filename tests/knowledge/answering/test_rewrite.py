from dataclasses import replace

import pytest

from knowledge.answering.rewrite import depends_on_conversation, rewrite_question
from knowledge.llm.base import Finished, ProviderError, Turn, Usage

HOLD = Turn("What is the BGP hold timer on fra1?", "It is 30 seconds.")
FINISHED = Finished(model="m", stop_reason="end_turn", usage=Usage(40, 9), provider="anthropic")


class Model:
    """Answers with what it is told and remembers what it was asked."""

    def __init__(self, reply: str | ProviderError, *, stop: str = "end_turn") -> None:
        self.reply = reply
        self.finished = replace(FINISHED, stop_reason=stop)
        self.texts: list[str] = []

    async def __call__(self, *, system: str, text: str) -> tuple[str, Finished]:
        self.texts.append(text)
        if isinstance(self.reply, ProviderError):
            raise self.reply
        return self.reply, self.finished


@pytest.mark.parametrize(
    "question",
    [
        "And on ams2?",
        "what about ams2",
        "How about the keepalive timer on ams2?",
        "Why?",
        "How long does it take?",
        "Is that normal?",
        "Who changed it?",
        "Does that apply to them?",
        "On ams2?",
        "And there?",
        "Und bei ams2?",
    ],
)
def test_dependent(question: str) -> None:
    assert depends_on_conversation(question)


@pytest.mark.parametrize(
    "question",
    [
        "What is BGP?",
        "What is the OSPF reference bandwidth?",
        "Is there a policy for guest VLANs?",
        "How long does it take to drain a core link?",
        "Is it allowed to use telnet on switches?",
        "How long does it take to drain a link?",
        "Which router is the one that reflects routes in ams2?",
        "VLAN 40?",
        "ERR-4711",
        "How do I recover the password of an Arista switch?",
        "And how do I recover the password of an Arista switch?",
        "on-call phone number",
    ],
)
def test_independent(question: str) -> None:
    assert not depends_on_conversation(question)


async def test_a_follow_up_takes_the_subject_and_leaves_the_name_it_replaces() -> None:
    result = await rewrite_question(question="And on ams2?", history=[HOLD], complete=None)
    assert (result.question, result.by) == ("And on ams2? (BGP hold timer)", "rule")


async def test_a_chain_of_follow_ups_leads_back_to_its_subject() -> None:
    history = [Turn("What is MPLS?", "Labels."), HOLD, Turn("And on ams2?", "90 seconds.")]
    result = await rewrite_question(question="Why?", history=history, complete=None)
    assert result.question == "Why? (BGP hold timer fra1 ams2)"


async def test_what_the_follow_up_says_is_not_said_twice() -> None:
    result = await rewrite_question(question="How about the keepalive timer?", history=[HOLD], complete=None)
    assert result.question == "How about the keepalive timer? (BGP hold fra1)"


async def test_an_independent_question_stays() -> None:
    question = "What is the OSPF reference bandwidth?"
    result = await rewrite_question(question=question, history=[HOLD], complete=None)
    assert (result.question, result.by) == (question, "none")


async def test_a_first_question_costs_no_call() -> None:
    model = Model("never")
    result = await rewrite_question(question=" And on ams2? ", history=[], complete=model)
    assert (result.question, result.by, model.texts) == ("And on ams2?", "none", [])


async def test_the_model_rewrites() -> None:
    model = Model(' "What is the BGP hold timer on ams2?" ')
    result = await rewrite_question(question="And on ams2?", history=[HOLD], complete=model)
    assert (result.question, result.by) == ("What is the BGP hold timer on ams2?", "model")
    assert result.finished == FINISHED
    assert HOLD.question in model.texts[0] and HOLD.answer in model.texts[0]
    assert model.texts[0].endswith("Last question: And on ams2?")


async def test_a_question_that_the_model_leaves_alone() -> None:
    result = await rewrite_question(question="What is BGP?", history=[HOLD], complete=Model("What is BGP?"))
    assert (result.by, result.finished) == ("none", FINISHED)


@pytest.mark.parametrize("reply", ["", "  ", "x" * 1_001, "Sure!\nWhat is it?"])
async def test_an_unusable_reply_falls_back_to_the_rule(reply: str) -> None:
    result = await rewrite_question(question="And on ams2?", history=[HOLD], complete=Model(reply))
    assert (result.question, result.by) == ("And on ams2? (BGP hold timer)", "rule")
    assert result.finished == FINISHED  # it was paid for
    assert result.error


@pytest.mark.parametrize("stop", ["refusal", "content_filter", "max_tokens", "pause_turn"])
async def test_what_the_model_did_not_say_to_its_end_is_no_question(stop: str) -> None:
    model = Model("I cannot help with", stop=stop)
    result = await rewrite_question(question="And on ams2?", history=[HOLD], complete=model)
    assert (result.question, result.by) == ("And on ams2? (BGP hold timer)", "rule")
    assert result.error and result.finished == replace(FINISHED, stop_reason=stop)


async def test_a_failing_model_falls_back_to_the_rule() -> None:
    error = ProviderError("Busy; try later.", permanent=False, usage=Usage(7, 0))
    result = await rewrite_question(question="And on ams2?", history=[HOLD], complete=Model(error))
    assert (result.by, result.error, result.usage, result.finished) == (
        "rule",
        "Busy; try later.",
        Usage(7, 0),
        None,
    )


async def test_the_length_limit_holds() -> None:
    long = Turn("What is " + " ".join(f"word{'x' * 30}{chr(97 + n % 26)}{n}q" for n in range(40)) + "?", "a")
    result = await rewrite_question(question="Why?", history=[long], complete=None)
    assert result.by == "rule"
    assert len(result.question) <= 1_000
