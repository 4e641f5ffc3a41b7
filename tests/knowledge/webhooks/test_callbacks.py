"""Callbacks: sent when a job has ended, signed, tried again, and never lost on the way."""

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone
from standardwebhooks.webhooks import Webhook

from knowledge.ingestion.jobs import cancel_job, create_job
from knowledge.models import Job, Source
from knowledge.tasks import run_job, send_callback, send_due_callbacks
from knowledge.webhooks import callbacks
from knowledge.webhooks.callbacks import call_back, find_due_callbacks
from knowledge.webhooks.secrets import rotate_secret
from tenants.scope import scope
from tests.knowledge.helpers import check_problem, conforms, send
from tests.knowledge.ingestion.sources.sites import Asked, Page, Site, redirect, serve_site
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture
def receiver(configure: Any, tmp_path: Path) -> Iterator[Site]:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1", RAGSITE_INGEST_ROOT=tmp_path)
    with serve_site() as site:
        site.pages["/done"] = Page(status=204)
        yield site


@pytest.fixture
def source(shared: Any, receiver: Site, tmp_path: Path) -> tuple[Source, str]:
    """A folder source of acme with one document, and its secret."""
    name = f"team-{uuid.uuid4().hex[:8]}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.md").write_text("# A\n\nThe osprey link.\n")
    with scope(tenant_id=shared.acme.pk, tags=None):
        found = Source.objects.create(
            name=name, path=name, collection=shared.collections["acme"], tags=["runbooks"]
        )
        return found, rotate_secret(source=found)


def work(shared: Any, task: Any, **kwargs: str) -> None:
    """Runs a task as a worker would, with the tenant in its message."""
    task.apply(kwargs=kwargs, headers={"ragsite_tenant": str(shared.acme.pk)}).get()


def job_of(shared: Any, job_id: Any) -> dict[str, Any]:
    return conforms(send(shared.ada, "get", f"tasks/{job_id}"), "/api/v1/tasks/{id}", "get")


def change(shared: Any, job_id: Any, **values: Any) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        Job.objects.filter(pk=job_id).update(**values)


def call(shared: Any, job_id: Any) -> dict[str, Any]:
    """One try now, whatever its time is; what the job says of it."""
    change(shared, job_id, callback_at=None)
    with scope(tenant_id=shared.acme.pk, tags=None):
        call_back(job_id=str(job_id))
    found: dict[str, Any] = job_of(shared, job_id)["callback"]
    return found


def ended_job(shared: Any, source: Source, url: str, **values: Any) -> Job:
    with scope(tenant_id=shared.acme.pk, tags=None):
        job = create_job(kind=Job.Kind.SYNC, source=source, callback_url=url)
        ended = {"state": Job.State.SUCCESS, "finished_at": timezone.now()} | values
        Job.objects.filter(pk=job.pk).update(**ended)
        job.refresh_from_db()
    return job


def test_the_end_of_a_sync_is_told(shared: Any, receiver: Site, source: tuple[Source, str]) -> None:
    row, secret = source
    body = {"source": str(row.pk), "callback_url": f"{receiver.url}/done"}
    response = send(shared.ada, "post", "ingest", body)
    assert response.status_code == 202, response.content
    job_id = response.json()["task_id"]
    assert job_of(shared, job_id)["callback"] == {
        "url": body["callback_url"],
        "state": "pending",
        "attempts": 0,
    }
    work(shared, send_callback, job_id=job_id)
    assert not receiver.asked, "told before its end"
    work(shared, run_job, job_id=job_id)
    work(shared, send_callback, job_id=job_id)
    (told,) = receiver.asked
    assert (told.method, told.path) == ("POST", "/done")
    event = Webhook(secret).verify(told.body, told.headers)
    assert event["type"] == "job.completed" and told.headers["webhook-id"] == f"job_{uuid.UUID(job_id).hex}"
    job = job_of(shared, job_id)
    assert job.pop("callback") == {"url": body["callback_url"], "state": "sent", "attempts": 1}
    assert event["data"] == job | {"source": str(row.pk)} and event["timestamp"] == job["finished_at"]
    # A second message for the same job does no harm.
    work(shared, send_callback, job_id=job_id)
    assert len(receiver.asked) == 1


