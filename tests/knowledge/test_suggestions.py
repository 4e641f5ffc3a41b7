"""Questions to begin with: frequent ones of one's own tenant, never one that rests on what one may not read."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from knowledge.documents import delete_document
from knowledge.models import Document
from knowledge.suggestions import frequent_questions
from tenants.scope import enter, scope
from tests.cast import Member
from tests.knowledge.rows import add_answer, html_of, signed_in

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def suggested(member: Member, **options: Any) -> list[str]:
    with enter(member.principal.scope()):
        return frequent_questions(membership=member.membership, **options)


def document(cast: Any, name: str, slug: str = "acme") -> Document:
    found: Document = cast.documents[slug][name]
    return found


def test_what_two_members_asked_is_suggested_most_frequent_first(cast: Any) -> None:
    runbook = document(cast, "bgp-session-down.md")
    for question in ("Who is called?", "who  is called", "WHO IS CALLED?"):
        add_answer(cast.nina, question, runbook)
    add_answer(cast.hal, "Who is called?", runbook)
    for member in (cast.nina, cast.hal):
        add_answer(member, "What is the hold timer?", runbook)
    for _ in range(3):
        add_answer(cast.nina, "Asked by one alone?", runbook)
    assert suggested(cast.nina) == ["Who is called?", "What is the hold timer?"]
    page = html_of(signed_in("nina").get("/"))
    assert "Often asked here" in page and 'value="Who is called?"' in page and "For example" not in page


def test_at_most_five_and_only_of_thirty_days(cast: Any) -> None:
    runbook = document(cast, "bgp-session-down.md")
    for n in range(7):
        for member in (cast.nina, cast.hal):
            add_answer(member, f"Question of the letter {'abcdefg'[n]}?", runbook)
    for member in (cast.nina, cast.hal):
        add_answer(member, "An old question?", runbook, days_ago=31)
    assert len(suggested(cast.nina)) == 5
    assert suggested(cast.nina, now=timezone.now() + timedelta(days=31)) == []


def test_no_role_is_shown_a_question_whose_documents_it_cannot_read(cast: Any) -> None:
    """Roles × documents: exactly those who read every document of at least two members' answers see the question."""
    by_tags = {"incident-0042.md": "sam", "edge-policy.md": "nina", "vpn-faq.md": "hal"}
    for name in by_tags:
        for asker in (cast.ada, cast.sam):
            add_answer(asker, f"What says {name}?", document(cast, name))
    # Rests on two documents: who reads but one of them does not see it.
    both = document(cast, "edge-policy.md"), document(cast, "incident-0042.md")
    for asker in (cast.ada, cast.sam):
        add_answer(asker, "What say both?", *both)
    assert set(suggested(cast.ada)) == {f"What says {name}?" for name in by_tags} | {"What say both?"}
    assert suggested(cast.sam) == ["What says incident-0042.md?"]
    assert suggested(cast.nina) == ["What says edge-policy.md?"]
    assert suggested(cast.hal) == ["What says vpn-faq.md?"]
    assert suggested(cast.mona) == ["What says edge-policy.md?"]


def test_one_readable_answer_is_not_enough(cast: Any) -> None:
    """That a second member asked is known from an answer that this member may not read: it does not count."""
    add_answer(cast.nina, "Who came in?", document(cast, "edge-policy.md"))
    add_answer(cast.sam, "Who came in?", document(cast, "incident-0042.md"))
    assert suggested(cast.nina) == [] == suggested(cast.sam)
    assert suggested(cast.ada) == ["Who came in?"]


def test_what_came_from_earlier_answers_is_suggested_to_those_who_read_their_documents(cast: Any) -> None:
    secret = document(cast, "incident-0042.md")
    for asker in (cast.ada, cast.sam):
        add_answer(asker, "And marlin-7?", document(cast, "edge-policy.md"), depends_on=[secret.pk])
    assert suggested(cast.nina) == [] == suggested(cast.sam)
    assert suggested(cast.ada) == ["And marlin-7?"]


def test_another_tenant_sees_none(cast: Any) -> None:
    for asker in (cast.ada, cast.nina):
        add_answer(asker, "What is the hold timer?", document(cast, "bgp-session-down.md"))
    assert suggested(cast.nina) == ["What is the hold timer?"]
    assert suggested(cast.gus) == [] == suggested(cast.gina)
    assert "What is the hold timer?" not in html_of(signed_in("gus").get("/"))


def test_a_document_that_is_gone_or_hidden_takes_its_questions_along_at_once(cast: Any) -> None:
    first, second = document(cast, "bgp-session-down.md"), document(cast, "edge-policy.md")
    for asker in (cast.ada, cast.nina):
        add_answer(asker, "About the runbook?", first)
        add_answer(asker, "About the policy?", second)
    assert len(suggested(cast.nina)) == 2
    with scope(tenant_id=cast.acme.pk, tags=None):
        delete_document(document=first)
        Document.objects.filter(pk=second.pk).update(tags=["incident_reports"])
    assert suggested(cast.nina) == []
    assert suggested(cast.ada) == ["About the policy?"]


def test_what_was_not_answered_or_needs_its_conversation_is_not_suggested(cast: Any) -> None:
    runbook = document(cast, "bgp-session-down.md")
    for asker in (cast.ada, cast.nina):
        add_answer(asker, "Which wine?", runbook, answered=False, status="unanswered")
        add_answer(asker, "And at night?", runbook, standalone_question="And at night? (duty officer)")
    assert suggested(cast.nina) == []
    assert "For example" in html_of(signed_in("nina").get("/"))


def test_the_cost_is_bounded(cast: Any, monkeypatch: Any) -> None:
    runbook = document(cast, "bgp-session-down.md")
    for asker in (cast.ada, cast.nina):
        add_answer(asker, "Asked long ago?", runbook, days_ago=2)
        add_answer(asker, "Asked now?", runbook)
    with CaptureQueriesContext(connection) as few:
        assert len(suggested(cast.nina)) == 2
    assert len(few) == 3
    for n in range(20):
        add_answer(cast.nina, f"Filler {n}?", runbook, days_ago=3)
    with CaptureQueriesContext(connection) as many:
        suggested(cast.nina)
    assert len(many) == len(few)
    monkeypatch.setattr("knowledge.suggestions.NEWEST", 2)
    assert suggested(cast.nina) == ["Asked now?"]
