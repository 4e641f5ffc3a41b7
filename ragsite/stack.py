"""The foreground stack of ``manage.py up``: web, worker and beat as children, their logs interleaved and
labelled.

Each child leads its own process group, so ending a group ends what the child started and nothing else. The
kernel ends the children when the stack itself is killed; what even that leaves is recorded and ended by the
next start.
"""

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from ragsite import processes
from ragsite.embedded_files import StartError, make_folder, write_file

STOP_SECONDS = 10.0
ORPHAN_SECONDS = 5.0
FAST_DEATH_SECONDS = 30.0  # a busy machine may take this long to import what then fails
FAST_DEATHS = 5
FIRST_BACKOFF_SECONDS = 0.5
REVIVE_SECONDS = 1.0
PROBE_SECONDS = 10.0  # then a new question is asked
WAIT_FOR_WEB_SECONDS = 60.0  # then the parts that wait for it start regardless
LONGEST_LINE = 64 * 1024  # bytes
_COLOURS = (36, 33, 35, 32)  # cyan, yellow, magenta, green
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StackError(StartError):
    """The stack cannot start or go on; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Part:
    """One child of the stack."""

    name: str
    command: Sequence[str]
    waits: bool = False  # starts when the stack is ready, so that the first page is not held up
    once: bool = False  # ends by itself, with code 0, before the stack counts as ready


@dataclass
class _Child:
    part: Part
    colour: int
    process: subprocess.Popen[bytes] | None = None
    born: float = 0.0
    due: float = 0.0  # time.monotonic() of the next start
    fast_deaths: int = 0
    is_done: bool = False
    unfinished: bytearray = field(default_factory=bytearray)


def catch_signal(number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> Any:
    """Installs a handler, but leaves SIGHUP ignored where nohup(1) asked for it; returns what was there."""
    before = signal.getsignal(number)
    if number != signal.SIGHUP or before != signal.SIG_IGN:
        signal.signal(number, handler)
    return before


def check_port(*, host: str, port: int) -> None:
    """Refuses a port that somebody else uses.

    Raises:
        StackError: taken, or not ours to open.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            reason = "taken" if error.errno == 98 else f"not usable ({error.strerror})"
            raise StackError(
                f"Port {port} is {reason}: stop what uses it or choose another with "
                f"PORT={port + 1 if port < 65535 else 8000} make run."
            ) from error


