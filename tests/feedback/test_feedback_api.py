"""The contract's row of feedback."""

from typing import Any
from uuid import uuid4

import pytest

from tests.knowledge.helpers import ask, check_problem, conforms, send

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def test_rating_an_answer(cast: Any) -> None:
    answer = ask(cast.nina)["request_id"]
    form = {
        "request_id": answer,
        "rating": 4,
        "helpful": True,
        "reasons": ["incomplete"],
        "comment": "nearly",
    }
    made = conforms(send(cast.nina, "post", "feedback", form), "/api/v1/feedback", "post")
    assert {name: made[name] for name in form} == form
    path = f"feedback/{made['id']}"
    check_problem(send(cast.nina, "post", "feedback", form), 409, "conflict")
    changed = send(cast.nina, "patch", path, {"rating": 2, "correction": "It is 30 seconds."})
    body = conforms(changed, "/api/v1/feedback/{id}", "patch")
    assert (body["rating"], body["helpful"], body["correction"]) == (2, True, "It is 30 seconds.")

    # Others see neither the answer nor the rating, inside the tenant and outside.
    for other in (cast.ada, cast.sam, cast.gina):
        check_problem(send(other, "post", "feedback", form), 404, "not-found")
        check_problem(send(other, "patch", path, {"rating": 5}), 404, "not-found")
        check_problem(send(other, "delete", path), 404, "not-found")

    for wrong, field in (
        ({"rating": 0}, "rating"),
        ({"rating": 6}, "rating"),
        ({"rating": "good"}, "rating"),
        ({"reasons": ["nonsense"]}, "reasons"),
        ({"comment": "x" * 5001}, "comment"),
        ({}, "rating"),
        ({"request_id": "no-uuid", "rating": 1}, "request_id"),
    ):
        problem = check_problem(send(cast.nina, "post", "feedback", {"request_id": answer, **wrong}), 400)
        assert problem["errors"][0]["field"].split(".")[0] == field, problem
    check_problem(send(cast.nina, "post", "feedback", {"request_id": str(uuid4()), "rating": 1}), 404)

    conforms(send(cast.nina, "delete", path), "/api/v1/feedback/{id}", "delete")
    check_problem(send(cast.nina, "patch", path, {"rating": 5}), 404)
    assert send(cast.nina, "post", "feedback", {"request_id": answer, "helpful": False}).status_code == 201
    events = send(cast.ada, "get", "audit?action=feedback.").json()["results"]
    assert [event["action"] for event in events] == [
        "feedback.create",
        "feedback.delete",
        "feedback.change",
        "feedback.create",
    ]
    # Emptying a rating altogether leaves nothing to keep.
    second = ask(cast.nina, "Who is to be called in an escalation?")["request_id"]
    only = send(cast.nina, "post", "feedback", {"request_id": second, "rating": 3}).json()
    check_problem(send(cast.nina, "patch", f"feedback/{only['id']}", {"rating": None}), 400)


def test_a_reader_of_a_shared_conversation_may_rate_it(cast: Any) -> None:
    body = ask(cast.nina)
    shared = send(cast.nina, "post", f"conversations/{body['conversation']}/share", {"members": ["ada"]})
    assert shared.status_code == 200, shared.content
    rated = send(cast.ada, "post", "feedback", {"request_id": body["request_id"], "helpful": False})
    assert rated.status_code == 201
