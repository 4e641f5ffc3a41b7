"""One sync of a source at a time, everybody's turn, and an end within two seconds when somebody says so."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import IntegrityError, connections, transaction

from knowledge.ingestion import index
from knowledge.ingestion.jobs import cancel_job, create_job, retry_job, start_sync_job
from knowledge.ingestion.queue import next_job, queue_depths
from knowledge.ingestion.run import run_claimed_job, serve_next_job
from knowledge.ingestion.sources.folder import FolderConnector
from knowledge.models import Chunk, Collection, Document, Job
from knowledge.sources import start_sync
from ragsite.core.problems import Problem
from tenants.scope import scope
from tests.knowledge.helpers import eventually, send, upload
from tests.knowledge.ingestion.syncing import CountingEmbedder, documents_of, make_source, sync, write
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture(autouse=True)
def inside(shared: Any) -> Iterator[None]:
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield
    for tenant in (shared.acme, shared.globex):
        with scope(tenant_id=tenant.pk, tags=None):
            Job.objects.filter(state__in=["PENDING", "PROGRESS"]).update(state="CANCELLED")


def many(folder: Path, number: int, *, about: str = "document") -> Path:
    """Documents; of those about the same the vectors may be there already."""
    for n in range(number):
        write(folder / f"{n:03}.md", f"# Document {n}\n\nThe text of {about} {n}.\n")
    return folder


def in_threads(number: int, call: Callable[[], Any]) -> list[Any]:
    results: list[Any] = []
    gate = threading.Barrier(number)

    def work() -> None:
        try:
            gate.wait()
            results.append(call())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_fifty_starts_at_once_make_one_sync(tmp_path: Path, shared: Any) -> None:
    source = make_source(many(tmp_path, 1))

    def begin() -> Any:
        with scope(tenant_id=shared.acme.pk, tags=None):
            return start_sync(source=source).pk

    started = in_threads(50, begin)
    assert len(started) == 50 and len(set(started)) == 1
    assert Job.objects.filter(source=source).count() == 1
    # The database itself says so.
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.create(kind="sync", source=source)
    job = Job.objects.get(source=source)
    run_claimed_job(job_id=job.pk, embedder=CountingEmbedder())
    again = retry_job(job=Job.objects.get(pk=job.pk))
    with pytest.raises(Problem):
        retry_job(job=Job.objects.get(pk=job.pk))
    assert start_sync(source=source) == again


def test_what_changes_during_a_sync_is_looked_at_after_it(tmp_path: Path) -> None:
    source = make_source(many(tmp_path, 2))
    again: list[Job] = []

    def push() -> None:
        again.append(start_sync_job(source=source, follow=True)[0])

    job = sync(source, CountingEmbedder(before_batch=push))
    assert again == [job] and job.state == "SUCCESS"
    follower = Job.objects.get(source=source, state="PENDING")
    assert follower != job


def test_a_large_tenant_gives_way_to_a_small_one(
    tmp_path: Path, shared: Any, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowledge.ingestion import queue
    from knowledge.ingestion import sync as syncing

    configure(RAGSITE_INGEST_TURN_SECONDS="0.3")
    monkeypatch.setattr(queue, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(syncing, "BATCH_DOCUMENTS", 5)
    large = make_source(many(tmp_path / "large", 60))
    job, _ = start_sync_job(source=large)
    waiting: list[float] = []
    order: list[str] = []
    uploaded: list[Any] = []

    def busy() -> None:
        """Each batch of the large tenant takes a while; meanwhile the small one comes."""
        time.sleep(0.1)
        order.append("batch")
        if not uploaded:
            uploaded.append(upload(shared.gus, "small.md", b"# Small\n\nSmall.\n", tags=["runbooks"]).json())
            waiting.append(time.monotonic())

    slow, turns = CountingEmbedder(before_batch=busy), 0
    # One worker: it takes up whatever is its turn, until nothing waits.
    while next_job() is not None:
        turns += 1
        assert turns < 60
        serve_next_job(embedder=slow)
        with scope(tenant_id=shared.globex.pk, tags=None):
            small = Job.objects.get(pk=uploaded[0]["task_id"])
        if small.state == "SUCCESS" and len(waiting) == 1:
            waiting.append(time.monotonic())
            order.append("small")
    assert order.count("batch") >= 12 and order.index("small") <= 8, order
    job.refresh_from_db()
    assert job.state == "SUCCESS" and turns >= 3
    # It was interrupted, and tells of its work as one.
    assert (job.seen, job.changed, job.unchanged, job.chunks_added) == (60, 60, 0, 60)
    assert job.result["totals"] == {"added": 60} and job.attempts == 1


class Clock:
    """The time that turns go by; it passes where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("kind", ["sync", "reindex"])
