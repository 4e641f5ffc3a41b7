"""What a program and its children cost, by ``/proc``."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ragsite.processes import PROC, send_group_signal

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """``cpu``: seconds of work of a process and its children, dead ones too; ``peak``: the most bytes that one held."""

    cpu: float
    peak: int


class Program:
    """A process in a group of its own, ended with everything that it started.

    Args:
        log: takes what it prints.
        pin: to the last of the cores, where there are several: what measures leaves the others to what is measured.
    """

    def __init__(
        self, command: Sequence[str], *, env: dict[str, str], cwd: Path, log: IO[bytes], pin: bool = False
    ) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._peak = 0
        cores = sorted(os.sched_getaffinity(0))
        if pin and len(cores) > 1:
            os.sched_setaffinity(self._process.pid, {cores[-1]})

    def is_running(self) -> bool:
        return self._process.poll() is None

    def measure(self) -> Usage:
        """So far; to be called now and then, or the memory of children that have ended is not known."""
        return self.measure_of([self._process.pid])

    def measure_of(self, roots: Sequence[int]) -> Usage:
        """Of some of its children alone, with theirs."""
        pids = [pid for root in roots for pid in _family(root)]
        self._peak = max([self._peak, *(_peak_bytes(pid) for pid in pids)])
        return Usage(cpu=sum(_cpu_seconds(pid) for pid in pids), peak=self._peak)

    def finish(self, *, interval: float) -> tuple[int, Usage]:
        """Waits for its end; its exit code, and what it has cost in all."""
        while os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self.measure()
            time.sleep(interval)
        # A zombie still tells what it and the children that it has waited for have cost.
        usage = Usage(cpu=_cpu_seconds(self._process.pid), peak=self._peak)
        return self._process.wait(), usage

    def end(self, *, seconds: float = 10) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=seconds)
            send_group_signal(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` from the third on (proc(5)); empty when there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _family(root: int) -> list[int]:
    """A process, its children, theirs and so on."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _cpu_seconds(pid: int) -> float:
    # utime, stime, cutime, cstime
    return sum(int(value) for value in _stat(pid)[11:15]) / _TICKS


def _peak_bytes(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
