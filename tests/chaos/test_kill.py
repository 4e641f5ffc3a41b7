"""``kill -9`` of worker, Redis and PostgreSQL while a source is indexed: in the end the index is as if nothing had been."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ragsite import embedded_redis
from ragsite.embedded import EmbeddedError, _cluster, _redis_place, embedded_servers, revive_servers
from ragsite.embedded_postgres import find_postmaster
from tests.ragsite.helpers import CHECKOUT, scratch_folder

RECOVERED_SECONDS = 30.0


def write_document(folder: Path, number: int, version: int = 1) -> None:
    sections = "\n\n".join(
        f"## Part {part} of {number}\n\n"
        + " ".join(
            f"Sentence {n} of part {part} tells of router number {number} in rack {number % 13}, version {version}."
            for n in range(12)
        )
        for part in range(4)
    )
    name = folder / f"d{number % 7}" / f"doc-{number:03}.md"
    name.parent.mkdir(parents=True, exist_ok=True)
    name.write_text(
        f"# Document about optics number {number}\n\nIts codeword is zebra{number}.\n\n{sections}\n"
    )


class Observer:
    """The process that looks at the index; asks again while a server is away."""

    def __init__(self, environment: dict[str, str], data: Path) -> None:
        self._data = data
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.observer"],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._read() == "ready"

    def _read(self) -> Any:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith(("{", '"')):
                return json.loads(line)
        raise AssertionError("the observer has died")

    def ask(self, *words: str, seconds: float = 60) -> Any:
        assert self._process.stdin is not None
        deadline = time.monotonic() + seconds
        while True:
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()
            answer = self._read()
            if "ok" in answer:
                return answer["ok"]
            assert time.monotonic() < deadline, answer["error"]
            time.sleep(0.3)
            revive(self._data)

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()


class Worker:
    """A real Celery worker, started again when it was killed or ended by itself."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment, self._log = environment, log
        self._process: subprocess.Popen[bytes] | None = None

    def keep_alive(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        command = [sys.executable, "-m", "celery", "-A", "tests.chaos.app", "worker"]
        command += ["--concurrency=1", "--loglevel=WARNING", "--without-mingle", "--without-gossip"]
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=20)


def kill_server(data: Path, name: str) -> None:
    """Kills a server of the data folder, and starts it again as the stack does."""
    pid = (
        find_postmaster(_cluster(data))
        if name == "postgresql"
        else embedded_redis.find_server(_redis_place(data))
    )
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    revive(data)


def revive(data: Path) -> None:
    """As the stack does every second; a server that is still dying is left for the next time."""
    with contextlib.suppress(EmbeddedError):
        revive_servers(data=data)


@contextmanager
def site() -> Iterator[tuple[Path, Observer, Worker, Path]]:
    """Servers of their own, a migrated database, an observer and a worker."""
    with scratch_folder() as data, embedded_servers(data=data) as servers:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAGSITE_", "DATABASE_", "REDIS_", "CELERY_"))
        }
        environment |= servers.environment() | {
            "RAGSITE_SECRET_KEY": servers.secret_key,
            "RAGSITE_DATA": str(data),
            "RAGSITE_ENVIRONMENT": "dev",
            "CHAOS_SECONDS_PER_BATCH": "0.2",
            "DJANGO_SETTINGS_MODULE": "ragsite.settings",
        }
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity=0"],
            cwd=CHECKOUT,
            env=environment,
            check=True,
            capture_output=True,
            timeout=120,
        )
        log = data / "log" / "worker.log"
        observer, worker = Observer(environment, data), Worker(environment, log)
        try:
            yield data, observer, worker, log
        finally:
            worker.kill()
            observer.end()


