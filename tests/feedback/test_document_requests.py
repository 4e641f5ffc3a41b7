"""Asking for a document that is missing: from an answer, by the list, by the API; and who sees and answers it."""

import re
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feedback.models import DocumentRequest
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.helpers import check_problem, conforms, send, walk_pages
from tests.knowledge.rows import add_answer, html_of, htmx, signed_in

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

PATH = "/api/v1/document-requests"


def unanswered(member: Any, question: str = "Which wine goes with duck?") -> Any:
    return add_answer(member, question, answered=False, status="unanswered", text="Your documents don't say.")


def rows(cast: Any, slug: str = "acme") -> list[DocumentRequest]:
    with scope(tenant_id=cast.tenants[slug].pk, tags=None):
        return list(DocumentRequest.objects.select_related("user", "handled_by").order_by("created_at"))


def test_from_an_answer_that_is_not_in_the_documents(cast: Any) -> None:
    answer = unanswered(cast.nina)
    client = signed_in("nina")
    conversation, path = f"/c/{answer.conversation_id}/", f"/answers/{answer.pk}/request/"
    assert "Request a document" in html_of(client.get(conversation))
    response = client.post(path, {"note": "The cellar book."})
    assert response.status_code == 302 and response.url.startswith(conversation)
    (row,) = rows(cast)
    assert (row.user.username, row.question, row.note, row.answer_id, row.status) == (
        "nina",
        "Which wine goes with duck?",
        "The cellar book.",
        answer.pk,
        "open",
    )
    page = html_of(client.get(conversation))
    assert re.search(r"You requested a document on .*: open\.", page) and "Request a document" not in page
    assert client.post(path, {}).status_code == 409 and len(rows(cast)) == 1

    signed_in("ada").post(f"/requests/{row.pk}/", {"status": "done", "reply": "It is in Wines now."})
    page = html_of(client.get(conversation))
    assert ": done." in page and "It is in Wines now." in page

    other = unanswered(cast.nina, "Another?")
    part = html_of(client.post(f"/answers/{other.pk}/request/", {}, headers=htmx()))
    assert part.lstrip().startswith("<div") and "Thank you." in part
    for stranger in ("ada", "sam", "gina"):
        assert signed_in(stranger).post(f"/answers/{other.pk}/request/", {}).status_code == 404
    answered = add_answer(cast.nina, "What is the limit?", cast.documents["acme"]["edge-policy.md"])
    assert "Request a document" not in html_of(client.get(f"/answers/{answered.pk}/"))


def test_members_see_their_own_and_those_who_manage_all_of_their_tenant(cast: Any) -> None:
    for member, question in ((cast.nina, "Of nina?"), (cast.hal, "Of hal?"), (cast.gina, "Of gina?")):
        assert send(member, "post", "document-requests", {"question": question}).status_code == 201
    seen = {
        name: html_of(signed_in(name).get("/requests/", {"status": "all"}))
        for name in ("nina", "hal", "mona", "ada", "gus")
    }
    asked = {name: re.findall(r"Of (\w+)\?", page.partition("<table")[2]) for name, page in seen.items()}
    assert asked == {
        "nina": ["nina"],
        "hal": ["hal"],
        "mona": [],
        "ada": ["hal", "nina"],
        "gus": ["gina"],
    }
    assert ">nina</td>" in seen["ada"] and "Reply to the member" in seen["ada"]
    assert "Reply to the member" not in seen["nina"]


def test_those_who_manage_filter_and_answer(cast: Any) -> None:
    for question in ("First?", "Second?", "Third?"):
        send(cast.nina, "post", "document-requests", {"question": question, "note": "A note."})
    first, second, third = rows(cast)
    ada = signed_in("ada")

    def listed(**query: str) -> list[str]:
        return re.findall(r"<td>(\w+\?)", html_of(ada.get("/requests/", query)))

    assert listed() == ["Third?", "Second?", "First?"]
    assert ada.post(f"/requests/{first.pk}/", {"status": "done", "reply": "Added."}).url == "/requests/"
    part = html_of(
        ada.post(f"/requests/{second.pk}/", {"status": "declined", "reply": "No."}, headers=htmx())
    )
    assert part.lstrip().startswith(f'<tr id="request-{second.pk}"') and "declined" in part
    assert listed() == ["Third?"], "the open ones first"
    assert listed(status="done") == ["First?"] and listed(status="declined") == ["Second?"]
    assert len(listed(status="all")) == 3
    part = html_of(ada.get("/requests/", {"status": "done"}, headers=htmx("request-list")))
    assert "<html" not in part and "First?" in part
    done = rows(cast)[0]
    assert done.handled_by and done.handled_by.username == "ada" and done.handled_at
    ada.post(f"/requests/{first.pk}/", {"status": "open"})
    opened = rows(cast)[0]
    assert (opened.status, opened.reply, opened.handled_by, opened.handled_at) == (
        "open",
        "Added.",
        None,
        None,
    )

    assert ada.post(f"/requests/{third.pk}/", {"status": "nonsense"}).status_code == 400
    assert ada.post(f"/requests/{third.pk}/", {"status": "done", "reply": "x" * 5001}).status_code == 400
    assert signed_in("nina").post(f"/requests/{third.pk}/", {"status": "done"}).status_code == 403
    assert signed_in("gus").post(f"/requests/{third.pk}/", {"status": "done"}).status_code == 404
    assert rows(cast)[2].status == "open"
    with scope(tenant_id=cast.acme.pk, tags=None):
        found = AuditEvent.objects.filter(action__startswith="document_request.")
        assert (
            sorted(found.values_list("action", flat=True))
            == ["document_request.change"] * 3 + ["document_request.create"] * 3
        )


