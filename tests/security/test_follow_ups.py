"""A follow-up may repeat what was answered before it: whoever may not read that is not shown the follow-up either."""

from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.db import connections

from knowledge.answering.record import WITHHELD
from knowledge.documents import delete_document
from knowledge.models import Answer
from tenants.models import Role
from tenants.people import change_member
from tenants.scope import scope
from tests.cast import Cast
from tests.knowledge.conftest import configure, model  # noqa: F401
from tests.knowledge.helpers import ask, check_problem, read_stream, send
from tests.knowledge.rows import add_answer, html_of, signed_in
from tests.stub_provider import Block, Reply, StubProvider
from tests.tenants.admin_cast import add_reviewer, url_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

CITED = ((0, 0, 1),)
SECRET = "extension 7741"  # of the runbook, which a manager does not read


def said(text: str) -> Reply:
    return Reply(blocks=(Block(text, cites=CITED),))


def rewritten(text: str) -> Reply:
    return Reply(blocks=(Block(text),))


def talk(cast: Cast, model: StubProvider) -> list[dict[str, Any]]:  # noqa: F811
    """Nina asks about a standard, then a runbook, and has both repeated beside the standard alone; mona reads along."""
    model.script(
        said("The limit is 950000."),
        rewritten("Who is called when a session stays down?"),
        said(f"Call {SECRET}."),
        rewritten(f"What is the maximum-prefix limit of transit, and who answers at {SECRET}?"),
        said(f"As said before, it is {SECRET}; the limit is 950000."),
    )
    first = ask(cast.nina, "What is the maximum-prefix limit of transit?", tags=["standards"])
    conversation = first["conversation"]
    shared = send(cast.nina, "post", f"conversations/{conversation}/share", {"members": ["mona"]})
    assert shared.status_code == 200, shared.content
    second = ask(cast.nina, "And whom do I call?", tags=["runbooks"], conversation=conversation)
    third = ask(cast.nina, "And repeat both?", tags=["standards"], conversation=conversation)
    assert SECRET in third["answer"] and {s["uri"] for s in third["sources"]} == {"edge-policy.md"}
    return [first, second, third]


def texts(member: Any, conversation: str) -> list[str]:
    body = send(member, "get", f"conversations/{conversation}").json()
    return [answer["answer"] for answer in body["answers"]]


def stored(cast: Cast, answer: dict[str, Any]) -> Answer:
    with scope(tenant_id=cast.acme.pk, tags=None):
        found: Answer = Answer.objects.get(pk=answer["request_id"])
    return found


def test_a_follow_up_is_withheld_with_what_it_came_from(cast: Cast, model: StubProvider) -> None:  # noqa: F811
    first, second, third = talk(cast, model)
    conversation, pk = first["conversation"], third["request_id"]
    assert texts(cast.mona, conversation) == ["The limit is 950000.", WITHHELD, WITHHELD]
    assert texts(cast.nina, conversation) == [each["answer"] for each in (first, second, third)]
    assert SECRET not in str(send(cast.mona, "get", f"answers/{pk}").json())
    assert SECRET not in read_stream(cast.mona, f"answers/{pk}/stream")[1]
    for path in (f"/c/{conversation}/", f"/answers/{pk}/", f"/answers/{pk}/text/"):
        assert SECRET not in html_of(signed_in("mona").get(path)), path
        assert SECRET in html_of(signed_in("nina").get(path)), path
    # It is shared with nobody who may not read all that it came from.
    with scope(tenant_id=cast.acme.pk, tags=None):
        Answer.objects.filter(pk=second["request_id"]).update(conversation=None)
    share = send(cast.nina, "post", f"conversations/{conversation}/share", {"members": ["mona"]})
    assert "mona" in check_problem(share, 409)["detail"]


def test_a_reviewer_is_shown_neither_it_nor_what_was_searched_for(
    cast: Cast,
    model: StubProvider,  # noqa: F811
) -> None:
    *_, third = talk(cast, model)
    add_reviewer(cast, username="rita", tags=("standards",))
    path = url_of(Answer, "change", third["request_id"])
    trace = html_of(signed_in("rita").get(path))
    assert SECRET not in trace and "And repeat both?" in trace
    assert f"who answers at {SECRET}" in html_of(signed_in("ada").get(path))


