"""The list of documents: what it shows to whom, how it is narrowed and paged, and what is done with several at once."""

import re
import uuid
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from knowledge.documents import delete_document
from knowledge.models import Chunk, Collection, Document, Job
from knowledge.sources import source_of_folder
from tenants.models import AuditEvent, Role
from tenants.scope import scope
from tests.knowledge.helpers import ask as ask_by_api
from tests.knowledge.pages.helpers import HTMX, count_queries, html_of, signed_in, table_of, titles_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

ADMINS = ["BGP session down", "Edge BGP policy", "Incident INC-0042", "VPN questions", "Renumbering plan"]


def in_acme(cast: Any) -> Any:
    return scope(tenant_id=cast.acme.pk, tags=None)


def listed(username: str, query: str = "") -> list[str]:
    return titles_of(html_of(signed_in(username).get(f"/documents/{query}")))


def document(cast: Any, name: str) -> Document:
    found: Document = cast.documents["acme"][name]
    return found


def fill(cast: Any, number: int, **values: Any) -> list[Document]:
    """So many documents that nothing was indexed of."""
    with in_acme(cast):
        rows = [
            Document(
                collection=cast.collections["acme"],
                title=f"Filler {n:03}",
                uri=f"filler/{n:03}.md",
                tags=["runbooks"],
                status="indexed",
                size=n,
            )
            for n in range(number)
        ]
        for row in rows:
            for name, value in values.items():
                setattr(row, name, value)
        return list(Document.objects.bulk_create(rows))


def test_everybody_sees_what_their_role_reads_and_no_more(cast: Any) -> None:
    assert listed("ada") == list(reversed(ADMINS))
    assert sorted(listed("nina")) == ["BGP session down", "Edge BGP policy"]
    assert listed("sam") == ["Incident INC-0042"]
    assert sorted(listed("hal")) == ["BGP session down", "VPN questions"]
    assert listed("mona") == ["Edge BGP policy"]
    assert listed("gina") == ["Edge BGP policy", "BGP session down"]
    with in_acme(cast):
        Role.objects.filter(name="helpdesk").update(abilities=[])
    assert signed_in("hal").get("/documents/").status_code == 403


def test_who_may_not_upload_can_only_read(cast: Any) -> None:
    hal = signed_in("hal")
    page = html_of(hal.get("/documents/"))
    assert "Upload" not in page and 'name="document"' not in page and "Deleted" not in page
    runbook = document(cast, "bgp-session-down.md").pk
    assert f'href="/documents/{runbook}/"' in page and "/manage/" not in page
    assert hal.get("/documents/?status=deleted").status_code == 403
    for path in (
        "/documents/bulk/",
        f"/documents/restore/?document={runbook}",
        f"/documents/{runbook}/manage/",
        f"/documents/{runbook}/replace/",
        f"/documents/{runbook}/delete/",
        f"/documents/{runbook}/restore/",
    ):
        form = {"document": [str(runbook)], "action": "delete", "title": "Mine"}
        assert hal.post(path, form).status_code == 403, path
    assert hal.get(f"/documents/{runbook}/manage/").status_code == 403
    assert hal.get(f"/documents/{runbook}/passages/").status_code == 403
    # Indexing again is for those who manage, as it is by the API.
    nina = signed_in("nina")
    assert nina.post(f"/documents/{runbook}/reindex/").status_code == 403
    assert "Index again" not in html_of(nina.get("/documents/"))
    with in_acme(cast):
        assert not Job.objects.exists()
        assert not AuditEvent.objects.filter(action__startswith="document.", actor_name="hal").exists()