def test_a_job_that_nobody_waits_for_ends_its_turn_before_the_worker_would(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowledge.ingestion import queue
    from knowledge.ingestion import sync as syncing

    clock = Clock()
    monkeypatch.setattr(queue, "time", clock)
    monkeypatch.setattr(syncing, "BATCH_DOCUMENTS", 1)
    source = make_source(many(tmp_path, 5, about=f"a lone {kind}"))
    if kind == "sync":
        job, _ = start_sync_job(source=source)
    else:
        sync(source)
        job = create_job(kind="reindex", source=source)
        Document.objects.filter(source=source).update(given_title="Another")
    turns = 0
    # Each document takes half of what a worker has for a task.
    while next_job() is not None:
        turns += 1
        assert turns <= 5
        begun = clock.now
        serve_next_job(embedder=CountingEmbedder(before_batch=lambda: clock.passes(1700)))
        assert clock.now - begun <= 3500
    job.refresh_from_db()
    assert (job.state, job.error, job.attempts) == ("SUCCESS", "", 1) and turns >= 2
    assert (job.seen, job.changed, job.failed) == (5, 5, 0)


def test_listing_that_took_nearly_all_of_the_time_is_followed_by_some_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowledge.ingestion import queue

    clock = Clock()
    monkeypatch.setattr(queue, "time", clock)
    listing = FolderConnector.list_items

    def crawl(connector: Any) -> Any:
        clock.passes(3250)
        return listing(connector)

    monkeypatch.setattr(FolderConnector, "list_items", crawl)
    job, _ = start_sync_job(source=make_source(many(tmp_path, 2)))
    serve_next_job(embedder=CountingEmbedder())
    job.refresh_from_db()
    assert job.state == "SUCCESS" and job.changed == 2


def test_what_is_listed_is_counted_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from knowledge.ingestion import job_run, reading

    source = make_source(many(tmp_path, 4))
    write(tmp_path / "000.png", "a picture")
    monkeypatch.setattr(reading, "LISTED_SECONDS", 0.0)
    monkeypatch.setattr(job_run, "WRITE_SECONDS", 0.0)
    listing, told = FolderConnector.list_items, []

    def watched(connector: Any) -> Any:
        for item in listing(connector):
            row = Job.objects.get(pk=job.pk)
            told.append((row.step, row.seen, row.skipped))
            yield item

    monkeypatch.setattr(FolderConnector, "list_items", watched)
    job, _ = start_sync_job(source=source)
    run_claimed_job(job_id=job.pk, embedder=CountingEmbedder())
    assert told == [("listing", seen, skipped) for seen, skipped in ((0, 0), (1, 0), (1, 1), (2, 1), (3, 1))]
    job.refresh_from_db()
    assert (job.state, job.seen, job.changed, job.skipped) == ("SUCCESS", 4, 4, 1)


def test_the_workers_own_limit_is_no_failure_unless_nothing_gets_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowledge.ingestion import sync as syncing

    monkeypatch.setattr(syncing, "BATCH_DOCUMENTS", 1)
    good = iter([True, False])

    def reach_the_limit() -> None:
        if not next(good, False):
            raise SoftTimeLimitExceeded

    def serve() -> Job:
        serve_next_job(embedder=CountingEmbedder(before_batch=reach_the_limit))
        job.refresh_from_db()
        return job

    source = make_source(many(tmp_path, 3, about="a limit"))
    job, _ = start_sync_job(source=source)
    # One document was done: that does not count against the job.
    assert (serve().state, job.attempts, job.changed, job.error) == ("PENDING", 0, 1, "")
    # Three times in vain.
    assert (serve().state, job.attempts) == ("PENDING", 1)
    assert (serve().state, job.attempts) == ("PENDING", 2)
    assert serve().state == "FAILURE" and job.error.startswith("It did not get further")
    assert list(documents_of(source)) == ["000.md"]
    assert sync(source).changed == 2


def test_small_before_large_and_who_was_served_longest_ago(tmp_path: Path, shared: Any) -> None:
    source = make_source(many(tmp_path, 1))
    bulk = create_job(kind="reindex", collection=source.collection)
    later, _ = start_sync_job(source=source)
    document = upload(shared.ada, "urgent.md", b"# Urgent\n\nUrgent.\n", tags=["faq"]).json()
    assert queue_depths() == {"documents": 1, "bulk": 2}
    assert str(next_job()[1]) == document["task_id"], "one document goes before many"
    with scope(tenant_id=shared.globex.pk, tags=None):
        theirs = create_job(kind="reindex", collection=Collection.objects.get(slug="handbook"))
    run_claimed_job(job_id=document["task_id"], embedder=CountingEmbedder())
    assert next_job() == (shared.globex.pk, theirs.pk), "their tenant was served longer ago"
    with scope(tenant_id=shared.globex.pk, tags=None):
        run_claimed_job(job_id=theirs.pk, embedder=CountingEmbedder())
    assert next_job() == (shared.acme.pk, bulk.pk)
    assert later.state == "PENDING"


class Slow:
    """Stands still in one step of a sync until somebody cancels, and longer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self._patch = monkeypatch

    def stand(self) -> None:
        self.reached.set()
        time.sleep(6)

    def listing(self) -> CountingEmbedder:
        real = FolderConnector.list_items

        def call(connector: Any) -> Any:
            for item in real(connector):
                yield item
                self.stand()

        self._patch.setattr(FolderConnector, "list_items", call)
        return CountingEmbedder()

    def fetching(self) -> CountingEmbedder:
        real = FolderConnector.fetch

        def call(connector: Any, item: Any) -> Any:
            self.stand()
            return real(connector, item)

        self._patch.setattr(FolderConnector, "fetch", call)
        return CountingEmbedder()

    def cutting(self) -> CountingEmbedder:
        class Counting(CountingEmbedder):
            def count_tokens(inner, text: str) -> int:
                self.reached.set()
                time.sleep(0.05)
                return super().count_tokens(text)

        return Counting()

    def embedding(self) -> CountingEmbedder:
        return CountingEmbedder(before_batch=self.stand)

    def swapping(self) -> CountingEmbedder:
        real = index.Chunk.objects.bulk_create

        def call(chunks: Any) -> Any:
            self.reached.set()
            time.sleep(0.5)
            return real(chunks)

        self._patch.setattr(index, "INSERT_BATCH", 5)
        self._patch.setattr(index.Chunk.objects, "bulk_create", call)
        return CountingEmbedder()


@pytest.mark.parametrize("step", ["listing", "fetching", "cutting", "embedding", "swapping"])
def test_cancelled_within_two_seconds(
    step: str, tmp_path: Path, shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        text = "\n\n".join(
            f"## Part {m}\n\n" + f"Part {m} of {n} speaks of many different things. " * 20 for m in range(30)
        )
        write(tmp_path / f"{n}.md", f"# {n}\n\n{text}\n")
    source = make_source(tmp_path)
    slow = Slow(monkeypatch)
    embedder = getattr(slow, step)()
    job, _ = start_sync_job(source=source)

    def work() -> None:
        try:
            with scope(tenant_id=shared.acme.pk, tags=None):
                run_claimed_job(job_id=job.pk, embedder=embedder)
        finally:
            connections.close_all()

    worker = threading.Thread(target=work)
    worker.start()
    assert slow.reached.wait(30)
    asked = time.monotonic()
    cancel_job(job=Job.objects.get(pk=job.pk))
    worker.join(20)
    seconds = time.monotonic() - asked
    job.refresh_from_db()
    assert job.state == "CANCELLED" and job.progress < 100
    assert seconds <= 2.0, f"{step}: {seconds:.1f} s"
    assert not Chunk.objects.filter(document__source=source).exists()


def test_the_counts_add_up_whenever_somebody_looks(tmp_path: Path, shared: Any) -> None:
    many(tmp_path, 30)
    source = make_source(tmp_path)
    sync(source)
    for n in range(0, 30, 3):
        write(tmp_path / f"{n:03}.md", f"# Document {n}\n\nAnother text of document {n}.\n")
    write(tmp_path / "bad.pdf", "no pdf")
    job, _ = start_sync_job(source=source)
    seen: list[Any] = []
    over = threading.Event()

    def look() -> None:
        try:
            with scope(tenant_id=shared.acme.pk, tags=None):
                while not over.is_set():
                    seen.append(Job.objects.get(pk=job.pk))
                    time.sleep(0.02)
        finally:
            connections.close_all()

    thread = threading.Thread(target=look)
    thread.start()
    run_claimed_job(job_id=job.pk, embedder=CountingEmbedder(before_batch=lambda: time.sleep(0.3)))
    eventually(lambda: seen and seen[-1].state == "SUCCESS", 10)
    over.set()
    thread.join()
    for row in seen:
        done = row.changed + row.unchanged + row.failed
        assert done <= row.seen or row.seen == 0
        assert row.progress < 100 or row.state == "SUCCESS"
        if row.seen and row.state == "PROGRESS":
            assert row.progress <= 100 * done / row.seen + 1
    last = seen[-1]
    assert (last.seen, last.changed, last.unchanged, last.failed, last.progress) == (31, 10, 20, 1, 100)
    assert len(documents_of(source)) == 30
    told = send(shared.ada, "get", f"tasks/{job.pk}").json()
    assert told["result"]["totals"] == {"changed": 10, "failed": 1}
    assert told["result"]["changes"]["failed"] == ["bad.pdf"]
    assert Document.objects.filter(source=source, deleted_at__isnull=False).count() == 0
