"""Uploads: kinds, limits, names, tags, and what becomes of deleted documents."""

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import docx
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.utils import timezone

from ragsite.core.config import config
from tests.knowledge.helpers import check_problem, run_job, send, upload, upload_indexed
from tests.knowledge.ingestion.test_parse_pdf import write_lines, write_pdf
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


def folder_of(tenant: Any) -> Path:
    return config().documents_root / str(tenant.pk)


def files_of(tenant: Any) -> set[str]:
    return {
        str(path.relative_to(folder_of(tenant))) for path in folder_of(tenant).rglob("*") if path.is_file()
    }


def docx_bytes() -> bytes:
    document = docx.Document()
    document.add_heading("Cabling", 1)
    document.add_paragraph("The tapir rack holds 42 units.")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def test_every_supported_kind_is_indexed_and_found(shared: Any) -> None:
    text = "The tapir rack holds 42 units."
    files = {
        "a.txt": text.encode(),
        "a.md": f"# Cabling\n\n{text}\n".encode(),
        "a.rst": f"Cabling\n=======\n\n{text}\n".encode(),
        "a.html": f"<html><head><title>Cabling</title></head><body><p>{text}</p></body></html>".encode(),
        "a.csv": b"rack,units\ntapir,42\n",
        "a.cfg": b"interface ge-0/0/1\n description tapir rack, 42 units\n",
        "a.yaml": b"rack: tapir\nunits: 42\n",
        "a.py": b"TAPIR_RACK_UNITS = 42\n",
        "a.docx": docx_bytes(),
        "a.pdf": write_pdf([write_lines("Cabling of the tapir rack.", "The tapir rack holds 42 units.")]),
        "Dockerfile": b"FROM scratch\nLABEL rack=tapir units=42\n",
    }
    for name, data in files.items():
        document = upload_indexed(shared.ada, name, data, tags=["topology"])
        row = send(shared.nina, "get", f"documents/{document}").json()
        assert (row["status"], row["uri"], row["size"]) == ("indexed", name, len(data)), row
        content = send(shared.nina, "get", f"documents/{document}/content").json()
        assert "42" in content["text"] and "tapir" in content["text"].lower()
        assert bool(content["pages"]) == name.endswith(".pdf")
    found = send(
        shared.nina, "post", "search", {"question": "tapir rack units", "tags": ["topology"], "k": 20}
    )
    sources = found.json()["sources"]
    assert {source["uri"] for source in sources} == set(files)
    assert {s["page"] for s in sources if s["uri"] == "a.pdf"} == {1}


def test_what_cannot_be_taken(shared: Any, configure: Any) -> None:
    before = files_of(shared.acme)
    listed = send(shared.ada, "get", "documents?page_size=200").json()["results"]
    for name, data, status in (
        ("virus.exe", b"MZ\x90\x00", 415),
        ("archive.zip", b"PK\x03\x04", 415),
        ("picture.md", b"\x89PNG\r\n\x1a\n", 415),
        ("fake.pdf", b"hello", 415),
        ("fake.docx", b"hello", 415),
        ("noending", b"hello", 415),
        ("empty.md", b"", 400),
    ):
        problem = check_problem(upload(shared.ada, name, data), status)
        assert problem["errors"][0]["field"] == "file" and name in problem["errors"][0]["detail"], problem
    configure(RAGSITE_MAX_UPLOAD_BYTES=1024)
    assert upload(shared.ada, "fits.md", b"x" * 1024).status_code == 202
    problem = check_problem(upload(shared.ada, "large.md", b"x" * 1025), 413, "too-large")
    assert "large.md" in problem["detail"]
    assert len(files_of(shared.acme) - before) == 1
    now = send(shared.ada, "get", "documents?page_size=200").json()["results"]
    assert len(now) == len(listed) + 1

    # A file that turns out to be unreadable fails as a job, with its reason beside the document.
    accepted = upload(shared.ada, "blank.md", b"   \n \n").json()
    job = run_job(shared.ada, accepted["task_id"])
    assert job["state"] == "FAILURE" and job["error"] and job["documents"]["failed"] == 1
    assert job["errors"] == [{"document": "blank.md", "reason": job["error"]}]
    document = send(shared.ada, "get", f"documents/{accepted['id']}").json()
    assert document["status"] == "failed" and document["error"] == job["error"]


