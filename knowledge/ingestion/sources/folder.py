"""A folder of the server, below the allowed root."""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from knowledge.ingestion.sources.base import SourceError, SourceItem
from knowledge.ingestion.sources.kinds import SourceKind
from knowledge.ingestion.sources.said import MAX_NAME, UNNAMEABLE, name_some, readable
from knowledge.models import Document, Source
from ragsite.core.config import config
from tenants.models import Tenant
from tenants.scope import require_tenant_id, unscoped

MAX_ITEMS = 200_000
RACY_SECONDS = 2.0  # the coarsest clock of a file system
MANY = 20  # documents; fewer are soon deleted by hand, and soon indexed again
EMPTY_MARK = ".empty"  # a file of this name says that a folder is empty on purpose
PASSED_OVER = frozenset({"lost+found"})  # the file system's own, which root alone may read


def allowed_root() -> Path:
    """The folder below which folders may be sources."""
    return (config().ingest_root or config().data / "ingest").resolve()


def folder_owners() -> dict[str, UUID]:
    """Which tenant a folder directly below the allowed root is kept for: by tenants' slugs and ids, in lower case."""
    with unscoped(reason="find whose folder it is"):
        rows = list(Tenant.objects.values_list("pk", "slug"))
    return {slug: pk for pk, slug in rows} | {str(pk): pk for pk, _ in rows}


def folders_of_others() -> frozenset[str]:
    """The names, in lower case, of folders directly below the allowed root that are kept for other tenants."""
    own = require_tenant_id()
    return frozenset(name for name, owner in folder_owners().items() if owner != own)


def _check_owner(inside: tuple[str, ...]) -> None:
    """Raises SourceError: the tenant in force may not use this path below the allowed root."""
    owners, own = folder_owners(), require_tenant_id()
    owner = owners.get(inside[0].lower()) if inside else None
    if owner not in (None, own):
        raise SourceError(
            f"The folder “{inside[0]}” below the allowed root is kept for another tenant: choose another folder.",
            permanent=True,
        )
    if owner is None and not config().shares_ingest_root:
        slug = next(name for name, of in owners.items() if of == own)
        raise SourceError(
            f"Here each tenant has a folder of its own below the allowed root: name “{slug}”, or a folder below it. The "
            "operator can move the files there, or let all tenants use every folder that is kept for none of them "
            "(RAGSITE_INGEST_SHARED=true).",
            permanent=True,
        )


def resolve_folder(path: str) -> Path:
    """The real folder of a path, which is relative to the allowed root or absolute below it; for the tenant in force.

    Raises:
        SourceError: it lies elsewhere (links are followed first), is another tenant's, or is no folder.
    """
    if "\0" in path:
        raise SourceError("The path holds a NUL character.", permanent=True)
    root = allowed_root()
    folder = (root / path).resolve()
    if folder != root and root not in folder.parents:
        raise SourceError(
            "The folder must lie below the allowed root: move it there, or have the operator set RAGSITE_INGEST_ROOT.",
            permanent=True,
        )
    _check_owner(folder.relative_to(root).parts)  # before it is told what is there
    if not folder.is_dir():
        raise SourceError(f"There is no folder “{path}” below the allowed root.", permanent=True)
    return folder


def _item_of(known: os.stat_result, uri: str) -> SourceItem:
    # The inode's own time too: tools that set a file's time back cannot set that.
    fingerprint = f"{known.st_size}-{known.st_mtime_ns}-{known.st_ctime_ns}-{known.st_ino}"
    if max(known.st_mtime, known.st_ctime) > time.time() - RACY_SECONDS:
        # Another change within the same tick of the clock would leave no trace: next time it is read, too.
        fingerprint = ""
    return SourceItem(uri=uri, size=known.st_size, fingerprint=fingerprint)


def _is_too_long(path: Path) -> bool:
    return len(path.as_posix()) > MAX_NAME


