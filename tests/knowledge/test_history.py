"""The history and what is done to a conversation, by plain forms and as htmx asks for it."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from knowledge.conversations import share_conversation
from knowledge.models import Answer, Conversation, ConversationShare, Document
from tenants.models import AuditEvent
from tenants.scope import enter, scope
from tests.cast import Member
from tests.knowledge.rows import add_answer, html_of, htmx, signed_in

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def titles(page: str) -> list[str]:
    return re.findall(r'class="(?:history|side)-title"[^>]*>([^<]+)<', page)


def share(owner: Member, conversation: Any, *names: str) -> None:
    with enter(owner.principal.scope()):
        share_conversation(conversation=conversation, members=names, principal=owner.principal)


def settings_of(answer: Answer) -> str:
    return f"/c/{answer.conversation_id}/settings/"


def change(client: Client, answer: Answer, do: str, **form: str) -> Any:
    return client.post(settings_of(answer), {"do": do, **form})


def reload(answer: Answer, cast: Any) -> Conversation:
    with scope(tenant_id=cast.acme.pk, tags=None):
        found: Conversation = Conversation.objects.get(pk=answer.conversation_id)
    return found


def actions(cast: Any) -> list[str]:
    with scope(tenant_id=cast.acme.pk, tags=None):
        found = AuditEvent.objects.filter(action__startswith="conversation.").order_by("at")
        return list(found.values_list("action", flat=True))


def test_ones_own_and_what_was_shared_last_used_first_and_nothing_else(cast: Any) -> None:
    runbook = cast.documents["acme"]["bgp-session-down.md"]
    add_answer(cast.nina, "Mine of long ago?", runbook, days_ago=3)
    shared = add_answer(cast.hal, "Shared by hal?", runbook, days_ago=2)
    add_answer(cast.nina, "Mine of now?", runbook)
    add_answer(cast.hal, "Kept by hal?", runbook)
    add_answer(cast.gina, "Of globex?")
    share(cast.hal, shared.conversation, "nina")
    client = signed_in("nina")
    page = html_of(client.get("/history/"))
    assert titles(page) == ["Mine of now?", "Shared by hal?", "Mine of long ago?"]
    assert "shared by hal" in page and "Kept by hal?" not in page
    side = html_of(client.get("/"))
    assert titles(side) == titles(page) and "shared by hal" in side
    assert titles(html_of(signed_in("ada").get("/history/"))) == [], "an admin reads nobody's questions"


def test_search_finds_words_of_titles_and_of_questions(cast: Any) -> None:
    first = add_answer(cast.nina, "What about the hold timer?")
    add_answer(cast.nina, "And the 50% cerberus_limit?", conversation=first.conversation)
    add_answer(cast.nina, "Something else?")
    hals = add_answer(cast.hal, "Timer of hal?")
    add_answer(cast.hal, "Secret timer of hal?")
    share(cast.hal, hals.conversation, "nina")
    client = signed_in("nina")

    def found(query: str) -> list[str]:
        by_page = titles(html_of(client.get("/history/", {"q": query})))
        by_side = titles(html_of(client.get("/history/", {"q": query}, headers=htmx("side-list"))))
        assert by_page == by_side
        return by_page

    assert found("HOLD") == ["What about the hold timer?"]
    assert found("cerberus hold") == ["What about the hold timer?"], "one word in each of its questions"
    assert found("timer") == ["Timer of hal?", "What about the hold timer?"]
    assert found("50%") == ["What about the hold timer?"]
    assert found("c_rberus") == [], "the signs of LIKE are letters like any other"
    assert found("nothing of the kind") == []
    assert found("\0timer") == found("timer")


def test_pinning_renaming_and_deleting_by_plain_forms(cast: Any) -> None:
    old = add_answer(cast.nina, "An old one?", days_ago=5)
    add_answer(cast.nina, "A newer one?")
    client = signed_in("nina")
    before = reload(old, cast).updated_at
    assert change(client, old, "pin").url == settings_of(old)
    assert change(client, old, "rename", title="  Edge <b>routers</b> ").status_code == 302
    assert reload(old, cast).updated_at == before, "it was not used"
    page = html_of(client.get("/history/"))
    assert titles(page) == ["Edge &lt;b&gt;routers&lt;/b&gt;", "A newer one?"]
    assert page.index("Pinned") < page.index("routers") < page.index("A newer one?")
    assert titles(html_of(client.get("/"))) == titles(page)
    assert "Edge &lt;b&gt;routers" in html_of(client.get(f"/c/{old.conversation_id}/"))

    assert "Give it a title." in html_of(change(client, old, "rename", title="  "), 400)
    assert change(client, old, "nonsense").status_code == 400
    assert change(client, old, "unpin").status_code == 302
    assert titles(html_of(client.get("/history/")))[0] == "A newer one?"

    assert change(client, old, "delete").url == "/history/"
    page = html_of(client.get("/history/"))
    assert titles(page) == ["A newer one?"] and "Deleted." in page
    assert client.get(f"/c/{old.conversation_id}/").status_code == 404
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert Answer.objects.filter(pk=old.pk).exists(), "statistics keep it"
    assert actions(cast) == ["conversation.change"] * 3 + ["conversation.delete"]


def test_the_dialog_changes_what_stands_behind_it(cast: Any) -> None:
    answer = add_answer(cast.nina, "The first title?")
    other = add_answer(cast.nina, "Another?")
    client = signed_in("nina")
    here = f"/c/{answer.conversation_id}/"

    def post(target: Answer, **form: str) -> Any:
        return client.post(settings_of(target), form, headers=htmx("panel-body", here))

    part = html_of(client.get(settings_of(answer), headers=htmx("panel-body", here)))
    assert "<html" not in part and 'id="panel-title"' in part
    response = post(answer, do="rename", title="The second title")
    assert response.headers["HX-Trigger"] == "history-changed"
    page = html_of(response)
    assert re.search(r'id="conversation-title" hx-swap-oob="true">The second title<', page)
    assert "Renamed." in page
    page = html_of(post(other, do="rename", title="Elsewhere"))
    assert "hx-swap-oob" in page and 'id="conversation-title"' not in page, "the page behind is another's"
    side = html_of(client.get("/history/", headers=htmx("side-list", here)))
    assert re.search(r'aria-current="page">The second title<', side) and side.count("aria-current") == 1

    assert "close-panel" in post(other, do="delete").headers["HX-Trigger"]
    gone = post(answer, do="delete")
    assert (gone.status_code, gone.headers["HX-Redirect"]) == (204, "/")


def test_sharing_says_who_may_not_read_it_and_can_be_taken_back(cast: Any) -> None:
    policy, runbook = (cast.documents["acme"][n] for n in ("edge-policy.md", "bgp-session-down.md"))
    answer = add_answer(cast.nina, "What is the limit?", policy)
    add_answer(cast.nina, "Whom do I call?", runbook, conversation=answer.conversation)
    client = signed_in("nina")
    page = html_of(client.get(settings_of(answer)))
    # management reads standards alone, helpdesk runbooks alone, the analyst neither; the admin both.
    assert re.findall(r'<option value="([^"]+)"', page.partition("<datalist")[2]) == ["ada"]
    assert "hal, mona, sam" in page.partition("May not read every source:")[2]
    assert "@acme.example" not in page and "security_analyst" not in page and "gina" not in page

    refused = html_of(change(client, answer, "share", members="ada, mona"), 409)
    assert "mona" in refused and 'value="ada, mona"' in refused
    assert "There is no active member “gina”." in html_of(
        change(client, answer, "share", members="gina"), 400
    )
    assert "Name at least one member." in html_of(change(client, answer, "share", members=" , "), 400)
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert not ConversationShare.objects.exists(), "all of them or none"

    assert change(client, answer, "share", members="ada").status_code == 302
    ada = signed_in("ada")
    assert "was shared with you" in html_of(ada.get(f"/c/{answer.conversation_id}/"))
    assert ada.get(settings_of(answer)).status_code == 404, "for reading alone"
    assert change(ada, answer, "delete").status_code == 404
    page = html_of(client.get(settings_of(answer)))
    assert "Stop sharing with ada" in page and "withheld from them" not in page

    with scope(tenant_id=cast.acme.pk, tags=None):
        found = ConversationShare.objects.get()
    assert change(client, answer, "unshare", share=str(found.pk)).status_code == 302
    assert change(client, answer, "unshare", share=str(found.pk)).status_code == 302, "twice is no error"
    assert change(client, answer, "unshare", share="nonsense").status_code == 302
    assert ada.get(f"/c/{answer.conversation_id}/").status_code == 404
    assert actions(cast) == ["conversation.share", "conversation.unshare"]


def test_a_share_of_another_conversation_is_not_taken_back_by_this_one(cast: Any) -> None:
    mine, hals = add_answer(cast.nina, "Mine?"), add_answer(cast.hal, "Of hal?")
    share(cast.hal, hals.conversation, "ada")
    with scope(tenant_id=cast.acme.pk, tags=None):
        foreign = ConversationShare.objects.get()
    change(signed_in("nina"), mine, "unshare", share=str(foreign.pk))
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert ConversationShare.objects.filter(pk=foreign.pk).exists()


def test_what_its_asker_may_not_read_any_more_is_shared_with_nobody(cast: Any) -> None:
    policy = cast.documents["acme"]["edge-policy.md"]
    answer = add_answer(cast.nina, "What is the limit?", policy)
    share(cast.nina, answer.conversation, "mona")
    with scope(tenant_id=cast.acme.pk, tags=None):
        Document.objects.filter(pk=policy.pk).update(tags=["runbooks"])
    client = signed_in("nina")
    page = html_of(client.get(settings_of(answer)))
    assert "some answers are withheld from them" in page, "mona does not read runbooks"
    with scope(tenant_id=cast.acme.pk, tags=None):
        Document.objects.filter(pk=policy.pk).update(tags=["incident_reports"])
    assert "Nobody else may read all of its sources." in html_of(client.get(settings_of(answer)))
    assert change(client, answer, "share", members="sam").status_code == 409


def test_every_conversation_is_reached_once(cast: Any) -> None:
    runbook = cast.documents["acme"]["bgp-session-down.md"]
    for n in range(104):
        add_answer(cast.nina, f"Mine {n:03}?", days_ago=(n % 7) / 10)
    for n in range(4):
        answer = add_answer(cast.hal, f"Of hal {n:03}?", runbook, days_ago=n / 5)
        share(cast.hal, answer.conversation, "nina")
    client = signed_in("nina")
    seen: list[str] = []
    url, pages = "/history/", 0
    while url:
        page = html_of(client.get(url))
        seen += titles(page)
        link = re.search(r'<a class="button" href="(\?behind=[^"]+)"', page)
        url, pages = (f"/history/{link[1]}".replace("&amp;", "&") if link else ""), pages + 1
    assert pages == 3 and len(seen) == len(set(seen)) == 108
    for cursor in ("x", "2026-01-01T00:00:00~x", "~", "2026-01-01T00:00:00+00:00~1"):
        assert client.get("/history/", {"behind": cursor}).status_code == 400, cursor


def test_more_rows_come_as_rows(cast: Any) -> None:
    for n in range(60):
        add_answer(cast.nina, f"Mine {n:03}?", days_ago=n)
    client = signed_in("nina")
    page = html_of(client.get("/history/"))
    link = re.search(r'hx-get="(/history/\?behind=[^"]+)"', page)
    assert link
    part = html_of(client.get(link[1].replace("&amp;", "&"), headers=htmx()))
    assert part.lstrip().startswith("<li>") and len(titles(part)) == 10


def test_the_number_of_queries_does_not_grow_with_the_history(cast: Any) -> None:
    client = signed_in("nina")

    def queries(path: str) -> int:
        with CaptureQueriesContext(connection) as context:
            html_of(client.get(path))
        return len(context)

    paths = ["/history/", "/history/?q=mine", "/"]
    for n in range(5):
        add_answer(cast.nina, f"Mine {n}?", days_ago=n)
    few = [queries(path) for path in paths]
    hals = [add_answer(cast.hal, f"Of hal {n}?") for n in range(5)]
    for answer in hals:
        share(cast.hal, answer.conversation, "nina")
    for n in range(45):
        add_answer(cast.nina, f"Mine again {n}?", days_ago=n)
    assert [queries(path) for path in paths] == few
    assert max(few) <= 16, few


def test_the_history_is_for_those_who_are_signed_in_and_may_ask(cast: Any) -> None:
    answer = add_answer(cast.nina, "Mine?")
    for path in ("/history/", settings_of(answer)):
        assert Client().get(path).url.startswith("/sign-in/"), path
    assert signed_in("gina").get(settings_of(answer)).status_code == 404
    assert titles(html_of(signed_in("gina").get("/history/"))) == []
