"""From bytes to readable text: finds the format, checks the limits, and calls that format's parser.

Pure: nothing here touches the database, the network or the file system. Parsing hostile files is still work
for a child process with bounded memory and time, which the caller starts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

from knowledge.ingestion.formats.base import Block, Heading, ParsedDocument, ParseError, ParseLimits
from knowledge.ingestion.formats.config import parse_config
from knowledge.ingestion.formats.csv import parse_csv
from knowledge.ingestion.formats.docx import parse_docx
from knowledge.ingestion.formats.html import parse_html
from knowledge.ingestion.formats.markdown import parse_markdown
from knowledge.ingestion.formats.pdf import parse_pdf
from knowledge.ingestion.formats.rst import parse_rst
from knowledge.ingestion.formats.source import parse_source
from knowledge.ingestion.formats.text import parse_log, parse_text

__all__ = [
    "SUPPORTED_EXTENSIONS",
    "Block",
    "Heading",
    "ParseError",
    "ParseLimits",
    "ParsedDocument",
    "media_type_of",
    "parse_document",
]

_PDF = "application/pdf"
_DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_CONFIG = "text/x-config"
_SOURCE = "text/x-source"

_Parser = Callable[..., ParsedDocument]

_CONFIG_ENDINGS = """
ini conf cfg config junos set ios nxos eos cli acl rules rsc tf tfvars hcl j2 properties env service yang mib
"""
_SOURCE_ENDINGS = """
ts tsx jsx go rs c h cc cpp hpp java kt rb pl php lua ps1 bash tcl mk dockerfile proto css
"""
# Ending → (media type, parser). Files of one family without a registered type share one of ours.
_FORMATS: dict[str, tuple[str, _Parser]] = {
    ".txt": ("text/plain", parse_text),
    ".text": ("text/plain", parse_text),
    ".log": ("text/x-log", parse_log),
    ".md": ("text/markdown", parse_markdown),
    ".markdown": ("text/markdown", parse_markdown),
    ".rst": ("text/x-rst", parse_rst),
    ".html": ("text/html", parse_html),
    ".htm": ("text/html", parse_html),
    ".pdf": (_PDF, parse_pdf),
    ".docx": (_DOCX, parse_docx),
    ".csv": ("text/csv", parse_csv),
    ".tsv": ("text/tab-separated-values", parse_csv),
    ".json": ("application/json", parse_config),
    ".yaml": ("application/yaml", parse_config),
    ".yml": ("application/yaml", parse_config),
    ".toml": ("application/toml", parse_config),
    ".xml": ("application/xml", parse_config),
    ".sql": ("application/sql", parse_source),
    ".py": ("text/x-python", parse_source),
    ".js": ("text/javascript", parse_source),
    ".sh": ("application/x-sh", parse_source),
    **dict.fromkeys((f".{ending}" for ending in _CONFIG_ENDINGS.split()), (_CONFIG, parse_config)),
    **dict.fromkeys((f".{ending}" for ending in _SOURCE_ENDINGS.split()), (_SOURCE, parse_source)),
}
# Files known by their whole name.
_NAMES: dict[str, tuple[str, _Parser]] = {
    "dockerfile": (_SOURCE, parse_source),
    "containerfile": (_SOURCE, parse_source),
    "makefile": (_SOURCE, parse_source),
    "jenkinsfile": (_SOURCE, parse_source),
    "vagrantfile": (_SOURCE, parse_source),
    "readme": ("text/plain", parse_text),
    "changelog": ("text/plain", parse_text),
    "license": ("text/plain", parse_text),
}

SUPPORTED_EXTENSIONS: frozenset[str] = frozenset(_FORMATS)
"""Endings in lower case with their dot, as PurePath.suffix gives them."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = b"PK\x03\x04"
# What a file under a textual ending must not begin with, and what to call it.
_SIGNATURES = (
    (b"%PDF-", "a PDF"),
    (_ZIP, "a ZIP archive or an office document"),
    (_OLE, "an old office document"),
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"{\\rtf", "an RTF document"),
)


def media_type_of(*, filename: str, data: bytes) -> str:
    """The media type of a file: by its name, checked against its first bytes.

    Raises ParseError unsupported_type (naming the supported endings), wrong_type and, for .docx, encrypted.
    """
    name = PurePath(filename).name
    media_type, _ = _find_format(name)
    if media_type == _PDF:
        if b"%PDF-" not in data[:1024]:  # some programs write a few bytes before the mark
            raise ParseError(
                "wrong_type", f"{name} is not a PDF: upload it under the ending of its real format."
            )
    elif media_type == _DOCX:
        _check_docx(name, data)
    else:
        for signature, kind in _SIGNATURES:
            if data.startswith(signature):
                raise ParseError(
                    "wrong_type",
                    f"{name} is {kind}, not text: upload it under the ending of its real format.",
                )
    return media_type


def parse_document(*, data: bytes, filename: str, limits: ParseLimits = ParseLimits()) -> ParsedDocument:  # noqa: B008
    """The readable text of a file with its title, sections, blocks and pages.

    `filename` is only read, never opened; folders in it are ignored. Raises ParseError, whose message says
    what to do.
    """
    name = PurePath(filename).name
    if len(data) > limits.max_bytes:
        raise ParseError(
            "too_large",
            f"{name} is {len(data) / 2**20:,.1f} MB, more than the {limits.max_bytes / 2**20:,.0f} MB "
            "allowed: split it and upload the parts.",
        )
    _, parser = _find_format(name)
    if not data.strip():
        raise ParseError("empty", f"{name} is empty: upload a file that holds text.")
    media_type = media_type_of(filename=name, data=data)
    return parser(data, filename=name, media_type=media_type, limits=limits)


def _find_format(name: str) -> tuple[str, _Parser]:
    lowered = name.lower()
    found = _FORMATS.get(PurePath(lowered).suffix) or _NAMES.get(lowered.split(".")[0])
    if found is None:
        # A name such as ".env" is all ending to people and all stem to PurePath.
        found = _FORMATS.get(lowered) if lowered.startswith(".") else None
    if found is None:
        endings = ", ".join(sorted(SUPPORTED_EXTENSIONS))
        raise ParseError("unsupported_type", f"{name} has no supported ending: upload one of {endings}.")
    return found


def _check_docx(name: str, data: bytes) -> None:
    if data.startswith(_ZIP):
        return
    if data.startswith(_OLE):
        # A protected .docx is an OLE container with the encrypted archive inside it.
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise ParseError(
                "encrypted", f"{name} is protected by a password: remove the protection and upload it again."
            )
        raise ParseError("wrong_type", f"{name} is an old Word document: save it as .docx and upload that.")
    raise ParseError(
        "wrong_type", f"{name} is not a Word document: upload it under the ending of its real format."
    )