def wait_for(observer: Observer, worker: Worker, place: dict[str, str], job: str, log: Path) -> float:
    """Until a job has succeeded, without another kill; returns the seconds."""
    begun = time.monotonic()
    recovered = 0.0
    while True:
        worker.keep_alive()
        if time.monotonic() - recovered >= 5:
            recovered = time.monotonic()
            observer.ask("recover")
        found = observer.ask("job", place["tenant"], job)
        assert found["state"] not in ("FAILURE", "CANCELLED"), (found, log.read_text()[-3000:])
        assert found["changed"] + found["unchanged"] + found["failed"] <= max(1, found["seen"])
        if found["state"] == "SUCCESS":
            assert found["progress"] == 100
            return time.monotonic() - begun
        assert found["progress"] < 100
        assert time.monotonic() - begun < 240, (found, log.read_text()[-3000:])
        time.sleep(0.2)


def storm(*, kills: int, documents: int, folder: Path, seed: int, longest: float) -> list[float]:
    """Kills while a source is synchronised again and again; returns the seconds that the last sync of each took."""
    chance = random.Random(seed)
    victims = [("worker", "redis", "postgresql")[n % 3] for n in range(kills)]
    chance.shuffle(victims)
    for number in range(documents):
        write_document(folder, number)
    with site() as (data, observer, worker, log):
        wild = observer.ask("prepare", "wild", str(folder))
        worker.keep_alive()
        job = observer.ask("start", wild["tenant"], wild["source"])
        recovered = 0.0
        for number, victim in enumerate(victims):
            until = time.monotonic() + chance.uniform(0.3, longest)
            while time.monotonic() < until:
                worker.keep_alive()
                if time.monotonic() - recovered >= 5:
                    recovered = time.monotonic()
                    observer.ask("recover")
                if observer.ask("job", wild["tenant"], job)["state"] == "SUCCESS":
                    # There is always something to do: a third of the documents is new.
                    for changed in chance.sample(range(documents), documents // 3):
                        write_document(folder, changed, version=number + 2)
                    gone = folder / f"d{number % 7}" / f"doc-{number % documents:03}.md"
                    gone.unlink(missing_ok=True)
                    job = observer.ask("start", wild["tenant"], wild["source"])
                time.sleep(0.1)
            if victim == "worker":
                worker.kill()
            else:
                kill_server(data, victim)
        seconds = [wait_for(observer, worker, wild, job, log)]
        last = observer.ask("start", wild["tenant"], wild["source"])
        wait_for(observer, worker, wild, last, log)
        calm = observer.ask("prepare", "calm", str(folder))
        job = observer.ask("start", calm["tenant"], calm["source"])
        wait_for(observer, worker, calm, job, log)
        # Each finds the one document that holds its word. Of a document that is gone nothing stands out: all others are
        # alike to the digit, and which comes first is up to their ids, which are made by chance.
        living = sorted(int(file.stem.removeprefix("doc-")) for file in folder.rglob("*.md"))
        questions = {f"codeword zebra{number}": f"doc-{number:03}.md" for number in chance.sample(living, 5)}
        found, wanted = (observer.ask("digest", place["tenant"], *questions) for place in (wild, calm))
        for question, name in questions.items():
            assert [Path(uri).name for uri, *_ in wanted["found"][question]] == [name], question
        assert len(wanted["documents"]) == len(list(folder.rglob("*.md"))) and wanted["chunks"]
        assert found == wanted
        print(f"{kills} kills; the last job ended {seconds[0]:.1f} s after the last of them")
        assert found["vectors missing"] == 0 and found["dead letters"] == []
        return seconds


def test_three_kills_leave_the_index_of_an_undisturbed_run(tmp_path: Path) -> None:
    seconds = storm(kills=3, documents=30, folder=tmp_path / "docs", seed=7, longest=2.0)
    assert max(seconds) <= RECOVERED_SECONDS


@pytest.mark.long
def test_fifty_kills_leave_the_index_of_an_undisturbed_run(tmp_path: Path) -> None:
    seconds = storm(kills=50, documents=80, folder=tmp_path / "docs", seed=50, longest=9.0)
    assert max(seconds) <= RECOVERED_SECONDS
