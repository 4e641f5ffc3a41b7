"""Documents that are ZIP archives of XML (docx, pptx, xlsx, epub): judged by their directory before anything is
unpacked. Nothing is ever unpacked to the disk, and archives inside archives are not opened.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from lxml import etree

from knowledge.ingestion.formats.base import ParseError, ParseLimits

# A deflated part that grows more than this is no document; XML of real documents grows 5 to 40 times.
_MAX_RATIO = 200
_RATIO_FREE_BYTES = 10 * 2**20
_PIECE = 1 << 20
_DOCTYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
# The encodings that office programs write. Others could hide a document type from a search for its letters.
_ENCODING = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([^\"']*)")
_ENCODINGS = {b"utf-8", b"utf8", b"utf-16", b"utf16", b"us-ascii", b"ascii", b"iso-8859-1", b"windows-1252"}
_FLAG_ENCRYPTED = 1
ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    etree.LxmlError,
    EOFError,
    OSError,
    KeyError,
    ValueError,
    AttributeError,
    TypeError,
    IndexError,
    NotImplementedError,
    RuntimeError,
)
"""What archives, their XML and the libraries that read them raise for damaged files."""


@contextmanager
def damage_explained(filename: str) -> Iterator[None]:
    """Turns what readers raise for damaged files into a ParseError."""
    try:
        yield
    except RecursionError:  # a RuntimeError, and no sign of damage
        raise
    except ERRORS as error:
        ending = PurePosixPath(filename).suffix.lower()
        raise ParseError(
            "damaged", f"{filename} is damaged and cannot be opened: save it again as {ending}."
        ) from error


@contextmanager
def open_archive(
    data: bytes, *, filename: str, limits: ParseLimits, marks: str, kind: str
) -> Iterator[io.BytesIO]:
    """The archive as a file, once ``check_archive`` has found nothing against it; what its reader makes of damage inside the
    block becomes a ParseError.
    """
    check_archive(data, filename=filename, limits=limits, marks=marks, kind=kind)
    with damage_explained(filename):
        yield io.BytesIO(data)


def check_archive(data: bytes, *, filename: str, limits: ParseLimits, marks: str, kind: str) -> None:
    """Refuse an archive by its directory alone, and one whose XML declares a document type.

    `marks` is a name that the archive must hold, or the folder of one, "word/"; `kind` is what it then is, "a
    Word document". Python's zipfile never unpacks more of an entry than the directory declares, so the
    declared sizes are a bound. Raises ParseError too_large, encrypted, wrong_type and damaged.
    """
    with damage_explained(filename), zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        _check_sizes(entries, filename=filename, limits=limits)
        for entry in entries:
            _check_entry(entry, filename=filename)
        if not any(entry.filename.startswith(marks) for entry in entries):
            ending = PurePosixPath(filename).suffix.lower()
            raise ParseError(
                "wrong_type",
                f"{filename} is not {kind}: upload it under the ending of its real format, not {ending}.",
            )
        for entry in entries:
            if entry.filename.lower().endswith((".xml", ".rels", ".opf", ".ncx")):
                _check_xml(archive, entry, filename=filename)


def _check_sizes(entries: list[zipfile.ZipInfo], *, filename: str, limits: ParseLimits) -> None:
    if len(entries) > limits.max_entries:
        raise ParseError(
            "too_large",
            f"{filename} holds {len(entries):,} parts, more than the {limits.max_entries:,} allowed: save it "
            "again from the program that made it.",
        )
    unpacked = sum(entry.file_size for entry in entries)
    bomb = any(
        entry.file_size > _RATIO_FREE_BYTES and entry.file_size > _MAX_RATIO * max(entry.compress_size, 1)
        for entry in entries
    )
    if unpacked > limits.max_unpacked_bytes or bomb:
        raise ParseError(
            "too_large",
            f"{filename} would unpack to {unpacked / 2**20:,.0f} MB: save it without its pictures.",
        )


def _check_entry(entry: zipfile.ZipInfo, *, filename: str) -> None:
    if entry.flag_bits & _FLAG_ENCRYPTED:
        raise ParseError(
            "encrypted", f"{filename} is protected by a password: remove the protection and upload it again."
        )
    name = entry.filename.replace("\\", "/")
    outside = name.startswith("/") or ".." in name.split("/") or name[1:2] == ":"
    if outside or stat.S_ISLNK(entry.external_attr >> 16):
        raise ParseError(
            "damaged",
            f"{filename} holds a part that points outside of it, as no program writes: save it again.",
        )


def _check_xml(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, *, filename: str) -> None:
    """A DTD can only stand before the root element, but comments of any length may come before it, so the whole
    part is searched, in pieces. In UTF-16 every letter has a NUL beside it.
    """
    tail = b""
    with archive.open(entry) as part:
        while piece := part.read(_PIECE):
            first = not tail
            piece = tail + piece.replace(b"\0", b"")
            declared = _ENCODING.search(piece[:400]) if first else None
            if _DOCTYPE.search(piece) or (declared and declared[1].lower() not in _ENCODINGS):
                raise ParseError(
                    "damaged",
                    f"{filename} declares a document type, as no office program does: save it again.",
                )
            if first and not piece.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").startswith(b"<"):
                raise ParseError("damaged", f"{filename} holds XML that cannot be read: save it again.")
            tail = piece[-16:]
