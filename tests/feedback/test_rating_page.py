"""Thumbs and what lies under them, as forms; and what the page knows of them later."""

import re
from typing import Any

import pytest
from django.test import Client

from feedback.models import Feedback
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.rows import add_answer, html_of, htmx, signed_in

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def rated(cast: Any) -> list[tuple[Any, ...]]:
    with scope(tenant_id=cast.acme.pk, tags=None):
        found = Feedback.objects.order_by("created_at")
        return list(
            found.values_list("user__username", "helpful", "rating", "reasons", "comment", "correction")
        )


def pressed(page: str) -> list[str]:
    return re.findall(r'value="(true|false)" aria-pressed="true"', page)


def test_a_plain_form_rates_and_the_page_knows_it_later(cast: Any) -> None:
    answer = add_answer(cast.nina, "What is the limit?", cast.documents["acme"]["edge-policy.md"])
    client = signed_in("nina")
    path, conversation = f"/answers/{answer.pk}/rating/", f"/c/{answer.conversation_id}/"
    page = html_of(client.get(conversation))
    assert pressed(page) == [] and "Say more" not in page

    response = client.post(path, {"helpful": "false"})
    assert response.status_code == 302 and response.url.startswith(conversation)
    page = html_of(client.get(conversation))
    assert pressed(page) == ["false"] and "Say more" in page
    more = {
        "more": "1",
        "reasons": ["wrong", "outdated"],
        "rating": "2",
        "comment": "No: <b>",
        "correction": "It is 950000.",
    }
    assert client.post(path, more).status_code == 302
    assert rated(cast) == [("nina", False, 2, ["wrong", "outdated"], "No: <b>", "It is 950000.")]
    page = html_of(client.get(conversation))
    assert re.findall(r'name="reasons" value="(\w+)" checked', page) == ["wrong", "outdated"]
    assert 'name="rating" value="2" checked' in page and "No: &lt;b&gt;" in page and "It is 950000." in page

    client.post(path, {"helpful": "true"})
    assert rated(cast)[0][1:3] == (True, 2), "the thumb alone changes"
    client.post(path, {"more": "1", "comment": "", "correction": ""})
    assert rated(cast) == [("nina", True, None, [], "", "")], "what was taken out of the form is gone"
    client.post(path, {"withdraw": "1", "more": "1"})
    assert rated(cast) == [] and pressed(html_of(client.get(conversation))) == []
    assert client.post(path, {"withdraw": "1"}).status_code == 302, "twice is no error"
    with scope(tenant_id=cast.acme.pk, tags=None):
        found = AuditEvent.objects.filter(action__startswith="feedback.").order_by("at")
        kinds = [action.removeprefix("feedback.") for action in found.values_list("action", flat=True)]
    assert kinds == ["create", "change", "change", "change", "delete"]


def test_htmx_gets_the_part_and_is_asked_why_after_a_no(cast: Any) -> None:
    answer = add_answer(cast.nina, "What is the limit?", cast.documents["acme"]["edge-policy.md"])
    client, path = signed_in("nina"), f"/answers/{answer.pk}/rating/"
    part = html_of(client.post(path, {"helpful": "true"}, headers=htmx()))
    assert part.lstrip().startswith("<div") and "Thank you." in part
    assert pressed(part) == ["true"] and '<details class="why">' in part
    part = html_of(client.post(path, {"helpful": "false"}, headers=htmx()))
    assert pressed(part) == ["false"] and '<details class="why" open>' in part
    part = html_of(client.post(path, {"more": "1", "comment": "Why."}, headers=htmx()))
    assert '<details class="why">' in part and "Your feedback" in part
    assert "csrfmiddlewaretoken" in part


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"helpful": "perhaps"},
        {"more": "1", "rating": "9"},
        {"more": "1", "reasons": "nonsense"},
        {"more": "1", "comment": "x" * 5001},
        {"more": "1", "comment": "\0"},
    ],
)
def test_what_is_no_rating_is_refused(cast: Any, form: dict[str, str]) -> None:
    answer = add_answer(cast.nina, "What is the limit?")
    client, path = signed_in("nina"), f"/answers/{answer.pk}/rating/"
    assert client.post(path, form).status_code == 400
    part = client.post(path, form, headers=htmx())
    assert part.status_code == 400 and part.headers["HX-Reswap"] == "none", "what was typed stays"
    assert rated(cast) == []


def test_one_sees_ones_own_rating_alone(cast: Any) -> None:
    answer = add_answer(cast.nina, "What is the limit?", cast.documents["acme"]["edge-policy.md"])
    nina, path = signed_in("nina"), f"/answers/{answer.pk}/rating/"
    nina.post(path, {"more": "1", "rating": "1", "comment": "Between us."})
    share = {"members": ["ada"]}
    shared = f"/api/v1/conversations/{answer.conversation_id}/share"
    assert cast.nina.client.post(shared, share, content_type="application/json").status_code == 200
    ada = signed_in("ada")
    page = html_of(ada.get(f"/c/{answer.conversation_id}/"))
    assert "Between us." not in page and pressed(page) == []
    ada.post(path, {"helpful": "true"})
    assert pressed(html_of(ada.get(f"/answers/{answer.pk}/"))) == ["true"]
    assert pressed(html_of(nina.get(f"/answers/{answer.pk}/"))) == []
    for stranger in ("sam", "gina"):
        assert signed_in(stranger).post(path, {"helpful": "true"}).status_code == 404
    assert Client().post(path, {"helpful": "true"}).url.startswith("/sign-in/")
    assert len(rated(cast)) == 2
