"""Two at one document: what was prepared from something that is not there any more is never put in its place."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.utils import timezone

from knowledge.documents import change_document, delete_document, restore_document
from knowledge.embedding.factory import embedder
from knowledge.ingestion.index import Original, Outdated, index_document
from knowledge.ingestion.jobs import cancel_job, create_job, start_sync_job
from knowledge.ingestion.run import run_claimed_job
from knowledge.ingestion.storage import list_originals, store_original
from knowledge.models import Chunk, Collection, Document, Job, Source
from tests.knowledge.helpers import upload, upload_indexed
from tests.knowledge.ingestion.syncing import (
    CountingEmbedder,
    documents_of,
    long,
    make_source,
    sources_of_its_own,  # noqa: F401
    sync,
    write,
)
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture(autouse=True)
def fresh_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has texts of its own: those that have vectors already would not reach the embedder."""
    monkeypatch.setitem(WORDS, "of", uuid.uuid4().hex[:8])


WORDS = {"of": ""}


def told(*sections: str) -> str:
    parts = [f"## {name}\n\n{long(name + WORDS['of'])}" for name in sections]
    return "# Guide\n\n" + "\n\n".join(parts) + "\n"


def once(act: Callable[[], Any]) -> Callable[..., None]:
    """Acts when it is called first."""
    left = [act]

    def hook(*_: Any) -> None:
        if left:
            left.pop()()

    return hook


def run(job: Job, meanwhile: Callable[[], Any] = lambda: None) -> Job:
    """Does a job's work; something else happens while its vectors are made."""
    run_claimed_job(job_id=job.pk, embedder=CountingEmbedder(once(meanwhile)))
    job.refresh_from_db()
    return job


def put(shared: Any, document: str, text: str, name: str = "guide.md") -> Job:
    body = encode_multipart(BOUNDARY, {"file": SimpleUploadedFile(name, text.encode())})
    response = shared.ada.client.put(f"/api/v1/documents/{document}", body, content_type=MULTIPART_CONTENT)
    assert response.status_code == 202, response.content
    return Job.objects.get(pk=response.json()["task_id"])