def test_the_server_makes_its_own_names(shared: Any) -> None:
    for name in ("../../escape.md", "..\\..\\escape.md", "/etc/escape.md", "C:\\x\\escape.md", "escape.md"):
        before = files_of(shared.acme)
        body = encode_multipart(BOUNDARY, {"file": SimpleUploadedFile("placeholder.md", b"# E\n\nEscape.\n")})
        response = shared.ada.client.generic(
            "POST",
            "/api/v1/documents",
            body.replace(b'filename="placeholder.md"', f'filename="{name}"'.encode()),
            content_type=MULTIPART_CONTENT,
        )
        assert response.status_code == 202, response.content
        (new,) = files_of(shared.acme) - before
        assert "escape" not in new and new.count("/") == 1
        row = send(shared.ada, "get", f"documents/{response.json()['id']}").json()
        assert row["uri"] == "escape.md"
    assert not list(config().documents_root.rglob("*escape*"))


def test_the_original_comes_back_as_a_download(shared: Any) -> None:
    data = b"<html><title>Street</title><body><p>The script <script>alert(1)</script> is inert.</p></html>"
    document = upload_indexed(shared.ada, "Straße 1.html", data, tags=["faq"])
    response = shared.hal.client.get(f"/api/v1/documents/{document}/original")
    assert b"".join(response) == data
    assert response.headers["Content-Type"] == "application/octet-stream"
    disposition = response.headers["Content-Disposition"]
    assert disposition == "attachment; filename*=UTF-8''Stra%C3%9Fe%201.html"
    assert response.headers["X-Content-Type-Options"] == "nosniff" and response.headers["X-Request-ID"]
    check_problem(shared.gus.client.get(f"/api/v1/documents/{document}/original"), 404)


def test_tags_come_from_the_upload_else_from_the_collection_else_admins_alone(shared: Any) -> None:
    for slug, tags in (("tagged", ["faq"]), ("bare", [])):
        made = send(shared.ada, "post", "collections", {"name": slug, "default_tags": tags})
        assert made.status_code == 201

    def tags_of(**form: Any) -> list[str]:
        row = upload(shared.ada, "t.md", b"# T\n\nText.\n", **form).json()
        found: list[str] = send(shared.ada, "get", f"documents/{row['id']}").json()["tags"]
        return found

    assert tags_of(collection="tagged") == ["faq"]
    assert tags_of(collection="tagged", tags=["runbooks", "configs", "runbooks"]) == ["configs", "runbooks"]
    assert tags_of(collection="bare") == tags_of() == []
    untagged = upload_indexed(shared.ada, "secret.md", "# Secret\n\nThe okapi code is 5150.\n")
    for member in (shared.nina, shared.sam, shared.hal, shared.mona):
        check_problem(send(member, "get", f"documents/{untagged}"), 404)
        assert "code is 5150" not in str(send(member, "post", "search", {"question": "okapi code"}).json())
    assert "code is 5150" in str(send(shared.ada, "post", "search", {"question": "okapi code"}).json())
    # Nobody hides a document from themselves, nor marks it for others alone.
    for wrong in ([], ["incident_reports"]):
        problem = check_problem(upload(shared.nina, "t.md", tags=wrong), 400)
        assert problem["errors"][0]["field"] == "tags"
    check_problem(upload(shared.hal, "t.md", tags=["faq"]), 403)
    # Defaults hold for what comes later.
    before = upload_indexed(shared.ada, "early.md", "# Early\n\nText.\n", collection="tagged")
    collection = next(
        c for c in send(shared.ada, "get", "collections").json()["results"] if c["slug"] == "tagged"
    )
    send(shared.ada, "patch", f"collections/{collection['id']}", {"default_tags": ["runbooks"]})
    assert send(shared.ada, "get", f"documents/{before}").json()["tags"] == ["faq"]
    assert tags_of(collection="tagged") == ["runbooks"]


def test_other_tags_hold_from_the_next_search_on(shared: Any) -> None:
    document = upload_indexed(
        shared.ada, "moving.md", "# Moving\n\nThe gnu relay is at 10.9.9.9.\n", tags=["faq"]
    )

    def sees(member: Any) -> bool:
        return "gnu relay" in str(send(member, "post", "search", {"question": "gnu relay"}).json()["sources"])

    assert sees(shared.hal) and not sees(shared.sam)
    send(shared.ada, "patch", f"documents/{document}", {"tags": ["compliance"]})
    assert sees(shared.sam) and not sees(shared.hal)
    send(shared.ada, "delete", f"documents/{document}")
    assert not sees(shared.sam) and not sees(shared.ada)
    send(shared.ada, "post", f"documents/{document}/restore")
    assert sees(shared.sam)


