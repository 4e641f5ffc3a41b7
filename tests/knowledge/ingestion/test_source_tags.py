"""Who may read a source's documents: what its tags are is what they are, from the next request on."""

from pathlib import Path
from typing import Any

import pytest

from knowledge.embedding.factory import embedder
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Chunk, Collection, Document, Source
from knowledge.sources import save_source
from knowledge.webhooks.documents import PushedDocument, upsert_document
from tests.cast import Member
from tests.knowledge.helpers import ask, check_problem, conforms, send
from tests.knowledge.ingestion.syncing import (
    CountingEmbedder,
    documents_of,
    make_source,
    sources_of_its_own,  # noqa: F401
    sync,
    write,
)
from tests.knowledge.rows import html_of, signed_in
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast

PATH = "/api/v1/documents/{id}"
WOMBAT = "What is the code of the wombat valve?"


@pytest.fixture
def valves(tmp_path: Path) -> Source:
    """A folder that helpdesk and security read."""
    write(tmp_path / "valve.md", "# Valve\n\nThe code of the wombat valve is 9911.\n")
    write(tmp_path / "other.md", "# Other\n\nThe numbat has no valve.\n")
    source = make_source(tmp_path, tags=("faq", "incident_reports"))
    assert sync(source, embedder()).changed == 2
    return source


def reads(member: Member, text: str = "9911") -> bool:
    """Whether the member finds the fact; who does not is not answered with it either, out of a cache for instance."""
    answer = ask(member, WOMBAT)["answer"]
    found = text in str(send(member, "post", "search", {"question": WOMBAT}).json()["sources"])
    assert found or text not in answer
    return found


def change(member: Member, source: Source, **body: Any) -> None:
    response = send(member, "patch", f"sources/{source.pk}", body)
    assert response.status_code == 200, response.content


def push(source: Source, uri: str, text: str, **fields: Any) -> Document:
    job = upsert_document(source=source, pushed=PushedDocument(uri=uri, data=text.encode(), **fields))
    assert job is not None
    run_claimed_job(job_id=job.pk, embedder=embedder())
    found: Document = Document.objects.get(source=source, uri=uri, deleted_at__isnull=True)
    return found


def tags_of(source: Source) -> dict[str, list[str]]:
    """By path; each document's chunks have the same."""
    found = {uri: sorted(row.tags) for uri, row in documents_of(source).items()}
    for uri, tags in found.items():
        chunks = Chunk.objects.filter(document__in=documents_of(source).values(), document__uri=uri)
        assert all(chunk.tags == tags for chunk in chunks) and chunks
    return found


def test_narrowed_and_widened_tags_hold_from_the_next_request(shared: Any, valves: Source) -> None:
    assert reads(shared.hal) and reads(shared.sam) and not reads(shared.nina)
    change(shared.ada, valves, tags=["incident_reports"])
    assert not reads(shared.hal) and reads(shared.sam)
    assert not [
        row for row in send(shared.hal, "get", "documents").json()["results"] if "valve" in row["uri"]
    ]
    change(shared.ada, valves, tags=["configs", "incident_reports"])
    assert reads(shared.nina) and not reads(shared.hal)
    assert tags_of(valves) == {uri: ["configs", "incident_reports"] for uri in ("valve.md", "other.md")}


def test_pushed_documents_follow_and_keep_what_their_sender_chose(shared: Any) -> None:
    source = save_source(
        source=Source(kind="push", name="pushed", collection=shared.collections["acme"]),
        changes={"tags": ["faq", "incident_reports"]},
    )
    push(source, "all.md", "# Valve\n\nThe code of the wombat valve is 9911.\n")
    push(source, "faq.md", "# Faq\n\nThe numbat is asked about.\n", tags=("faq",))
    push(source, "incident.md", "# Incident\n\nThe numbat escaped.\n", tags=("incident_reports",))
    assert reads(shared.hal)
    change(shared.ada, source, tags=["incident_reports"])
    assert not reads(shared.hal) and reads(shared.sam)
    # What may not be given any more is taken away, and nothing is given in its place.
    assert tags_of(source) == {
        "all.md": ["incident_reports"],
        "faq.md": [],
        "incident.md": ["incident_reports"],
    }
    change(shared.ada, source, tags=["configs", "incident_reports"])
    assert tags_of(source) == {
        "all.md": ["configs", "incident_reports"],
        "faq.md": [],
        "incident.md": ["incident_reports"],
    }


def test_without_tags_of_its_own_a_source_follows_its_collections(shared: Any, tmp_path: Path) -> None:
    collection = Collection.objects.create(slug="valves", name="Valves", default_tags=["faq"])
    write(tmp_path / "valve.md", "# Valve\n\nThe code of the wombat valve is 9911.\n")
    source = make_source(tmp_path, collection=collection, tags=())
    sync(source, embedder())
    assert reads(shared.hal)
    response = send(shared.ada, "patch", f"collections/{collection.pk}", {"default_tags": ["configs"]})
    assert response.status_code == 200
    assert not reads(shared.hal) and reads(shared.nina)


def test_a_document_in_the_bin_is_narrowed_too(shared: Any, valves: Source) -> None:
    document = documents_of(valves)["valve.md"]
    assert send(shared.ada, "delete", f"documents/{document.pk}").status_code == 204
    change(shared.ada, valves, tags=["incident_reports"])
    assert send(shared.ada, "post", f"documents/{document.pk}/restore").status_code == 200
    assert not reads(shared.hal) and reads(shared.sam)