def test_a_source_tells_of_all_its_jobs(shared: Any, receiver: Site, source: tuple[Source, str]) -> None:
    row, _ = source
    url = f"{receiver.url}/done"
    response = send(shared.ada, "patch", f"sources/{row.pk}", {"path": row.path, "callback_url": url})
    assert response.json()["callback_url"] == url
    job_id = send(shared.ada, "post", f"sources/{row.pk}/sync").json()["task_id"]
    assert job_of(shared, job_id)["callback"]["url"] == url
    # The same job is asked for again with another address; with the same one it is the same wish.
    other = send(shared.ada, "post", f"sources/{row.pk}/sync", {"callback_url": f"{receiver.url}/other"})
    check_problem(other, 409, "busy")
    same = send(shared.ada, "post", f"sources/{row.pk}/sync", {"callback_url": url})
    assert same.json()["task_id"] == job_id
    # Ends without any worker are told as well, by whoever looks for them.
    with scope(tenant_id=shared.acme.pk, tags=None):
        cancel_job(job=Job.objects.get(pk=job_id))
    assert (shared.acme.pk, uuid.UUID(job_id)) in find_due_callbacks()
    send_due_callbacks.apply().get()
    work(shared, send_callback, job_id=job_id)
    event = json.loads(receiver.asked[-1].body)
    assert (event["type"], event["data"]["state"]) == ("job.failed", "CANCELLED")
    assert (
        send(shared.ada, "patch", f"sources/{row.pk}", {"path": row.path, "callback_url": ""}).status_code
        == 200
    )
    job_id = send(shared.ada, "post", f"sources/{row.pk}/sync").json()["task_id"]
    assert "callback" not in job_of(shared, job_id)
    # A job that runs already can be asked to tell.
    send(shared.ada, "post", f"sources/{row.pk}/sync", {"callback_url": url})
    assert job_of(shared, job_id)["callback"]["state"] == "pending"


def test_what_is_not_taken_is_tried_again_and_then_recorded(
    shared: Any, receiver: Site, source: tuple[Source, str]
) -> None:
    row, secret = source
    job = ended_job(shared, row, f"{receiver.url}/busy")
    receiver.pages["/busy"] = Page(status=503)
    for attempt in range(1, 4):
        told = call(shared, job.pk)
        assert (told["state"], told["attempts"]) == ("pending", attempt) and "503" in told["error"]
        with scope(tenant_id=shared.acme.pk, tags=None):
            wait = Job.objects.get(pk=job.pk).callback_at - timezone.now()
            assert callbacks.RETRY_AFTER[attempt - 1] - timedelta(seconds=20) < wait
            call_back(job_id=str(job.pk))  # too early
    assert len(receiver.asked) == 3
    assert call(shared, job.pk)["state"] == "failed"
    assert call(shared, job.pk)["attempts"] == 4
    ids = {one.headers["webhook-id"] for one in receiver.asked}
    assert len(receiver.asked) == 4 and len(ids) == 1 and len({one.body for one in receiver.asked}) == 1
    for one in receiver.asked:
        Webhook(secret).verify(one.body, one.headers)


def test_a_try_belongs_to_one_worker_and_holds_no_transaction(
    shared: Any, receiver: Site, source: tuple[Source, str], in_thread: Any
) -> None:
    row, _ = source
    job = ended_job(shared, row, f"{receiver.url}/look")

    def again() -> bool:
        with scope(tenant_id=shared.acme.pk, tags=None):
            call_back(job_id=str(job.pk))
            # Whoever is not in a transaction lets go of the row's lock.
            return bool(Job.objects.filter(pk=job.pk).update(step="seen by another"))

    def look(asked: Asked) -> Page:
        assert not connections["default"].in_atomic_block
        return Page(status=200 if in_thread(again) else 500)

    receiver.pages["/look"] = look
    assert call(shared, job.pk)["state"] == "sent"
    assert len(receiver.asked) == 1


