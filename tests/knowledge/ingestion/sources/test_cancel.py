"""A sync that waits for a slow place ends within two seconds when cancelled, and leaves nothing behind that works on."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from knowledge.ingestion.run import run_claimed_job
from tenants.scope import scope
from tests.knowledge.helpers import eventually, send
from tests.knowledge.ingestion.sources.git_servers import Repository, git_site
from tests.knowledge.ingestion.sources.sites import Page, serve_site
from tests.knowledge.ingestion.syncing import CountingEmbedder
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


def start(shared: Any, body: dict[str, Any]) -> tuple[str, threading.Thread]:
    """A source, and a worker that synchronises it: the job's id, and the worker's thread."""
    source = send(shared.ada, "post", "sources", {"collection": "handbook", **body}).json()
    return begin(shared, source["id"])


def begin(shared: Any, source: str) -> tuple[str, threading.Thread]:
    task = send(shared.ada, "post", f"sources/{source}/sync").json()["task_id"]

    def work() -> None:
        try:
            with scope(tenant_id=shared.acme.pk, tags=None):
                run_claimed_job(job_id=task, embedder=CountingEmbedder())
        finally:
            connections.close_all()

    worker = threading.Thread(target=work)
    worker.start()
    return task, worker


def cancel(shared: Any, task: str, worker: threading.Thread) -> None:
    asked = time.monotonic()
    assert send(shared.ada, "delete", f"tasks/{task}").status_code in (200, 202)
    worker.join(20)
    assert time.monotonic() - asked <= 2.0
    assert send(shared.ada, "get", f"tasks/{task}").json()["state"] == "CANCELLED"


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def nobody_reads_on() -> None:
    eventually(lambda: not threads_named("aside"), 20, "the source is still being read")


def test_in_the_middle_of_a_long_fetch_of_git(shared: Any, tmp_path: Path, configure: Any) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1", RAGSITE_DATA=tmp_path / "data")
    repository = Repository.make(tmp_path)
    repository.commit({"a.md": "# A\n\nThe dipper link.\n"})
    with git_site(tmp_path) as site:
        source = send(
            shared.ada, "post", "sources", {"kind": "git", "path": site.address(), "collection": "handbook"}
        ).json()["id"]
        site.delay_fetch = 8
        task, worker = begin(shared, source)
        eventually(site.fetches, 20, "git never fetched")
        cancel(shared, task, worker)
        nobody_reads_on()
        # Git itself has ended, too: its clone is free for the next run.
        site.delay_fetch = 0
        task, worker = begin(shared, source)
        worker.join(30)
        job = send(shared.ada, "get", f"tasks/{task}").json()
        assert job["state"] == "SUCCESS" and job["documents"]["changed"] == 1, job


@pytest.mark.parametrize("waits", ["crawl delay", "busy server"])
def test_in_a_pause_of_a_crawl(shared: Any, configure: Any, waits: str) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1")
    with serve_site() as site:
        site.html("/", "Start", "Words.", links=("b",))
        site.html("/b", "B", "More words.")
        if waits == "crawl delay":
            site.pages["/robots.txt"] = Page("User-agent: *\nCrawl-delay: 10\n", "text/plain")
        else:
            site.pages["/b"] = Page(status=503, headers=(("Retry-After", "20"),))
        body = {"kind": "web", "path": f"{site.url}/", "options": {"delay": 0}}
        task, worker = start(shared, body)
        last = "/" if waits == "crawl delay" else "/b"
        eventually(lambda: site.paths()[-1:] == [last], 20, "nothing was asked for")
        time.sleep(0.3)
        cancel(shared, task, worker)
        nobody_reads_on()
        assert len(site.paths()) <= 4
