"""The review queue in the admin: one page with everything beside each other, and on to the next."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.template.defaultfilters import floatformat
from django.urls import reverse
from django.utils import timezone

from feedback.models import DocumentRequest, Feedback, Review
from feedback.ratings import rate_answer
from knowledge.answering.record import WITHHELD
from knowledge.models import Answer
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.tenants.admin_cast import add_reviewer, operator, signed_in, url_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

QUEUE = "/admin/feedback/review/"


def asked(member: Any, question: str) -> Answer:
    """An answer as it really comes about, with its sources."""
    response = member.client.post("/api/v1/query", {"question": question}, content_type="application/json")
    assert response.status_code == 200, response.content
    with scope(tenant_id=member.membership.tenant_id, tags=None):
        answer: Answer = Answer.objects.get(pk=response.json()["request_id"])
    return answer


def complained(cast: Any, member: Any, question: str, **values: Any) -> Review:
    answer = asked(member, question)
    with scope(tenant_id=cast.acme.pk, tags=None):
        rate_answer(principal=member.principal, answer=answer, values=values or {"rating": 1})
        review: Review = Review.objects.get(answer=answer)
    return review


def plain(cast: Any, **values: Any) -> Review:
    """A review of an answer without sources."""
    with scope(tenant_id=cast.acme.pk, tags=None):
        answer = Answer.objects.create(
            user=cast.nina.membership.user, role_name="r", question=values.pop("question"), endpoint="query",
            text="Because.", status="success", answered=True,
        )  # fmt: skip
        review: Review = Review.objects.create(answer=answer, **values)
    return review


def page_of(review: Review, kept: str = "") -> str:
    path = url_of(Review, "change", review.pk)
    return f"{path}?_changelist_filters={kept}" if kept else path


def stored(cast: Any, review: Review) -> Review:
    with scope(tenant_id=cast.acme.pk, tags=None):
        found: Review = Review.objects.select_related("assignee", "closed_by").get(pk=review.pk)
    return found


def form_of(review: Review, **more: Any) -> dict[str, Any]:
    return {"status": review.status, "assignee": review.assignee_id or "", "note": review.note} | more


def test_question_answer_sources_and_ratings_are_on_one_page(cast: Any) -> None:
    review = complained(
        cast,
        cast.nina,
        "What is the hold timer on edge routers?",
        rating=2,
        reasons=["outdated"],
        comment="Since March it is 20.",
    )
    text = signed_in("ada").get(page_of(review)).content.decode()
    assert "What is the hold timer on edge routers?" in text
    assert "hold timer on acme edge routers is 30 seconds" in text
    assert re.search(r'data-source="1"', text) and "BGP session down" in text
    assert "it is out of date" in text and "Since March it is 20." in text and "2 of 5" in text
    assert 'name="status"' in text and 'name="assignee"' in text and 'name="note"' in text
    for key in "jkrdas":
        assert (f'data-key="{key}"' in text and f"<kbd>{key}</kbd>" in text) or key in "jk"


def test_the_queue_begins_with_the_lowest_and_most_frequent_of_what_is_open(cast: Any) -> None:
    plain(cast, question="third", worst=2, asked=90)
    plain(cast, question="second", worst=1, asked=2)
    plain(cast, question="first", worst=1, asked=7)
    plain(cast, question="done", worst=1, asked=99, status="resolved")
    ada = signed_in("ada")
    assert re.findall(r">(first|second|third|done)</a>", ada.get(QUEUE).content.decode()) == [
        "first",
        "second",
        "third",
    ]
    assert re.findall(r">(first|done)</a>", ada.get(QUEUE, {"status": "resolved"}).content.decode()) == [
        "done"
    ]


def test_one_goes_on_to_the_next_within_what_the_list_shows(cast: Any) -> None:
    first, second = plain(cast, question="a", worst=1, asked=5), plain(cast, question="b", worst=1, asked=4)
    plain(cast, question="c", worst=1, asked=3, status="resolved")
    last = plain(cast, question="d", worst=3)
    ada = signed_in("ada")
    text = ada.get(page_of(first)).content.decode()
    assert f'href="{page_of(second)}" data-key="j"' in text
    assert f'href="{page_of(last)}" data-key="k"' in text
    sent = form_of(first, note="Looked at.", _next="")
    assert ada.post(page_of(first), sent).headers["Location"] == page_of(second)
    found = stored(cast, first)
    assert (found.note, found.status) == ("Looked at.", "open")
    # Within a filter the next is one that the filter holds.
    kept = "worst%3D3"
    assert ada.post(page_of(last, kept), form_of(last, _next="")).headers["Location"] == f"{QUEUE}?worst=3"


def test_resolving_and_dismissing_save_the_form_and_go_on(cast: Any) -> None:
    first, second = plain(cast, question="a", worst=1), plain(cast, question="b", worst=2)
    add_reviewer(cast)
    rita = signed_in("rita")
    response = rita.post(page_of(first), form_of(first, note="Runbook mended.", _resolve=""))
    assert response.headers["Location"] == page_of(second)
    found = stored(cast, first)
    assert (found.status, found.note, found.closed_by.username) == ("resolved", "Runbook mended.", "rita")
    response = rita.post(page_of(second), form_of(second, _dismiss=""), follow=True)
    assert "Nothing is left here." in response.content.decode()
    assert stored(cast, second).status == "dismissed"
    with scope(tenant_id=cast.acme.pk, tags=None):
        told = AuditEvent.objects.filter(actor_name="rita", action="review.change")
        assert {event.detail["status"][1] for event in told} == {"resolved", "dismissed"}


def test_taking_a_review_stays_on_its_page(cast: Any) -> None:
    review = plain(cast, question="a")
    for client, name in ((signed_in("ada"), "ada"), (operator(cast.acme), "root")):
        response = client.post(page_of(review), form_of(stored(cast, review), _assign=""))
        assert response.headers["Location"] == page_of(review)
        found = stored(cast, review)
        assert (found.assignee.username, found.status) == (name, "in_progress")
        # … and whoever saves the form after that keeps it with them.
        client.post(page_of(review), form_of(found, note=f"of {name}", _next=""))
        assert stored(cast, review).assignee.username == name
        assert 'data-key="a"' not in client.get(page_of(review)).content.decode()


def test_the_list_is_filtered_by_assignee_reason_and_rating(cast: Any) -> None:
    rita = add_reviewer(cast)
    plain(cast, question="mine", worst=1, assignee=rita.membership.user)
    wrong = plain(cast, question="wrong", worst=2)
    with scope(tenant_id=cast.acme.pk, tags=None):
        Feedback.objects.create(answer=wrong.answer, user=cast.sam.membership.user, reasons=["wrong"])
    client = signed_in("rita")
    for query, found in (
        ({"assignee": "me"}, {"mine"}),
        ({"assignee": "@rita"}, {"mine"}),
        ({"assignee": "nobody"}, {"wrong"}),
        ({"reason": "wrong"}, {"wrong"}),
        ({"reason": "slow"}, set()),
        ({"worst": "1"}, {"mine"}),
        ({"worst": "x"}, {"mine", "wrong"}),
        ({"status": "nonsense"}, {"mine", "wrong"}),
        ({"q": "WRO"}, {"wrong"}),
        ({"q": str(wrong.answer_id)}, {"wrong"}),
    ):
        text = client.get(QUEUE, query).content.decode()
        assert set(re.findall(r">(mine|wrong)</a>", text)) == found, query


def test_several_are_taken_resolved_and_dismissed_at_once(cast: Any) -> None:
    reviews = [plain(cast, question=f"q{n}") for n in range(3)]
    ada = signed_in("ada")
    picked = [str(review.pk) for review in reviews[:2]]
    steps = {
        "assign_to_me": "in_progress",
        "resolve": "resolved",
        "open_again": "open",
        "dismiss": "dismissed",
    }
    for action, status in steps.items():
        shown = stored(cast, reviews[0]).status
        sent = {"action": action, "_selected_action": picked}
        text = ada.post(f"{QUEUE}?status={shown}", sent, follow=True).content.decode()
        assert "2 reviews changed." in text, action
        assert [stored(cast, review).status for review in reviews] == [status, status, "open"]
    assert stored(cast, reviews[0]).assignee.username == "ada"


def test_what_a_reviewer_may_not_read_is_withheld(cast: Any) -> None:
    add_reviewer(cast, tags=("runbooks",))
    review = complained(
        cast,
        cast.sam,  # a security analyst
        "Through which host did the intruder enter?",
        rating=1,
        comment="marlin-7 was only the second one",
        correction="It was marlin-9",
    )
    for path in (
        page_of(review),
        url_of(Answer, "change", review.answer_id),
        url_of(Feedback, "changelist"),
        reverse("admin:feedback_feedback_export"),
        reverse("admin:knowledge_answer_export"),
        reverse("admin:feedback_review_export"),
        QUEUE,
    ):
        response = signed_in("rita").get(path)
        text = (b"".join(response) if response.streaming else response.content).decode()
        assert response.status_code == 200 and "Through which host" in text, path
        assert "marlin" not in text and "ERR-4711" not in text, path
    text = signed_in("rita").get(page_of(review)).content.decode()
    assert WITHHELD in text and "it is withheld" in text
    with scope(tenant_id=cast.acme.pk, tags=None):
        rating = Feedback.objects.get()
    detail = signed_in("rita").get(url_of(Feedback, "change", rating.pk)).content.decode()
    assert "marlin" not in detail and "withheld" in detail
    # The control: those who read everything see it all.
    for client in (signed_in("ada"), operator(cast.acme)):
        text = client.get(page_of(review)).content.decode()
        assert (
            "marlin-7 was only the second one" in text and "It was marlin-9" in text and "stolen key" in text
        )
        assert "marlin-9" in client.get(url_of(Feedback, "change", rating.pk)).content.decode()


def test_what_is_withheld_cannot_be_guessed_by_searching_for_it(cast: Any) -> None:
    add_reviewer(cast, tags=("runbooks", "standards"))
    question = "Through which host did the intruder enter?"
    complained(cast, cast.sam, question, rating=1, comment="It was marlin-9")
    complained(
        cast, cast.nina, "What is the hold timer on edge routers?", rating=1, comment="It was marlin-5"
    )

    def finds(username: str, words: str) -> set[str]:
        text = signed_in(username).get(url_of(Feedback, "changelist"), {"q": words}).content.decode()
        return {found for found in ("intruder", "hold timer") if found in text}

    for words in ("marlin", "marlin-", '"It was"', "It marlin"):
        assert finds("rita", words) == {"hold timer"}, words
        assert finds("ada", words) == {"intruder", "hold timer"}, words
    for words in ("marlin-9", "host marlin", '"was marlin-9"'):
        assert finds("rita", words) == set(), words
        assert finds("ada", words) == {"intruder"}, words
    assert finds("rita", "which host") == {"intruder"}, "the question itself is no secret"


HOSTILE = (
    '<script>window.pwned=1</script><img src=x onerror="window.pwned=1"> ![p](https://evil.example/q.png) '
    '<div x-data x-init="window.pwned=1" hx-get="/admin/logout/" hx-trigger="load">deep</div> '
    "[go](javascript:window.pwned=1) [up](/admin/logout/) {{ constructor }} **bold**"
)


def test_nothing_that_a_model_a_document_or_a_member_wrote_becomes_markup(cast: Any) -> None:
    review = complained(
        cast,
        cast.nina,
        "What is the hold timer on edge routers?",
        rating=1,
        comment=HOSTILE,
        correction=HOSTILE,
    )
    with scope(tenant_id=cast.acme.pk, tags=None):
        answer = Answer.objects.get(pk=review.answer_id)
        sources = [source | {"text": HOSTILE, "title": HOSTILE, "uri": HOSTILE} for source in answer.sources]
        Answer.objects.filter(pk=answer.pk).update(text=HOSTILE, question=HOSTILE[:300], sources=sources)
    ada = signed_in("ada")
    with scope(tenant_id=cast.acme.pk, tags=None):
        rating = Feedback.objects.get()
        DocumentRequest.objects.create(question=HOSTILE, note=HOSTILE)
    for path in (
        page_of(review),
        url_of(Answer, "change", review.answer_id),
        url_of(Answer, "changelist"),
        QUEUE,
        url_of(Feedback, "changelist"),
        url_of(Feedback, "change", rating.pk),
        url_of(DocumentRequest, "changelist"),
    ):
        text = ada.get(path).content.decode()
        assert "<script>window" not in text and "<img" not in text, path
        assert "<div x-data x-init" not in text and 'href="javascript:' not in text, path
    text = ada.get(page_of(review)).content.decode()
    shown = re.search(
        r'<div class="admin-prose" x-ignore hx-disable data-answer>(.*?)</div>', text, re.DOTALL
    )
    assert shown and "<strong>bold</strong>" in shown[1]
    assert set(re.findall(r"<(\w+)", shown[1])) <= {"p", "strong", "a"}
    assert 'href="/admin' not in shown[1]
    # Alpine and htmx leave alone what is shown in their pages.
    assert '<ol class="admin-sources" x-ignore hx-disable>' in text
    assert text.count("x-ignore") >= 4


def test_a_request_for_a_document_is_answered_in_the_admin(cast: Any) -> None:
    add_reviewer(cast)
    with scope(tenant_id=cast.acme.pk, tags=None):
        row = DocumentRequest.objects.create(user=cast.hal.membership.user, question="Where is the plan?")
    rita = signed_in("rita")
    assert "Where is the plan?" in rita.get(url_of(DocumentRequest, "changelist")).content.decode()
    form = {"status": "done", "reply": "It is in the handbook now."}
    assert rita.post(url_of(DocumentRequest, "change", row.pk), form).status_code == 302
    with scope(tenant_id=cast.acme.pk, tags=None):
        row.refresh_from_db()
        assert (row.status, row.reply, row.handled_by.username) == ("done", form["reply"], "rita")
        assert AuditEvent.objects.filter(action="document_request.change", actor_name="rita").exists()
    rita.get("/admin/")  # which says that it was changed
    assert "Where is the plan?" not in rita.get(url_of(DocumentRequest, "changelist")).content.decode()


def test_the_sidebar_says_how_many_reviews_wait(cast: Any) -> None:
    ada = signed_in("ada")
    link = f'href="{QUEUE}"'
    assert link in ada.get("/admin/").content.decode()
    for n in range(3):
        plain(cast, question=f"q{n}")
    plain(cast, question="closed", status="dismissed")
    after = ada.get("/admin/").content.decode().partition(link)[2][:2500]
    assert re.search(r">\s*3\s*<", after)


def test_an_answers_trace_shows_how_it_came_about(cast: Any) -> None:
    answer = asked(cast.nina, "What is the hold timer on edge routers?")
    text = signed_in("ada").get(url_of(Answer, "change", answer.pk)).content.decode()
    assert str(answer.pk) in text and "network_engineer" in text and "success" in text
    shown = re.findall(r'<th scope="row">([^<]+)</th>\s*<td><meter', text)
    assert shown[:2] == ["Prepare", "Rewrite the question"] and "Search" in shown
    assert shown.index("Embed the question") < shown.index("Search")
    for ms in answer.timings.values():
        assert f"<td>{floatformat(ms, 1)}</td>" in text
    assert re.search(r"score \d\.\d\d", text) and "extractive" in text
    assert 'name="_save"' not in text


def test_what_members_think_is_counted_by_day(cast: Any) -> None:
    from feedback.reports import satisfaction
    from tenants.periods import last_days

    with scope(tenant_id=cast.acme.pk, tags=None):
        given: list[dict[str, Any]] = [{"helpful": True}, {"helpful": True, "rating": 5}]
        given += [{"helpful": False, "rating": 2}, {"rating": 4}, {"comment": "x"}]
        for n, values in enumerate(given):
            answer = Answer.objects.create(
                role_name="r", question=f"q{n}", endpoint="query", status="success"
            )
            Feedback.objects.create(answer=answer, user=cast.nina.membership.user, **values)
        Feedback.objects.filter(rating=5).update(created_at=timezone.now() - timedelta(days=2))
        found = satisfaction(last_days(7))
    with scope(tenant_id=cast.globex.pk, tags=None):
        assert satisfaction(last_days(7)).total.average is None
    assert (found.total.helpful, found.total.voted, found.total.rated) == (2, 3, 3)
    assert found.total.average == pytest.approx(11 / 3) and found.total.helpful_share == pytest.approx(2 / 3)
    assert found.days[-3].average == 5 and found.days[-1].average == 3 and found.days[0].average is None
