"""Ingestion by a worker process: documents, chunks and MB a second, CPU time and memory, beside another program's

PATH is a BEIR folder; each passage of its ``corpus.jsonl`` becomes a file of a folder source, which a Celery worker of
this command's own synchronises as it would any other: read, parse in the walled process, cut, embed, index. Nobody else
may work on the same data meanwhile.

``--peer FOLDER`` names a program that does the same job: ``index.py CORPUS.jsonl LIMIT`` in that folder, run on the same
passages between two runs of ours. What it needs to start is measured with a limit of 1 and taken off, as the worker is warm
when its time begins.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from django.core.management.base import CommandError
from django.db import connections

from knowledge.documents import save_collection
from knowledge.embedding.bundled import bundled_folder
from knowledge.evaluation.beir import DataSetError, Entry, read_corpus
from knowledge.ingestion.queue import queue_depths
from knowledge.models import Collection, Job
from knowledge.sources import source_of_folder, start_sync
from ragsite.bench import Figures, Say
from ragsite.bench._processes import Program, Usage
from ragsite.celery import app
from ragsite.core.config import CHECKOUT, config
from tenants.people import create_tenant
from tenants.removal import remove_tenant
from tenants.scope import scope

POLL_SECONDS = 0.2
START_SECONDS = 180.0
FILES_IN_FOLDER = 500
_DATABASES = {
    "owner": "DATABASE_URL",
    "default": "RAGSITE_APP_DATABASE_URL",
    "platform": "RAGSITE_PLATFORM_DATABASE_URL",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a BEIR folder, of which corpus.jsonl is read")
    parser.add_argument("--limit", type=int, default=0, help="so many passages from its beginning; 0: all")
    parser.add_argument("--peer", type=Path, help="a folder with an index.py")
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable), help="what runs it")
    parser.add_argument(
        "--peer-model", help="its EMBEDDING_MODEL; default: the folder of all-MiniLM-L6-v2 that came with us"
    )


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    """Figures of ours, of the peer where one is given, and ratios; above 1 ours is better.

    Raises:
        CommandError: no corpus, somebody else works on the same data, or a program failed.
    """
    if options["limit"] < 0:
        raise CommandError("--limit must be 0 or more.")
    peer: Path | None = options["peer"]
    if peer is not None and not (peer / "index.py").is_file():
        raise CommandError(f"{peer} holds no index.py: give the folder of the program to compare with.")
    try:
        corpus = [entry for entry in read_corpus(folder=options["path"]) if entry.text.strip()]
    except DataSetError as error:
        raise CommandError(str(error)) from None
    corpus = corpus[: options["limit"] or None]
    _check_nobody_works()
    with tempfile.TemporaryDirectory(prefix="ragsite-bench-") as scratch:
        place = Path(scratch)
        size = _write_files(corpus, place / "all")
        _write_files(corpus[:1], place / "one")
        figures: Figures = {"documents": len(corpus), "bytes": size, "runs": []}
        with _worker(place / "worker.log") as worker:
            say("starting a worker")
            _index(place / "one", worker=worker, log=place / "worker.log", seconds=START_SECONDS)
            log = place / "worker.log"
            turns: list[tuple[str, Callable[[], Figures]]]
            turns = [("ours", lambda: _index(place / "all", worker=worker, log=log))]
            if peer is not None:
                turns += [("peer", _Peer(options, corpus=corpus, place=place).run), turns[0]]
            for program, run in turns:
                figures["runs"].append({"program": program, **run()})
                say(f"{program}: {figures['runs'][-1]['seconds']:.1f} s for {len(corpus)} documents")
    for program in dict(turns):
        runs = [each for each in figures["runs"] if each["program"] == program]
        figures[program] = _summarise(runs, documents=len(corpus), size=size)
    if peer is not None:
        figures["ratio"] = _compare(figures["ours"], figures["peer"])
    return figures


def render(figures: Figures) -> Iterable[str]:
    names = [name for name in ("ours", "peer", "ratio") if name in figures]
    yield f"{'':24}" + "".join(f"{name:>12}" for name in names)
    for key in figures["ours"]:
        cells = (figures[name].get(key) for name in names)
        yield f"{key:24}" + "".join(f"{'' if cell is None else f'{cell:.4g}':>12}" for cell in cells)


# Ours


def _check_nobody_works() -> None:
    if app.control.inspect(timeout=1.0).ping():
        raise CommandError(
            "A worker runs on this data, and would do part of the work: stop it, or give this command a data folder of its "
            "own (RAGSITE_DATA=/tmp/bench manage.py migrate, then bench)."
        )
    if any(queue_depths().values()):
        raise CommandError("Jobs wait on this data: have a worker end them first, or cancel them.")


def _write_files(corpus: Sequence[Entry], folder: Path) -> int:
    """One text file a passage; returns the bytes of all."""
    size = 0
    for number, entry in enumerate(corpus):
        path = folder / f"{number // FILES_IN_FOLDER:03}" / f"passage-{number:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"{entry.title}\n\n{entry.text}" if entry.title else entry.text
        size += path.write_bytes(text.replace("\0", "").encode("utf-8", "replace"))
    return size


@contextmanager
def _worker(log: Path) -> Iterator[Program]:
    """A worker as ``up`` starts it, on the databases that this process is connected to."""
    environment = dict(os.environ)
    for alias, variable in _DATABASES.items():
        if variable in environment:
            place = urlsplit(environment[variable])
            name = connections[alias].settings_dict["NAME"]
            environment[variable] = urlunsplit(place._replace(path=f"/{name}"))
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "ragsite", "worker", "--concurrency", "1"]
    command += ["--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
    with log.open("wb") as out:
        program = Program(command, env=environment, cwd=CHECKOUT, log=out)
        try:
            yield program
        finally:
            program.end()


def _index(folder: Path, *, worker: Program, log: Path, seconds: float = 0) -> Figures:
    """A tenant with this folder as a source, from the order to synchronise it to its end; removed afterwards.

    Args:
        seconds: how long it may take; 0: as long as the worker lives.
    """
    tenant = create_tenant(slug=f"bench-{uuid.uuid4().hex[:16]}", name="Bench of ingestion")
    try:
        with scope(tenant_id=tenant.pk, tags=None):
            collection = save_collection(
                collection=Collection(), changes={"slug": "corpus", "name": "Corpus"}
            )
            source = source_of_folder(directory=str(folder), collection=collection, tags=[], trusted=True)
            before = worker.measure()
            job = _await_end(start_sync(source=source), worker=worker, log=log, seconds=seconds)
            after = worker.measure()
        return {
            **_figures((job.finished_at - job.created_at).total_seconds(), before, after),
            "chunks": job.chunks_added,
            "failed": job.failed,
        }
    finally:
        remove_tenant(tenant=tenant)
        shutil.rmtree(config().documents_root / str(tenant.pk), ignore_errors=True)


def _await_end(job: Job, *, worker: Program, log: Path, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not job.is_finished:
        if not worker.is_running() or (seconds and time.monotonic() > deadline):
            raise CommandError(f"The worker did not do its work; its log ends with:\n{_tail(log)}")
        worker.measure()
        time.sleep(POLL_SECONDS)
        job.refresh_from_db()
    if job.state != Job.State.SUCCESS:
        raise CommandError(f"Indexing failed: {job.error}")
    return job


def _figures(seconds: float, before: Usage, after: Usage) -> Figures:
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(after.cpu - before.cpu, 2),
        "peak_rss_mb": round(after.peak / 2**20, 1),
    }


# The peer


class _Peer:
    """Another program's ``index.py``; each run begins in an empty folder."""

    def __init__(self, options: dict[str, Any], *, corpus: Sequence[Entry], place: Path) -> None:
        self._script, self._place = (options["peer"] / "index.py").resolve(), place
        self._python = str(options["peer_python"])
        self._model = options["peer_model"] or str(bundled_folder())
        self._corpus, self._count = place / "corpus.jsonl", len(corpus)
        with self._corpus.open("w") as file:
            for entry in corpus:
                file.write(json.dumps({"_id": entry.id, "title": entry.title, "text": entry.text}) + "\n")

    def run(self) -> Figures:
        start, start_usage = self._run(1)
        seconds, usage = self._run(self._count)
        return {**_figures(max(seconds - start, 1e-3), start_usage, usage), "start_seconds": round(start, 2)}

    def _run(self, limit: int) -> tuple[float, Usage]:
        log = self._place / "peer.log"
        environment = os.environ | {"EMBEDDING_MODEL": self._model, "HF_HUB_OFFLINE": "1"}
        with tempfile.TemporaryDirectory(dir=self._place) as empty, log.open("wb") as out:
            command = [self._python, str(self._script), str(self._corpus), str(limit)]
            begun = time.perf_counter()
            program = _start(command, env=environment, cwd=Path(empty), log=out)
            try:
                code, usage = program.finish(interval=POLL_SECONDS / 4)
            finally:
                program.end()
            seconds = time.perf_counter() - begun
        if code:
            raise CommandError(f"{self._script} failed (code {code}); it said last:\n{_tail(log)}")
        return seconds, usage