def test_the_list_is_narrowed_and_sorted(cast: Any) -> None:
    with in_acme(cast):
        other = Collection.objects.create(slug="other", name="Other")
        Document.objects.filter(title="VPN questions").update(collection=other, size=10**7)
        Document.objects.filter(title="Incident INC-0042").update(status="failed", error="It broke: mend it.")
        Document.objects.filter(title="Edge BGP policy").update(error="The new version broke.")
        Document.objects.filter(title="Renumbering plan").update(status="pending")
    assert listed("ada", "?q=bgp") == ["Edge BGP policy", "BGP session down"]
    assert listed("ada", "?q=INCIDENT-00") == ["Incident INC-0042"], "the path is searched too"
    assert listed("ada", "?q=100%25") == [], "a sign of the database's is a letter like others"
    assert listed("ada", "?collection=other") == ["VPN questions"]
    assert listed("ada", "?tag=faq") == ["VPN questions"]
    assert listed("ada", "?tag=-") == ["Renumbering plan"]
    assert listed("ada", "?status=pending") == ["Renumbering plan"]
    assert sorted(listed("ada", "?status=failed")) == ["Edge BGP policy", "Incident INC-0042"]
    assert listed("ada", "?source=none&q=vpn") == ["VPN questions"]
    assert listed("ada", "?sort=title") == sorted(ADMINS)
    assert listed("ada", "?sort=size")[0] == "VPN questions"
    page = html_of(signed_in("ada").get("/documents/?q=bgp&sort=title"))
    assert 'value="bgp"' in page and '<option value="title" selected>' in page
    page = html_of(signed_in("ada").get("/documents/?status=failed"))
    assert "It broke: mend it." in page and "older version" in page
    assert signed_in("ada").get("/documents/?collection=nowhere").status_code == 404
    assert signed_in("ada").get("/documents/?q=a%00b").status_code == 400
    assert "No document matches." in html_of(signed_in("ada").get("/documents/?q=nothing-like-it"))


def test_a_source_narrows_for_those_who_manage(cast: Any, tmp_path: Any) -> None:
    with in_acme(cast):
        source = source_of_folder(
            directory=str(tmp_path), collection=cast.collections["acme"], tags=["faq"], trusted=True
        )
        Document.objects.filter(title="VPN questions").update(source=source)
    assert listed("ada", f"?source={source.pk}") == ["VPN questions"]
    assert "VPN questions" not in listed("ada", "?source=none")
    assert signed_in("ada").get(f"/documents/?source={uuid.uuid4()}").status_code == 404
    assert signed_in("gus").get(f"/documents/?source={source.pk}").status_code == 404
    nina = signed_in("nina")
    assert nina.get(f"/documents/?source={source.pk}").status_code == 403
    assert source.name not in html_of(nina.get("/documents/"))


@pytest.mark.parametrize("sort", ["", "title", "size"])
def test_the_pages_show_every_document_once(cast: Any, sort: str) -> None:
    fill(cast, 120)
    with in_acme(cast):
        Document.objects.filter(title__in=["Filler 007", "Filler 008", "Filler 009"]).update(
            title="Filler", size=50
        )
    nina = signed_in("nina")
    path: str | None = f"?sort={sort}"
    seen: list[str] = []
    for _page in range(4):
        page = html_of(nina.get(f"/documents/{path}"))
        seen += re.findall(r'name="document" value="([^"]+)"', page)
        found = re.search(r'<a class="button" href="([^"]+)" hx-get', page)
        path = found and found[1].replace("&amp;", "&")
        if not path:
            break
    assert not path and len(seen) == len(set(seen)) == 122
    # What htmx asks for is rows alone.
    first = html_of(nina.get(f"/documents/?sort={sort}"))
    more = re.search(r'hx-get="(\?cursor=[^"]+)"', first)
    assert more
    rows = html_of(nina.get("/documents/" + more[1].replace("&amp;", "&"), headers=HTMX))
    assert rows.lstrip().startswith("<tr") and "<table" not in rows and len(titles_of(rows)) == 50


def test_an_address_that_was_tampered_with_is_refused(cast: Any) -> None:
    nina = signed_in("nina")
    for cursor in ("x", "bm90IGpzb24", "W10", "WyJhIiwgImIiXQ", "é", "bnVsbA", "WyIyMDI0LTAxLTAxIiwgIngiXQ"):
        response = nina.get("/documents/", {"cursor": cursor})
        assert response.status_code == 400, cursor
        assert "begin at the list" in response.content.decode()


def test_nothing_is_counted_and_no_text_is_fetched(cast: Any) -> None:
    nina = signed_in("nina")

    def look() -> None:
        html_of(nina.get("/documents/"))

    few = count_queries(look)
    fill(cast, 50)
    assert count_queries(look) == few <= 16
    with CaptureQueriesContext(connections["default"]) as captured:
        look()
    queries = [query["sql"] for query in captured if "knowledge_document" in query["sql"]]
    assert queries
    for sql in queries:
        assert '"knowledge_document"."text"' not in sql and '"knowledge_document"."pages"' not in sql
        assert "COUNT(" not in sql
    ada = signed_in("ada")
    assert count_queries(lambda: ada.get("/documents/")) <= 18


def test_filters_answer_htmx_with_the_list_and_its_address(cast: Any) -> None:
    nina = signed_in("nina")
    response = nina.get("/documents/?q=edge&collection=&sort=", headers=HTMX)
    page = html_of(response)
    assert "<html" not in page and titles_of(page) == ["Edge BGP policy"]
    assert response.headers["HX-Push-Url"] == "/documents/?q=edge"


