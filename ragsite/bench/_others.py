"""The servers that ours is compared with: another program, and one that does nothing."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import redis as redis_library
from django.core.management.base import CommandError

from knowledge.embedding.bundled import bundled_folder
from ragsite.bench import Say
from ragsite.bench._processes import Program, Usage
from ragsite.bench._questions import read_texts
from ragsite.bench._stack import Bench, Server, await_log, free_port, started

PEER_SECRET = "secret-secret-secret-secret-secret"  # noqa: S105  its own default
PEER_PATHS = {"path": "/query", "stream_path": "/query"}
PEER_DATABASE = 9
PEER_CHARS = 1200  # it takes passages as they come; a file is cut into so long ones
NULL_ANSWER = json.dumps({"cache": "null", "answer": "x" * 2000}).encode()


async def null(scope: Any, receive: Any, send: Any) -> None:
    """The least that an ASGI application can do with a question: read it, and answer."""
    while (await receive()).get("more_body"):
        pass
    size = str(len(NULL_ANSWER)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": NULL_ANSWER})


@contextmanager
def null_server(bench: Bench) -> Iterator[Server]:
    port, log = free_port(), bench.place / "null.log"
    words = ["ragsite.bench._others:null", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "ragsite.settings"}
    with started("uvicorn", *words, "--lifespan", "off", log=log, env=env) as program:
        await_log(program, log, "running on")
        yield Server("null", port, [""], measure=program.measure)


@contextmanager
def peer_server(bench: Bench, options: dict[str, Any], *, say: Say) -> Iterator[Server]:
    """The other program with the same documents, the same model and a Redis database of its own.

    Raises:
        CommandError: no such program, or it does not start.
    """
    token = jwt.encode({"sub": "bench"}, PEER_SECRET, algorithm="HS256")
    where: str = options["peer"]
    if where.startswith(("http://", "https://")):
        port = urlsplit(where).port
        if not port:
            raise CommandError(f"{where} names no port.")
        yield Server("peer", port, [token], PEER_PATHS)
        return
    folder = Path(where).resolve()
    if not (folder / "app.py").is_file() or not (folder / "index.py").is_file():
        raise CommandError(
            f"{folder} holds no app.py and index.py: give the folder of the program to compare with."
        )
    place = bench.place / "peer"
    place.mkdir()
    (place / "tmp").mkdir()
    redis = json.loads((bench.place / "servers.json").read_text())["redis"].partition("?")[0]
    env = os.environ | {
        "PYTHONPATH": str(folder),
        "EMBEDDING_MODEL": str(bundled_folder()),
        "HF_HUB_OFFLINE": "1",
        "REDIS_URL": f"{redis}?db={PEER_DATABASE}",
        "JWT_SECRET": PEER_SECRET,
        "ANTHROPIC_API_KEY": "bench",
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{bench.provider}",
        "ANONYMIZED_TELEMETRY": "False",
    }
    redis_library.from_url(f"{redis}?db={PEER_DATABASE}").flushdb()  # of an earlier run, what was answered
    say("indexing the peer's documents")
    corpus = place / "corpus.jsonl"
    _write_corpus(bench.folder, corpus)
    _index(options["peer_python"], folder, corpus, env=env, place=place)
    port, log = free_port(), place / "app.log"
    words = ["app:app", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    words += ["--workers", str(options["peer_workers"])] if options["peer_workers"] > 1 else []
    with started("uvicorn", *words, log=log, env=env, cwd=place, python=options["peer_python"]) as program:
        await_log(program, log, "running on" if options["peer_workers"] == 1 else "startup complete")
        yield Server("peer", port, [token], PEER_PATHS, measure=program.measure)


def _write_corpus(folder: Path, corpus: Path) -> None:
    with corpus.open("w") as file:
        for uri, text in read_texts(folder).items():
            for at in range(0, len(text), PEER_CHARS):
                row = {"_id": f"{uri}#{at}", "title": uri, "text": text[at : at + PEER_CHARS]}
                file.write(json.dumps(row) + "\n")


def _index(python: str, folder: Path, corpus: Path, *, env: dict[str, str], place: Path) -> Usage:
    log = place / "index.log"
    with log.open("wb") as out:
        try:
            program = Program([python, str(folder / "index.py"), str(corpus)], env=env, cwd=place, log=out)
        except OSError as error:
            raise CommandError(f"{python} cannot be run ({error.strerror}): see --peer-python.") from None
        try:
            code, usage = program.finish(interval=0.2)
        finally:
            program.end()
    if code:
        raise CommandError(f"The peer's index.py failed; it said last:\n{log.read_text()[-2000:]}")
    return usage
