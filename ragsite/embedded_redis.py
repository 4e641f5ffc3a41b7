"""The embedded Redis: started on a unix socket, recovered after ``kill -9``, stopped."""

import contextlib
import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ragsite import processes
from ragsite.embedded_files import EmbeddedError, disk_full, explain_os_error, make_folder
from ragsite.embedded_wheel import find_redis

START_SECONDS = 60.0  # it reads the append-only file first
STOP_STEPS = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
LOG_LIMIT = 10 * 2**20


@dataclass(frozen=True)
class RedisPlace:
    """Where one data folder's Redis lives."""

    folder: Path  # the append-only file
    socket: Path
    pid_file: Path
    log: Path
    mark: str  # stands in the process's title


def find_server(place: RedisPlace) -> int | None:
    """The number of this folder's running Redis."""
    try:
        noted = int(place.pid_file.read_text())
    except (FileNotFoundError, ValueError):
        noted = 0
    if _is_ours(place, processes.read_arguments(noted)) and processes.is_alive(noted):
        return noted
    # Its starter may have been killed before Redis wrote the file.
    found = processes.find_processes(is_match=lambda arguments: _is_ours(place, arguments))
    return found[0] if found else None


def _is_ours(place: RedisPlace, arguments: list[str]) -> bool:
    return (
        bool(arguments) and "redis-server" in arguments[0] and any(place.mark in word for word in arguments)
    )


def is_ready(place: RedisPlace) -> bool:
    """Whether Redis answers a PING; false while it still loads its data."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(place.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def wait_if_running(place: RedisPlace) -> bool:
    """For a Redis that runs and may still load its data: waits for it; returns whether it answers.

    One that runs and does not answer is ended.
    """
    if is_ready(place):
        return True
    if find_server(place) is None:
        return False
    if processes.wait_until(lambda: is_ready(place) or find_server(place) is None, seconds=START_SECONDS):
        return is_ready(place)
    stop_server(place)
    return False


def start_server(place: RedisPlace, *, durable: bool) -> None:
    """Starts Redis and returns when it answers.

    Raises:
        EmbeddedError: broken wheel, full disk, or a server that does not start (with the last line of its
            log).
    """
    program = find_redis()
    make_folder(place.folder, mode=0o700)
    for leftover in (place.socket, place.pid_file, *place.folder.glob("temp-*")):
        with contextlib.suppress(FileNotFoundError):
            leftover.unlink()
    if place.log.exists() and place.log.stat().st_size > LOG_LIMIT:
        place.log.replace(place.log.with_name(place.log.name + ".1"))
    settings = {
        "port": "0",
        "unixsocket": str(place.socket),
        "unixsocketperm": "700",
        "dir": str(place.folder),
        "pidfile": str(place.pid_file),
        "daemonize": "no",
        "save": "",
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "proc-title-template": "{title} " + place.mark,
    }
    command = [str(program)]
    for name, value in settings.items():
        command += [f"--{name}", value]
    try:
        with place.log.open("ab") as log:
            log_start = log.tell()
            process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                start_new_session=True,
                umask=0o077,
            )
    except OSError as error:
        raise explain_os_error(error, folder=place.folder) from error
    processes.keep_child(process)
    processes.wait_until(lambda: is_ready(place) or process.poll() is not None, seconds=START_SECONDS)
    if process.poll() is not None or not is_ready(place):
        complaint = _last_words(place.log, log_start)
        processes.end_processes([process.pid], steps=STOP_STEPS)
        if "No space left on device" in complaint:
            raise disk_full(place.folder)
        raise EmbeddedError(f'The embedded Redis does not start: "{complaint}" (more in {place.log}).')


def _last_words(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return (lines or ["it logged nothing"])[-1]


def stop_server(place: RedisPlace) -> None:
    """Stops Redis, which writes its append-only file out first.

    Raises:
        EmbeddedError: it does not end.
    """
    pid = find_server(place)
    if pid is not None and processes.end_processes([pid], steps=STOP_STEPS):
        raise EmbeddedError(f"The embedded Redis (process {pid}) does not end: end it by hand.")
