"""A document of which a part could not be read says so, wherever its state is shown."""

from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from tests.knowledge.helpers import run_job, send, upload_indexed
from tests.knowledge.ingestion.test_parse_pdf import PAGE_1, PAGE_2, write_pdf
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast
NOTE = "Page 2 of 3 holds no text and was skipped"


def test_pages_without_text_are_named_in_the_api_and_on_the_pages(shared: Any) -> None:
    partly = upload_indexed(shared.nina, "plan.pdf", write_pdf([PAGE_1, [], PAGE_2]), tags=["configs"])
    row = send(shared.nina, "get", f"documents/{partly}").json()
    assert row["status"] == "indexed" and row["error"] == "" and row["note"].startswith(NOTE)
    pages = {
        "/documents/": "indexed in part",
        f"/documents/{partly}/manage/": "indexed in part",
        f"/documents/{partly}/": NOTE,
        "/upload/": NOTE,
    }
    for address, words in pages.items():
        page = shared.nina.client.get(address)
        assert page.status_code == 200, address
        assert NOTE in page.content.decode() and words in page.content.decode(), address
    # New content that is read whole takes it away.
    whole = write_pdf([PAGE_1, PAGE_2])
    body = encode_multipart(BOUNDARY, {"file": SimpleUploadedFile("plan.pdf", whole)})
    accepted = shared.nina.client.put(f"/api/v1/documents/{partly}", body, content_type=MULTIPART_CONTENT)
    run_job(shared.nina, accepted.json()["task_id"])
    assert send(shared.nina, "get", f"documents/{partly}").json()["note"] == ""
    assert "indexed in part" not in shared.nina.client.get("/documents/").content.decode()
