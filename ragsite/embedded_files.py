"""Folders, small files, free space and the operating system's refusals, for the embedded servers."""

import contextlib
import errno
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SPACE_FOR_FIRST_START = 500 * 10**6  # bytes
SOCKET_LIMIT = 107  # bytes: sockaddr_un.sun_path without its final NUL (unix(7))
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432"


class StartError(Exception):
    """ragsite cannot start; the message is one sentence that says what to do, and no traceback is wanted."""


class EmbeddedError(StartError):
    """An embedded server cannot be used; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Account:
    """The operating system's user that PostgreSQL runs as, because it refuses to run as root."""

    name: str
    uid: int
    gid: int


def make_folder(folder: Path, *, mode: int) -> None:
    """Makes a folder with exactly this mode whatever the umask; one that exists keeps its mode."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=mode, exist_ok=True)
        folder.chmod(mode)


def write_file(path: Path, text: str, *, account: Account | None = None) -> None:
    """Writes a small private file (mode 0600) so that a crash leaves the old one or the new, never half."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        if account:
            os.fchown(file.fileno(), account.uid, account.gid)
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def free_bytes(folder: Path) -> int:
    """Free space of the folder's file system."""
    return shutil.disk_usage(folder).free


def check_space(folder: Path) -> None:
    """Refuses to begin a first start that would fill the disk.

    Raises:
        EmbeddedError: fewer than 500 MB are free.
    """
    free = free_bytes(folder)
    if free < SPACE_FOR_FIRST_START:
        raise EmbeddedError(
            f"The disk of {folder} is full ({free // 10**6} MB free, {SPACE_FOR_FIRST_START // 10**6} MB "
            "needed): free some space or set RAGSITE_DATA to a folder on another disk."
        )


def explain_os_error(error: OSError, *, folder: Path) -> EmbeddedError:
    """One sentence for what the operating system refused while the servers were started."""
    where = error.filename or folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(folder)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
        return EmbeddedError(
            f"{where} cannot be used ({error.strerror}): start as the user that owns it, or set RAGSITE_DATA "
            "to a folder that you may write."
        )
    return EmbeddedError(f"The embedded servers cannot be started: {error.strerror or error} ({where}).")


def disk_full(folder: Path) -> EmbeddedError:
    """The one sentence for a full disk."""
    return EmbeddedError(
        f"The disk of {folder} is full: free some space or set RAGSITE_DATA to a folder on another disk."
    )


def choose_socket_folder(inside: Path, *, mark: str, server: str) -> Path:
    """The private folder of a server's socket, made when missing.

    Args:
        inside: where it should lie, below a folder that belongs to the server's user.
        mark: names the data folder.
        server: names the server.

    Returns:
        ``inside``, or a short folder below /tmp when that path is too long for a socket or would need
        quoting in a URL. Always /tmp, not the temporary folder of the moment: a second command must find
        the running servers whatever its environment says.

    Raises:
        EmbeddedError: the folder below /tmp belongs to somebody else.
    """
    if quote(str(inside)) == str(inside) and len(os.fsencode(inside / _LONGEST_SOCKET_NAME)) <= SOCKET_LIMIT:
        make_folder(inside, mode=0o700)
        return inside
    folder = Path("/tmp") / f"{mark}-{server}"  # noqa: S108
    make_folder(folder, mode=0o700)
    found = folder.lstat()
    owners = (os.geteuid(), inside.parent.stat().st_uid)
    if not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in owners:
        raise EmbeddedError(f"{folder} is not a private folder of this user: remove it, then start again.")
    return folder


def discard_socket_folder(folder: Path) -> None:
    """Removes a stopped server's socket folder when it lies below /tmp; one that is not empty stays."""
    if folder.parent == Path("/tmp"):  # noqa: S108
        with contextlib.suppress(OSError):
            folder.rmdir()