def test_the_page_takes_a_request_of_its_own(cast: Any) -> None:
    client = signed_in("nina")
    form = {"question": "Where is the wiring plan?", "note": "Of hall 3."}
    assert client.post("/requests/", form).url == "/requests/"
    assert "Thank you." in html_of(client.get("/requests/"))
    page = html_of(client.post("/requests/", {"question": "  ", "note": "Of hall 4."}), 400)
    assert 'id="question-error"' in page and "Of hall 4." in page
    page = html_of(client.post("/requests/", {"question": "y" * 1001}), 400)
    assert 'id="question-error"' in page and "y" * 1001 in page
    assert len(rows(cast)) == 1


def test_the_list_is_paged_and_its_queries_do_not_grow(cast: Any) -> None:
    ada = signed_in("ada")

    def count() -> int:
        with CaptureQueriesContext(connection) as context:
            html_of(ada.get("/requests/"))
        return len(context)

    def add(number: int) -> None:
        with scope(tenant_id=cast.acme.pk, tags=None):
            user = cast.nina.membership.user
            DocumentRequest.objects.bulk_create(
                [DocumentRequest(user=user, question=f"Question {n:03}?") for n in range(number)]
            )

    add(5)
    few = count()
    add(100)
    assert count() == few and few <= 10
    seen, url = 0, "/requests/"
    while url:
        page = html_of(ada.get(url))
        seen += len(re.findall(r"<td>Question", page))
        link = re.search(r'<a class="button" href="(\?[^"]+)"', page)
        url = f"/requests/{link[1]}".replace("&amp;", "&") if link else ""
    assert seen == 105
    for cursor in ("x", "2026-01-01~x", "2026-13-01T00:00:00~x"):
        assert ada.get("/requests/", {"behind": cursor}).status_code == 400


def test_the_api(cast: Any) -> None:
    answer = unanswered(cast.nina)
    form = {"request_id": str(answer.pk), "note": "The cellar book."}
    made = conforms(send(cast.nina, "post", "document-requests", form), PATH, "post")
    assert made["question"] == answer.question and made["user"] == "nina" and made["status"] == "open"
    check_problem(send(cast.nina, "post", "document-requests", form), 409, "conflict")
    own = send(cast.nina, "post", "document-requests", {"question": "Where is the plan?"})
    assert conforms(own, PATH, "post")["request_id"] is None

    # An answer of another's is nobody's to ask with, and its question is not told.
    for other in (cast.ada, cast.sam, cast.gina):
        check_problem(send(other, "post", "document-requests", {"request_id": str(answer.pk)}), 404)
    for wrong, field in (
        ({}, "question"),
        ({"question": " "}, "question"),
        ({"question": "y" * 1001}, "question"),
        ({"request_id": "nonsense"}, "request_id"),
        ({"question": "What?", "note": "x" * 5001}, "note"),
    ):
        problem = check_problem(send(cast.nina, "post", "document-requests", wrong), 400)
        assert problem["errors"][0]["field"] == field
    check_problem(send(cast.nina, "post", "document-requests", {"request_id": str(uuid4())}), 404)

    listed = conforms(send(cast.nina, "get", "document-requests"), PATH, "get")["results"]
    assert len(listed) == 2 and send(cast.hal, "get", "document-requests").json()["results"] == []
    assert len(walk_pages(cast.ada, "document-requests", 1)) == 2
    assert send(cast.gus, "get", "document-requests").json()["results"] == []
    check_problem(send(cast.ada, "get", "document-requests?status=nonsense"), 400)

    path = f"document-requests/{made['id']}"
    change = {"status": "done", "reply": "It is there now."}
    check_problem(send(cast.nina, "patch", path, change), 403)
    check_problem(send(cast.gus, "patch", path, change), 404)
    changed = conforms(send(cast.ada, "patch", path, change), f"{PATH}/{{id}}", "patch")
    assert (changed["status"], changed["reply"], bool(changed["handled_at"])) == (
        "done",
        "It is there now.",
        True,
    )
    check_problem(send(cast.ada, "patch", path, {"status": "lost"}), 400)
    done = send(cast.ada, "get", "document-requests?status=done").json()["results"]
    assert [row["id"] for row in done] == [made["id"]]
