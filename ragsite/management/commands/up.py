"""``manage.py up``: everything in the foreground."""

import contextlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from django.db import connections

from ragsite.core.config import config
from ragsite.embedded import revive_servers
from ragsite.launch import EMBEDDED_VARIABLE
from ragsite.processes import die_with_parent, watch_parent
from ragsite.stack import Part, Stack, StackError, check_port, hold_stack
from ragsite.weights import check_weights

_LOG_INS = """\
  log-ins, password demo-ragsite:
    acme    ada (admin), nina (network engineer), sam (security analyst), hal (helpdesk)
    globex  gus (admin), gina (network engineer)
    root    (superuser)"""


class Command(BaseCommand):
    help = "Runs everything in the foreground: servers, migrations, demo data (dev), web, worker and beat."
    requires_system_checks: list[str] = []  # the web process runs them; twice would cost a second

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", help="the address to listen on (default: RAGSITE_HOST or 127.0.0.1)")
        parser.add_argument("--port", type=int, help="the port to listen on (default: PORT or 8000)")
        parser.add_argument(
            "--follow-parent",
            action="store_true",
            help="end when the process that started this one dies or is interrupted (for make)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        is_over = _never
        if options["follow_parent"]:
            is_over = watch_parent()
            die_with_parent()
        settings = config()
        host = options["host"] or settings.host
        port = options["port"] or settings.port
        data = settings.data
        is_dev = settings.environment == "dev"
        with hold_stack(data=data):
            check_port(host=host, port=port)
            check_weights(data=data)
            self._tell("Migrating the database …")
            call_command("migrate", interactive=False, verbosity=0)
            if is_dev:
                self._tell("Looking after the demo data (the first time takes a minute) …")
                _seed_demo()
            self._tell("Starting web, worker and beat …")
            address = f"http://{_reachable(host)}:{port}/"
            Stack(
                parts=_parts(host=host, port=port, data=data),
                data=data,
                ready_url=(_reachable(host).strip("[]"), port, "/livez"),
                announcement=f"\n  ragsite is ready: {address}\n{_LOG_INS if is_dev else ''}\n",
                revive=lambda: _revive(data),
                is_over=is_over,
                out=sys.stdout,
            ).run()
        self._tell("Stopped.")

    def _tell(self, sentence: str) -> None:
        self.stdout.write(sentence)
        self.stdout.flush()


def _never() -> bool:
    return False


def _seed_demo() -> None:
    """In a forked child: the model that seeding loads would stay in this process's memory for good."""
    connections.close_all()
    child = multiprocessing.get_context("fork").Process(target=_seed_in_child)
    child.start()
    try:
        child.join()
    finally:
        child.kill()
        child.join()
    if child.exitcode:
        raise StackError(
            "The demo data could not be made, see above: mend that and start again: it goes on from there."
        )


def _seed_in_child() -> None:
    # At once: a child that lingers would hold the locks of its killed parent against the next start.
    die_with_parent(signal.SIGKILL)
    with contextlib.suppress(KeyboardInterrupt):
        call_command("seed_demo")


def _parts(*, host: str, port: int, data: Path) -> list[Part]:
    python = [sys.executable, "-m"]
    celery = [*python, "celery", "-A", "ragsite"]
    web = [*python, "uvicorn", "ragsite.asgi:application", "--host", host, "--port", str(port)]
    web += ["--no-access-log", "--no-server-header", "--lifespan", "off", "--timeout-graceful-shutdown", "5"]
    worker = [*celery, "worker", "--concurrency", "1", "--loglevel", "INFO"]
    worker += ["--without-gossip", "--without-mingle"]
    # No pid file: after a kill -9 its remains would keep the next beat from starting.
    beat = [*celery, "beat", "--loglevel", "INFO", "--pidfile=", "--schedule", str(data / "run" / "beat")]
    return [Part("web", web), Part("worker", worker, waits=True), Part("beat", beat, waits=True)]


def _reachable(host: str) -> str:
    """The address at which a browser on this machine finds a server that listens on this one."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _revive(data: Path) -> list[str]:
    kinds = os.environ.get(EMBEDDED_VARIABLE, "").split()
    return revive_servers(data=data, postgres="postgres" in kinds, redis="redis" in kinds)
