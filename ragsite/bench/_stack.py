"""A stack of the benchmark's own: the processes of ``manage.py up`` on a data folder of its own, a stand-in for the model
provider, what asks, and, where one is given, the program to compare with."""

import contextlib
import json
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from ragsite.bench import Say
from ragsite.bench._generator import Order, Record
from ragsite.bench._processes import Program, Usage
from ragsite.bench._questions import make_documents
from ragsite.bench._wire import ask
from ragsite.core.config import CHECKOUT
from ragsite.embedded import embedded_servers, read_secrets

START_SECONDS = 300.0
DEMO = CHECKOUT / "knowledge" / "demo" / "acme"
FILES_IN_FOLDER = 500
_OURS = (
    "RAGSITE_",
    "ANTHROPIC_",
    "OPENAI_",
    "AZURE_OPENAI_",
    "DATABASE_",
    "REDIS_",
    "CELERY_",
    "EMBEDDING_",
    "PROMETHEUS_",
)
_SHARED = ("RAGSITE_MODELS", "RAGSITE_EMBEDDING_THREADS", "RAGSITE_WEB_PROCESSES")
# Everybody may ask as much as they like, for longer than any run.
_LIMITS = {
    **{f"RAGSITE_LIMIT_{subject}_{what}": "0" for subject in ("USER", "KEY", "TENANT") for what in ("REQUESTS", "TOKENS")},
    "RAGSITE_ACCESS_TOKEN_MINUTES": "1440",
}  # fmt: skip
_LISTENS = re.compile(r"listening on (\d+)|running on http://127\.0\.0\.1:(\d+)")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number: int = listener.getsockname()[1]
        return number


def make_folder(place: Path, *, documents: int) -> Path:
    """So many made documents as files."""
    folder = place / f"made-{documents}"
    if not folder.exists():
        for uri, text in make_documents(documents):
            path = folder / uri
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


@dataclass
class Server:
    """A server that answers questions: ours, another program, or one that does nothing.

    ``programs`` are its processes; ``measure`` tells what they have cost so far.
    """

    name: str
    port: int
    tokens: list[str]
    paths: dict[str, Any] = field(default_factory=dict)
    measure: Callable[[], Usage] = field(default=lambda: Usage(0.0, 0))