def _open_below(folder: Path, uri: str) -> int:
    """A descriptor of a file, opened folder by folder from the file system's root: none of them may be a link.

    What is one by now, though it was none when the folder was listed, could lead anywhere.
    """
    *folders, name = (folder / uri).parts[1:]
    descriptor = os.open("/", os.O_PATH)
    try:
        for each in folders:
            below = os.open(each, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        # A pipe that has taken the place of a file would keep its reader waiting.
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
    finally:
        os.close(descriptor)


class FolderConnector:
    """Files of a folder and its sub-folders. Hidden ones and symbolic links are passed over.

    Args:
        folder: its real path.
        kept_for_others: names, in lower case, of folders directly below the allowed root that are passed over, too.
        holds_many: whether so many documents of it are known (``MANY``) that all of them at once are hardly deleted.
        disks: its sub-folders that were disks of their own when it was listed last; "." is the folder itself.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kept_for_others: frozenset[str] = frozenset(),
        holds_many: Callable[[], bool] = lambda: False,
        disks: Iterable[str] = (),
    ) -> None:
        self._folder = folder
        self._root, self._kept_for_others = allowed_root(), kept_for_others
        self._holds_many = holds_many
        self._known_disks = frozenset(disks)
        self._disks: set[str] = set()
        self._said: list[str] = []

    def check(self) -> str:
        if not self._folder.is_dir():
            raise SourceError(f"The folder {self._folder.name} is not there any more.", permanent=False)
        return "This folder is there." if any(self._folder.iterdir()) else "This folder is there, and empty."

    def list_items(self) -> Iterator[SourceItem]:
        if not self._folder.is_dir():
            # Not an empty folder: an unmounted disk must not delete every document.
            raise SourceError(f"The folder {self._folder.name} is not there any more.", permanent=False)
        found, unnameable = 0, []
        self._disks = set()
        empty = set(self._known_disks)  # of the disks that were there, those of which nothing is
        for directory, folders, files in os.walk(self._folder, onerror=self._refuse):
            below = Path(directory).relative_to(self._folder)
            if os.path.ismount(directory):
                self._disks.add(below.as_posix())
            if any(name == EMPTY_MARK or not name.startswith(".") for name in files):
                empty -= {below.as_posix(), *(each.as_posix() for each in below.parents)}
            others = self._kept_for_others if Path(directory) == self._root else ()
            unnameable += [readable(below / name) for name in folders if _is_too_long(below / name)]
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".")
                and name not in PASSED_OVER
                and name.lower() not in others
                and not _is_too_long(below / name)
            )
            for name in sorted(files):
                path = below / name
                if name.startswith(".") or (known := self._look_at(path)) is None:
                    continue
                uri = path.as_posix()
                if _is_too_long(path) or uri != readable(uri):
                    unnameable.append(readable(uri))
                    continue
                found += 1
                if found > MAX_ITEMS:
                    raise SourceError(
                        f"The folder holds more than {MAX_ITEMS} files: make several sources of its sub-folders.",
                        permanent=True,
                    )
                yield _item_of(known, uri)
        self._said = name_some(UNNAMEABLE, unnameable)
        if not (found or unnameable or (self._folder / EMPTY_MARK).exists()) and self._holds_many():
            # What is left of a disk that is not mounted is an empty folder.
            raise SourceError(
                f"The folder {self._folder.name} is empty, but was not before: mount its disk again. If it is empty on "
                f"purpose, put a file named {EMPTY_MARK} into it, or delete the source. Nothing was deleted.",
                permanent=False,
            )
        if away := sorted(empty - self._disks):
            disk = readable(Path(self._folder.name) / away[0])
            raise SourceError(
                f"The disk of the folder “{disk}” is not mounted, but was before: mount it again. If it is gone on "
                f"purpose, make an empty folder there and put a file named {EMPTY_MARK} into it. Nothing was deleted.",
                permanent=False,
            )

    def _look_at(self, path: Path) -> os.stat_result | None:
        """What is known of a file; nothing of a link, of what is no file, and of what has just gone."""
        try:
            known = os.lstat(self._folder / path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._refuse(error)
        return known if stat.S_ISREG(known.st_mode) else None

    def _refuse(self, error: OSError) -> NoReturn:
        """A part that cannot be read says nothing about what is in it: the whole list is not to be relied on."""
        path = readable(Path(error.filename or self._folder).relative_to(self._folder.parent))
        raise SourceError(
            f"“{path[:200]}” cannot be read ({error.strerror}): mend its disk, or let the user that ragsite runs as read "
            "it. Nothing was deleted.",
            permanent=False,
        )

    def fetch(self, item: SourceItem) -> bytes:
        with os.fdopen(_open_below(self._folder, item.uri), "rb") as file:
            return file.read(config().max_upload_bytes + 1)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"said": self._said, "disks": sorted(self._disks)}
        return {name: value for name, value in state.items() if value}

    def stop(self) -> None:
        """Nothing takes long."""

    def close(self) -> None:
        """Nothing is held."""


def _connect(source: Source) -> FolderConnector:
    # What the operator named may be any folder; those of other tenants inside it are passed over all the same.
    folder = Path(source.path).resolve() if source.trusted else resolve_folder(source.path)
    return FolderConnector(
        folder,
        kept_for_others=folders_of_others(),
        holds_many=lambda: Document.objects.filter(source=source, deleted_at__isnull=True).count() >= MANY,
        disks=source.state.get("disks", ()),
    )


def _read_place(typed: str, options: Any) -> str:
    resolve_folder(typed.strip())
    return typed.strip()


KIND = SourceKind(
    kind=Source.Kind.FOLDER,
    title=_("Folder of the server"),
    place=_("Folder of the server"),
    hint=_(
        "Below the folder that the operator allows (RAGSITE_INGEST_ROOT), sub-folders included. "
        "Hidden files and links are passed over."
    ),
    example="",
    read_place=_read_place,
    connect=_connect,
)
