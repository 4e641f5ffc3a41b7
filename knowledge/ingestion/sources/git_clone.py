"""What this machine keeps of a repository: commits without their history, trees, and the contents that were asked for.

A partial clone: contents come in batches when they are needed, so that a folder of a large repository costs what is in
that folder. It is a cache: whatever is wrong with it is mended by making it anew.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.git_process import Git, GitFailed, Running
from knowledge.ingestion.sources.said import MAX_NAME
from ragsite.core.config import config

MAX_CLONE_BYTES = 2 * 2**30
MAX_PACKS = 200
MAX_ENTRIES = 400_000
# Git bounds no name, and a tree that repeats one folder a thousand times repeats its name as often.
MAX_ROW_BYTES, MAX_TREE_BYTES = 64 * 1024, 128 * 2**20
LOCAL_SECONDS, COMMIT_SECONDS, CONTENT_SECONDS = 60.0, 600.0, 600.0
_HEAD = "refs/ragsite/head"
# Only what fetches knows that the rest can be had from the server: everything else takes what is missing for missing.
_PARTIAL = ("-c", "remote.origin.promisor=true", "-c", "remote.origin.partialclonefilter=blob:none")
_FETCH = (
    "fetch",
    "--no-tags",
    "--no-write-fetch-head",
    "--no-auto-maintenance",
    "--no-recurse-submodules",
    "--quiet",
)


@dataclass(frozen=True)
class Entry:
    """A file, link or submodule of a tree. Of a path that is too long for a document only beginning and end are kept."""

    mode: str
    oid: str
    path: str


def clones_folder(tenant_id: UUID) -> Path:
    return config().data / "sources" / str(tenant_id)


def remove_clone(*, tenant_id: UUID, source_id: UUID) -> None:
    """Removes what is kept for a source; nothing there is no error."""
    shutil.rmtree(clones_folder(tenant_id) / str(source_id), ignore_errors=True)


def remove_clones_of_others(*, tenant_id: UUID, living: Iterable[UUID]) -> None:
    """Removes what sources left on this machine that were deleted on another."""
    known = {str(each) for each in living}
    with contextlib.suppress(FileNotFoundError):
        for folder in clones_folder(tenant_id).iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)


class Clone:
    """The clone of one source, locked against every other process of this machine."""

    def __init__(self, *, git: Git, folder: Path) -> None:
        self._git, self._folder = git, folder
        self._repository = folder / "repository.git"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise SourceError(
                "Another run of this source has not quite ended: try again.", permanent=False
            ) from None
        self._reader: Running | None = None
        self._stack = contextlib.ExitStack()
        if self._is_too_large():
            self.forget()

    def close(self) -> None:
        self._stop_reading()
        os.close(self._lock)

    def forget(self) -> None:
        """Begins anew."""
        self._stop_reading()
        shutil.rmtree(self._repository, ignore_errors=True)

    def _is_too_large(self) -> bool:
        packs = self._repository / "objects" / "pack"
        sizes = [file.stat().st_size for file in packs.glob("*")] if packs.is_dir() else []
        return len(sizes) > 4 * MAX_PACKS or sum(sizes) > MAX_CLONE_BYTES

    def head(self) -> str:
        """The commit that was fetched last; empty when there is none, or none that can be read."""
        if not self._repository.is_dir():
            return ""
        try:
            return self._local("rev-parse", "--verify", "--quiet", f"{_HEAD}^{{commit}}").decode().strip()
        except (GitFailed, SourceError):
            return ""

    def has(self, commit: str) -> bool:
        try:
            self._local("cat-file", "-e", f"{commit}^{{tree}}")
        except (GitFailed, SourceError):
            return False
        return True

    def fetch_commit(self, ref: str, *, commit: str, target: str = _HEAD) -> str:
        """Fetches what a ref points to (a commit and its trees) and returns the commit's id. Contents come when asked for.

        Args:
            commit: an id of the repository, which tells the kind of all of them: SHA-1, or the longer SHA-256.

        Raises:
            GitFailed, SourceError.
        """
        if not (self._repository / "HEAD").is_file():
            self._git.run(
                "init", "--quiet", "--bare", "--template=",
                f"--object-format={'sha256' if len(commit) == 64 else 'sha1'}", str(self._repository),
                seconds=LOCAL_SECONDS,
            )  # fmt: skip
        self._git.run(
            *_PARTIAL, *_FETCH, "--depth=1", "--filter=blob:none", "--force", "origin", f"+{ref}:{target}",
            seconds=COMMIT_SECONDS, folder=self._repository,
        )  # fmt: skip
        return self._local("rev-parse", "--verify", f"{target}^{{commit}}").decode().strip()

    def fetch_contents(self, oids: Iterable[str]) -> None:
        """Fetches contents by their ids, in one request."""
        self._git.run(
            *_PARTIAL, "-c", "fetch.negotiationAlgorithm=noop", *_FETCH, "--filter=blob:none", "--stdin", "origin",
            seconds=CONTENT_SECONDS, folder=self._repository, given="".join(f"{oid}\n" for oid in oids).encode(),
        )  # fmt: skip
        if self._is_too_large():
            raise SourceError(
                f"The documents of this repository take more than {MAX_CLONE_BYTES // 2**30} GB: choose a sub-folder, "
                "or exclude files.",
                permanent=True,
            )

    def entries(self, commit: str, *, folder: str = "") -> Iterator[Entry]:
        """Everything below a folder, in the order of its paths.

        Raises:
            GitFailed, SourceError.
        """
        below = ["--", f"{folder}/"] if folder else []
        with self._git.start(
            "ls-tree", "-r", "-z", "--full-tree", commit, *below, folder=self._repository
        ) as running:
            running.feed(b"")
            with running.within(COMMIT_SECONDS):
                for number, row in enumerate(_split(running)):
                    if number >= MAX_ENTRIES:
                        raise SourceError(
                            f"The repository holds more than {MAX_ENTRIES} files: choose a sub-folder.",
                            permanent=True,
                        )
                    about, _tab, path = row.partition(b"\t")
                    mode, _kind, oid = about.decode("ascii").split(" ")
                    yield Entry(mode, oid, _shorten(path).decode("utf-8", "replace"))
                running.finish()

    def sizes(self, oids: Iterable[str]) -> dict[str, int]:
        """The sizes in bytes of those contents that are here already."""
        asked = "".join(f"{oid}\n" for oid in oids).encode()
        rows = self._local("cat-file", "--batch-check", given=asked).decode().splitlines()
        told = (row.split(" ") for row in rows)
        return {row[0]: int(row[2]) for row in told if len(row) == 3 and row[1] == "blob"}

    def read(self, oid: str, *, max_bytes: int) -> tuple[int, bytes] | None:
        """Size and bytes of a content; no bytes when it is larger than ``max_bytes``, ``None`` when it is not here.

        Raises:
            GitFailed, SourceError.
        """
        if self._reader is None:
            self._reader = self._stack.enter_context(
                self._git.start("cat-file", "--batch", folder=self._repository)
            )
        reader = self._reader
        with reader.within(LOCAL_SECONDS):
            try:
                reader.stdin.write(f"{oid}\n".encode())
                reader.stdin.flush()
                told = reader.stdout.readline(300).decode("ascii", "replace").split()
                if told[1:] == ["missing"]:
                    return None
                if len(told) != 3 or told[1] != "blob":
                    raise GitFailed(reader.said() or "cat-file has ended", 1)
                size = int(told[2])
                if size > max_bytes:
                    self._stop_reading()  # its bytes are on their way
                    return size, b""
                data = reader.stdout.read(size + 1)
            except OSError:
                raise GitFailed(reader.said() or "cat-file has ended", 1) from None
            if len(data) != size + 1:
                raise GitFailed(reader.said() or "cat-file has ended", 1)
            return size, data[:-1]

    def _stop_reading(self) -> None:
        self._stack.close()
        self._reader = None

    def _local(self, *arguments: str, given: bytes = b"") -> bytes:
        return self._git.run(*arguments, seconds=LOCAL_SECONDS, folder=self._repository, given=given)


def _shorten(path: bytes) -> bytes:
    """A path with more than ``MAX_NAME`` characters still has more of them."""
    head, tail = 4 * (MAX_NAME + 1), MAX_NAME
    return path if len(path) <= head + tail else path[:head] + path[-tail:]


def _split(running: Running) -> Iterator[bytes]:
    """The NUL-ended rows of an output, as they come.

    Raises:
        SourceError: one of them, or all together, are too long.
    """
    rest, total = b"", 0
    while piece := running.stdout.read1(65_536):  # type: ignore[attr-defined]
        *rows, rest = (rest + piece).split(b"\0")
        total += len(piece)
        if len(rest) > MAX_ROW_BYTES or total > MAX_TREE_BYTES:
            what = "a path" if len(rest) > MAX_ROW_BYTES else "paths"
            limit = MAX_ROW_BYTES if len(rest) > MAX_ROW_BYTES else MAX_TREE_BYTES
            raise SourceError(
                f"The repository holds {what} of more than {limit:,} bytes: choose a sub-folder.",
                permanent=True,
            )
        yield from rows
