"""The pages of engineers, over HTTP: what they show, to whom, and what they refuse."""

import re
import uuid
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import AsyncClient, Client
from django.utils.html import escape

from knowledge.models import Answer, Document
from tenants.models import AuditEvent, Role
from tenants.scope import scope
from tests.cast import PASSWORD, add_indexed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

HOLD_TIMER = "What is the hold timer on edge routers?"


def signed_in(username: str) -> Client:
    client = Client()
    assert client.post("/sign-in/", {"username": username, "password": PASSWORD}).status_code == 302
    return client


def html_of(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response.content[:500]
    return response.content.decode()


def ask(client: Client, question: str = HOLD_TIMER, **form: Any) -> Any:
    return client.post("/", {"question": question, **form})


def asked(client: Client, question: str = HOLD_TIMER) -> str:
    """The path of the conversation that a question began."""
    response = ask(client, question)
    assert response.status_code == 302, response.content[:500]
    return str(response.url).partition("#")[0]


def document_of(cast: Any, slug: str, name: str) -> Document:
    document: Document = cast.documents[slug][name]
    return document


def test_the_ask_page_offers_what_the_member_reads_and_nothing_else(cast: Any) -> None:
    page = html_of(signed_in("nina").get("/"))
    assert 'name="question"' in page and "BGP session down" in page
    assert set(re.findall(r'name="tags" value="([^"]+)"', page)) == {"runbooks", "standards"}
    assert re.findall(r'name="collections" value="([^"]+)"', page) == ["handbook"]
    for hidden in ("INC-0042", "Renumbering plan", "VPN questions", "globex", "Globex"):
        assert hidden not in page


def test_a_member_without_documents_is_told_so(cast: Any) -> None:
    page = html_of(signed_in("mona").get("/"))
    with scope(tenant_id=cast.acme.pk, tags=None):
        Document.objects.filter(tags__contains=["standards"]).update(tags=["runbooks"])
    page = html_of(signed_in("mona").get("/"))
    assert "There is no document yet that your role may read." in page
    assert "For example" not in page


def test_asking_without_javascript_leads_to_the_answer(cast: Any) -> None:
    client = signed_in("nina")
    response = ask(client)
    assert response.status_code == 302
    path, _, anchor = response.url.partition("#")
    page = html_of(client.get(path))
    assert f'id="{anchor}"' in page
    assert escape(HOLD_TIMER) in page
    assert "30 seconds" in page and "quoted from your documents" in page
    link = re.search(r'<a class="cite" href="([^"]+)"', page)
    assert link
    document = html_of(client.get(link[1].replace("&amp;", "&").partition("#")[0]))
    mark = re.search(r'<mark id="passage"[^>]*>(.*?)</mark>', document, re.S)
    assert mark
    assert "30 seconds" in "".join(re.findall(r"<mark[^>]*>(.*?)</mark>", document, re.S))


async def test_the_ask_page_is_async_from_end_to_end(cast: Any) -> None:
    """Under ASGI, where touching the ORM in the event loop is an error."""
    client = AsyncClient()
    form = {"username": "nina", "password": PASSWORD}
    assert (await client.post("/sign-in/", form)).status_code == 302
    assert (await client.get("/")).status_code == 200
    response = await client.post("/", {"question": HOLD_TIMER})
    assert response.status_code == 302
    assert (await client.get(response.url.partition("#")[0])).status_code == 200
    assert (await client.post("/", {"question": "x"})).status_code == 400
    assert (await AsyncClient().get("/")).status_code == 302
    await sync_to_async(connections.close_all)()


def test_another_tenant_gets_its_own_answer_and_none_of_ours(cast: Any) -> None:
    client = signed_in("gina")
    page = html_of(client.get(asked(client)))
    assert "180 seconds" in page
    assert "30 seconds" not in page.replace("180 seconds", "") and "extension 7741" not in page


def test_a_follow_up_continues_its_conversation(cast: Any) -> None:
    client = signed_in("nina")
    path = asked(client)
    page = html_of(client.get(path))
    conversation = re.search(r'name="conversation" value="([^"]+)"', page)
    assert conversation
    again = ask(client, "Whom do I call when it stays down?", conversation=conversation[1])
    assert again.url.startswith(path)
    page = html_of(client.get(path))
    assert page.count("<article") == 3  # two answers and the template of the next
    assert html_of(client.get("/")).count(f'href="{path}"') == 1


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"question": "x"}, "at least 3 characters"),
        ({"question": "<b>" + "y" * 1000}, "no more than 1000 characters"),
        ({"question": "What is it?\0"}, "Null characters are not allowed"),
        ({"question": HOLD_TIMER, "tags": "No Such,Tag"}, "is not a tag"),
        ({"question": HOLD_TIMER, "conversation": "nonsense"}, None),
    ],
)
def test_what_is_wrong_is_said_and_the_question_kept(
    cast: Any, form: dict[str, str], words: str | None
) -> None:
    response = signed_in("nina").post("/", form)
    if words is None:
        assert response.status_code == 404
        return
    page = html_of(response, 400)
    assert words in page
    assert escape(form["question"].replace("\0", "")) in page.replace("\0", "")