def test_who_may_not_read_it_any_more_is_not_shown_it_either(
    cast: Cast,
    model: StubProvider,  # noqa: F811
) -> None:
    first, _, third = talk(cast, model)
    with scope(tenant_id=cast.acme.pk, tags=None):
        management = Role.objects.get(name="management")
        change_member(membership=cast.nina.membership, role=management, principal=None)
    assert texts(cast.nina, first["conversation"]) == ["The limit is 950000.", WITHHELD, WITHHELD]
    # What is withheld is told to no model, neither to make a question stand alone nor to answer it.
    before = len(model.requests)
    model.script(rewritten("What is the maximum-prefix limit?"), said("It is 950000."))
    fourth = ask(cast.nina, "And once more?", tags=["standards"], conversation=first["conversation"])
    assert len(model.requests) == before + 2
    told = str([request.body for request in model.requests[before:]])
    assert "The limit is 950000." in told and SECRET not in told
    edge = cast.documents["acme"]["edge-policy.md"].pk
    assert stored(cast, fourth).depends_on == [edge]
    assert texts(cast.mona, first["conversation"])[-1] == "It is 950000."
    assert stored(cast, third).needed_ids == {edge, cast.documents["acme"]["bgp-session-down.md"].pk}


def test_a_document_that_is_deleted_takes_along_what_came_from_it(
    cast: Cast,
    model: StubProvider,  # noqa: F811
) -> None:
    first, *_ = talk(cast, model)
    with scope(tenant_id=cast.acme.pk, tags=None):
        delete_document(document=cast.documents["acme"]["bgp-session-down.md"])
    assert texts(cast.nina, first["conversation"]) == ["The limit is 950000.", WITHHELD, WITHHELD]


def test_where_no_model_reads_the_conversation_a_follow_up_is_of_its_own_documents(cast: Cast) -> None:
    first = ask(cast.nina, "Who is the backbone duty officer?", tags=["runbooks"])
    question = "What is the maximum-prefix limit of it?"
    second = ask(cast.nina, question, tags=["standards"], conversation=first["conversation"])
    assert second["answered"] and stored(cast, second).depends_on == []


def test_what_a_client_says_was_said_before_is_its_own(cast: Cast, model: StubProvider) -> None:  # noqa: F811
    model.script(rewritten("What is the maximum-prefix limit?"), said("It is 950000."))
    messages = [
        {"role": "user", "content": "Whom do I call?"},
        {"role": "assistant", "content": f"Call {SECRET}."},
        {"role": "user", "content": "And the limit?"},
    ]
    response = cast.nina.client.post(
        "/v1/chat/completions", {"model": "all", "messages": messages}, content_type="application/json"
    )
    assert response.status_code == 200, response.content
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert Answer.objects.get().depends_on == []


def test_answers_of_before_depend_on_all_that_was_answered_earlier(cast: Cast) -> None:
    documents = cast.documents["acme"]
    runbook, policy, faq = (
        documents[name] for name in ("bgp-session-down.md", "edge-policy.md", "vpn-faq.md")
    )
    by_model = {"provider": "anthropic", "depends_on": []}
    first = add_answer(cast.nina, "One?", runbook, days_ago=4, **by_model)
    second = add_answer(cast.nina, "Two?", policy, conversation=first.conversation, days_ago=3, **by_model)
    third = add_answer(cast.nina, "Three?", faq, conversation=first.conversation, days_ago=2, **by_model)
    quoted = add_answer(
        cast.nina, "Four?", faq, conversation=first.conversation, days_ago=1, provider="extractive"
    )
    alone = add_answer(cast.nina, "Five?", faq, **by_model)
    migration = import_module("knowledge.migrations.0016_what_answers_depend_on")
    with connections["owner"].schema_editor() as editor:
        migration.fill_depends_on(apps, editor)
    with scope(tenant_id=cast.acme.pk, tags=None):
        found = dict(Answer.objects.values_list("pk", "depends_on"))
    assert {pk: set(ids) for pk, ids in found.items()} == {
        first.pk: set(),
        second.pk: {runbook.pk},
        third.pk: {runbook.pk, policy.pk},
        quoted.pk: set(),
        alone.pk: set(),
    }
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT relforcerowsecurity FROM pg_class WHERE relname = 'knowledge_answer'")
        assert cursor.fetchone() == (True,)
