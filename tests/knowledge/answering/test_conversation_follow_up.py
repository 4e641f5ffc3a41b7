"""Follow-up questions, and what is said once in a conversation."""

from typing import Any

from knowledge.llm.extractive import NOTICE
from tests.knowledge.answering.test_model_answers import ledger
from tests.knowledge.helpers import HOLD_TIMER, ask, check_problem, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
NOTHING = "Which vendor sells submarine periscopes in Antarctica?"


def standalone(member: Any, request_id: str) -> str:
    from knowledge.models import Answer
    from tenants.scope import scope

    with scope(tenant_id=member.membership.tenant_id, tags=None):
        found: str = Answer.objects.get(pk=request_id).standalone_question
    return found


def test_a_follow_up_by_rule_keeps_the_subject(shared: Any) -> None:
    first = ask(shared.nina, "What is the maximum-prefix limit of a transit session?")
    second = ask(shared.nina, "And when is it torn down?", conversation=first["conversation"])
    assert second["conversation"] == first["conversation"]
    assert second["question"] == "And when is it torn down?"
    completed = standalone(shared.nina, second["request_id"])
    assert completed.startswith("And when is it torn down?") and "transit" in completed
    assert "90 percent" in second["answer"]
    third = ask(shared.nina, "Who is the backbone duty officer?", conversation=first["conversation"])
    assert standalone(shared.nina, third["request_id"]) == "Who is the backbone duty officer?"
    read = send(shared.nina, "get", f"conversations/{first['conversation']}").json()
    assert [a["request_id"] for a in read["answers"]] == [b["request_id"] for b in (first, second, third)]
    check_problem(
        send(shared.sam, "post", "query", {"question": HOLD_TIMER, "conversation": first["conversation"]}),
        404,
    )


def test_a_follow_up_by_the_model_is_searched_and_paid_for(shared: Any, model: StubProvider) -> None:
    model.script(
        Reply(blocks=(Block("30 seconds.", cites=((0, 0, 1),)),)),
        Reply(blocks=(Block("Whom to call when a BGP session stays down?"),)),
        Reply(blocks=(Block("Extension 7741.", cites=((0, 0, 1),)),)),
    )
    first = ask(shared.nina)
    second = ask(shared.nina, "And whom do I call?", conversation=first["conversation"])
    assert standalone(shared.nina, second["request_id"]) == "Whom to call when a BGP session stays down?"
    assert second["answer"] == "Extension 7741."
    rewrite, answer = model.requests[1].body, model.requests[2].body
    assert rewrite["model"] == "claude-haiku-5-5" and answer["model"] == "claude-sonnet-5-5"
    assert "And whom do I call?" in str(rewrite["messages"])
    assert answer["messages"][-1]["content"][-1]["text"] == "Whom to call when a BGP session stays down?"
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    models = {row["model"] for row in send(shared.ada, "get", "costs").json()["by_model"]}
    assert {"claude-haiku-5-5", "claude-sonnet-5-5"} <= models

    # When the rewriting fails, the question is completed by rule and answered all the same.
    model.script(Reply(status=500), Reply(blocks=(Block("By rule.", cites=((0, 0, 1),)),)))
    third = ask(shared.nina, "And why?", conversation=first["conversation"])
    assert third["answer"] == "By rule." and third["fallback"] is False


def test_what_comes_before_the_answer_has_a_share_of_its_time(
    shared: Any, model: StubProvider, configure: Any
) -> None:
    first = ask(shared.nina, "What is the maximum-prefix limit of a transit session?", cache=False)
    patient = {"RAGSITE_FIRST_BYTE_SECONDS": 600, "RAGSITE_CALL_SECONDS": 600}
    configure(RAGSITE_ANSWER_SECONDS=6, RAGSITE_ROUTING="model", **patient)
    model.script(*[Reply(wait_seconds=600)] * 5)
    question = {"question": "And when is it torn down?", "conversation": first["conversation"]}
    response = send(shared.nina, "post", "query", question)
    assert response.status_code == 200
    body = response.json()
    assert body["provider"] == "extractive" and body["fallback"] and "90 percent" in body["answer"]
    completed = standalone(shared.nina, body["request_id"])
    assert completed.startswith("And when is it torn down?") and "transit" in completed
    rows = {
        row.kind: row.status
        for row in ledger(shared.nina, body["request_id"])
        if row.provider != "extractive"
    }
    assert {"rewrite": "transient", "classify": "transient"}.items() <= rows.items()


def test_no_model_is_said_once_in_a_conversation(shared: Any) -> None:
    first = ask(shared.nina, "Which communities mark customer routes?")
    assert first["answer"].count(NOTICE) == 1
    second = ask(shared.nina, "What is the maximum-prefix limit?", conversation=first["conversation"])
    assert second["answered"] and NOTICE not in second["answer"]
    # The same question again comes out of the cache, and still says it not again.
    third = ask(shared.nina, "Which communities mark customer routes?", conversation=first["conversation"])
    assert third["answered"] and NOTICE not in third["answer"]
    # A new conversation says it, although the cache holds an answer that was given without it.
    fresh = ask(shared.nina, "What is the maximum-prefix limit?")
    assert fresh["answer"].count(NOTICE) == 1


def test_no_model_is_said_with_the_first_answer_that_there_is(shared: Any) -> None:
    first = ask(shared.nina, NOTHING)
    assert not first["answered"] and NOTICE not in first["answer"]
    second = ask(shared.nina, HOLD_TIMER, conversation=first["conversation"])
    assert second["answered"] and second["answer"].count(NOTICE) == 1


def test_no_evidence_is_said_honestly(shared: Any) -> None:
    body = ask(shared.nina, NOTHING)
    assert body["answered"] is False and body["grounded"] is False and body["citations"] == []
    assert body["answer"].startswith("Your documents don't say")
    assert body["sources"], "the nearest passages are listed"
    assert body["confidence"] < 0.5
    # A role that reads nothing that matches gets the same words, and no sources of others.
    hidden = ask(shared.hal, "Which key did the intruder use at marlin-7?")
    assert hidden["answered"] is False and "marlin" not in str(hidden["sources"])
    nothing = ask(shared.hank, "What is the maximum-prefix limit towards transit?", tags=["faq"])
    assert nothing["answered"] is False and nothing["sources"] == []
    assert nothing["answer"] == "Your documents don't say."