def bulk(username: str, action: str, *documents: Any, query: str = "", **form: Any) -> Any:
    chosen = [str(getattr(one, "pk", one)) for one in documents]
    return signed_in(username).post(
        f"/documents/bulk/{query}", {"document": chosen, "action": action, **form}, headers=HTMX
    )


def messages_of(response: Any) -> list[str]:
    page = html_of(response)
    return [" ".join(one.split()) for one in re.findall(r"data-message>\s*<span>([^<]*)</span>", page)]


def test_tags_of_several_are_changed(cast: Any) -> None:
    runbook, policy = document(cast, "bgp-session-down.md"), document(cast, "edge-policy.md")
    told = messages_of(bulk("nina", "add-tags", runbook, policy, tags=["topology"]))
    assert told == ["Tags of 2 documents changed."]
    with in_acme(cast):
        for one, tags in ((runbook, ["runbooks", "topology"]), (policy, ["standards", "topology"])):
            one.refresh_from_db()
            assert one.tags == tags
            assert set(map(tuple, Chunk.objects.filter(document=one).values_list("tags", flat=True))) == {
                tuple(tags)
            }
        events = AuditEvent.objects.filter(action="document.change", actor_name="nina")
        assert {event.target_id for event in events} == {str(runbook.pk), str(policy.pk)}
    bulk("ada", "remove-tags", runbook, policy, tags=["topology"])
    bulk("ada", "set-tags", policy, other_tags="compliance, my-own")
    with in_acme(cast):
        runbook.refresh_from_db()
        policy.refresh_from_db()
    assert runbook.tags == ["runbooks"] and policy.tags == ["compliance", "my-own"]


def test_nobody_gives_tags_that_would_hide_a_document_from_themselves(cast: Any) -> None:
    runbook, policy = document(cast, "bgp-session-down.md"), document(cast, "edge-policy.md")
    with in_acme(cast):
        Document.objects.filter(pk=policy.pk).update(tags=["standards", "topology"])
    told = messages_of(bulk("nina", "remove-tags", runbook, policy, tags=["standards", "runbooks"]))
    # One fails, and says why; the other is done.
    assert told[0] == "Tags of 1 document changed."
    assert told[1].startswith("BGP session down: Give at least one tag that your role reads")
    told = messages_of(bulk("nina", "set-tags", runbook, tags=["incident_reports"]))
    assert "your role reads" in told[0]
    told = messages_of(bulk("ada", "set-tags", runbook, other_tags="Not,A;Tag"))
    assert "is not a tag" in told[0]
    told = messages_of(bulk("nina", "add-tags", runbook, other_tags="faq"))
    assert "only tags that your role reads, not faq" in told[0]
    assert messages_of(bulk("nina", "add-tags", runbook)) == ["Choose the tags first."]
    with in_acme(cast):
        assert Document.objects.get(pk=runbook.pk).tags == ["runbooks"]
        assert Document.objects.get(pk=policy.pk).tags == ["topology"]


def test_what_one_may_not_see_is_not_touched_and_not_named(cast: Any) -> None:
    secret, foreign = document(cast, "incident-0042.md"), cast.documents["globex"]["edge-policy.md"]
    runbook = document(cast, "bgp-session-down.md")
    for action in ("delete", "move", "set-tags", "add-tags"):
        told = messages_of(
            bulk(
                "nina",
                action,
                secret,
                foreign,
                uuid.uuid4(),
                "nonsense",
                tags=["runbooks"],
                collection="handbook",
            )
        )
        assert told == ["There is nothing here, or you may not see it."] * 4, action
    assert messages_of(bulk("nina", "restore", runbook)) == ["There is nothing here, or you may not see it."]
    told = messages_of(bulk("nina", "move", runbook, collection=str(cast.collections["globex"].pk)))
    assert told == ["There is nothing here, or you may not see it."]
    assert messages_of(bulk("nina", "delete")) == ["Tick the documents first."]
    assert messages_of(bulk("nina", "burn", runbook)) == ["Choose what to do with the documents."]
    assert "needs the ability" in messages_of(bulk("nina", "reindex", runbook))[0]
    assert "at most 500" in messages_of(bulk("nina", "delete", *[uuid.uuid4() for _ in range(501)]))[0]
    for slug in ("acme", "globex"):
        with scope(tenant_id=cast.tenants[slug].pk, tags=None):
            assert not Document.objects.filter(deleted_at__isnull=False).exists()
            assert not AuditEvent.objects.filter(action__in=["document.delete", "document.change"]).exists()


