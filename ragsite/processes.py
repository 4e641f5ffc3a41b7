"""What Linux's ``/proc`` knows of processes, and how to end them: shared by the embedded servers and the
stack.

Only Linux: ``/proc/<pid>/cmdline`` and ``/proc/<pid>/stat`` are readable across users even in containers
that lack CAP_SYS_PTRACE, where ``/proc/<pid>/cwd`` is not. That is why processes are recognised by their
command line.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PR_SET_PDEATHSIG = 1

# Loaded once, before any fork: a forked child must not take the loader's lock.
_libc = ctypes.CDLL(None, use_errno=True)

# Servers outlive the function that starts them; unreaped they would stay zombies, which PostgreSQL takes for
# alive.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class ProcessMark:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: int  # clock ticks since boot


def _read_stat(pid: int) -> list[str] | None:
    """Fields of ``/proc/<pid>/stat`` from the state on (proc(5)), or None when there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The command's name stands in brackets and may itself hold brackets and spaces.
    return text.rpartition(")")[2].split()


def read_mark(pid: int) -> ProcessMark | None:
    """The identity of a living process; None when it is gone or a zombie."""
    fields = _read_stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return ProcessMark(pid=pid, started=int(fields[19]))


def is_zombie(pid: int) -> bool:
    """Whether the process has ended and only waits for its parent."""
    fields = _read_stat(pid)
    return fields is not None and fields[0] in "ZX"


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    return read_mark(pid) is not None


def read_arguments(pid: int) -> list[str]:
    """The command line; empty for zombies, kernel threads and processes that are gone."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    return raw.decode(errors="replace").rstrip("\0").split("\0") if raw else []


def find_processes(*, is_match: Callable[[list[str]], bool]) -> list[int]:
    """Numbers of the living processes whose command line matches."""
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return [pid for pid in pids if is_match(read_arguments(pid)) and is_alive(pid)]


def wait_until(condition: Callable[[], bool], *, seconds: float, interval: float = 0.02) -> bool:
    """Polls the condition until it holds or the time is over; returns whether it held."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


def send_signal(pid: int, number: signal.Signals) -> None:
    """Sends a signal; a process that is already gone is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def send_group_signal(group: int, number: signal.Signals) -> None:
    """Sends a signal to a process group; one that is already gone is fine."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def end_processes(pids: Iterable[int], *, steps: Iterable[tuple[signal.Signals, float]]) -> list[int]:
    """Ends processes by ever harsher signals.

    Args:
        pids: the processes.
        steps: signals with the seconds to wait after each.

    Returns:
        The processes that live on.
    """
    left = _living(pids)
    for number, seconds in steps:
        for pid in left:
            send_signal(pid, number)
        left = _await_end(left, seconds=seconds)
        if not left:
            break
    return left


def _await_end(pids: list[int], *, seconds: float) -> list[int]:
    wait_until(lambda: not _living(pids), seconds=seconds)
    return _living(pids)


def _living(pids: Iterable[int]) -> list[int]:
    reap_children()
    return [pid for pid in pids if is_alive(pid)]


def keep_child(process: subprocess.Popen[bytes]) -> None:
    """Remembers a server that this process started, so that its end is noticed and its zombie collected."""
    _children.append(process)


def reap_children() -> None:
    """Collects the servers of this process that have ended."""
    _children[:] = [process for process in _children if process.poll() is None]


def watch_parent() -> Callable[[], bool]:
    """Returns a function that tells whether the parent has had SIGINT or is gone.

    A Ctrl-C reaches make and its child alike, but ``kill -INT`` on make alone does not: make then waits for
    the child for ever. What shows is that it puts the signal's handling back to the default before it waits.
    """
    parent = os.getppid()
    if not _catches(parent, signal.SIGINT):
        return lambda: False
    return lambda: not _catches(parent, signal.SIGINT)


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal (proc(5), SigCgt)."""
    try:
        lines = (PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    masks = [line.split()[1] for line in lines if line.startswith("SigCgt:")]
    return bool(masks) and bool(int(masks[0], 16) >> (number - 1) & 1)


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Asks the kernel to send this process a signal when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
