"""One document's own page: its facts, its passages, its jobs, and what can be done with it."""

import re
import uuid
from typing import Any

import pytest
from django.test import Client

from knowledge.embedding.factory import embedder
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Chunk, Collection, Document, Job
from knowledge.sources import source_of_folder
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.helpers import ask as ask_by_api
from tests.knowledge.pages.helpers import HTMX, count_queries, html_of, note, signed_in, words_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

LONG = "# Long\n\n" + "\n\n".join(
    f"## Part {n}\n\n" + f"Sentence of part {n} about switches and routers. " * 14 for n in range(30)
)


def in_acme(cast: Any) -> Any:
    return scope(tenant_id=cast.acme.pk, tags=None)


def document(cast: Any, name: str = "bgp-session-down.md") -> Document:
    found: Document = cast.documents["acme"][name]
    return found


def manage(document: Document) -> str:
    return f"/documents/{document.pk}/manage/"


def run_all(cast: Any) -> None:
    with in_acme(cast):
        for pk in Job.objects.filter(state=Job.State.PENDING).values_list("pk", flat=True):
            run_claimed_job(job_id=str(pk), embedder=embedder())


def saved(client: Client, document: Document, **form: Any) -> Any:
    given = {"title": "BGP session down", "tags": ["runbooks"], "collection": "handbook", **form}
    return client.post(manage(document), given)


def test_its_facts_and_its_passages(cast: Any) -> None:
    runbook = document(cast)
    page = html_of(signed_in("nina").get(manage(runbook)))
    words = words_of(page)
    with in_acme(cast):
        chunks = list(Chunk.objects.filter(document=runbook).order_by("ordinal"))
    assert len(chunks) >= 2
    for chunk in chunks:
        assert chunk.text.split("\n")[-1][:40] in page
        assert f"{len(chunk.text)} characters {chunk.tokens} tokens" in words
        assert f"/documents/{runbook.pk}/?start={chunk.start}&amp;end={chunk.end}#passage" in page
    assert "Check the session" in words and "bgp-session-down.md" in words
    assert f'href="/documents/{runbook.pk}/"' in page, "the text can be read"
    assert f"/api/v1/documents/{runbook.pk}/original" in page


def test_passages_come_by_pages(cast: Any) -> None:
    runbook = document(cast)
    ada = signed_in("ada")
    ada.post(f"/documents/{runbook.pk}/replace/", {"file": note("long.md", LONG)})
    run_all(cast)
    page = html_of(ada.get(manage(runbook)))
    assert page.count('class="chunk"') == 20
    more = re.search(r'hx-get="([^"]*/passages/\?chunks=[^"]+)"', page)
    assert more
    rest = html_of(ada.get(more[1], headers=HTMX))
    assert "<html" not in rest and rest.count('class="chunk"') >= 10
    without_script = ada.get(more[1])
    assert without_script.status_code == 302
    assert html_of(ada.get(without_script.headers["Location"])).count('class="chunk"') >= 10
    assert ada.get(manage(runbook), {"chunks": "nonsense"}).status_code == 400


def test_title_tags_and_collection_are_changed(cast: Any) -> None:
    runbook, nina = document(cast), signed_in("nina")
    with in_acme(cast):
        other = Collection.objects.create(slug="other", name="Other")
    response = saved(
        nina, runbook, title="When BGP is down", tags=["runbooks", "topology"], collection="other"
    )
    assert (response.status_code, response.headers["Location"]) == (302, manage(runbook))
    assert "Saved." in html_of(nina.get(manage(runbook)))
    with in_acme(cast):
        runbook.refresh_from_db()
        assert set(Chunk.objects.filter(document=runbook).values_list("collection_id", flat=True)) == {
            other.pk
        }
        event = AuditEvent.objects.get(action="document.change")
    assert runbook.title == runbook.given_title == "When BGP is down"
    assert runbook.tags == ["runbooks", "topology"] and event.actor_name == "nina"
    # With htmx the part alone comes back, and says so.
    part = html_of(
        nina.post(
            manage(runbook),
            {"title": "Again", "tags": ["runbooks"], "collection": "other"},
            headers=HTMX,
        )
    )
    assert "<html" not in part and "Saved." in part and 'value="Again"' in part


