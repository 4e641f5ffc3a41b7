"""A real Celery worker in a process of its own, and its death in the middle of a job."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

from django.db import connections
from django.utils import timezone
from standardwebhooks.webhooks import Webhook

from tests.knowledge.helpers import eventually, send, upload
from tests.knowledge.ingestion.sources.git_servers import free_port
from tests.knowledge.ingestion.sources.sites import Page, serve_site
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast
CHECKOUT = Path(__file__).resolve().parent.parent.parent.parent
LONG = "# Long\n\n" + "\n\n".join(
    f"## Part {n}\n\n" + f"Sentence of part {n} about switches, routers and their optics. " * 14
    for n in range(100)
)


def environment() -> dict[str, str]:
    """This process's own, with the test database in the place of the real one."""
    name = connections["owner"].settings_dict["NAME"]
    found = dict(os.environ)
    for variable in ("DATABASE_URL", "RAGSITE_APP_DATABASE_URL", "RAGSITE_PLATFORM_DATABASE_URL"):
        found[variable] = urlunsplit(urlsplit(found[variable])._replace(path=f"/{name}"))
    return found


@contextmanager
def worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "ragsite",
        "worker",
        "--concurrency=1",
        "--loglevel=INFO",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=20)


def test_a_worker_indexes_and_another_takes_over_when_it_is_killed(
    shared: Any, tmp_path: Path, configure: Any
) -> None:
    # The workers have it from this process's environment.
    port = free_port()
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    configure(
        RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1",
        RAGSITE_WORKER_METRICS_PORT=port,
        PROMETHEUS_MULTIPROC_DIR=metrics,
    )
    from knowledge.models import Chunk, Document, Job
    from knowledge.tasks import recover_jobs, sync_source
    from tenants.scope import scope

    def task(accepted: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = send(shared.ada, "get", f"tasks/{accepted['task_id']}").json()
        return found

    def done(accepted: dict[str, Any]) -> bool:
        job = task(accepted)
        assert job["state"] not in ("FAILURE", "CANCELLED"), job
        return bool(job["state"] == "SUCCESS")

    def chunks(accepted: dict[str, Any]) -> list[tuple[Any, ...]]:
        with scope(tenant_id=shared.acme.pk, tags=None):
            rows = Chunk.objects.filter(document_id=accepted["id"]).order_by("ordinal")
            return list(rows.values_list("ordinal", "start", "end", "content_hash"))

    small = upload(shared.nina, "small.md", b"# Small\n\nThe quokka port is 4433.\n", tags=["configs"]).json()
    log = tmp_path / "first.log"
    with worker(log) as first:
        eventually(lambda: done(small), 90, f"the upload was never indexed: {log}")
        hits = send(shared.nina, "post", "search", {"question": "quokka port"}).json()["sources"]
        assert "4433" in hits[0]["text"]
        large = upload(shared.ada, "large.md", LONG.encode()).json()
        eventually(lambda: task(large)["step"] == "embedding", 60, "the large document was never begun")
        kill(first)
    assert task(large)["state"] == "PROGRESS" and chunks(large) == []

    with scope(tenant_id=shared.acme.pk, tags=None):
        Job.objects.filter(pk=large["task_id"]).update(heartbeat_at=timezone.now() - timedelta(minutes=1))
    # What beat does every ten seconds.
    recover_jobs()
    with worker(tmp_path / "second.log"), ExitStack() as stack:
        eventually(lambda: done(large), 120, f"nobody took over: {tmp_path}/second.log")
        with scope(tenant_id=shared.acme.pk, tags=None):
            assert Job.objects.get(pk=large["task_id"]).attempts == 2
            assert Document.objects.get(pk=large["id"]).version == 1
        reference = upload(shared.ada, "reference.md", LONG.encode()).json()
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "a.md").write_text("# A\n\nText.\n")
        source = scheduled_source(shared, folder)
        receiver = stack.enter_context(serve_site())
        receiver.pages["/done"] = Page(status=204)
        secret = tell_of_the_end(shared, source, f"{receiver.url}/done")
        sync_source.apply_async(kwargs={"source_id": source}, headers={"ragsite_tenant": str(shared.acme.pk)})
        eventually(lambda: done(reference), 120, "the second upload was never indexed")
        assert chunks(large) == chunks(reference) and len(chunks(large)) >= 100

        def synced() -> list[Any]:
            listed = send(shared.ada, "get", "tasks?state=SUCCESS").json()["results"]
            return [t for t in listed if t["kind"] == "sync" and t["documents"]["changed"] == 1]

        eventually(synced, 60, "the scheduled task made no job")
        eventually(lambda: receiver.asked, 60, "nobody was told of its end")
        event = Webhook(secret).verify(receiver.asked[0].body, receiver.asked[0].headers)
        assert event["type"] == "job.completed" and event["data"]["id"] == synced()[0]["id"]
        eventually(lambda: synced()[0]["callback"]["state"] == "sent", 20, "the job does not say so")
        # What both workers counted, by the address of the one that lives and by the web process's.
        indexed = 'rag_ingest_documents_total{status="success"} 4.0'
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as told:
            assert indexed in told.read().decode()
        assert indexed in shared.ada.client.get("/metrics").content.decode()


def tell_of_the_end(shared: Any, source: str, url: str) -> str:
    """Has the source's jobs call this address when they have ended; the secret they sign with."""
    from knowledge.models import Source
    from knowledge.webhooks.secrets import rotate_secret
    from tenants.scope import scope

    with scope(tenant_id=shared.acme.pk, tags=None):
        Source.objects.filter(pk=source).update(callback_url=url)
        return rotate_secret(source=Source.objects.get(pk=source))


def scheduled_source(shared: Any, folder: Path) -> str:
    from knowledge.models import Collection
    from knowledge.sources import source_of_folder
    from tenants.scope import scope

    with scope(tenant_id=shared.acme.pk, tags=None):
        collection = Collection.objects.get(slug="handbook")
        # As “manage.py ingest” makes it: the worker's allowed root is not the test's.
        source = source_of_folder(directory=str(folder), collection=collection, tags=["faq"], trusted=True)
        return str(source.pk)
