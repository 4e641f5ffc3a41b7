"""What fails for the moment is tried again, what fails for good is kept with its reason until it succeeds."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.urls import reverse
from django.utils import timezone

from knowledge.ingestion.jobs import MAX_BULK_ATTEMPTS, claim_job, find_abandoned_jobs, start_sync_job
from knowledge.ingestion.run import run_claimed_job, serve_next_job
from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.folder import FolderConnector
from knowledge.models import DeadLetter, Document, Job
from knowledge.tasks import recover_jobs
from ragsite.core.observability import request_context
from tenants.scope import scope
from tests.knowledge.helpers import upload
from tests.knowledge.ingestion.syncing import CountingEmbedder, documents_of, make_source, sync, write
from tests.knowledge.rows import signed_in
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture(autouse=True)
def inside(shared: Any) -> Iterator[None]:
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield
        Job.objects.filter(state__in=["PENDING", "PROGRESS"]).update(state="CANCELLED")


def raising(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, *, times: int, uri: str = ""
) -> None:
    """The connector fails so many times before it does its work."""
    real, left = getattr(FolderConnector, name), [times]

    def call(self: Any, *arguments: Any) -> Any:
        if left[0] and (not uri or arguments[0].uri == uri):
            left[0] -= 1
            raise error
        return real(self, *arguments)

    monkeypatch.setattr(FolderConnector, name, call)


def test_files_of_kinds_that_are_not_read_are_counted_and_no_failures(tmp_path: Path, shared: Any) -> None:
    for n in range(210):
        write(tmp_path / f"a{n}.png", "no text")
    write(tmp_path / "film.mp4", "no text")
    write(tmp_path / "tool.exe", "of a kind that is not read")
    write(tmp_path / "good.md", "# Good\n\nText.\n")
    write(tmp_path / "zz.pdf", "no pdf at all")
    source = make_source(tmp_path)
    for _ in range(2):
        job = sync(source)
        assert (job.state, job.seen, job.failed, job.skipped) == ("SUCCESS", 3, 2, 211)
        assert {error["document"] for error in job.errors} == {"tool.exe", "zz.pdf"}
        assert job.result["totals"]["skipped"] == 211 and len(job.result["changes"]["skipped"]) == 200
        letters = DeadLetter.objects.filter(source=source).order_by("uri")
        assert list(letters.values_list("uri", flat=True)) == ["tool.exe", "zz.pdf"]
    source.refresh_from_db()
    assert source.last_run["documents"] == {
        "seen": 3, "changed": 0, "unchanged": 1, "deleted": 0, "failed": 2, "skipped": 211
    }  # fmt: skip
    for page in (
        reverse("job-page", args=[job.pk]),
        reverse("jobs"),
        reverse("source-page", args=[source.pk]),
    ):
        told = shared.ada.client.get(page).content.decode()
        assert "211" in told and "kipped" in told, page


def test_a_source_that_is_away_is_tried_three_times_later_and_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.md", "# A\n\nText.\n")
    source = make_source(tmp_path)
    raising(monkeypatch, "list_items", SourceError("The server is away.", permanent=False), times=99)
    job, _ = start_sync_job(source=source)
    waits = []
    for _try in range(3):
        with request_context("11111111-2222-3333-4444-555555555555"):
            assert run_claimed_job(job_id=job.pk, embedder=CountingEmbedder())
        job.refresh_from_db()
        if job.state == "PENDING":
            waits.append((job.not_before - timezone.now()).total_seconds())
            serve_next_job(embedder=CountingEmbedder())
            job.refresh_from_db()
            assert job.state == "PENDING", "nobody takes it up before its time"
            assert (source.tenant_id, job.pk) not in find_abandoned_jobs()
            later = job.not_before + timedelta(seconds=1)
            assert (source.tenant_id, job.pk) in find_abandoned_jobs(now=later)
    assert 50 <= waits[0] <= 67 and 105 <= waits[1] <= 133 and len(waits) == 2
    assert job.state == "FAILURE" and job.error == "The server is away." and job.attempts == 3
    letter = DeadLetter.objects.get(source=source)
    assert (letter.uri, letter.reason, letter.attempts) == ("", "The server is away.", 3)
    assert letter.trace_id == "11111111-2222-3333-4444-555555555555" and letter.job == job
    monkeypatch.undo()
    assert sync(source).state == "SUCCESS"
    assert not DeadLetter.objects.filter(source=source).exists()
    source.refresh_from_db()
    assert source.last_run["state"] == "SUCCESS" and source.last_run["documents"]["changed"] == 1


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), SourceError("Busy.", permanent=False)])
def test_a_document_that_fails_for_the_moment_is_read_again_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.md", f"# {name}\n\nText of {name}.\n")
    source = make_source(tmp_path)
    raising(monkeypatch, "fetch", error, times=1, uri="a.md")
    job = sync(source)
    assert (job.state, job.changed, job.failed) == ("SUCCESS", 3, 0)
    monkeypatch.undo()
    write(tmp_path / "b.md", "# b\n\nOther text.\n")
    raising(monkeypatch, "fetch", error, times=2, uri="b.md")
    job = sync(source)
    assert (job.state, job.unchanged, job.failed) == ("SUCCESS", 2, 1)
    letter = DeadLetter.objects.get(source=source, uri="b.md")
    assert letter.attempts == 2 and not letter.permanent
    assert "Text of b" in documents_of(source)["b.md"].text, "what was indexed goes on answering"
    assert sync(source).changed == 1 and not DeadLetter.objects.filter(source=source).exists()


def test_a_database_that_was_away_costs_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.md", "# A\n\nText.\n")
    source = make_source(tmp_path)
    raising(monkeypatch, "list_items", OperationalError("server closed the connection"), times=1)
    job = sync(source)
    assert job.state == "PENDING" and (job.not_before - timezone.now()).total_seconds() < 5
    Job.objects.filter(pk=job.pk).update(not_before=timezone.now())
    recover_jobs()
    serve_next_job(embedder=CountingEmbedder())
    job.refresh_from_db()
    assert job.state == "SUCCESS" and job.changed == 1


def test_what_cannot_be_read_is_kept_and_not_fetched_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Any
) -> None:
    from knowledge.ingestion.sources import folder as folders

    monkeypatch.setattr(folders, "RACY_SECONDS", -3600.0)
    write(tmp_path / "bad.pdf", "no pdf at all")
    write(tmp_path / "good.md", "# Good\n\nText.\n")
    source = make_source(tmp_path)
    fetched: list[str] = []
    real = FolderConnector.fetch
    monkeypatch.setattr(
        FolderConnector, "fetch", lambda self, item: fetched.append(item.uri) or real(self, item)
    )
    first = sync(source)
    again = sync(source)
    assert (first.failed, again.failed, again.unchanged) == (1, 1, 1) and again.errors == first.errors
    assert fetched == ["bad.pdf", "good.md"]
    letter = DeadLetter.objects.get(source=source)
    assert letter.uri == "bad.pdf" and "not a PDF" in letter.reason and letter.attempts == 1

    # In the admin, with “retry”: one sync for as many as are ticked.
    client = signed_in("ada")
    page = client.get(reverse("admin:knowledge_deadletter_changelist"))
    assert page.status_code == 200 and "bad.pdf" in page.content.decode()
    form = {"action": "retry", "_selected_action": [str(letter.pk)]}
    response = client.post(reverse("admin:knowledge_deadletter_changelist"), form, follow=True)
    assert "1 job started." in response.content.decode()
    job = Job.objects.get(source=source, state="PENDING")
    run_claimed_job(job_id=job.pk, embedder=CountingEmbedder())
    assert fetched.count("bad.pdf") == 2
    letter.refresh_from_db()
    assert letter.attempts == 2
    (tmp_path / "bad.pdf").unlink()
    write(tmp_path / "bad.md", "# Not bad\n\nText.\n")
    assert sync(source).failed == 0 and not DeadLetter.objects.filter(source=source).exists()


def test_an_upload_that_fails_is_kept_too_and_retried_there(shared: Any) -> None:
    from knowledge.ingestion.dead_letters import retry_letters

    response = upload(shared.ada, "blank.md", b"\n \n\n", tags=["faq"])
    task = response.json()["task_id"]
    run_claimed_job(job_id=task, embedder=CountingEmbedder())
    letter = DeadLetter.objects.get(document_id=response.json()["id"])
    assert letter.job_id and str(letter.job_id) == task and letter.reason
    (job,) = retry_letters(letters=[letter])
    assert job.kind == "document" and job.document_id == letter.document_id


def test_a_document_that_kills_its_worker_is_passed_over(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.md", f"# {name}\n\nFatal text of {name}.\n")
    source = make_source(tmp_path)
    job, _ = start_sync_job(source=source)

    class Dead(BaseException):
        """As abrupt as a kill, as far as one process can play it."""

    class Killing(CountingEmbedder):
        def embed(self, texts: Any) -> Any:
            if any("Fatal text of b" in text for text in texts):
                raise Dead
            return super().embed(texts)

    deaths = 0
    for _attempt in range(MAX_BULK_ATTEMPTS):
        try:
            run_claimed_job(job_id=job.pk, embedder=Killing())
        except Dead:
            stale = timezone.now() - timedelta(minutes=1)
            Job.objects.filter(pk=job.pk).update(heartbeat_at=stale)
            deaths += 1
        else:
            break
    job.refresh_from_db()
    assert deaths == 4 and job.state == "SUCCESS" and (job.changed, job.failed) == (2, 1)
    assert job.seen == job.changed + job.unchanged + job.failed
    assert set(documents_of(source)) >= {"a.md", "c.md"}
    assert DeadLetter.objects.get(source=source).uri == "b.md"


def test_a_job_whose_workers_die_anyway_is_given_up_and_kept(shared: Any) -> None:
    response = upload(shared.ada, "fatal.md", b"# Fatal\n\nText.\n", tags=["faq"]).json()
    for _attempt in range(3):
        with claim_job(job_id=response["task_id"]) as run:
            assert run is not None
        stale = timezone.now() - timedelta(minutes=1)
        Job.objects.filter(pk=response["task_id"]).update(heartbeat_at=stale)
    recover_jobs()
    letter = DeadLetter.objects.get(document_id=response["id"])
    assert "3 times" in letter.reason and letter.attempts == 3
    assert Document.objects.get(pk=response["id"]).status == "failed"