def test_deleted_documents_are_erased_after_thirty_days(shared: Any) -> None:
    from knowledge.models import Chunk, Document
    from knowledge.tasks import erase_deleted_documents
    from tenants.scope import scope

    before = files_of(shared.acme)
    old = upload_indexed(shared.ada, "old.md", "# Old\n\nText.\n")
    young = upload_indexed(shared.ada, "young.md", "# Young\n\nText.\n")
    for document, days in ((old, 31), (young, 29)):
        send(shared.ada, "delete", f"documents/{document}")
        with scope(tenant_id=shared.acme.pk, tags=None):
            Document.objects.filter(pk=document).update(deleted_at=timezone.now() - timedelta(days=days))
    assert len(files_of(shared.acme) - before) == 2
    erase_deleted_documents()
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert not Document.objects.filter(pk=old).exists()
        assert not Chunk.objects.filter(document_id=old).exists()
        assert Document.objects.filter(pk=young).exists()
    assert len(files_of(shared.acme) - before) == 1
    check_problem(send(shared.ada, "post", f"documents/{old}/restore"), 404)
    assert send(shared.ada, "post", f"documents/{young}/restore").status_code == 200
    events = send(shared.ada, "get", f"audit?target_id={old}").json()["results"]
    assert [e["action"] for e in events] == ["document.erase", "document.delete", "document.upload"]


def test_erasing_goes_on_to_the_end_and_leaves_what_was_restored_meanwhile(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowledge import documents
    from knowledge.models import Document
    from tenants.scope import scope

    monkeypatch.setattr(documents, "ERASED_AT_ONCE", 2)
    ids = [upload_indexed(shared.ada, f"{number}.md", f"# {number}\n\nText.\n") for number in range(4)]
    with scope(tenant_id=shared.acme.pk, tags=None):
        for age, document in enumerate(ids):
            documents.delete_document(document=Document.objects.get(pk=document))
            moment = timezone.now() - timedelta(days=40 - age)
            Document.objects.filter(pk=document).update(deleted_at=moment)
        record = documents.record_by

        def restore_second(principal: Any, action: str, target: Any, detail: Any) -> Any:
            if action == "document.erase" and str(target.pk) == ids[0]:
                Document.objects.filter(pk=ids[1]).update(deleted_at=None)
            return record(principal, action, target, detail)

        monkeypatch.setattr(documents, "record_by", restore_second)
        assert documents.erase_deleted(before=timezone.now() - timedelta(days=30)) == 3
        assert [str(pk) for pk in Document.objects.filter(pk__in=ids).values_list("pk", flat=True)] == [
            ids[1]
        ]
    assert shared.ada.client.get(f"/api/v1/documents/{ids[1]}/original").status_code == 200


def test_failed_or_cancelled_new_content_leaves_the_old_whole(shared: Any) -> None:
    """Also when the new file was of another kind."""
    before = files_of(shared.acme)
    document = upload_indexed(shared.ada, "keep.md", "# Keep\n\nThe ibex code is 1.\n", tags=["faq"])
    for cancel in (False, True):
        body = encode_multipart(BOUNDARY, {"file": SimpleUploadedFile("keep.pdf", b"%PDF-1.4 broken")})
        put = shared.ada.client.put(f"/api/v1/documents/{document}", body, content_type=MULTIPART_CONTENT)
        if cancel:
            send(shared.ada, "delete", f"tasks/{put.json()['task_id']}")
        else:
            assert run_job(shared.ada, put.json()["task_id"])["state"] == "FAILURE"
        row = send(shared.hal, "get", f"documents/{document}").json()
        assert row["status"] == "indexed" and row["version"] == 1
        assert "ibex" in send(shared.hal, "get", f"documents/{document}/content").json()["text"]
        original = shared.hal.client.get(f"/api/v1/documents/{document}/original")
        assert b"ibex" in b"".join(original)
        assert original.headers["Content-Disposition"].endswith("keep.md")
    started = send(shared.ada, "post", "reindex", {"document": document}).json()
    assert run_job(shared.ada, started["task_id"])["documents"]["failed"] == 0
    assert len(files_of(shared.acme) - before) == 1, "abandoned files stay on the disk"


def test_a_member_opens_a_document_to_no_readers_but_those_of_their_own_tags(shared: Any) -> None:
    made = upload_indexed(
        shared.ada, "change.md", "# Change\n\nCHG-77.\n", tags=["change_requests", "compliance"]
    )
    path, both = f"documents/{made}", ["change_requests", "compliance"]
    problem = check_problem(send(shared.nina, "patch", path, {"tags": [*both, "faq"]}), 400)
    assert problem["errors"][0]["field"] == "tags" and "not faq" in problem["errors"][0]["detail"]
    check_problem(send(shared.hal, "get", path), 404)
    # Tags of others that are there may stay or be taken away; those that manage may add any.
    assert send(shared.nina, "patch", path, {"tags": [*both, "runbooks"]}).status_code == 200
    assert send(shared.nina, "patch", path, {"tags": ["change_requests"]}).status_code == 200
    check_problem(send(shared.nina, "patch", path, {"tags": both}), 400)
    assert send(shared.ada, "patch", path, {"tags": [*both, "faq"]}).status_code == 200
    assert send(shared.hal, "get", path).status_code == 200