def test_where_nothing_may_go_nothing_goes(
    shared: Any, receiver: Site, source: tuple[Source, str], configure: Any
) -> None:
    row, _ = source
    with serve_site(host="127.0.0.2") as inside:
        receiver.pages["/out"] = redirect(f"{inside.url}/")
        for url in (
            inside.url,
            "http://169.254.169.254/",
            "file:///etc/passwd",
            "http://u:p@127.0.0.1/",
            "nonsense",
            "http://127.1/",
        ):
            for path, body in (
                (f"sources/{row.pk}/sync", {"callback_url": url}),
                ("ingest", {"source": str(row.pk), "callback_url": url}),
            ):
                problem = check_problem(send(shared.ada, "post", path, body), 400, "invalid")
                assert problem["errors"][0]["field"] == "callback_url", url
            form = {"path": row.path, "callback_url": url}
            check_problem(send(shared.ada, "patch", f"sources/{row.pk}", form), 400)
        # A redirect is no answer, and an address that was fine when it was given is looked at again.
        told = call(shared, ended_job(shared, row, f"{receiver.url}/out").pk)
        assert told["state"] == "pending" and "301" in told["error"]
        assert call(shared, ended_job(shared, row, inside.url).pk)["state"] == "failed"
        assert not inside.asked
    receiver.pages["/gone"] = Page(status=410)
    assert call(shared, ended_job(shared, row, f"{receiver.url}/gone").pk)["state"] == "failed"
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert not Job.objects.exclude(callback_state="").filter(callback_url="nonsense").exists()


def test_a_callback_leads_to_no_hook_of_this_site(
    shared: Any, receiver: Site, source: tuple[Source, str], configure: Any, tmp_path: Path
) -> None:
    row, _ = source
    hosts = {"RAGSITE_SOURCE_ALLOWED_HOSTS": "127.0.0.1, rag.internal", "RAGSITE_INGEST_ROOT": tmp_path}
    configure(**hosts, RAGSITE_SITE_URL=receiver.url)
    hook = f"/api/v1/hooks/{row.pk}"
    for url in (
        receiver.url + hook,
        f"http://127.0.0.1:8080{hook}?x=1",
        f"{receiver.url}/api/v1/hooks/",
        f"{receiver.url}//api/v1/x/../h%6foks/{row.pk}",
    ):
        for path, body in (
            (f"sources/{row.pk}/sync", {"callback_url": url}),
            ("ingest", {"source": str(row.pk), "callback_url": url}),
            ("sources", {"kind": "folder", "path": row.path, "callback_url": url}),
        ):
            problem = check_problem(send(shared.ada, "post", path, body), 400, "invalid")
            assert problem["errors"][0]["field"] == "callback_url", url
            assert "webhook of a source" in problem["errors"][0]["detail"], url
    for url in (f"{receiver.url}/api/v1/hooksmith", f"{receiver.url}/done"):
        body = {"source": str(row.pk), "callback_url": url}
        task = send(shared.ada, "post", "ingest", body)
        assert task.status_code == 202, task.content
        send(shared.ada, "delete", f"tasks/{task.json()['task_id']}")


def test_a_callback_needs_a_secret(shared: Any, receiver: Site, source: tuple[Source, str]) -> None:
    row, first = source
    url = f"{receiver.url}/done"
    second = send(shared.ada, "post", f"sources/{row.pk}/hook-secret").json()["secret"]
    assert call(shared, ended_job(shared, row, url).pk)["state"] == "sent"
    for secret in (first, second):  # during a rotation both hold
        Webhook(secret).verify(receiver.asked[-1].body, receiver.asked[-1].headers)
    send(shared.ada, "delete", f"sources/{row.pk}/hook-secret")
    told = call(shared, ended_job(shared, row, url).pk)
    assert told["state"] == "failed" and "secret" in told["error"] and len(receiver.asked) == 1
    for path, body in (
        (f"sources/{row.pk}/sync", {"callback_url": url}),
        ("ingest", {"source": str(row.pk), "callback_url": url}),
        ("ingest", {"directory": row.path, "collection": "handbook", "callback_url": url}),
    ):
        problem = check_problem(send(shared.ada, "post", path, body), 400, "invalid")
        assert "hook-secret" in problem["errors"][0]["detail"]
