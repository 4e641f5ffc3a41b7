"""What a process that parses strangers' files gives up for ever: files, network, programs, other processes.

Limits of memory and time are set for each document by `sandbox_child.py`; here are the walls that stand once and are
inherited by every child. Each is used where the kernel has it (Landlock since Linux 5.13, seccomp filters
almost everywhere) and left out where it has not: a parser that is not taken over needs none of them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38

# linux/landlock.h; the system calls have the same numbers on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION_FLAG = 1
_LANDLOCK_RULE_PATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_EXECUTE = 1 << 0  # only what mmap(PROT_EXEC) of libraries would not need: programs
# How many access rights of files each version of the interface knows, from version 1 on.
_FILE_RIGHTS = (13, 14, 15, 15, 16, 16, 16)
_NET_RIGHTS, _NET_VERSION = 0b11, 4
_SCOPES, _SCOPE_VERSION = 0b11, 6

# Refused system calls, by architecture: (AUDIT_ARCH, numbers). In order: socket, connect, bind, listen, accept,
# accept4, execve, execveat, ptrace, process_vm_readv, process_vm_writev, io_uring_setup, bpf, keyctl, add_key,
# request_key, userfaultfd, perf_event_open, mount, unshare, setns.
_REFUSED = {
    "x86_64": (
        0xC000003E,
        (41, 42, 49, 50, 43, 288, 59, 322, 101, 310, 311, 425, 321, 250, 248, 249, 323, 298, 165, 272, 308),
    ),
    "aarch64": (
        0xC00000B7,
        (
            198,
            203,
            200,
            201,
            202,
            242,
            221,
            281,
            117,
            270,
            271,
            425,
            280,
            219,
            217,
            218,
            282,
            241,
            40,
            97,
            268,
        ),
    ),
}
_EPERM = 1


def build_walls(*, root: Path) -> None:
    """From here on only the interpreter's files and our own package below `root` can be read."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody of the same user may trace it or read its memory
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return
    _restrict_files(readable=_list_readable(root))
    _refuse_calls()


def die_with_parent(number: int) -> None:
    """Asks the kernel to send this process a signal when its parent dies (prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _list_readable(root: Path) -> set[Path]:
    paths = {Path(path) for path in (sys.prefix, sys.base_prefix + "/lib", root / "knowledge")}
    return paths | {Path(path) for path in sysconfig.get_paths().values() if Path(path).is_dir()}


def _restrict_files(*, readable: set[Path]) -> None:
    version = _libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION_FLAG)
    if version < 1:
        return
    rights = (1 << _FILE_RIGHTS[min(version, len(_FILE_RIGHTS)) - 1]) - 1
    attributes = [rights]
    if version >= _NET_VERSION:
        attributes.append(_NET_RIGHTS)
    if version >= _SCOPE_VERSION:
        attributes.append(_SCOPES)
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = _libc.syscall(_LANDLOCK_CREATE, packed, len(packed), 0)
    if ruleset < 0:
        return
    try:
        for path in readable:
            with suppress(OSError):  # what is not there need not be readable
                folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
                try:
                    rule = struct.pack("=Qi", _READ_FILE | _READ_DIR, folder)
                    _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH, rule, 0)
                finally:
                    os.close(folder)
        _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _refuse_calls() -> None:
    """A seccomp filter (seccomp(2)): the calls above fail with EPERM, foreign architectures' calls all do."""
    known = _REFUSED.get(platform.machine())
    if known is None:
        return
    architecture, numbers = known

    def statement(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    refuse, allow = 0x00050000 | _EPERM, 0x7FFF0000
    # Jumps are counted from the next statement; "refuse" is the last one, "allow" the one before.
    count = len(numbers)
    program = [
        statement(load, 4),  # the architecture
        statement(equal, architecture, 0, count + 3),
        statement(load, 0),  # the number of the call
        statement(at_least, 0x40000000, count + 1, 0),  # x32 calls on x86-64
        *(statement(equal, number, count - index, 0) for index, number in enumerate(numbers)),
        statement(give, allow),
        statement(give, refuse),
    ]
    code = ctypes.create_string_buffer(b"".join(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    filters = Program(len(program), ctypes.addressof(code))
    _libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(filters), 0, 0)
