"""Taking files in by the page: without a script, and one at a time for the script that does more."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from knowledge.documents import clean_path
from knowledge.embedding.factory import embedder
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Document, Job
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.pages.helpers import HTMX, count_queries, html_of, note, signed_in

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

JSON = {"Accept": "application/json"}


def run_all(cast: Any) -> None:
    """Does the work of every job that waits."""
    with scope(tenant_id=cast.acme.pk, tags=None):
        for pk in Job.objects.filter(state=Job.State.PENDING).values_list("pk", flat=True):
            run_claimed_job(job_id=str(pk), embedder=embedder())


def send_one(client: Client, name: str = "note.md", text: str = "# Note\n\nA line.\n", **form: Any) -> Any:
    return client.post("/upload/", {"file": note(name, text), "tags": ["runbooks"], **form}, headers=JSON)


def test_a_document_is_uploaded_and_followed(cast: Any) -> None:
    nina = signed_in("nina")
    page = html_of(nina.get("/upload/"))
    assert 'value="runbooks"' in page and "incident_reports" not in page
    file = SimpleUploadedFile("spare-parts.md", b"# Spare parts\n\nThe optics are in locker 12.\n")
    response = nina.post("/upload/", {"file": file, "collection": "handbook", "tags": ["runbooks"]})
    assert (response.status_code, response.headers["Location"]) == (302, "/upload/")
    page = html_of(nina.get("/upload/"))
    assert "1 file taken in." in page and "waiting" in uploads_of(page)
    with scope(tenant_id=cast.acme.pk, tags=None):
        document = Document.objects.get(uri="spare-parts.md")
        assert document.tags == ["runbooks"] and document.collection == cast.collections["acme"]
    run_all(cast)
    rows = uploads_of(html_of(nina.get("/upload/")))
    assert "can be asked about" in rows and f"/documents/{document.pk}/" in rows
    # Her own uploads alone are followed here; what is in the list is another matter.
    assert "spare-parts" not in uploads_of(html_of(signed_in("ada").get("/upload/")))


def uploads_of(page: str) -> str:
    found = re.search(r"<ul[^>]*data-uploads>.*?</ul>", page, re.S)
    assert found
    return found[0]


def test_several_files_without_a_script_and_one_of_them_refused(cast: Any) -> None:
    nina = signed_in("nina")
    files = [note("one.md"), note("two.txt", "Two."), SimpleUploadedFile("three.exe", b"MZ")]
    page = html_of(nina.post("/upload/", {"file": files, "tags": ["runbooks"]}), 415)
    assert "three.exe has no supported ending" in page and "2 files taken in." in page
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert set(Document.objects.filter(status="pending").values_list("uri", flat=True)) == {
            "one.md",
            "two.txt",
        }


def test_what_cannot_be_taken_is_said_and_nothing_is_stored(cast: Any) -> None:
    nina = signed_in("nina")
    for form, words in (
        ({}, "Choose a file"),
        ({"file": SimpleUploadedFile("a.exe", b"MZ"), "tags": ["runbooks"]}, ".exe"),
        ({"file": SimpleUploadedFile("a.md", b"x"), "tags": ["incident_reports"]}, "your role reads"),
        ({"file": SimpleUploadedFile("a.md", b"x")}, "your role reads"),
        ({"file": SimpleUploadedFile("a.md", b"x"), "tags": ["No Tag"]}, "is not a tag"),
    ):
        response = nina.post("/upload/", form)
        assert 400 <= response.status_code < 500
        assert words in response.content.decode(), form
        if "file" in form:
            form["file"].seek(0)  # type: ignore[attr-defined]
        told = nina.post("/upload/", form, headers=JSON)
        assert told.status_code == response.status_code
        assert told.headers["Content-Type"] == "application/problem+json"
        assert any(words in error["detail"] for error in told.json()["errors"]), told.json()
    foreign = {"file": SimpleUploadedFile("a.md", b"x"), "collection": str(cast.collections["globex"].pk)}
    assert nina.post("/upload/", foreign).status_code == 404
    assert nina.post("/upload/", foreign | {"file": note()}, headers=JSON).status_code == 404
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert Document.objects.count() == 5 and not Job.objects.exists()
    for path in ("/upload/", "/upload/progress/"):
        assert signed_in("hal").get(path).status_code == 403
        assert Client().get(path).status_code == 302
    assert send_one(signed_in("hal")).status_code == 403


def test_a_folder_keeps_its_paths(cast: Any) -> None:
    nina = signed_in("nina")
    response = send_one(nina, "ospf.md", path="handbook/routing/ospf.md")
    assert response.status_code == 201
    assert "handbook/routing/ospf.md" in response.json()["row"]
    with scope(tenant_id=cast.acme.pk, tags=None):
        document = Document.objects.get(uri="handbook/routing/ospf.md")
        # What it is stored under is of our own making.
        assert re.fullmatch(r"[0-9a-f]{2}/[0-9a-f]{32}", document.pending_name)
    run_all(cast)
    with scope(tenant_id=cast.acme.pk, tags=None):
        document.refresh_from_db()
    assert document.status == "indexed" and document.uri == "handbook/routing/ospf.md"
    download = nina.get(f"/api/v1/documents/{document.pk}/original")
    assert download.headers["Content-Disposition"].endswith("''ospf.md")
    # New content keeps the folder.
    replaced = nina.post(
        f"/documents/{document.pk}/replace/", {"file": note("ospf-v2.md", "# Two\n\nNew.\n")}
    )
    assert replaced.status_code == 302
    run_all(cast)
    with scope(tenant_id=cast.acme.pk, tags=None):
        document.refresh_from_db()
    assert document.uri == "handbook/routing/ospf-v2.md" and document.version == 2


def test_what_has_the_same_path_is_replaced_only_when_that_is_asked_for(cast: Any) -> None:
    nina = signed_in("nina")

    def versions(path: str) -> list[tuple[str, int]]:
        with scope(tenant_id=cast.acme.pk, tags=None):
            found = Document.objects.filter(uri=path).order_by("created_at")
            return [(document.tags[0], document.version) for document in found]

    path = {"path": "team/plan.md", "collection": "handbook"}
    send_one(nina, "plan.md", **path)
    run_all(cast)
    send_one(nina, "plan.md", "# Plan\n\nThe second.\n", **path)
    run_all(cast)
    assert versions("team/plan.md") == [("runbooks", 1), ("runbooks", 1)]
    response = send_one(nina, "plan.md", "# Plan\n\nThe third.\n", replace="1", tags=["standards"], **path)
    assert response.status_code == 201 and "team/plan.md" in response.json()["row"]
    run_all(cast)
    assert versions("team/plan.md") == [("runbooks", 1), ("runbooks", 2)], "the newest; its tags stay"
    # What she may not read she cannot replace: hers stands beside it.
    send_one(nina, "merger.md", replace="1", collection="handbook")
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert Document.objects.filter(uri="merger.md").count() == 2
        assert not Document.objects.get(pk=cast.documents["acme"]["merger.md"].pk).pending_name
    # Elsewhere the same path is another document.
    send_one(nina, "plan.md", path="team/plan.md", replace="1")
    assert len(versions("team/plan.md")) == 3


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("", "a.md"),
        ("a.md", "a.md"),
        ("team/a.md", "team/a.md"),
        ("team/other.exe", "team/a.md"),
        ("../../etc/a.md", "etc/a.md"),
        ("/etc/./../a.md", "etc/a.md"),
        ("..\\windows\\a.md", "windows/a.md"),
        ("te\0am/\x1b[31m/ /a.md", "team/[31m/a.md"),
        ("x" * 300 + "/a.md", "x" * 255 + "/a.md"),
        ("/".join(["y" * 200] * 9) + "/a.md", "a.md"),
    ],
)
def test_a_path_is_shown_and_never_followed(path: str, shown: str) -> None:
    assert clean_path(path, filename="a.md") == shown


def test_one_request_tells_how_the_whole_batch_is(cast: Any) -> None:
    nina = signed_in("nina")
    begin = (timezone.now() - timedelta(seconds=1)).isoformat()
    rows = [send_one(nina, f"part-{name}.md").json() for name in ("a", "b", "c")]
    send_one(nina, "broken.pdf", "%PDF-1.4 nothing more")
    asked = {"since": begin, "after": begin, "busy": "1"}
    told = nina.get("/upload/progress/", asked, headers=HTMX)
    page = html_of(told)
    assert "4 in work" in page and 'hx-trigger="every 1500ms"' in page
    assert "HX-Trigger" not in told.headers
    run_all(cast)
    told = nina.get("/upload/progress/", asked, headers=HTMX)
    page = html_of(told)
    assert "3 can be asked about" in page and "1 failed" in page
    assert 'hx-trigger="uploaded from:body"' in page, "the polling ends"
    assert told.headers["HX-Trigger"] == "documents-changed"
    for row in rows:
        assert f'data-job="{row["job"]}"' in page
    assert "broken.pdf" in page and "/retry/" in page
    assert "Uploads: 3 can be asked about" in page  # the message, once, beside it
    assert "Uploads: " not in html_of(
        nina.get("/upload/progress/", {k: v for k, v in asked.items() if k != "busy"}, headers=HTMX)
    )
    # What was told already is not told again: the address of the next question begins later.
    following = re.search(r'hx-get="[^"]*after=([^"&]+)', page)
    assert following and unquote(following[1]) > begin
    after = (timezone.now() + timedelta(seconds=10)).isoformat()
    assert "data-job" not in html_of(nina.get("/upload/progress/", asked | {"after": after}, headers=HTMX))
    # Nobody else's.
    for other in ("ada", "sam", "gina"):
        page = html_of(signed_in(other).get("/upload/progress/", asked, headers=HTMX))
        assert "data-job" not in page and "can be asked" not in page
    nonsense = nina.get("/upload/progress/", {"since": "x", "after": "2024-01-01T25:00"}, headers=HTMX)
    assert nonsense.status_code == 200
    assert nina.get("/upload/progress/").status_code == 302


def test_the_number_of_queries_does_not_grow_with_the_batch(cast: Any) -> None:
    nina = signed_in("nina")
    begin = (timezone.now() - timedelta(seconds=1)).isoformat()

    def ask() -> None:
        html_of(nina.get("/upload/progress/", {"since": begin, "after": begin}, headers=HTMX))

    send_one(nina)
    run_all(cast)
    few = count_queries(ask)
    for number in range(12):
        send_one(nina, f"{number}.md", f"# Number\n\nThe {number}th.\n")
    run_all(cast)
    assert count_queries(ask) == few <= 12


def test_an_upload_that_failed_is_tried_again_in_its_row(cast: Any) -> None:
    nina = signed_in("nina")
    job = send_one(nina, "broken.pdf", "%PDF-1.4 nothing more").json()["job"]
    run_all(cast)
    response = nina.post(f"/jobs/{job}/retry/", {"place": "upload"}, headers=HTMX)
    row = html_of(response)
    again = re.search(r'data-job="([^"]+)"', row)
    assert again and again[1] != job and "broken.pdf" in row
    assert response.headers["HX-Trigger"] == "uploaded", "the polling begins again"
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert Job.objects.get(pk=again[1]).state == "PENDING"
        event = AuditEvent.objects.get(action="task.retry")
        assert event.actor_name == "nina" and event.detail == {"job": job}


def test_markup_in_a_name_is_shown_as_it_is(cast: Any) -> None:
    row = send_one(signed_in("nina"), "b.md", path="<script>alert(1)</script>/b.md").json()["row"]
    assert "<script" not in row and "&lt;script&gt;alert(1)&lt;" in row