@dataclass
class Bench:
    """What a kind of benchmark works with: the servers to ask, the provider, and the folder of the documents."""

    place: Path
    folder: Path
    provider: int
    ours: Server
    admin: str
    others: dict[str, Server] = field(default_factory=dict)

    def behave(self, **behaviour: Any) -> None:
        """Changes how the provider answers (``_provider.Behaviour``), and forgets what it has counted."""
        ask(self.provider, "PUT", "/behaviour", body=behaviour)

    def provider_stats(self, *, calls: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = ask(self.provider, "GET", "/stats" + ("?calls" if calls else ""))
        return found

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """A call of our API as who manages the tenant."""
        return ask(self.ours.port, method, f"/api/v1/{path}", body=body, token=self.admin)

    def forget(self) -> None:
        """Of an earlier run, what was answered."""
        self.rest("DELETE", "cache")

    def run(self, server: Server, **order: Any) -> tuple[list[Record], float]:
        """Asks, in another process; the records, and the seconds of work that asking has cost.

        Raises:
            CommandError: what asks has failed.
        """
        wanted = Order(port=server.port, tokens=server.tokens, **server.paths, **order)
        source, result = self.place / "order.json", self.place / "result.json"
        source.write_text(json.dumps(asdict(wanted)))
        result.unlink(missing_ok=True)
        log = self.place / "generator.log"
        with started("ragsite.bench._generator", str(source), str(result), log=log, pinned=True) as program:
            while program.is_running():
                server.measure()
                time.sleep(0.05)
        if not result.exists():
            raise CommandError(f"What asks has failed; it said last:\n{log.read_text()[-2000:]}")
        found = json.loads(result.read_text())
        return [Record(**record) for record in found["records"]], found["cpu"]


@contextlib.contextmanager
def started(
    module: str,
    *words: str,
    log: Path,
    env: dict[str, str] | None = None,
    cwd: Path = CHECKOUT,
    python: str = sys.executable,
    pinned: bool = False,
) -> Iterator[Program]:
    """A Python module as a process, ended at the end."""
    with log.open("wb") as out:
        program = Program(
            [python, "-m", module, *words], env=env or dict(os.environ), cwd=cwd, log=out, pin=pinned
        )
        try:
            yield program
        finally:
            program.end()


def await_log(program: Program, log: Path, words: str, *, seconds: float = START_SECONDS) -> str:
    """Waits for the words in a program's log; returns all of it.

    Raises:
        CommandError: it has ended before, or does not say them.
    """
    deadline = time.monotonic() + seconds
    while words not in (text := log.read_text(errors="replace")):
        if not program.is_running() or time.monotonic() > deadline:
            raise CommandError(f"A process did not start; it said last:\n{text[-2000:]}")
        time.sleep(0.05)
    return text


def own_environment(data: Path, *, provider: int, port: int, more: dict[str, str]) -> dict[str, str]:
    """The environment of the stack: nothing of ours but what is set here."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_OURS) or name in _SHARED
    }
    return {
        **kept,
        **_LIMITS,
        "RAGSITE_ENVIRONMENT": "staging",  # no demo data, logs and pages as in production
        "RAGSITE_SECRET_KEY": read_secrets(data=data).secret_key,
        "RAGSITE_DATA": str(data),
        "PORT": str(port),
        "ANTHROPIC_API_KEY": "bench",
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{provider}",
        **more,
    }


@contextlib.contextmanager
def own_stack(
    *,
    say: Say,
    members: int,
    data: Path | None = None,
    corpus: Path | None = None,
    documents: int = 0,
    provider_port: int = 0,
    settings: dict[str, str] | None = None,
) -> Iterator[Bench]:
    """Starts everything; at the end nothing of it is left but ``data``, where it was given.

    Args:
        members: of the tenant that asks.
        data: the stack's data folder, which a later run goes on with.
        corpus: a folder of documents; without it so many made ``documents``, or those of the demo data.
        settings: variables over the usual ones.

    Raises:
        CommandError: a part does not start.
    """
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ragsite-bench-", dir="/tmp")))
        place.chmod(0o711)  # PostgreSQL's own user must reach its cluster
        data = (data or place / "data").expanduser().resolve()
        folder = corpus or (make_folder(place, documents=documents) if documents else DEMO)
        # Held for the whole run, so that what fills the tenant and `up` need not start them in turn.
        servers = stack.enter_context(embedded_servers(data=data))
        words = ["--port", str(provider_port)]
        log = place / "provider.log"
        program = stack.enter_context(started("ragsite.bench._provider", *words, log=log, pinned=True))
        provider = int(_LISTENS.findall(await_log(program, log, "listening on "))[0][0])
        port = free_port()
        env = own_environment(data, provider=provider, port=port, more=settings or {})
        say("starting a stack")
        up, log = stack.enter_context(_up(env, place)), place / "up.log"
        await_log(up, log, "ragsite is ready")
        say(f"filling its tenant from {folder}")
        found = _fill(env, place, members=members, folder=folder)
        _await_rest(port)
        paths = {"redis": servers.redis_url}
        (place / "servers.json").write_text(json.dumps(paths))
        ours = Server("ours", port, found["members"], measure=lambda: _web_usage(data, up))
        yield Bench(place, folder, provider, ours, found["admin"])


def _up(env: dict[str, str], place: Path) -> contextlib.AbstractContextManager[Program]:
    @contextlib.contextmanager
    def run() -> Iterator[Program]:
        with (place / "up.log").open("wb") as out:
            program = Program(
                [sys.executable, str(CHECKOUT / "manage.py"), "up"], env=env, cwd=CHECKOUT, log=out
            )
            try:
                yield program
            finally:
                program.end(seconds=30)

    return run()


def _fill(env: dict[str, str], place: Path, *, members: int, folder: Path) -> dict[str, Any]:
    order, result, log = place / "fill.json", place / "people.json", place / "fill.log"
    order.write_text(json.dumps({"members": members, "folder": str(folder), "result": str(result)}))
    code = f"from ragsite.bench._crowd import fill; fill({str(order)!r})"
    command = [sys.executable, str(CHECKOUT / "manage.py"), "shell", "--verbosity", "0", "--command", code]
    with log.open("wb") as out:
        program = Program(command, env=env, cwd=CHECKOUT, log=out)
        try:
            status, _ = program.finish(interval=0.2)
        finally:
            program.end()
    if status or not result.exists():
        raise CommandError(f"The tenant could not be filled:\n{log.read_text()[-2000:]}")
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def _await_rest(port: int) -> None:
    """Waits until the worker answers too: what starts beside what is measured is measured with it."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            if ask(port, "GET", "/health")["status"] == "healthy":
                return
        if time.monotonic() > deadline:
            raise CommandError(f"The stack does not get healthy: {ask(port, 'GET', '/health')}")
        time.sleep(0.5)


def _web_usage(data: Path, up: Program) -> Usage:
    """Of the web process alone (and what it started)."""
    record = json.loads((data / "run" / "stack.json").read_text())
    pids: Sequence[int] = [pid for name, (pid, _) in record.items() if name.startswith("web")]
    return up.measure_of(pids)
