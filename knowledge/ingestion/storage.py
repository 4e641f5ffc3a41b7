"""Where originals are kept: files under names of our own making, never a client's."""

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from ragsite.core.config import config
from ragsite.core.problems import Problem

_NAME = re.compile(r"^[0-9a-f]{2}/[0-9a-f]{32}$")


def _path(tenant_id: uuid.UUID, stored_name: str) -> Path:
    if not _NAME.match(stored_name):
        raise ValueError("Not a name that store_original gave.")
    return config().documents_root / str(tenant_id) / stored_name


def store_original(*, tenant_id: uuid.UUID, data: bytes) -> str:
    """Writes an original whole or not at all, and returns its name.

    Raises:
        Problem: 507 when the disk is full.
    """
    name = uuid.uuid4().hex
    stored_name = f"{name[:2]}/{name}"
    path = _path(tenant_id, stored_name)
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Problem(
                507, "disk-full", "The server's disk is full, nothing was stored: tell its operator."
            ) from None
        raise
    return stored_name


def read_original(*, tenant_id: uuid.UUID, stored_name: str) -> bytes:
    """The bytes of an original.

    Raises:
        FileNotFoundError: it is gone from the disk.
    """
    return _path(tenant_id, stored_name).read_bytes()


def original_path(*, tenant_id: uuid.UUID, stored_name: str) -> Path:
    return _path(tenant_id, stored_name)


def delete_original(*, tenant_id: uuid.UUID, stored_name: str) -> None:
    """Removes an original, or what is left of one that was never whole; one that is gone already is no error."""
    if stored_name:
        whole = stored_name.removesuffix(".partial")
        path = _path(tenant_id, whole)
        (path if whole == stored_name else path.with_suffix(".partial")).unlink(missing_ok=True)


def list_originals(*, tenant_id: uuid.UUID) -> Iterator[tuple[str, float]]:
    """Every original of a tenant on the disk, partial ones of a crash too: its name, and the time of its last change."""
    folder = config().documents_root / str(tenant_id)
    if not folder.is_dir():
        return
    for part in sorted(folder.iterdir()):
        if not part.is_dir():
            continue
        for file in os.scandir(part):
            name = f"{part.name}/{file.name}"
            if _NAME.match(name.removesuffix(".partial")) and file.is_file(follow_symlinks=False):
                yield name, file.stat().st_mtime