def test_an_unknown_collection_is_not_found_and_the_question_kept(cast: Any) -> None:
    page = html_of(ask(signed_in("nina"), collections="elsewhere"), 404)
    assert escape(HOLD_TIMER) in page


def test_a_form_without_its_csrf_token_asks_nothing(cast: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies = signed_in("nina").cookies
    assert ask(client).status_code == 403
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert not Answer.objects.exists()


def test_the_pages_send_who_is_not_signed_in_to_sign_in(cast: Any) -> None:
    for path in ("/", f"/c/{uuid.uuid4()}/", f"/answers/{uuid.uuid4()}/", f"/documents/{uuid.uuid4()}/"):
        response = Client().get(path)
        assert response.status_code == 302 and response.url.startswith("/sign-in/"), path
    assert ask(Client()).status_code == 302


def test_what_is_not_ones_own_is_not_found_in_the_same_words(cast: Any) -> None:
    nina = signed_in("nina")
    path = asked(nina)
    answer = path.split("/")[2]
    document = document_of(cast, "acme", "bgp-session-down.md")
    secret = document_of(cast, "acme", "incident-0042.md")

    def words(client: Client, where: str) -> str:
        page = html_of(client.get(where), 404)
        return re.sub(r"[0-9a-f-]{36}|csrfmiddlewaretoken[^>]*|<header.*</header>", "", page, flags=re.S)

    absent = words(nina, f"/documents/{uuid.uuid4()}/")
    assert "There is nothing here, or you may not see it." in absent
    gina, sam = signed_in("gina"), signed_in("sam")
    for client, where in [
        (gina, path),
        (gina, f"/answers/{answer}/"),
        (gina, f"/documents/{document.pk}/"),
        (gina, f"/documents/{document.pk}/?start=0&end=5&answer={answer}&n=1"),
        (sam, path),
        (sam, f"/answers/{answer}/"),
        (nina, f"/documents/{secret.pk}/"),
        (nina, f"/documents/{document_of(cast, 'acme', 'merger.md').pk}/"),
        (nina, f"/c/{uuid.uuid4()}/"),
    ]:
        assert words(client, where) == absent, where


def test_a_role_that_may_not_ask_sees_no_box_and_no_documents(cast: Any) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None):
        Role.objects.filter(name="helpdesk").update(abilities=[])
    client = signed_in("hal")
    page = html_of(client.get("/"))
    assert "may not ask questions" in page and 'id="question"' not in page
    assert ask(client).status_code == 403
    document = document_of(cast, "acme", "vpn-faq.md")
    assert client.get(f"/documents/{document.pk}/").status_code == 403


def test_an_unanswered_question_is_a_state_of_its_own(cast: Any) -> None:
    client = signed_in("nina")
    page = html_of(client.get(asked(client, "Which wine goes with roast duck on a Sunday evening?")))
    assert 'data-state="unanswered"' in page and "Not in your documents" in page
    assert "Nearest passages" in page


def test_an_answer_is_withheld_when_its_document_may_not_be_read_any_more(cast: Any) -> None:
    client = signed_in("nina")
    path = asked(client)
    with scope(tenant_id=cast.acme.pk, tags=None):
        Document.objects.filter(tags__contains=["runbooks"]).update(tags=["incident_reports"])
    page = html_of(client.get(path))
    assert "Withheld" in page and "30 seconds" not in page
    assert 'class="cite"' not in page.split("<template")[0]


def test_a_shared_conversation_is_for_reading(cast: Any) -> None:
    path = asked(signed_in("nina"))
    conversation = path.split("/")[2]
    assert signed_in("ada").get(path).status_code == 404, "an admin reads nobody's questions"
    response = cast.nina.client.post(
        f"/api/v1/conversations/{conversation}/share", {"members": ["ada"]}, content_type="application/json"
    )
    assert response.status_code == 200, response.content
    ada = signed_in("ada")
    page = html_of(ada.get(path))
    assert "was shared with you" in page and 'id="question"' not in page
    assert ask(ada, conversation=conversation).status_code == 404


def test_the_fragment_is_one_answer_without_the_frame(cast: Any) -> None:
    client = signed_in("nina")
    answer = asked(client).split("/")[2]
    fragment = html_of(client.get(f"/answers/{answer}/"))
    assert fragment.lstrip().startswith("<article") and "<html" not in fragment
    assert "being renewed" not in fragment
    assert "being renewed" in html_of(client.get(f"/answers/{answer}/?stale"))


