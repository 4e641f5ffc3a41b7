"""The embedded PostgreSQL: made once, started, recovered after any ``kill -9``, stopped.

Traps that shape this file (each was seen): PostgreSQL refuses root, so as root it runs as its own user from
a folder that this user can enter; a zombie postmaster counts as alive for PostgreSQL itself; a stale pid
file whose number now belongs to another process of the same user is fatal, and ``pg_ctl stop`` would signal
that process; back-ends outlive a killed postmaster for a moment and must be gone before its pid file may be
touched.
"""

import contextlib
import functools
import itertools
import os
import secrets as random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from ragsite import processes
from ragsite.embedded_files import (
    EmbeddedError,
    check_space,
    disk_full,
    explain_os_error,
    make_folder,
    write_file,
)
from ragsite.embedded_place import Cluster, give_folder
from ragsite.embedded_wheel import copy_postgres, find_postgres, postgres_programs

START_SECONDS = 180.0  # crash recovery replays up to max_wal_size
LEFTOVER_SECONDS = 10.0
STOP_STEPS = (
    (signal.SIGINT, 30.0),
    (signal.SIGQUIT, 10.0),
    (signal.SIGKILL, 5.0),
)  # fast, immediate, at all costs
LOG_LIMIT = 10 * 2**20  # bytes; a longer log is set aside at the next start

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "512MB",
    "password_encryption": "scram-sha-256",
    "jit": "off",  # the wheel has no LLVM
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def find_postmaster(cluster: Cluster) -> int | None:
    """The number of this cluster's running postmaster, never that of a stranger who inherited the number."""
    pid = _read_pid(cluster)
    if pid is not None and _is_postmaster(cluster, processes.read_arguments(pid)) and processes.is_alive(pid):
        return pid
    return None


def is_ready(cluster: Cluster) -> bool:
    """Whether the cluster accepts connections: the postmaster says so in the pid file's eighth line."""
    return find_postmaster(cluster) is not None and _read_pid_file(cluster)[7:8] == ["ready"]


def _read_pid_file(cluster: Cluster) -> list[str]:
    try:
        return [line.strip() for line in cluster.pid_file.read_text().splitlines()]
    except FileNotFoundError:
        return []


def _read_pid(cluster: Cluster) -> int | None:
    lines = _read_pid_file(cluster)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _is_postmaster(cluster: Cluster, arguments: list[str]) -> bool:
    return f"cluster_name={cluster.mark}" in arguments and Path(arguments[0]).name == "postgres"


def _is_ours(cluster: Cluster, arguments: list[str]) -> bool:
    """The postmaster or one of its processes, whose titles begin with the cluster's name."""
    return bool(arguments) and (
        arguments[0].startswith(f"postgres: {cluster.mark}: ") or _is_postmaster(cluster, arguments)
    )


def start_cluster(cluster: Cluster, *, durable: bool) -> None:
    """Starts the cluster, making it first when it is new; returns when it accepts connections.

    Args:
        cluster: from :func:`ragsite.embedded_place.locate_cluster`.
        durable: False gives up safety against a crash for speed, for throw-away servers of tests.

    Raises:
        EmbeddedError: broken wheel, full disk, or a server that does not start (with the last line of its
            log).
    """
    wheel = find_postgres()
    programs = postgres_programs(wheel.site if cluster.account is None else copy_postgres(wheel))
    if not cluster.folder.exists():
        _make_cluster(cluster, programs, durable=durable)
    _set_long_log_aside(cluster.log)
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while True:
        _clear_leftovers(cluster)
        complaint = _try_start(cluster, programs, durable=durable)
        if not complaint:
            return
        # The kernel may still be busy with a killed server: its zombie, its shared memory.
        passing = "already exists" in complaint or "is still in use" in complaint
        if not passing or time.monotonic() > deadline:
            raise _explain_failure(cluster, complaint)
        time.sleep(0.5)


def _make_cluster(cluster: Cluster, programs: Path, *, durable: bool) -> None:
    """Runs initdb in a draft folder and renames it when complete: a killed one leaves nothing that counts."""
    check_space(cluster.home)
    for stale in cluster.home.glob("draft-*"):
        makers = processes.find_processes(is_match=functools.partial(_names, str(stale / "cluster")))
        processes.end_processes(makers, steps=((signal.SIGKILL, 5.0),))
        shutil.rmtree(stale, ignore_errors=True)
    draft = cluster.home / f"draft-{os.getpid()}"
    make_folder(draft, mode=0o700)
    password_file = draft / "password"
    write_file(password_file, read_superuser_password(cluster))
    if cluster.account:
        give_folder(draft, cluster.account)
    command = [str(programs / "initdb"), "-D", str(draft / "cluster"), "-U", "postgres", "-E", "UTF8"]
    command += ["-A", "scram-sha-256", "--pwfile", str(password_file), "--no-instructions"]
    command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C.UTF-8"]
    if not durable:
        command.append("--no-sync")
    process = _spawn(cluster, command)
    try:
        processes.wait_until(lambda: process.poll() is not None, seconds=START_SECONDS)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise _explain_failure(cluster, _last_words(cluster.log, 0))
    (draft / "cluster").rename(cluster.folder)
    shutil.rmtree(draft)


