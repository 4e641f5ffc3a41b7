"""The upload page."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from knowledge.embedding.sentence_transformers import embedder
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Document, Job
from tenants.scope import scope
from tests.cast import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def signed_in(username: str) -> Client:
    client = Client()
    assert client.login(username=username, password=PASSWORD)
    return client


def test_a_document_is_uploaded_and_followed(cast: Any) -> None:
    nina = signed_in("nina")
    page = nina.get("/upload/")
    assert page.status_code == 200
    assert "runbooks" in page.content.decode() and "incident_reports" not in page.content.decode()
    file = SimpleUploadedFile("spare-parts.md", b"# Spare parts\n\nThe optics are in locker 12.\n")
    response = nina.post("/upload/", {"file": file, "collection": "handbook", "tags": ["runbooks"]})
    assert (response.status_code, response.headers["Location"]) == (302, "/upload/")
    assert "spare-parts" in nina.get("/upload/").content.decode()
    with scope(tenant_id=cast.acme.pk, tags=None):
        document = Document.objects.get(uri="spare-parts.md")
        assert document.tags == ["runbooks"] and document.collection == cast.collections["acme"]
        run_claimed_job(job_id=str(Job.objects.get(document=document).pk), embedder=embedder())
    page = nina.get("/upload/").content.decode()
    assert "can be asked about" in page and f"/documents/{document.pk}/" in page
    assert "spare-parts" not in signed_in("ada").get("/upload/").content.decode()  # her own uploads alone


def test_what_cannot_be_taken_is_said_and_nothing_is_stored(cast: Any) -> None:
    nina = signed_in("nina")
    for form, words in (
        ({}, "Choose a file"),
        ({"file": SimpleUploadedFile("a.exe", b"MZ"), "tags": ["runbooks"]}, ".exe"),
        ({"file": SimpleUploadedFile("a.md", b"x"), "tags": ["incident_reports"]}, "your role reads"),
        ({"file": SimpleUploadedFile("a.md", b"x")}, "your role reads"),
    ):
        response = nina.post("/upload/", form)
        assert 400 <= response.status_code < 500
        assert words in response.content.decode(), (form, response.content.decode()[:3000])
    foreign = {"file": SimpleUploadedFile("a.md", b"x"), "collection": str(cast.collections["globex"].pk)}
    assert nina.post("/upload/", foreign).status_code == 404
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert Document.objects.count() == 5
    assert signed_in("hal").get("/upload/").status_code == 403
    assert Client().get("/upload/").status_code == 302