def test_several_are_moved_and_indexed_again(cast: Any) -> None:
    runbook, policy = document(cast, "bgp-session-down.md"), document(cast, "edge-policy.md")
    with in_acme(cast):
        other = Collection.objects.create(slug="other", name="Other")
    response = bulk("ada", "move", runbook, policy, query="?q=bgp", collection="other")
    assert messages_of(response) == ["2 documents moved to Other."]
    assert sorted(titles_of(html_of(response))) == ["BGP session down", "Edge BGP policy"], "still narrowed"
    assert messages_of(bulk("ada", "reindex", runbook, policy)) == ["2 documents are indexed again."]
    with in_acme(cast):
        assert set(Chunk.objects.filter(document=policy).values_list("collection_id", flat=True)) == {
            other.pk
        }
        jobs = Job.objects.filter(kind="reindex")
        assert {job.document_id for job in jobs} == {runbook.pk, policy.pk}
        assert AuditEvent.objects.filter(action="index.rebuild", actor_name="ada").count() == 2


def test_deleting_several_takes_them_out_of_answers_and_can_be_undone(cast: Any) -> None:
    runbook, policy = document(cast, "bgp-session-down.md"), document(cast, "edge-policy.md")
    assert "30 seconds" in ask_by_api(cast.nina)["answer"]
    response = bulk("nina", "delete", runbook, policy)
    page = html_of(response)
    assert messages_of(response) == ["2 documents deleted."] and titles_of(page) == []
    assert not ask_by_api(cast.nina)["answered"]
    undo = re.search(r'action="(/documents/restore/[^"]+)"', page)
    assert undo
    nina = signed_in("nina")
    deleted = html_of(nina.get("/documents/?status=deleted"))
    assert sorted(titles_of(deleted)) == ["BGP session down", "Edge BGP policy"]
    assert "Restore" in deleted and "indexed" not in table_of(deleted)
    # Another member undoes nothing that they may not read.
    sam = signed_in("sam").post(undo[1].replace("&amp;", "&"), headers=HTMX)
    assert messages_of(sam) == ["There is nothing here, or you may not see it."] * 2
    back = nina.post(undo[1].replace("&amp;", "&"), headers=HTMX)
    assert messages_of(back) == ["2 documents restored."]
    assert sorted(titles_of(html_of(back))) == ["BGP session down", "Edge BGP policy"]
    assert "30 seconds" in ask_by_api(cast.nina)["answer"]
    assert "Nothing is deleted." in html_of(nina.get("/documents/?status=deleted"))


def test_the_bar_offers_tags_and_says_nothing_else(cast: Any) -> None:
    page = html_of(signed_in("ada").get("/documents/"))
    bar = re.search(r'<form id="bulk".*?</form>', page, re.S)
    assert bar and 'value="runbooks"' in bar[0] and "hint-text" not in bar[0]


def test_a_great_many_are_restored_from_the_list(cast: Any) -> None:
    told = bulk("nina", "delete", *fill(cast, 101))
    assert messages_of(told) == ["101 documents deleted. They can be restored among the deleted ones."]
    assert "Undo" not in html_of(told)


def test_without_a_script_an_action_leads_back_to_the_list_as_it_was_narrowed(cast: Any) -> None:
    nina = signed_in("nina")
    runbook = document(cast, "bgp-session-down.md")
    form = {"document": [str(runbook.pk)], "action": "delete"}
    response = nina.post("/documents/bulk/?q=bgp&sort=title", form)
    assert (response.status_code, response.headers["Location"]) == (302, "/documents/?q=bgp&sort=title")
    page = html_of(nina.get(response.headers["Location"]))
    assert "1 document deleted." in page and titles_of(page) == ["Edge BGP policy"]
    undo = re.search(r'action="(/documents/restore/[^"]+)"', page)
    assert undo and nina.post(undo[1]).status_code == 302
    assert len(titles_of(html_of(nina.get("/documents/")))) == 2


def test_titles_and_errors_are_shown_as_they_are(cast: Any) -> None:
    nasty = '<img src=x onerror="alert(1)">'
    with in_acme(cast):
        Document.objects.filter(title="Edge BGP policy").update(title=nasty, uri=nasty, error=nasty)
    page = html_of(signed_in("nina").get("/documents/"))
    assert nasty not in page and page.count(escape(nasty)) >= 3
    with in_acme(cast):
        delete_document(document=document(cast, "edge-policy.md"))
    assert nasty not in html_of(signed_in("nina").get("/documents/?status=deleted"))
