"""Parses strangers' files in processes of their own, with bounded time and memory and nothing to steal.

A document is parsed by a child (`sandbox_child.py`) that is forked from a nursery, which this process starts when it
first needs one and keeps. A file that is handed to native code has a child that sees no other document, before or after:
what it might do to the process that reads it ends with it. Formats that are read by Python alone share a child with others
of their tenant, until one of them fails or much memory is held. Whatever happens to it, a document's failure is a ParseError
with its reason; the caller lives, and so does the next document.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from uuid import UUID

from knowledge.ingestion import sandbox_wire as wire
from knowledge.ingestion.formats.base import ParsedDocument, ParseError, ParseLimits
from knowledge.ingestion.parse import is_read_by_native_code, recognise_document
from knowledge.ingestion.sandbox_child import AGAIN, ENDED, EXIT_MEMORY, NEXT, NOTICE, READY

_ROOT = Path(__file__).resolve().parent.parent.parent
# What the nursery runs; its one argument is the number of its socket.
BOOT = (
    f"import sys; sys.path.insert(0, {str(_ROOT)!r}); "
    "from knowledge.ingestion.sandbox_child import run_nursery; run_nursery(int(sys.argv[1]))"
)
# Nothing of our own environment: it holds keys and passwords.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}
_START_SECONDS = 60.0
_NOTICE_SECONDS = 30.0
_TICK_SECONDS = 0.5
_PIECE = 1 << 20
# A child is shared by so many documents, each up to this size.
_SHARED_DOCUMENTS, _SHARED_BYTES = 100, 1 << 20
_IDLE = 2  # nurseries kept; more are made when more threads parse at once


class SandboxError(RuntimeError):
    """No process to parse in could be started: nothing is wrong with the document, so trying again is right."""

    permanent = False


class _ChildGone(Exception):
    """The child closed its socket before it had answered."""


def parse_in_sandbox(
    *,
    data: bytes,
    filename: str,
    limits: ParseLimits = ParseLimits(),  # noqa: B008
    tenant_id: UUID | None = None,
    on_tick: Callable[[], None] = lambda: None,
) -> ParsedDocument:
    """As parse_document, in a process of its own.

    Args:
        tenant_id: whose document it is: it shares a process with no other tenant's.
        on_tick: called about every half second meanwhile; may raise to end the work, which kills the child.

    Raises:
        ParseError: also for a parser that took too long or too much memory, or that crashed.
        SandboxError: no child could be started, or none lived.
    """
    name = PurePath(filename).name
    media_type = recognise_document(data=data, filename=name, limits=limits)
    work = _Work(data, name, media_type, limits, tenant_id, is_read_by_native_code(name))
    try:
        return _parse_with(_take_nursery(), work, on_tick)
    except SandboxError:  # a nursery that was ended from outside is no fault of the document's
        return _parse_with(_Nursery(), work, on_tick)


@dataclass(frozen=True)
class _Work:
    """A document to be parsed."""

    data: bytes
    filename: str
    media_type: str
    limits: ParseLimits
    tenant_id: UUID | None
    is_native: bool


def _parse_with(nursery: _Nursery, work: _Work, on_tick: Callable[[], None]) -> ParsedDocument:
    try:
        channel = nursery.await_child(work, on_tick)
        shared = nursery.taken > 0
        try:
            parsed = nursery.parse(channel, work, on_tick)
        except ParseError as error:
            if not (shared and error.code in ("crashed", "out_of_memory")):
                raise
            # It may be what an earlier document left: judged by itself, in a child of its own.
            parsed = nursery.parse(nursery.await_child(work, on_tick), work, on_tick)
    except ParseError:
        _keep_nursery(nursery)
        raise
    except BaseException:  # cancelled from the callback, or by Celery's or the interpreter's own exceptions
        nursery.kill()
        raise
    _keep_nursery(nursery)
    return parsed


class _Nursery:
    """The process that bears one child a document. Used by one thread at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-I", "-c", BOOT, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise SandboxError(f"No process to parse documents in could be started: {error}.") from error
        self._control = ours
        self._warm: socket.socket | None = None  # the socket of a child that may take another document
        self.taken = 0  # documents that it has taken
        self._shared_by: tuple[ParseLimits, UUID | None] = (ParseLimits(), None)
        self.is_usable = self._ask()

    def parse(self, channel: socket.socket, work: _Work, on_tick: Callable[[], None]) -> ParsedDocument:
        filename, limits = work.filename, work.limits
        self.taken += 1
        keep = False
        try:
            talk = _Talk(channel, seconds=limits.wall_seconds, on_tick=on_tick)
            try:
                talk.send(wire.write_request(filename=filename, size=len(work.data), limits=limits))
                talk.send(work.data)
                kind, sizes = wire.read_sizes(bytes(talk.receive(wire.ANSWER.size)), limits=limits)
                parts = [talk.receive(size) for size in sizes]
                is_light = talk.receive(1) == AGAIN
                parsed = wire.read_answer(kind, parts, media_type=work.media_type)
                keep = is_light and _may_share(work) and self.taken < _SHARED_DOCUMENTS
                return parsed
            except _ChildGone:
                raise self._explain_end(filename, limits) from None
            except TimeoutError:
                self.kill()
                raise ParseError(
                    "too_slow",
                    f"{filename} was not read within {limits.wall_seconds:g} seconds: split it or simplify it.",
                ) from None
            except wire.TooMuchError:
                self.kill()
                raise ParseError(
                    "too_much_output",
                    f"{filename} gives more text than can be taken: split it and upload the parts.",
                ) from None
            except wire.WireError as error:
                self.kill()
                raise ParseError(
                    "crashed",
                    f"The reader of {filename} answered nonsense ({error}): save it in another format.",
                ) from None
        finally:
            if keep and self.is_usable:
                self._warm, self._shared_by = channel, (limits, work.tenant_id)
            else:
                channel.close()
                self._warm, self.taken = None, 0
                self.is_usable = self.is_usable and self._ask()

    def is_alive(self) -> bool:
        if self._process.poll() is None:
            return True
        self.kill()
        return False

    def kill(self) -> None:
        """Ends the nursery and its child at once."""
        self.is_usable = False
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Closes this process's ends, at which a nursery ends by itself."""
        self._control.close()
        if self._warm:
            self._warm.close()

    def _ask(self) -> bool:
        try:
            self._control.sendall(NEXT)
        except OSError:
            return False
        return True

    def await_child(self, work: _Work, on_tick: Callable[[], None]) -> socket.socket:
        """The socket of a child that waits for a document."""
        # The limits of a child are hard ones: no other document may have more.
        if self._warm and _may_share(work) and self._shared_by == (work.limits, work.tenant_id):
            return self._warm
        if self._warm:
            self._warm.close()
            self._warm, self.taken = None, 0
            self.is_usable = self._ask()
        talk = _Talk(self._control, seconds=_START_SECONDS, on_tick=on_tick)
        while True:
            try:
                talk.wait(select.POLLIN)
                notice, descriptors, _, _ = socket.recv_fds(self._control, NOTICE.size, 1)
            except (TimeoutError, OSError):
                notice, descriptors = b"", []
            if not notice:
                raise SandboxError(
                    "The process to parse documents in could not be started: see the log for its reason."
                )
            if notice[:1] == READY and descriptors:
                return socket.socket(fileno=descriptors[0])

    def _explain_end(self, filename: str, limits: ParseLimits) -> ParseError:
        """Why the child is gone, from what the nursery tells of it."""
        status, memory = 0, 0
        try:
            talk = _Talk(self._control, seconds=_NOTICE_SECONDS)
            while True:
                kind, status, memory = NOTICE.unpack(bytes(talk.receive(NOTICE.size)))
                if kind == ENDED:
                    break
        except (TimeoutError, OSError, _ChildGone):
            self.kill()
            raise SandboxError("The process to parse documents in was ended from outside.") from None
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number in (signal.SIGXCPU, signal.SIGPROF):
            return ParseError(
                "too_slow",
                f"{filename} took more than {limits.cpu_seconds} seconds of work to read: split it or simplify it.",
            )
        # A library that gets no memory aborts; the kernel, out of memory itself, kills.
        starved = number and (number == signal.SIGKILL or memory * 1024 > 0.7 * limits.memory_bytes)
        if starved or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == EXIT_MEMORY):
            return ParseError(
                "out_of_memory",
                f"{filename} takes more than {limits.memory_bytes / 2**20:,.0f} MB of memory to read: split it or "
                "simplify it.",
            )
        how = signal.Signals(number).name if number else f"exit {os.waitstatus_to_exitcode(status)}"
        return ParseError(
            "crashed",
            f"The reader of {filename} crashed ({how}): save it again from the program that made it.",
        )