@contextlib.contextmanager
def hold_stack(*, data: Path) -> Iterator[None]:
    """Makes this process the one stack of the data folder, and ends what a killed one left.

    Raises:
        StackError: it already runs.
    """
    make_folder(data / "run", mode=0o700)
    with (data / "run" / "stack.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StackError(
                f"ragsite already runs on {data} (process {file.read().strip() or 'unknown'}): "
                "stop it, or set RAGSITE_DATA and PORT to run a second one."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        end_orphans(data=data)
        yield


def end_orphans(*, data: Path) -> None:
    """Ends the children of a stack that was killed: those of the recorded number and time of birth only."""
    record = _record_file(data)
    try:
        marks = [processes.ProcessMark(*pair) for pair in json.loads(record.read_text()).values()]
    except (FileNotFoundError, ValueError, TypeError):
        return
    orphans = [mark.pid for mark in marks if processes.read_mark(mark.pid) == mark]
    _end_groups(orphans, seconds=ORPHAN_SECONDS)
    record.unlink()


def _record_file(data: Path) -> Path:
    return data / "run" / "stack.json"


def _end_groups(groups: Sequence[int], *, seconds: float) -> None:
    """Ends process groups by their leaders: SIGTERM, then SIGKILL for whatever of them is left."""
    for group in groups:
        processes.send_group_signal(group, signal.SIGTERM)
    processes.wait_until(lambda: not any(processes.is_alive(group) for group in groups), seconds=seconds)
    for group in groups:
        processes.send_group_signal(group, signal.SIGKILL)


class _Probe:
    """Asks a URL for its 200 without blocking: a web process that is still importing may take seconds to
    answer, and the log lines of the others must not wait for it.
    """

    def __init__(self, host: str, port: int, path: str) -> None:
        self._address = (host, port)
        self._request = f"GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode()
        self._connection: socket.socket | None = None
        self._asked = 0.0

    def succeeds(self) -> bool:
        """Whether the answer has come and is 200; to be called again and again."""
        try:
            if self._connection is None:
                self._connection = socket.create_connection(self._address, timeout=1)
                self._connection.sendall(self._request)
                self._connection.setblocking(False)
                self._asked = time.monotonic()
            answer = self._connection.recv(64)
        except BlockingIOError:
            if time.monotonic() - self._asked > PROBE_SECONDS:
                self.close()
            return False
        except OSError:
            self.close()
            return False
        self.close()
        return answer.split(b" ")[1:2] == [b"200"]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Stack:
    """Runs the parts until a signal comes or one of them keeps dying.

    Args:
        parts: the children; those that wait start last.
        data: the data folder, held by :func:`hold_stack`.
        ready_url: host, port and path that answer 200 when the stack is ready.
        announcement: printed once, when it is ready.
        revive: starts embedded servers again that died, and names them; called about every second.
        is_over: tells of a wish to stop that comes by another way than a signal to this process.
        out: where the log lines go.
    """

    def __init__(
        self,
        *,
        parts: Sequence[Part],
        data: Path,
        ready_url: tuple[str, int, str],
        announcement: str,
        revive: Callable[[], list[str]] = list,
        is_over: Callable[[], bool] = lambda: False,
        out: IO[str] = sys.stdout,
    ) -> None:
        self._children = [_Child(part, _COLOURS[place % len(_COLOURS)]) for place, part in enumerate(parts)]
        self._data = data
        self._probe = _Probe(*ready_url)
        self._announcement = announcement
        self._revive = revive
        self._is_over = is_over
        self._out = out
        self._width = max(len(part.name) for part in parts) + 1
        self._coloured = out.isatty()
        self._selector = selectors.DefaultSelector()
        self._is_ready = False
        self._asked_to_stop: list[float] = []  # times at which signals came
        self._started = time.monotonic()

    def run(self) -> None:
        """Blocks until SIGINT, SIGTERM or SIGHUP has ended the stack.

        Raises:
            StackError: a part died too often, or an embedded server does not come back.
        """
        before = {number: catch_signal(number, self._note_signal) for number in _SIGNALS}
        try:
            next_revival = time.monotonic() + REVIVE_SECONDS
            while not self._asked_to_stop and not self._is_over():
                now = time.monotonic()
                self._bury_and_start(now)
                if not self._is_ready and self._is_set_up() and self._probe.succeeds():
                    self._is_ready = True
                    self._write(self._announcement)
                if now >= next_revival:
                    for name in self._revive():
                        self._say(f"{name} had died and was started again.")
                    next_revival = time.monotonic() + REVIVE_SECONDS
                self._relay(seconds=0.2)
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_stop.append(time.monotonic())

    def _is_urgent(self) -> bool:
        """A second Ctrl-C. One within a second is the same wish: make passes SIGTERM on to a group that had
        it.
        """
        times = self._asked_to_stop
        return len(times) > 1 and times[-1] - times[0] > 1

    def _bury_and_start(self, now: float) -> None:
        for child in self._children:
            if child.process is not None and _has_ended(child.process):
                self._bury(child, now)
            waits = child.part.waits and not self._may_follow(now)
            if child.process is None and now >= child.due and not waits and not child.is_done:
                self._start(child)

    def _is_set_up(self) -> bool:
        return all(child.is_done for child in self._children if child.part.once)

    def _may_follow(self, now: float) -> bool:
        """Whether the parts that wait may start: not on an unprepared database, nor long for a slow web
        process.
        """
        return self._is_ready or (self._is_set_up() and now - self._started > WAIT_FOR_WEB_SECONDS)

    def _start(self, child: _Child) -> None:
        parent = os.getpid()

        def follow_parent() -> None:
            processes.die_with_parent()
            if os.getppid() != parent:  # it died before the kernel was asked
                os._exit(1)

        try:
            child.process = subprocess.Popen(
                child.part.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"},  # no progress bars in a log
                process_group=0,
                preexec_fn=follow_parent,
            )
        except OSError as error:
            raise StackError(f"The {child.part.name} process cannot be started: {error}.") from error
        child.born = time.monotonic()
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)
        self._record()

    def _bury(self, child: _Child, now: float) -> None:
        """Collects a dead child. Its group is ended first: while it is a zombie its number cannot be
        reused.
        """
        assert child.process is not None
        processes.send_group_signal(child.process.pid, signal.SIGKILL)
        code = child.process.wait()
        self._close(child)
        if child.part.once and code >= 0:
            if code:
                raise StackError(
                    f"The {child.part.name} process failed (code {code}): its lines above say why."
                )
            child.is_done = True
            return
        lived = now - child.born
        is_early = lived < FAST_DEATH_SECONDS or not self._is_ready
        child.fast_deaths = child.fast_deaths + 1 if is_early else 0
        if child.fast_deaths >= FAST_DEATHS:
            raise StackError(
                f"The {child.part.name} process ended {FAST_DEATHS} times soon after its start (last with "
                f"code {code}): its lines above say why."
            )
        child.due = now + FIRST_BACKOFF_SECONDS * 2 ** max(child.fast_deaths - 1, 0)
        self._say(f"The {child.part.name} process ended with code {code} and is started again.")

    def _close(self, child: _Child) -> None:
        assert child.process is not None
        if child.process.stdout is not None and not child.process.stdout.closed:
            self._read(child)
            self._selector.unregister(child.process.stdout)
            child.process.stdout.close()
        if child.unfinished:
            self._write_line(child.part.name, child.colour, bytes(child.unfinished))
            child.unfinished = bytearray()
        child.process = None

    def _record(self) -> None:
        marks = {
            child.part.name: processes.read_mark(child.process.pid)
            for child in self._children
            if child.process
        }
        pairs = {name: (mark.pid, mark.started) for name, mark in marks.items() if mark}
        write_file(_record_file(self._data), json.dumps(pairs))

    def _relay(self, *, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if not self._read(key.data):
                # Its end is closed; the process itself is buried when it has died.
                self._selector.unregister(key.fileobj)
                key.data.process.stdout.close()

    def _read(self, child: _Child) -> bool:
        """Writes the child's whole lines out; returns False at the end of its output."""
        assert child.process is not None and child.process.stdout is not None
        try:
            chunk = os.read(child.process.stdout.fileno(), LONGEST_LINE)
        except BlockingIOError:
            return True
        child.unfinished += chunk
        *lines, rest = child.unfinished.split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], bytearray()
        child.unfinished = rest
        for line in lines:
            self._write_line(child.part.name, child.colour, bytes(line))
        return bool(chunk)

    def _write_line(self, name: str, colour: int, line: bytes) -> None:
        label = f"{name:<{self._width}}|"
        if self._coloured:
            label = f"\x1b[{colour}m{label}\x1b[0m"
        self._write(f"{label} {line.decode(errors='replace')}")

    def _say(self, sentence: str) -> None:
        self._write_line("stack", 1, sentence.encode())

    def _write(self, text: str) -> None:
        try:
            self._out.write(text + "\n")
            self._out.flush()
        except OSError:
            # Nobody reads the log any more (`make run | head`, a closed terminal): the same wish as Ctrl-C.
            with open(os.devnull, "w") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), self._out.fileno())
            self._asked_to_stop.append(time.monotonic())

    def _stop(self) -> None:
        self._probe.close()
        living = [child for child in self._children if child.process is not None]
        groups = [child.process.pid for child in living if child.process is not None]

        def all_ended() -> bool:
            self._relay(seconds=0)
            return self._is_urgent() or all(
                child.process is None or _has_ended(child.process) for child in living
            )

        for group in groups:
            processes.send_group_signal(group, signal.SIGTERM)
        processes.wait_until(all_ended, seconds=STOP_SECONDS)
        for child in living:
            assert child.process is not None
            processes.send_group_signal(child.process.pid, signal.SIGKILL)
            child.process.wait()
            self._close(child)
        self._selector.close()
        _record_file(self._data).unlink(missing_ok=True)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the child is dead, without collecting it."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