def test_a_hostile_document_is_shown_as_text(cast: Any) -> None:
    text = "# Notes\n\nThe relay <script>alert(1)</script> stands in room 12 <img src=x onerror=alert(1)>.\n"
    with scope(tenant_id=cast.acme.pk, tags=None):
        document = add_indexed(
            collection=cast.collections["acme"], name="evil.md", tags=["runbooks"], text=text
        )
    client = signed_in("nina")
    shown = html_of(client.get(f"/documents/{document.pk}/"))
    answer = html_of(client.get(asked(client, "In which room does the relay stand?")))
    for page in (shown, answer):
        assert "<script>alert" not in page and "<img" not in page
    assert "&lt;script&gt;alert(1)" in shown


def test_a_document_page_marks_the_passage_and_is_audited(cast: Any) -> None:
    document = document_of(cast, "acme", "edge-policy.md")
    start = document.text.index("maximum-prefix")
    page = html_of(
        signed_in("nina").get(f"/documents/{document.pk}/?start={start}&end={start + len('maximum-prefix')}")
    )
    assert ">maximum-prefix</mark>" in page
    assert f'href="/api/v1/documents/{document.pk}/original"' in page
    with scope(tenant_id=cast.acme.pk, tags=None):
        event = AuditEvent.objects.get(action="document.read")
    assert (event.actor_name, event.target_id) == ("nina", str(document.pk))


@pytest.mark.parametrize(
    "query", ["start=9&end=3", "start=-1&end=3", "start=0&end=999999", "start=x&end=y", "at=²"]
)
def test_offsets_that_are_none_mark_nothing(cast: Any, query: str) -> None:
    document = document_of(cast, "acme", "edge-policy.md")
    page = html_of(signed_in("nina").get(f"/documents/{document.pk}/?{query}"))
    assert "<mark" not in page and "maximum-prefix" in page


def test_a_passage_is_found_again_after_the_document_changed(cast: Any) -> None:
    client = signed_in("nina")
    page = html_of(client.get(asked(client)))
    link = re.search(r'<a class="cite" href="([^"#]+)', page)
    assert link
    url = link[1].replace("&amp;", "&")
    document = document_of(cast, "acme", "bgp-session-down.md")

    def rewrite(text: str) -> str:
        with scope(tenant_id=cast.acme.pk, tags=None):
            Document.objects.filter(pk=document.pk).update(text=text)
        return html_of(client.get(url))

    before = re.findall(r"<mark[^>]*>(.*?)</mark>", html_of(client.get(url)), re.S)
    moved = rewrite("A new first paragraph.\n\n" + document.text)
    assert re.findall(r"<mark[^>]*>(.*?)</mark>", moved, re.S) == before
    gone = rewrite("Everything is new here, and much longer than before. " * 20)
    assert "<mark" not in gone and "has changed since it was cited" in gone


def test_a_long_document_is_shown_in_parts(cast: Any) -> None:
    text = "\n".join(f"interface ge-0/0/{n}" for n in range(30_000))
    document = document_of(cast, "acme", "edge-policy.md")
    with scope(tenant_id=cast.acme.pk, tags=None):
        Document.objects.filter(pk=document.pk).update(text=text, media_type="text/x-config")
    client = signed_in("nina")
    at = text.index("ge-0/0/15000\n")
    page = html_of(client.get(f"/documents/{document.pk}/?start={at}&end={at + 12}"))
    assert ">ge-0/0/15000</mark>" in page
    assert "Earlier in this document" in page and "Later in this document" in page
    assert len(page) < 300_000
    seen, url = set(), f"/documents/{document.pk}/?at=0"
    while url:
        part = html_of(client.get(url))
        seen |= set(re.findall(r"ge-0/0/\d+", part))
        following = re.search(r'href="(\?at=\d+)">Later', part)
        url = f"/documents/{document.pk}/{following[1]}" if following else ""
    assert len(seen) == 30_000


def test_the_number_of_queries_does_not_grow_with_the_history(
    cast: Any, django_assert_max_num_queries: Any
) -> None:
    client = signed_in("nina")
    path = asked(client)
    conversation = path.split("/")[2]
    with django_assert_max_num_queries(14) as first:
        client.get(path)
        few = len(first)
    assert few
    for n in range(3):
        ask(client, f"What is the maximum-prefix limit, for the {n + 2}nd time?", conversation=conversation)
    with django_assert_max_num_queries(few):
        client.get(path)


def test_every_page_has_a_strict_policy_and_nothing_inline(cast: Any) -> None:
    client = signed_in("nina")
    document = document_of(cast, "acme", "edge-policy.md")
    for path in ("/", asked(client), f"/documents/{document.pk}/", "/documents/none/"):
        response = client.get(path)
        policy = response.headers["Content-Security-Policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy
        page = response.content.decode()
        assert " style=" not in page and not re.search(r"\son[a-z]+=", page)
        assert not re.search(r"<script(?![^>]*\ssrc=)", page) and "<style" not in page
        assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page.split('<div class="prose">')[0])
        assert len(response.content) < 150_000