def _may_share(work: _Work) -> bool:
    return not work.is_native and len(work.data) <= _SHARED_BYTES


class _Talk:
    """Sending and receiving with one deadline over all of it."""

    def __init__(
        self, channel: socket.socket, *, seconds: float, on_tick: Callable[[], None] = lambda: None
    ) -> None:
        self._channel, self._on_tick = channel, on_tick
        now = time.monotonic()
        self._deadline, self._next_tick = now + seconds, now + _TICK_SECONDS

    def wait(self, event: int) -> None:
        poller = select.poll()
        poller.register(self._channel, event)
        while True:
            now = time.monotonic()
            if now >= self._deadline:
                raise TimeoutError
            if now >= self._next_tick:
                self._next_tick = now + _TICK_SECONDS
                self._on_tick()
            if poller.poll(max(1, 1000 * (min(self._deadline, self._next_tick) - now))):
                return

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self.wait(select.POLLOUT)
            try:
                view = view[self._channel.send(view[:_PIECE], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                continue
            except OSError:
                raise _ChildGone from None

    def receive(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self.wait(select.POLLIN)
            try:
                taken = self._channel.recv_into(view, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError:
                taken = 0
            if not taken:
                raise _ChildGone
            view = view[taken:]
        return data


_lock = threading.Lock()
_idle: list[_Nursery] = []


def _take_nursery() -> _Nursery:
    with _lock:
        while _idle:
            nursery = _idle.pop()
            if nursery.is_alive():
                return nursery
    return _Nursery()


def _keep_nursery(nursery: _Nursery) -> None:
    with _lock:
        if nursery.is_usable and len(_idle) < _IDLE:
            _idle.append(nursery)
            return
    if nursery.is_usable:
        nursery.kill()


def _forget_all() -> None:
    """In a forked process (a Celery worker): the nurseries are its parent's."""
    global _lock
    _lock = threading.Lock()
    for nursery in _idle:
        nursery.forget()
    _idle.clear()


def close_sandboxes() -> None:
    """Ends the processes that wait for documents."""
    with _lock:
        while _idle:
            _idle.pop().kill()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(close_sandboxes)
