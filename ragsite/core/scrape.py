"""What Prometheus is told: the figures of all processes that share a folder, or of this one alone.

What is counted in a worker is to be seen at the web process's address: the processes of a machine write their counts into
files of one folder (prometheus_client's multiprocess mode), which whoever is asked adds up. The variable that names it
must be set before the first metric is made, hence nothing of prometheus_client is imported here before it is needed.
"""

import hmac
import ipaddress
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_LIVE_GAUGE = re.compile(r"gauge_live[a-z]+_(\d+)\.db")
FORBIDDEN = "Send the metrics token as “Authorization: Bearer …”.\n"


def share_metrics(*, folder: Path) -> None:
    """Has the processes that are started from here on count in a folder, emptied first; one named by the operator stays."""
    if os.environ.get(FOLDER_VARIABLE):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[FOLDER_VARIABLE] = str(folder)


def collect_metrics() -> bytes:
    """Prometheus's text format."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    folder = Path(os.environ.get(FOLDER_VARIABLE, ""))
    if not os.environ.get(FOLDER_VARIABLE) or not folder.is_dir():
        return generate_latest()
    _forget_dead(folder)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _forget_dead(folder: Path) -> None:
    """What a process that was killed was doing is not being done any more; what it has done stays counted."""
    for file in folder.glob("gauge_live*.db"):
        match = _LIVE_GAUGE.fullmatch(file.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            file.unlink(missing_ok=True)


def may_scrape(*, token: str, authorization: str, address: str) -> bool:
    """Whether somebody may read the metrics: with the token, or from this machine where none is configured."""
    if token:
        given = authorization.removeprefix("Bearer ")
        return hmac.compare_digest(token.encode(), given.encode("utf-8", "surrogateescape"))
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def serve_metrics(*, host: str, port: int, token: str) -> None:
    """Answers Prometheus in a thread, for a process that serves nothing else.

    Raises:
        OSError: the port is taken.
    """
    server = make_server(host, port, _answer(token), handler_class=_Silent)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


def _answer(token: str) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    from prometheus_client import CONTENT_TYPE_LATEST

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        given, address = environ.get("HTTP_AUTHORIZATION", ""), environ.get("REMOTE_ADDR", "")
        if not may_scrape(token=token, authorization=given, address=address):
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [FORBIDDEN.encode()]
        start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
        return [collect_metrics()]

    return answer


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """A line a scrape says nothing."""
