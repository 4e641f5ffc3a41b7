"""The processes in which documents are parsed: a nursery that never sees a document, and a child for each one or a few.

The nursery imports the parsers once, gives up what it will not need, and then does nothing but fork. A child is
born before it is needed and lives until its parent closes the socket to it.

Between parent and nursery one socket: the parent sends NEXT when it wants a child; the nursery answers with a
socket to it, and tells how each child ended. Neither Django nor our configuration is imported here.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path

from knowledge.ingestion import sandbox_wire as wire
from knowledge.ingestion.formats.base import ParseError, ParseLimits
from knowledge.ingestion.sandbox_walls import build_walls, die_with_parent

NEXT = b"N"
# A letter, a child's exit status as waitpid gives it, and the most memory it had (KiB).
NOTICE = struct.Struct("=ciq")
READY, ENDED = b"R", b"E"
EXIT_MEMORY = 77
# After an answer: whether the child may take another document, or holds too much memory for that.
AGAIN, ENOUGH = b"A", b"E"
_ENOUGH_BYTES = 200 << 20
_NICENESS = 5
_ROOT = Path(__file__).resolve().parent.parent.parent


def run_nursery(descriptor: int) -> None:
    """Serves until the parent closes its end or dies, which is the same to a socket."""
    control = socket.socket(fileno=descriptor)
    # A large library that is wanted by openpyxl only if it is there.
    sys.modules["numpy"] = None  # type: ignore[assignment]
    from knowledge.ingestion.parse import load_parsers, parse_document

    load_parsers()
    # First uses build tables and caches; children inherit them.
    for name, sample in (
        ("a.md", b"# A\n\nb"),
        ("a.html", b"<p>a"),
        ("a.csv", b"a,b\n1,2"),
        ("a.txt", b"\xe4 a b"),
    ):
        with contextlib.suppress(ParseError):
            parse_document(data=sample, filename=name)
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    build_walls(root=_ROOT)
    for standard in (0, 1, 2):  # what libraries print about a document is nobody's business
        os.dup2(nowhere, standard)
    os.close(nowhere)
    gc.collect()
    gc.freeze()  # or the children's collector would copy every page that it looks at
    _serve(control)


def _serve(control: socket.socket) -> None:
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(woken, select.POLLIN)
    child, wanted = 0, False
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == woken:
                os.read(woken, 100)
                child = _reap(control, child)
            elif control.recv(1) != NEXT:
                _end(child)
                os._exit(0)
            else:
                wanted = True
        # The parent asks for the next child as soon as it has an answer, when the last may not be reaped yet.
        if wanted and not child:
            child, wanted = _bear_child(control, (woken, wake)), False


def _reap(control: socket.socket, child: int) -> int:
    if not child:
        return 0
    pid, status, usage = os.wait4(child, os.WNOHANG)
    if not pid:
        return child
    control.send(NOTICE.pack(ENDED, status, usage.ru_maxrss))
    return 0


def _end(child: int) -> None:
    if child:
        os.kill(child, signal.SIGKILL)


def _bear_child(control: socket.socket, pipe: tuple[int, int]) -> int:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with_parent(signal.SIGKILL)
            for end in (control.detach(), theirs.detach(), *pipe):
                os.close(end)
            _parse_all(ours)
        except MemoryError:
            os._exit(EXIT_MEMORY)
        finally:
            os._exit(1)
    ours.close()
    socket.send_fds(control, [NOTICE.pack(READY, 0, 0)], [theirs.fileno()])
    theirs.close()
    return child


def _parse_all(channel: socket.socket) -> None:
    """Reads and answers until the parent wants no more of this child."""
    while True:
        limits, name_size, size = wire.read_request(bytes(_receive(channel, wire.REQUEST.size)))
        _limit_process(limits)
        filename = _receive(channel, name_size).decode()
        for part in _parse_one(bytes(_receive(channel, size)), filename=filename, limits=limits):
            channel.sendall(part)
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        channel.sendall(AGAIN if held < _ENOUGH_BYTES else ENOUGH)


def _parse_one(data: bytes, *, filename: str, limits: ParseLimits) -> list[bytes]:
    from knowledge.ingestion.parse import parse_document

    try:
        return wire.write_document(parse_document(data=data, filename=filename, limits=limits))
    except ParseError as error:
        return wire.write_error(error)
    except MemoryError:
        os._exit(EXIT_MEMORY)
    except RecursionError:
        return wire.write_error(
            ParseError(
                "too_deep", f"{filename} is nested too deeply to be read: flatten it and upload it again."
            )
        )
    except Exception as error:
        return wire.write_error(_describe(error, filename))


def _describe(error: Exception, filename: str) -> ParseError:
    """A file that a parser was not prepared for. Where it failed helps who mends the parser, and harms nobody."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return ParseError(
        "damaged",
        f"{filename} cannot be read ({type(error).__name__} in {place}): save it again from the program that made it.",
    )


def _receive(channel: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        taken = channel.recv_into(view)
        if not taken:
            os._exit(0)  # nobody wants this child any more
        view = view[taken:]
    return data


def _limit_process(limits: ParseLimits) -> None:
    """For the next document: so much more work than so far, and so much memory in all; no files, no processes."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    work = math.ceil(used.ru_utime + used.ru_stime) + limits.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (work, resource.RLIM_INFINITY))  # SIGXCPU ends the process
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
