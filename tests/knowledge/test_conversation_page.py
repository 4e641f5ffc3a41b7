"""One conversation: what its page shows of it, asking again and in other words, and what is copied out of it."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feedback.models import Feedback
from knowledge.models import Answer, Document
from knowledge.views.ask import SHOWN
from tenants.scope import scope
from tests.cast import Cast
from tests.knowledge.rows import add_answer, html_of, signed_in, source_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


MARKS = [{"start": 0, "end": 10, "reason": "names"}]


def questions(page: str) -> list[str]:
    return re.findall(r'<h2 class="question">([^<]+)</h2>', page)


def long_conversation(cast: Cast, length: int) -> list[Answer]:
    runbook = cast.documents["acme"]["bgp-session-down.md"]
    first = add_answer(cast.nina, "Question 000?", runbook, days_ago=length)
    rest = [
        add_answer(
            cast.nina, f"Question {n:03}?", runbook, conversation=first.conversation, days_ago=length - n
        )
        for n in range(1, length)
    ]
    return [first, *rest]


def test_a_card_names_title_path_section_page_score_and_age(cast: Any) -> None:
    policy = cast.documents["acme"]["edge-policy.md"]
    source = source_of(policy, 1, page=3, score=0.815, heading="Edge BGP policy › Limits")
    answer = add_answer(cast.nina, "What is the limit?", policy, sources=[source])
    page = html_of(signed_in("nina").get(f"/c/{answer.conversation_id}/"))
    card = page.partition('class="source is-cited"')[2].partition("</li>")[0]
    for words in ("Edge BGP policy", ">edge-policy.md<", ">Limits<", "page 3", "updated today"):
        assert words in card, words
    assert "score 0.81" in card or "score 0.82" in card


def test_what_an_answer_cost_and_how_sure_it_is_stands_under_it(cast: Any) -> None:
    policy = cast.documents["acme"]["edge-policy.md"]
    values: dict[str, Any] = {"provider": "anthropic", "model": "claude-small", "latency_ms": 1234}
    priced = add_answer(
        cast.nina, "One?", policy, cost_usd="0.0042", output_tokens=9, confidence=0.83, **values
    )
    client = signed_in("nina")
    page = html_of(client.get(f"/answers/{priced.pk}/"))
    for words in ("claude-small", "fresh", "1.2 s", "$0.0042", "confidence excellent (0.83)"):
        assert words in page, words
    unpriced = add_answer(
        cast.nina, "Two?", policy, output_tokens=9, cache="exact", confidence=0.1, marks=MARKS, **values
    )
    page = html_of(client.get(f"/answers/{unpriced.pk}/"))
    assert "unpriced" in page and "cached" in page and "confidence poor" in page
    assert "Not supported by the sources" in page and "do not hold its names or numbers" in page


def test_a_long_conversation_shows_its_latest_answers_and_leads_to_the_others(cast: Any) -> None:
    answers = long_conversation(cast, 30)
    client = signed_in("nina")
    path = f"/c/{answers[0].conversation_id}/"
    page = html_of(client.get(path))
    assert questions(page) == [f"Question {n:03}?" for n in range(24, 30)]
    assert len(page.encode()) < 150_000
    seen = set(questions(page))
    for _ in range(10):
        link = re.search(r'<p class="earlier"><a href="(\?from=[^"#]+)#answer-([^"]+)"', page)
        if not link:
            break
        assert f'id="answer-{link[2]}"' in page, "one stays where one was reading"
        page = html_of(client.get(path + link[1]))
        assert f'id="answer-{link[2]}"' in page
        seen |= set(questions(page))
    assert len(seen) == 30 and questions(page)[0] == "Question 000?"

    # Where a document's page leads back to: that answer and all that followed.
    back = html_of(client.get(f"{path}?from={answers[5].pk}"))
    assert questions(back) == [f"Question {n:03}?" for n in range(5, 30)]
    for absent in ("nonsense", str(add_answer(cast.hal, "Of hal?").pk)):
        assert questions(html_of(client.get(f"{path}?from={absent}")))[0] == "Question 024?"


def test_the_number_of_queries_does_not_grow_with_the_answers(cast: Any) -> None:
    client = signed_in("nina")
    counts = []
    for length in (1, 9, 30):
        answers = long_conversation(cast, length)
        with scope(tenant_id=cast.acme.pk, tags=None):
            user = cast.nina.membership.user
            Feedback.objects.bulk_create([Feedback(answer=a, user=user, helpful=True) for a in answers])
            Answer.objects.filter(pk=answers[-1].pk).update(answered=False, status="unanswered")
        with CaptureQueriesContext(connection) as context:
            page = html_of(client.get(f"/c/{answers[0].conversation_id}/"))
        assert page.count('name="helpful" value="true" aria-pressed="true"') == min(length, SHOWN)
        counts.append(len(context))
    assert len(set(counts)) == 1 and counts[0] <= 16, counts


def test_editing_puts_the_question_into_the_box_of_its_conversation(cast: Any) -> None:
    answer = add_answer(cast.nina, "What <is> the limit?", cast.documents["acme"]["edge-policy.md"])
    client = signed_in("nina")
    page = html_of(client.get(f"/c/{answer.conversation_id}/"))
    link = re.search(r'href="(/c/[^"#]+edit=[^"#]+)#composer"', page)
    assert link
    page = html_of(client.get(link[1].replace("&amp;", "&")))
    box = re.search(r"<textarea id=\"question\"[^>]*>([^<]*)</textarea>", page)
    assert box and box[1] == "What &lt;is&gt; the limit?"
    assert f'name="conversation" value="{answer.conversation_id}"' in page
    foreign = add_answer(cast.hal, "Secret of hal?")
    page = html_of(client.get(f"/c/{answer.conversation_id}/?edit={foreign.pk}"))
    assert "Secret of hal?" not in page


def test_asking_again_is_fresh_and_stays_in_the_conversation(cast: Any) -> None:
    client = signed_in("nina")
    question = "What is the hold timer on edge routers?"
    path = client.post("/", {"question": question}).url.partition("#")[0]
    page = html_of(client.get(path))
    form = page.partition("data-retry>")[2].partition("</form>")[0]
    fields = dict(re.findall(r'name="(question|conversation|fresh)" value="([^"]*)"', form))
    assert fields == {"question": question, "conversation": path.split("/")[2], "fresh": "1"}
    client.post("/", {"question": question, "conversation": fields["conversation"]})
    client.post("/", fields)
    with scope(tenant_id=cast.acme.pk, tags=None):
        kinds = list(Answer.objects.order_by("created_at").values_list("cache", flat=True))
    assert kinds == ["miss", "exact", "miss"]


def test_who_only_reads_a_conversation_cannot_go_on_in_it(cast: Any) -> None:
    answer = add_answer(cast.nina, "What is the limit?", cast.documents["acme"]["edge-policy.md"])
    share = {"members": ["ada"]}
    path = f"/api/v1/conversations/{answer.conversation_id}/share"
    assert cast.nina.client.post(path, share, content_type="application/json").status_code == 200
    ada = signed_in("ada")
    for page in (
        html_of(ada.get(f"/c/{answer.conversation_id}/")).split("<template")[0],
        html_of(ada.get(f"/answers/{answer.pk}/")),
    ):
        assert "Ask again" not in page and "data-edit" not in page and "/settings/" not in page
        assert "Copy with sources" in page and "Was this helpful?" in page


def test_what_is_copied_has_numbers_and_names_its_sources(cast: Any) -> None:
    policy, runbook = (cast.documents["acme"][n] for n in ("edge-policy.md", "bgp-session-down.md"))
    text = "The limit is **950000**. Call 7741.\n\n```\nset limit 950000\n```\n"
    cited = [
        {"source": 1, "start": 0, "end": 24},
        {"source": 2, "start": 25, "end": 35},
        {"source": 1, "start": 37, "end": len(text)},
    ]
    sources = [source_of(policy, 1, page=4), source_of(runbook, 2), source_of(runbook, 3, start=5)]
    answer = add_answer(
        cast.nina, "What is the limit?", policy, runbook, text=text, citations=cited, sources=sources
    )
    response = signed_in("nina").get(f"/answers/{answer.pk}/text/")
    assert response.headers["Content-Type"].startswith("text/plain")
    copied = html_of(response)
    assert copied.startswith("What is the limit?\n\nThe limit is **950000**.[1] Call 7741.[2]\n")
    assert "set limit 950000\n```\n\n[1]" in copied, "a block of code stays whole"
    head, _, listed = copied.partition("\nSources\n")
    lines = listed.splitlines()
    assert lines[0] == "[1] Edge BGP policy, edge-policy.md, page 4"
    assert lines[1].strip().startswith(f"http://testserver/documents/{policy.pk}/?start=0&end=60")
    assert lines[2] == "[2] BGP session down, bgp-session-down.md" and "[3]" not in copied
    assert "[1]" in head


def test_what_is_withheld_is_not_copied(cast: Any) -> None:
    policy = cast.documents["acme"]["edge-policy.md"]
    answer = add_answer(cast.nina, "What is the limit?", policy, text="It is 950000.")
    client = signed_in("nina")
    with scope(tenant_id=cast.acme.pk, tags=None):
        Document.objects.filter(pk=policy.pk).update(tags=["incident_reports"])
    copied = html_of(client.get(f"/answers/{answer.pk}/text/"))
    assert "950000" not in copied and "Edge BGP policy" not in copied
    assert "Copy with sources" not in html_of(client.get(f"/answers/{answer.pk}/"))
    assert signed_in("gina").get(f"/answers/{answer.pk}/text/").status_code == 404


def test_a_passage_knows_its_page_and_the_others_of_its_answer(cast: Any) -> None:
    policy = cast.documents["acme"]["edge-policy.md"]
    with scope(tenant_id=cast.acme.pk, tags=None):
        Document.objects.filter(pk=policy.pk).update(pages=[0, 20, 60])
    text = policy.text[25:40]
    sources = [
        source_of(policy, 1, start=25, end=40, text=text),
        source_of(policy, 2, start=70, end=90, page=3),
    ]
    answer = add_answer(cast.nina, "What is the limit?", policy, sources=sources)
    client = signed_in("nina")
    page = html_of(client.get(f"/documents/{policy.pk}/?start=25&end=40&answer={answer.pk}&n=1"))
    assert "To the passage, on page 2" in page and page.count('class="page-break"') == 3
    assert re.search(r'<a class="cite" href="[^"]*start=70[^"]*"[^>]*>2</a>', page)
    assert f"?from={answer.pk}#answer-{answer.pk}" in page, "the way back finds it in a long conversation"