def check_whole(document: str, *sections: str) -> None:
    """Chunks, text and original are those of the same content, and no other file of the document is left."""
    row = Document.objects.get(pk=document)
    chunks = list(Chunk.objects.filter(document=row))
    assert len(chunks) == row.chunk_count > 0 and row.pending_name == row.pending_uri == ""
    assert all(row.text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert [name for name in ("one", "two", "three", "four") if f"## {name}" in row.text] == list(sections)


def original_of(shared: Any, document: str) -> str:
    response = shared.ada.client.get(f"/api/v1/documents/{document}/original")
    assert response.status_code == 200, response.content
    return b"".join(response).decode()


def names_of(shared: Any) -> set[str]:
    return {name for name, _ in list_originals(tenant_id=shared.acme.pk)}


Replaced = tuple[str, Job, set[str]]


@pytest.fixture
def replaced(shared: Any) -> Replaced:
    """A document, the job of its second content, which waits, and the originals that were there before both."""
    before = names_of(shared)
    document = upload_indexed(shared.ada, "guide.md", told("one"))
    return document, put(shared, document, told("two")), before


def test_a_swap_that_was_overtaken_writes_nothing(shared: Any) -> None:
    document = upload_indexed(shared.ada, "guide.md", told("one", "two"))

    def index(*sections: str, **options: Any) -> None:
        row = Document.objects.select_related("collection").get(pk=document)
        data = told(*sections).encode()
        stored = store_original(tenant_id=shared.acme.pk, data=data)
        original = Original(data=data, filename="guide.md", stored_name=stored)
        index_document(document=row, original=original, embedder=embedder(), **options)

    with pytest.raises(Outdated, match="changed while"):
        index("one", "three", on_progress=once(lambda: index("two", "four")))
    check_whole(document, "two", "four")
    index("one", "three")
    check_whole(document, "one", "three")


@pytest.mark.parametrize("when", ["indexed meanwhile", "still waiting"])
def test_the_last_upload_stays_when_two_are_indexed_at_once(
    shared: Any, replaced: Replaced, when: str
) -> None:
    document, second, before = replaced
    later: list[Job] = []

    def meanwhile() -> None:
        later.append(put(shared, document, told("three")))
        if when == "indexed meanwhile":
            assert run(later[0]).state == Job.State.SUCCESS

    assert run(second, meanwhile).state == Job.State.SUCCESS
    check_whole(document, "three")
    assert original_of(shared, document) == told("three")
    run_claimed_job(job_id=later[0].pk, embedder=CountingEmbedder())
    check_whole(document, "three")
    assert len(names_of(shared) - before) == 1


@pytest.mark.parametrize("later", ["cannot be read", "is cancelled"])
def test_new_content_that_comes_to_nothing_leaves_what_was_there(
    shared: Any, replaced: Replaced, later: str
) -> None:
    document, second, before = replaced
    jobs: list[Job] = []

    def meanwhile() -> None:
        if later == "is cancelled":
            cancel_job(job=put(shared, document, told("three")))
        else:
            jobs.append(put(shared, document, "%PDF-1.4 broken", "guide.pdf"))

    run(second, meanwhile)
    for job in jobs:
        assert run(job).state == Job.State.FAILURE
    check_whole(document, "one")
    assert original_of(shared, document) == told("one") and len(names_of(shared) - before) == 1


def test_a_sync_and_another_indexing_of_the_same_document_leave_it_whole(shared: Any, tmp_path: Path) -> None:
    collection = Collection.objects.create(slug="spoken", name="Spoken")
    write(tmp_path / "guide.md", told("one", "two", "three"))
    write(tmp_path / "other.md", told("four"))
    source = make_source(tmp_path, collection=collection)
    sync(source)
    document = documents_of(source)["guide.md"]
    write(tmp_path / "guide.md", told("one", "two", "four"), age=30)
    write(tmp_path / "other.md", told("three"), age=30)

    def index_again() -> None:
        Collection.objects.filter(pk=collection.pk).update(language="german")
        assert run(create_job(kind=Job.Kind.REINDEX, document=document)).state == Job.State.SUCCESS

    job, _ = start_sync_job(source=source)
    job = run(job, index_again)
    assert job.state == Job.State.SUCCESS and (job.changed, job.failed) == (2, 0), job.error
    check_whole(str(document.pk), "one", "two", "four")
    check_whole(str(documents_of(source)["other.md"].pk), "three")
    assert sync(source).unchanged == 2


def test_a_title_that_is_given_meanwhile_stays(shared: Any) -> None:
    document = upload_indexed(shared.ada, "guide.md", told("one"))
    row = Document.objects.get(pk=document)
    run(put(shared, document, told("two")), lambda: change_document(document=row, title="By hand"))
    row.refresh_from_db()
    assert row.title == row.given_title == "By hand"
    check_whole(document, "two")


def test_what_waits_is_indexed_once_its_document_is_restored(shared: Any) -> None:
    response = upload(shared.ada, "guide.md", told("one").encode()).json()
    document = Document.objects.get(pk=response["id"])
    delete_document(document=document)
    run(Job.objects.get(pk=response["task_id"]))
    document.refresh_from_db()
    restore_document(document=document)
    (job,) = Job.objects.filter(document=document, state=Job.State.PENDING)
    assert run(job).state == Job.State.SUCCESS
    check_whole(str(document.pk), "one")
    # Where the job is there still, there is none beside it.
    waiting = put(shared, str(document.pk), told("two"))
    delete_document(document=document)
    document.refresh_from_db()
    restore_document(document=document)
    assert list(Job.objects.filter(document=document, state=Job.State.PENDING)) == [waiting]
    run(waiting)
    check_whole(str(document.pk), "two")


def test_a_change_told_of_as_the_sync_ends_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "guide.md", told("one"))
    source = make_source(tmp_path)
    busy, _ = start_sync_job(source=source)
    Job.objects.filter(pk=busy.pk).update(state=Job.State.PROGRESS)
    rows = type(Job.objects.all())
    update, ended = rows.update, timezone.now()
    end = once(lambda: update(Job.objects.filter(pk=busy.pk), state=Job.State.SUCCESS, finished_at=ended))

    def update_late(self: Any, **values: Any) -> Any:
        if values == {"again": True}:
            end()
        return update(self, **values)

    monkeypatch.setattr(rows, "update", update_late)
    job, is_new = start_sync_job(source=source, follow=True)
    assert is_new and job.pk != busy.pk and job.state == Job.State.PENDING


def test_what_was_found_at_the_old_place_is_not_told_of_the_new(tmp_path: Path) -> None:
    write(tmp_path / "old" / "guide.md", told("one"))
    write(tmp_path / "old" / "bad\u2028name.md", told("two"))
    (tmp_path / "new").mkdir()
    source = make_source(tmp_path / "old")
    job, _ = start_sync_job(source=source)
    rows = Source.objects.filter(pk=source.pk)
    run(job, lambda: rows.update(path=str(tmp_path / "new"), state={}))
    assert rows.get().state == {} and rows.get().last_synced_at is None
