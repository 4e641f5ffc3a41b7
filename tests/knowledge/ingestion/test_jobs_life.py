"""A job's life: claimed once, reported, cancelled, taken over, given up."""

import json
import threading
import uuid
from base64 import b64decode
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from knowledge.embedding.factory import embedder
from knowledge.ingestion import jobs
from knowledge.ingestion.jobs import JobLost, claim_job, find_abandoned_jobs, retry_job
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Chunk, Document, Embedding, Job
from knowledge.tasks import recover_jobs
from ragsite.core.problems import Problem
from tenants.scope import scope
from tests.knowledge.helpers import run_job, send, upload
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast
LONG = "# Long\n\n" + "\n\n".join(
    f"## Part {n}\n\n" + f"Sentence of part {n} about switches and routers. " * 5 for n in range(70)
)


@pytest.fixture
def inside(shared: Any) -> Any:
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield


class Watched:
    """The real embedder, and something that happens after each batch."""

    def __init__(self, after: Any) -> None:
        self._inner, self._after, self.batches = embedder(), after, 0
        self.name, self.dimensions, self.count_tokens = (
            self._inner.name,
            self._inner.dimensions,
            self._inner.count_tokens,
        )

    def embed(self, texts: Any) -> Any:
        vectors = self._inner.embed(texts)
        self.batches += 1
        self._after(self.batches)
        return vectors


def start(shared: Any, text: str = "# Note\n\nA line.\n", salt: str = "") -> Any:
    # Its own words each time: vectors of texts that were there before are found, and nothing is embedded.
    salted = text.replace("#", f"# {salt or uuid.uuid4().hex}", 1)
    return upload(shared.ada, "job.md", salted.encode(), tags=["faq"]).json()


def make_stale(job_id: str) -> None:
    Job.objects.filter(pk=job_id).update(heartbeat_at=timezone.now() - timedelta(minutes=1))


def test_of_two_workers_one_wins(shared: Any, inside: None) -> None:
    task = start(shared)["task_id"]
    gate, won = threading.Barrier(6), []

    def work() -> None:
        try:
            with scope(tenant_id=shared.acme.pk, tags=None):
                gate.wait()
                with claim_job(job_id=task) as run:
                    won.append(run is not None)
                    gate.wait()  # nobody leaves before all have tried
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 5 + [True]
    assert Job.objects.get(pk=task).attempts == 1


def test_progress_is_told_while_it_works_and_a_running_job_can_be_cancelled(
    shared: Any, inside: None
) -> None:
    accepted = start(shared, LONG)
    path = f"tasks/{accepted['task_id']}"
    seen: list[dict[str, Any]] = []

    def look(batch: int) -> None:
        seen.append(send(shared.ada, "get", path).json())
        if batch == 2:
            assert send(shared.ada, "delete", path).json()["state"] == "PROGRESS"

    watched = Watched(look)
    run_claimed_job(job_id=accepted["task_id"], embedder=watched)
    assert watched.batches == 2, "it went on after it was cancelled"
    assert [job["state"] for job in seen] == ["PROGRESS"] * 2
    assert seen[0]["step"] and 0 < seen[0]["progress"] < seen[1]["progress"] < 100
    ended = send(shared.ada, "get", path).json()
    assert ended["state"] == "CANCELLED" and ended["finished_at"]
    document = send(shared.ada, "get", f"documents/{accepted['id']}").json()
    assert document["status"] == "failed" and "cancelled" in document["error"]
    assert not Chunk.objects.filter(document_id=accepted["id"]).exists()

    # The same work again, as a new job.
    again = retry_job(job=Job.objects.get(pk=accepted["task_id"]))
    with pytest.raises(Problem):
        retry_job(job=again)
    assert run_job(shared.ada, str(again.pk))["state"] == "SUCCESS"
    assert send(shared.ada, "get", f"documents/{accepted['id']}").json()["status"] == "indexed"


def test_a_waiting_job_is_cancelled_at_once(shared: Any, inside: None) -> None:
    accepted = start(shared)
    assert send(shared.ada, "delete", f"tasks/{accepted['task_id']}").json()["state"] == "CANCELLED"
    assert run_job(shared.ada, accepted["task_id"])["state"] == "CANCELLED"
    assert not Chunk.objects.filter(document_id=accepted["id"]).exists()