def test_a_title_that_was_not_changed_still_follows_the_file(cast: Any) -> None:
    runbook = document(cast)
    saved(signed_in("nina"), runbook, tags=["runbooks", "topology"])
    with in_acme(cast):
        runbook.refresh_from_db()
    assert runbook.given_title == "" and runbook.tags == ["runbooks", "topology"]


@pytest.mark.parametrize(
    ("form", "words", "field"),
    [
        ({"title": ""}, "may not be blank", "title"),
        ({"title": "x" * 501}, "no more than 500 characters", "title"),
        ({"title": "a\0b"}, "Null characters", "title"),
        ({"tags": ["incident_reports"]}, "Give at least one tag that your role reads", "tags"),
        ({"tags": []}, "Give at least one tag that your role reads", "tags"),
        ({"tags": ["No Tag"]}, "is not a tag", "tags"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(cast: Any, form: dict[str, Any], words: str, field: str) -> None:
    response = saved(signed_in("nina"), document(cast), **form)
    page = html_of(response, 400)
    error = re.search(rf'id="{field}-error">([^<]+)<', page)
    assert error and words in error[1], page[-3000:]
    assert "<h1>BGP session down</h1>" in page
    with in_acme(cast):
        assert not AuditEvent.objects.filter(action="document.change").exists()


def test_a_foreign_collection_is_not_found(cast: Any) -> None:
    runbook = document(cast)
    for name in (str(cast.collections["globex"].pk), "nowhere"):
        assert saved(signed_in("nina"), runbook, collection=name).status_code == 404


def test_new_content_answers_once_it_is_indexed(cast: Any) -> None:
    runbook, nina = document(cast), signed_in("nina")
    path = f"/documents/{runbook.pk}/replace/"
    text = (
        "# BGP session down\n\n## Check the session\n\nThe hold timer on acme edge routers is 45 seconds.\n"
    )
    assert nina.post(path, {"file": note("bgp.md", text)}).status_code == 302
    page = html_of(nina.get(manage(runbook)))
    assert "new version waits" in page and "waiting" in page
    assert "30 seconds" in ask_by_api(cast.nina)["answer"]
    run_all(cast)
    assert "45 seconds" in ask_by_api(cast.nina)["answer"]
    page = html_of(nina.get(manage(runbook)))
    assert "45 seconds" in page and "new version waits" not in page
    for form, status, words in (
        ({}, 400, "Choose a file."),
        ({"file": note("a.exe")}, 415, "no supported ending"),
        ({"file": note("a.md", "")}, 400, "is empty"),
    ):
        page = html_of(nina.post(path, form), status)
        error = re.search(r'id="file-error">([^<]+)<', page)
        assert error and words in error[1]


def test_the_page_follows_the_job(cast: Any) -> None:
    runbook, nina = document(cast), signed_in("nina")
    assert "every 2s" not in html_of(nina.get(manage(runbook)))
    nina.post(f"/documents/{runbook.pk}/replace/", {"file": note("bgp.md", "# Fresh\n\nFresh words.\n")})
    page = html_of(nina.get(manage(runbook)))
    assert f'hx-get="{manage(runbook)}?part=jobs" hx-trigger="every 2s"' in page
    told = nina.get(manage(runbook) + "?part=jobs", headers=HTMX)
    part = html_of(told)
    assert "<form" not in part, "what is being typed is left alone"
    assert "new version waits" in part and "every 2s" in part and "HX-Trigger" not in told.headers
    run_all(cast)
    told = nina.get(manage(runbook) + "?part=jobs", headers=HTMX)
    assert "every 2s" not in html_of(told) and told.headers["HX-Trigger"] == "document-indexed"
    passages = html_of(nina.get(f"/documents/{runbook.pk}/passages/", headers=HTMX))
    assert "Fresh words." in passages and "<html" not in passages


def test_a_failed_version_says_why_and_the_old_one_answers(cast: Any) -> None:
    runbook, nina = document(cast), signed_in("nina")
    nina.post(f"/documents/{runbook.pk}/replace/", {"file": note("bgp.pdf", "%PDF-1.4 nothing more")})
    run_all(cast)
    page = html_of(nina.get(manage(runbook)))
    assert "The newest version could not be indexed; the older one still answers." in page
    assert 'class="badge bad">failed' in page and "/jobs/" in page
    assert "30 seconds" in ask_by_api(cast.nina)["answer"]


def test_a_document_of_a_source_says_who_keeps_it(cast: Any, tmp_path: Any) -> None:
    runbook = document(cast)
    with in_acme(cast):
        source = source_of_folder(
            directory=str(tmp_path), collection=cast.collections["acme"], tags=["faq"], trusted=True
        )
        Document.objects.filter(pk=runbook.pk).update(source=source)
    page = html_of(signed_in("ada").get(manage(runbook)))
    assert f'href="/sources/{source.pk}/"' in page and "the next synchronisation" in page
    assert "/replace/" not in page
    assert f"/sources/{source.pk}" not in html_of(signed_in("nina").get(manage(runbook)))
    refused = signed_in("ada").post(f"/documents/{runbook.pk}/replace/", {"file": note()})
    assert "change it there and synchronise" in html_of(refused, 409)


def test_deleting_can_be_undone(cast: Any) -> None:
    runbook, nina = document(cast), signed_in("nina")
    response = nina.post(f"/documents/{runbook.pk}/delete/")
    assert (response.status_code, response.headers["Location"]) == (302, "/documents/")
    page = html_of(nina.get("/documents/"))
    assert "“BGP session down” deleted." in page
    undo = f"/documents/{runbook.pk}/restore/"
    assert f'action="{undo}"' in page
    assert nina.get(manage(runbook)).status_code == 404
    assert not ask_by_api(cast.nina)["answered"]
    assert nina.post(undo).status_code == 302
    assert "“BGP session down” is back." in html_of(nina.get("/documents/"))
    assert "30 seconds" in ask_by_api(cast.nina)["answer"]
    assert nina.post(undo).status_code == 404, "what is not deleted cannot be restored"
    with in_acme(cast):
        actions = AuditEvent.objects.filter(target_id=str(runbook.pk), actor_name="nina")
        assert {"document.delete", "document.restore"} <= set(actions.values_list("action", flat=True))


def test_indexing_again_makes_a_job(cast: Any) -> None:
    runbook, ada = document(cast), signed_in("ada")
    assert ada.post(f"/documents/{runbook.pk}/reindex/").status_code == 302
    run_all(cast)
    with in_acme(cast):
        job = Job.objects.get(kind="reindex")
    assert job.state == "SUCCESS" and job.document_id == runbook.pk
    assert f"/jobs/{job.pk}/" in html_of(ada.get(manage(runbook)))
    assert f"/jobs/{job.pk}/" not in html_of(signed_in("nina").get(manage(runbook))), "not hers"


def test_what_the_role_does_not_read_is_like_what_is_absent(cast: Any) -> None:
    secret, absent = document(cast, "incident-0042.md").pk, uuid.uuid4()
    for username in ("nina", "gina", "gus"):
        client = signed_in(username)
        for pk in (secret, absent):
            for path in ("manage", "passages"):
                assert client.get(f"/documents/{pk}/{path}/").status_code == 404
            for path in ("manage", "replace", "delete", "restore"):
                form = {"title": "Mine", "collection": "handbook", "tags": ["runbooks"], "file": note()}
                assert client.post(f"/documents/{pk}/{path}/", form).status_code == 404, path
    assert signed_in("gus").post(f"/documents/{secret}/reindex/").status_code == 404


def test_the_number_of_queries_does_not_grow(cast: Any) -> None:
    runbook, ada = document(cast), signed_in("ada")

    def look() -> None:
        html_of(ada.get(manage(runbook)))

    ada.post(f"/documents/{runbook.pk}/reindex/")
    run_all(cast)
    few = count_queries(look)
    ada.post(f"/documents/{runbook.pk}/replace/", {"file": note("long.md", LONG)})
    run_all(cast)
    for _ in range(6):
        ada.post(f"/documents/{runbook.pk}/reindex/")
    assert count_queries(look) == few <= 18