def _start(command: Sequence[str], *, env: dict[str, str], cwd: Path, log: IO[bytes]) -> Program:
    try:
        return Program(command, env=env, cwd=cwd, log=log)
    except OSError as error:
        raise CommandError(f"{command[0]} cannot be run ({error.strerror}): see --peer-python.") from None


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


# Together


def _summarise(runs: Sequence[Figures], *, documents: int, size: int) -> Figures:
    """All runs of a program together."""
    seconds = sum(run["seconds"] for run in runs)
    count = len(runs)
    # The peer makes one vector of each passage.
    chunks = sum(run.get("chunks", documents) for run in runs)
    return {
        "documents_per_s": round(count * documents / seconds, 2),
        "chunks_per_s": round(chunks / seconds, 2),
        "mb_per_s": round(count * size / 2**20 / seconds, 4),
        "cpu_seconds": round(sum(run["cpu_seconds"] for run in runs) / count, 2),
        "cpu_ms_per_chunk": round(1000 * sum(run["cpu_seconds"] for run in runs) / chunks, 2),
        "peak_rss_mb": max(run["peak_rss_mb"] for run in runs),
        "chunks": chunks // count,
        "failed": sum(run.get("failed", 0) for run in runs),
    }


def _compare(ours: Figures, peer: Figures) -> Figures:
    rates = {name: ours[name] / peer[name] for name in ("documents_per_s", "chunks_per_s", "mb_per_s")}
    costs = {
        name: peer[name] / ours[name]
        for name in ("cpu_seconds", "cpu_ms_per_chunk", "peak_rss_mb")
        if ours[name]
    }
    return {name: round(value, 3) for name, value in (rates | costs).items()}
