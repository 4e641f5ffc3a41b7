"""The web server as a process of its own, on the test database: what it takes to kill one."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
from django.db import connections

CHECKOUT = Path(__file__).resolve().parent.parent
URLS = {
    "owner": "DATABASE_URL",
    "default": "RAGSITE_APP_DATABASE_URL",
    "platform": "RAGSITE_PLATFORM_DATABASE_URL",
}


class WebProcess:
    def __init__(self, environment: dict[str, str]) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._environment = environment
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "ragsite.asgi:application", "--port", str(self._port)]
        command += ["--lifespan", "off", "--no-access-log", "--log-level", "warning", "--no-proxy-headers"]
        command += ["--timeout-graceful-shutdown", "2"]
        self.process = subprocess.Popen(command, cwd=CHECKOUT, env=self._environment)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "a web process has ended"
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise AssertionError("a web process did not become ready")

    def kill(self) -> None:
        """As the kernel would: nothing is said to anybody."""
        self.process.kill()
        self.process.wait(timeout=20)


@contextmanager
def web_processes(count: int, **variables: object) -> Iterator[list[WebProcess]]:
    """So many of them, ready to answer; ``variables`` are added to their environment."""
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    for name, variable in URLS.items():
        parts = urlsplit(environment[variable])
        environment[variable] = urlunsplit(parts._replace(path=f"/{connections[name].settings_dict['NAME']}"))
    environment |= {"RAGSITE_DATABASE_POOL": "1"}
    started = [WebProcess(environment) for _ in range(count)]
    try:
        for each in started:
            each.wait_until_ready()
        yield started
    finally:
        for each in started:
            each.process.terminate()
        for each in started:
            each.process.wait(timeout=20)