def test_a_sync_that_runs_meanwhile_adds_nothing_under_the_old_tags(
    shared: Any, valves: Source, tmp_path: Path
) -> None:
    write(tmp_path / "new.md", "# New\n\nThe code of the wombat valve was changed to 4242.\n")
    write(tmp_path / "broken.pdf", "%PDF-1.7\nno more of it")

    def narrow() -> None:
        fresh = Source.objects.select_related("collection").get(pk=valves.pk)
        save_source(source=fresh, changes={"tags": ["incident_reports"]})

    assert sync(valves, CountingEmbedder(before_batch=narrow)).changed == 1
    rows = documents_of(valves)
    assert {uri: row.tags for uri, row in rows.items()} == {uri: ["incident_reports"] for uri in rows}
    assert "new.md" in rows and "broken.pdf" in rows and not reads(shared.hal, "4242")


def test_tags_set_by_hand_stay_until_they_are_given_up(shared: Any, valves: Source, tmp_path: Path) -> None:
    document = documents_of(valves)["valve.md"]
    path = f"documents/{document.pk}"
    assert send(shared.ada, "get", path).json()["own_tags"] is False
    changed = conforms(send(shared.ada, "patch", path, {"tags": ["incident_reports"]}), PATH, "patch")
    assert changed["own_tags"] is True and not reads(shared.hal) and reads(shared.sam)
    # Neither a sync, nor new content, nor other tags of the source, nor a way over the bin of the source.
    assert sync(valves).unchanged == 2 and not reads(shared.hal)
    write(tmp_path / "valve.md", "# Valve\n\nThe code of the wombat valve is still 9911.\n", age=30)
    assert sync(valves, embedder()).changed == 1 and not reads(shared.hal)
    change(shared.ada, valves, tags=["configs", "faq"])
    assert not reads(shared.hal) and not reads(shared.nina) and reads(shared.sam)
    assert tags_of(valves) == {"valve.md": ["incident_reports"], "other.md": ["configs", "faq"]}
    (tmp_path / "valve.md").rename(tmp_path.parent / "away.md")
    assert sync(valves).deleted == 1
    (tmp_path.parent / "away.md").rename(tmp_path / "valve.md")
    assert sync(valves, embedder()).changed == 1 and not reads(shared.hal) and reads(shared.sam)

    back = documents_of(valves)["valve.md"]
    assert back.pk != document.pk and back.own_tags
    page = html_of(signed_in("ada").get(f"/documents/{back.pk}/manage/"))
    assert "These tags were set by hand" in page and 'name="follow"' in page
    assert "1 document keeps tags" in html_of(signed_in("ada").get(f"/sources/{valves.pk}/"))
    given = conforms(send(shared.ada, "patch", f"documents/{back.pk}", {"own_tags": False}), PATH, "patch")
    assert given["tags"] == ["configs", "faq"] and given["own_tags"] is False and reads(shared.hal)
    change(shared.ada, valves, tags=["incident_reports"])
    assert tags_of(valves)["valve.md"] == ["incident_reports"]
    # Given up, they do not come back from the bin either: there lies one that still had them.
    (tmp_path / "valve.md").rename(tmp_path.parent / "away.md")
    assert sync(valves).deleted == 1
    change(shared.ada, valves, tags=["faq"])
    (tmp_path.parent / "away.md").rename(tmp_path / "valve.md")
    assert sync(valves, embedder()).changed == 1
    assert tags_of(valves)["valve.md"] == ["faq"] and not documents_of(valves)["valve.md"].own_tags


def test_the_page_gives_tags_by_hand_up(shared: Any, valves: Source) -> None:
    document = documents_of(valves)["valve.md"]
    send(shared.ada, "patch", f"documents/{document.pk}", {"own_tags": True})
    change(shared.ada, valves, tags=["configs"])
    assert tags_of(valves)["valve.md"] == ["faq", "incident_reports"]
    form = {"title": document.title, "collection": "handbook", "tags": document.tags, "follow": "on"}
    assert signed_in("ada").post(f"/documents/{document.pk}/manage/", form).status_code == 302
    assert tags_of(valves)["valve.md"] == ["configs"] and not documents_of(valves)["valve.md"].own_tags


def test_a_pushed_document_keeps_tags_set_by_hand(shared: Any) -> None:
    source = save_source(
        source=Source(kind="push", name="by hand", collection=shared.collections["acme"]),
        changes={"tags": ["faq", "incident_reports"]},
    )
    document = push(source, "a.md", "# A\n\nThe code of the wombat valve is 9911.\n")
    send(shared.ada, "patch", f"documents/{document.pk}", {"tags": ["incident_reports"]})
    push(source, "a.md", "# A\n\nThe code of the wombat valve was 9911.\n", tags=("faq",))
    change(shared.ada, source, tags=["faq"])
    assert tags_of(source) == {"a.md": ["incident_reports"]} and not reads(shared.hal)


def test_own_tags_are_a_sources_documents_alone(shared: Any, valves: Source) -> None:
    upload = shared.documents["acme"]["vpn-faq.md"]
    problem = check_problem(send(shared.ada, "patch", f"documents/{upload.pk}", {"own_tags": False}), 400)
    assert problem["errors"][0]["field"] == "own_tags"
    of_source = documents_of(valves)["valve.md"]
    both = {"own_tags": False, "tags": ["faq"]}
    check_problem(send(shared.ada, "patch", f"documents/{of_source.pk}", both), 400)