def _names(word: str, arguments: list[str]) -> bool:
    return word in arguments


def read_superuser_password(cluster: Cluster) -> str:
    """The superuser's password: it lives beside the cluster, made before initdb, and is never given to
    Django.
    """
    path = cluster.home / "superuser"
    if not path.exists():
        write_file(path, random.token_urlsafe(32), account=cluster.account)
    return path.read_text()


def _try_start(cluster: Cluster, programs: Path, *, durable: bool) -> str:
    """Starts the postmaster and waits for it. Returns nothing when it is ready, else the log's last words."""
    settings = _SETTINGS | ({} if durable else _FORGETFUL)
    settings |= {"unix_socket_directories": str(cluster.sockets), "cluster_name": cluster.mark}
    command = [str(programs / "postgres"), "-D", str(cluster.folder)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    log_start = cluster.log.stat().st_size if cluster.log.exists() else 0
    process = _spawn(cluster, command)
    processes.keep_child(process)
    processes.wait_until(lambda: is_ready(cluster) or process.poll() is not None, seconds=START_SECONDS)
    if is_ready(cluster):
        return ""
    if process.poll() is None:
        processes.end_processes([process.pid], steps=STOP_STEPS)
        return f"it was not ready after {START_SECONDS:.0f} seconds"
    return _last_words(cluster.log, log_start)


def _spawn(cluster: Cluster, command: list[str]) -> subprocess.Popen[bytes]:
    """Starts a program of PostgreSQL as the server's user, in a session of its own, with nothing of ours
    inherited.
    """
    account = cluster.account
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    try:
        with cluster.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                start_new_session=True,
                umask=0o077,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
    except OSError as error:
        raise explain_os_error(error, folder=cluster.home) from error


def _last_words(log: Path, start: int) -> str:
    """The most telling line that was logged since: the last fatal one, else the last."""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 65536))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in lines if "FATAL" in line or "PANIC" in line or "rror:" in line]
    return (fatal or lines or ["it logged nothing"])[-1].strip()


def _explain_failure(cluster: Cluster, complaint: str) -> EmbeddedError:
    if "No space left on device" in complaint:
        return disk_full(cluster.home)
    return EmbeddedError(f'The embedded PostgreSQL does not start: "{complaint}" (more in {cluster.log}).')


def _set_long_log_aside(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_name(log.name + ".1"))


def _clear_leftovers(cluster: Cluster) -> None:
    """Removes what a killed server left, and only when nothing of it lives: two servers on one folder ruin
    it.
    """
    processes.reap_children()

    def survivors() -> list[int]:
        return processes.find_processes(is_match=lambda arguments: _is_ours(cluster, arguments))

    if not processes.wait_until(lambda: not survivors(), seconds=LEFTOVER_SECONDS / 2):
        left = processes.end_processes(survivors(), steps=((signal.SIGQUIT, 2.0), (signal.SIGKILL, 5.0)))
        if left:
            raise EmbeddedError(
                f"A killed PostgreSQL of {cluster.home} does not end (processes {left}): "
                "end them, then start again."
            )
    pid = _read_pid(cluster)
    # A dead pid's file stays: PostgreSQL removes it itself after a look at the shared memory that it names.
    if pid is not None and (processes.is_alive(pid) or processes.is_zombie(pid)):
        if _may_serve(cluster, processes.read_arguments(pid)):
            raise EmbeddedError(
                f"A PostgreSQL that was started by other means (process {pid}) uses {cluster.folder}: "
                "stop it, then start again."
            )
        cluster.pid_file.unlink()
    for leftover in cluster.sockets.glob(".s.PGSQL.*"):
        with contextlib.suppress(FileNotFoundError):
            leftover.unlink()


def _may_serve(cluster: Cluster, arguments: list[str]) -> bool:
    """Whether a stranger could be this folder's postmaster, reached by another path or started by hand."""
    if not arguments or Path(arguments[0]).name not in ("postgres", "postmaster"):
        return False
    folders = [Path(after) for word, after in itertools.pairwise(arguments) if word == "-D"]
    return not folders or (folders[0].exists() and folders[0].samefile(cluster.folder))


def wait_for_change(cluster: Cluster) -> bool:
    """For a postmaster that is starting or stopping: waits for either; returns whether it is ready."""
    processes.wait_until(lambda: is_ready(cluster) or find_postmaster(cluster) is None, seconds=START_SECONDS)
    return is_ready(cluster)


def stop_cluster(cluster: Cluster) -> None:
    """Stops the cluster fast (``smart`` would wait for one idle client for ever) and sees it gone.

    Raises:
        EmbeddedError: it does not end.
    """
    pid = find_postmaster(cluster)
    if pid is None:
        return
    if processes.end_processes([pid], steps=STOP_STEPS):
        raise EmbeddedError(f"The embedded PostgreSQL (process {pid}) does not end: end it by hand.")