def test_a_successor_of_a_dead_worker_leaves_one_set_of_chunks(
    shared: Any, inside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    salt = uuid.uuid4().hex
    accepted = start(shared, LONG, salt)
    task = accepted["task_id"]
    keep, batches = Embedding.objects.bulk_create, iter(range(1, 1000))

    def hang_and_be_taken_over(*args: Any, **options: Any) -> Any:
        kept = keep(*args, **options)
        if next(batches) == 2:
            make_stale(task)
            assert (shared.acme.pk, Job.objects.get(pk=task).pk) in find_abandoned_jobs()
            assert run_job(shared.ada, task)["state"] == "SUCCESS"
        return kept

    monkeypatch.setattr(Embedding.objects, "bulk_create", hang_and_be_taken_over)
    # The first worker was not dead, only slow: it comes to its end after its successor, and may write nothing.
    run_claimed_job(job_id=task, embedder=embedder())
    job = Job.objects.get(pk=task)
    assert (job.state, job.attempts) == ("SUCCESS", 2)
    reference = start(shared, LONG, salt)
    run_job(shared.ada, reference["task_id"])

    def chunks(document: str) -> list[tuple[Any, ...]]:
        rows = Chunk.objects.filter(document_id=document).order_by("ordinal")
        return list(rows.values_list("ordinal", "start", "end", "content_hash"))

    assert chunks(accepted["id"]) == chunks(reference["id"]) and chunks(accepted["id"])
    assert Document.objects.get(pk=accepted["id"]).version == 1


def test_after_three_deaths_a_job_is_given_up(shared: Any, inside: None, settings: Any) -> None:
    accepted = start(shared)
    task = accepted["task_id"]
    for attempt in range(3):
        with claim_job(job_id=task) as run:
            assert run is not None, attempt
        make_stale(task)
    with claim_job(job_id=task) as run:
        assert run is None
    recover_jobs()
    ended = send(shared.ada, "get", f"tasks/{task}").json()
    assert ended["state"] == "FAILURE" and "3 times" in ended["error"]
    document = send(shared.ada, "get", f"documents/{accepted['id']}").json()
    assert document["status"] == "failed" and document["error"] == ended["error"]


def test_a_lost_message_is_sent_again(shared: Any, inside: None) -> None:
    from django_redis import get_redis_connection

    redis = get_redis_connection("default")
    task = start(shared)["task_id"]
    redis.flushdb()

    def messages() -> int:
        bodies = [b64decode(json.loads(m)["body"]).decode() for m in redis.lrange("celery", 0, -1)]
        return sum(task in body for body in bodies)

    recover_jobs()
    assert messages() == 0, "a young job has its message still"
    old = timezone.now() - jobs.UNSTARTED_AFTER - timedelta(seconds=1)
    Job.objects.filter(pk=task).update(created_at=old)
    recover_jobs()
    assert messages() == 1
    recover_jobs()
    assert messages() == 1
    assert run_job(shared.ada, task)["state"] == "SUCCESS"


def test_who_has_lost_a_job_may_not_report(shared: Any, inside: None) -> None:
    task = start(shared)["task_id"]
    with claim_job(job_id=task) as first:
        assert first is not None
        first.report(step="reading", progress=150)
        assert Job.objects.get(pk=task).progress == 99
        make_stale(task)
        with claim_job(job_id=task) as second:
            assert second is not None
            first.report(changed=1)
            for call in (first.write, lambda: first.check(now=True)):
                with pytest.raises(JobLost):
                    call()
            first.finish(state="SUCCESS")
            assert Job.objects.get(pk=task).state == "PROGRESS"
            second.finish(state="SUCCESS")
    assert Job.objects.get(pk=task).state == "SUCCESS"


def test_an_internal_error_is_told_and_raised(shared: Any, inside: None) -> None:
    task = start(shared)["task_id"]

    def explode(_: int) -> None:
        raise ZeroDivisionError("the secret detail")

    with pytest.raises(ZeroDivisionError):
        run_claimed_job(job_id=task, embedder=Watched(explode))
    ended = send(shared.ada, "get", f"tasks/{task}").json()
    assert ended["state"] == "FAILURE" and "ZeroDivisionError" in ended["error"]
    assert "secret" not in str(ended)


def test_a_document_deleted_meanwhile_stays_deleted(shared: Any, inside: None) -> None:
    accepted = start(shared, LONG)

    def delete(batch: int) -> None:
        if batch == 1:
            send(shared.ada, "delete", f"documents/{accepted['id']}")

    run_claimed_job(job_id=accepted["task_id"], embedder=Watched(delete))
    assert send(shared.ada, "get", f"documents/{accepted['id']}").status_code == 404
    found = send(shared.ada, "post", "search", {"question": "switches and routers of part 7", "k": 20})
    assert accepted["id"] not in {s["document_id"] for s in found.json()["sources"]}
