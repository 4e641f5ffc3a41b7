"""``manage.py up``: everything in the foreground.

This process only supervises and never loads Django: it stays small, and the web process imports what it
needs while the database is migrated beside it.
"""

import argparse
import os
import sys
from pathlib import Path

from ragsite.core.config import CHECKOUT, Config, read_config
from ragsite.core.scrape import share_metrics
from ragsite.embedded import revive_servers
from ragsite.processes import die_with_parent, watch_parent
from ragsite.stack import Part, Stack, check_port, hold_stack
from ragsite.weights import check_weights

HELP = "Runs everything in the foreground: servers, migrations, demo data (dev), web, worker and beat."

# Which embedded servers this process has started, for it to keep them alive.
EMBEDDED_VARIABLE = "RAGSITE_EMBEDDED"

_LOG_INS = """\
  log-ins, password demo-ragsite:
    acme    ada (admin), nina (network engineer), sam (security analyst), hal (helpdesk)
    globex  gus (admin), gina (network engineer)
    root    (superuser)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--host", help="the address to listen on (default: RAGSITE_HOST or 127.0.0.1)")
    parser.add_argument("--port", type=int, help="the port to listen on (default: PORT or 8000)")
    parser.add_argument(
        "--follow-parent",
        action="store_true",
        help="end when the process that started this one dies or is interrupted (for make)",
    )


def run_up(*, host: str | None, port: int | None, follow_parent: bool) -> None:
    """Runs the stack until a signal comes; the servers' variables are set already.

    Args:
        host: the address to listen on; the configuration's when not given.
        port: likewise.
        follow_parent: end with the process that started this one.

    Raises:
        StartError: one sentence.
    """
    is_over = _never
    if follow_parent:
        is_over = watch_parent()
        die_with_parent()
    config = read_config()
    host, port = host or config.host, port or config.port
    with hold_stack(data=config.data):
        check_port(host=host, port=port)
        check_weights(data=config.data)
        share_metrics(folder=config.data / "run" / "metrics")
        address = f"http://{_reachable(host)}:{port}/"
        log_ins = _LOG_INS if config.environment == "dev" else ""
        Stack(
            parts=_parts(host=host, port=port, config=config),
            data=config.data,
            ready_url=(_reachable(host).strip("[]"), port, "/livez"),
            announcement=f"\n  ragsite is ready: {address}\n{log_ins}",
            revive=lambda: _revive(config.data),
            is_over=is_over,
            out=sys.stdout,
        ).run()


def _parts(*, host: str, port: int, config: Config) -> list[Part]:
    # As root, celery would print a screenful of warning, which says nothing about a laptop.
    quiet = "ignore:You're running the worker with superuser"
    celery = [sys.executable, "-W", quiet, "-m", "celery", "--quiet", "-A", "ragsite"]
    setup = [sys.executable, str(CHECKOUT / "manage.py"), "prepare"]
    web = [sys.executable, "-m", "uvicorn", "ragsite.asgi:application", "--host", host, "--port", str(port)]
    web += ["--no-access-log", "--no-server-header", "--lifespan", "off", "--timeout-graceful-shutdown", "5"]
    # uvicorn would believe whoever connects from this machine.
    proxies = ["--forwarded-allow-ips", ",".join(config.proxies)]
    web += ["--proxy-headers", *proxies] if config.proxies else ["--no-proxy-headers"]
    if config.web_processes > 1:
        web += ["--workers", str(config.web_processes)]
    worker = [*celery, "worker", "--concurrency", "1", "--loglevel", "INFO"]
    worker += ["--without-gossip", "--without-mingle"]
    # No pid file: after a kill -9 its remains would keep the next beat from starting.
    beat = [*celery, "beat", "--loglevel", "INFO", "--pidfile="]
    beat += ["--schedule", str(config.data / "run" / "beat")]
    return [
        Part("web", web),
        Part("setup", setup, once=True),
        Part("worker", worker, waits=True),
        Part("beat", beat, waits=True),
    ]


def _reachable(host: str) -> str:
    """The address at which a browser on this machine finds a server that listens on this one."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _revive(data: Path) -> list[str]:
    kinds = os.environ.get(EMBEDDED_VARIABLE, "").split()
    return revive_servers(data=data, postgres="postgres" in kinds, redis="redis" in kinds)


def _never() -> bool:
    return False
