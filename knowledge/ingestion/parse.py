"""From bytes to readable text: finds the format, checks the limits, and calls that format's parser.

Pure: nothing here touches the database, the network or the file system. Parsing hostile files is work for a
child process with bounded memory and time: `sandbox.py` is how the rest of the house calls this. The parsers
and their libraries are imported when they are first needed, so that a process that only asks for a file's
kind carries none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import PurePath

from knowledge.ingestion.formats.base import Block, Heading, ParsedDocument, ParseError, ParseLimits

__all__ = [
    "SUPPORTED_EXTENSIONS",
    "Block",
    "Heading",
    "ParseError",
    "ParseLimits",
    "ParsedDocument",
    "is_read_by_native_code",
    "is_supported",
    "load_parsers",
    "media_type_of",
    "parse_document",
    "recognise_document",
]

_PDF = "application/pdf"
_OFFICE = "application/vnd.openxmlformats-officedocument."
_DOCX = _OFFICE + "wordprocessingml.document"
_PPTX = _OFFICE + "presentationml.presentation"
_XLSX = _OFFICE + "spreadsheetml.sheet"
_EPUB = "application/epub+zip"
# What each archive is called, and what is said of its predecessor.
_ARCHIVES = {
    _DOCX: ("a Word document", "an old Word document", ".docx"),
    _PPTX: ("a PowerPoint presentation", "an old PowerPoint presentation", ".pptx"),
    _XLSX: ("an Excel workbook", "an old Excel workbook", ".xlsx"),
    _EPUB: ("an EPUB book", "an old office document", ".epub"),
}
_CONFIG = "text/x-config"
_SOURCE = "text/x-source"

# A parser's module and function below knowledge.ingestion.formats.
_PARSERS = {
    name: (f"knowledge.ingestion.formats.{module}", function)
    for name, module, function in (
        ("text", "text", "parse_text"),
        ("log", "text", "parse_log"),
        ("markdown", "markdown", "parse_markdown"),
        ("rst", "rst", "parse_rst"),
        ("html", "html", "parse_html"),
        ("pdf", "pdf", "parse_pdf"),
        ("docx", "docx", "parse_docx"),
        ("pptx", "pptx", "parse_pptx"),
        ("xlsx", "xlsx", "parse_xlsx"),
        ("epub", "epub", "parse_epub"),
        ("eml", "eml", "parse_eml"),
        ("ipynb", "ipynb", "parse_ipynb"),
        ("csv", "csv", "parse_csv"),
        ("json", "data", "parse_json"),
        ("jsonl", "data", "parse_jsonl"),
        ("config", "config", "parse_config"),
        ("source", "source", "parse_source"),
    )
}

# Parsers that hand the file to libraries written in C or C++.
_NATIVE = {"html", "pdf", "docx", "pptx", "xlsx", "epub", "eml"}

_CONFIG_ENDINGS = """
ini conf cfg config junos set ios nxos eos cli acl rules rsc tf tfvars hcl j2 properties env service yang mib
"""
_SOURCE_ENDINGS = """
ts tsx jsx go rs c h cc cpp hpp java kt rb pl php lua ps1 bash tcl mk dockerfile proto css
"""
# Ending → (media type, name of the parser). Files of one family without a registered type share one of ours.
_FORMATS: dict[str, tuple[str, str]] = {
    ".txt": ("text/plain", "text"),
    ".text": ("text/plain", "text"),
    ".log": ("text/x-log", "log"),
    ".md": ("text/markdown", "markdown"),
    ".markdown": ("text/markdown", "markdown"),
    ".rst": ("text/x-rst", "rst"),
    ".html": ("text/html", "html"),
    ".htm": ("text/html", "html"),
    ".pdf": (_PDF, "pdf"),
    ".docx": (_DOCX, "docx"),
    ".csv": ("text/csv", "csv"),
    ".tsv": ("text/tab-separated-values", "csv"),
    ".pptx": (_PPTX, "pptx"),
    ".xlsx": (_XLSX, "xlsx"),
    ".epub": (_EPUB, "epub"),
    ".eml": ("message/rfc822", "eml"),
    ".ipynb": ("application/x-ipynb+json", "ipynb"),
    ".json": ("application/json", "json"),
    ".jsonl": ("application/jsonl", "jsonl"),
    ".ndjson": ("application/jsonl", "jsonl"),
    ".yaml": ("application/yaml", "config"),
    ".yml": ("application/yaml", "config"),
    ".toml": ("application/toml", "config"),
    ".xml": ("application/xml", "config"),
    ".sql": ("application/sql", "source"),
    ".py": ("text/x-python", "source"),
    ".js": ("text/javascript", "source"),
    ".sh": ("application/x-sh", "source"),
    **dict.fromkeys((f".{ending}" for ending in _CONFIG_ENDINGS.split()), (_CONFIG, "config")),
    **dict.fromkeys((f".{ending}" for ending in _SOURCE_ENDINGS.split()), (_SOURCE, "source")),
}
# Files known by their whole name.
_NAMES: dict[str, tuple[str, str]] = {
    "dockerfile": (_SOURCE, "source"),
    "containerfile": (_SOURCE, "source"),
    "makefile": (_SOURCE, "source"),
    "jenkinsfile": (_SOURCE, "source"),
    "vagrantfile": (_SOURCE, "source"),
    "readme": ("text/plain", "text"),
    "changelog": ("text/plain", "text"),
    "license": ("text/plain", "text"),
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

    Raises ParseError unsupported_type (naming the supported endings), wrong_type and, for office files, encrypted.
    """
    name = PurePath(filename).name
    media_type, _ = _find_format(name)
    if media_type == _PDF:
        if b"%PDF-" not in data[:1024]:  # some programs write a few bytes before the mark
            raise ParseError(
                "wrong_type", f"{name} is not a PDF: upload it under the ending of its real format."
            )
    elif media_type in _ARCHIVES:
        _check_archive(name, data, media_type)
    else:
        for signature, kind in _SIGNATURES:
            if data.startswith(signature):
                raise ParseError(
                    "wrong_type",
                    f"{name} is {kind}, not text: upload it under the ending of its real format.",
                )
    return media_type


def recognise_document(*, data: bytes, filename: str, limits: ParseLimits) -> str:
    """The media type of a file that is worth parsing. Raises ParseError for one that is too large, empty, of
    no supported kind, or not what its name says.
    """
    name = PurePath(filename).name
    if len(data) > limits.max_bytes:
        raise ParseError(
            "too_large",
            f"{name} is {len(data) / 2**20:,.1f} MB, more than the {limits.max_bytes / 2**20:,.0f} MB "
            "allowed: split it and upload the parts.",
        )
    _find_format(name)
    if not data.strip():
        raise ParseError("empty", f"{name} is empty: upload a file that holds text.")
    return media_type_of(filename=name, data=data)


def parse_document(*, data: bytes, filename: str, limits: ParseLimits = ParseLimits()) -> ParsedDocument:  # noqa: B008
    """The readable text of a file with its title, sections, blocks and pages.

    `filename` is only read, never opened; folders in it are ignored. Raises ParseError, whose message says
    what to do.
    """
    name = PurePath(filename).name
    media_type = recognise_document(data=data, filename=name, limits=limits)
    parser = _load_parser(_find_format(name)[1])
    return parser(data, filename=name, media_type=media_type, limits=limits)


def is_read_by_native_code(filename: str) -> bool:
    """Whether reading a file of that name involves code in which a hostile file might take over the process."""
    return _find_format(PurePath(filename).name)[1] in _NATIVE


def is_supported(filename: str) -> bool:
    """Whether files of that name are of a kind that is read."""
    try:
        _find_format(PurePath(filename).name)
    except ParseError:
        return False
    return True


def load_parsers() -> None:
    """Imports every parser with its libraries, for a process that will fork one child a document."""
    for name in _PARSERS:
        _load_parser(name)


def _load_parser(name: str) -> Callable[..., ParsedDocument]:
    module, function = _PARSERS[name]
    parser: Callable[..., ParsedDocument] = getattr(import_module(module), function)
    return parser


def _find_format(name: str) -> tuple[str, str]:
    lowered = name.lower()
    found = _FORMATS.get(PurePath(lowered).suffix) or _NAMES.get(lowered.split(".")[0])
    if found is None:
        # A name such as ".env" is all ending to people and all stem to PurePath.
        found = _FORMATS.get(lowered) if lowered.startswith(".") else None
    if found is None:
        endings = ", ".join(sorted(SUPPORTED_EXTENSIONS))
        raise ParseError("unsupported_type", f"{name} has no supported ending: upload one of {endings}.")
    return found


def _check_archive(name: str, data: bytes, media_type: str) -> None:
    if data.startswith(_ZIP):
        return
    kind, predecessor, ending = _ARCHIVES[media_type]
    if data.startswith(_OLE):
        # A protected file is an OLE container with the encrypted archive inside it.
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise ParseError(
                "encrypted", f"{name} is protected by a password: remove the protection and upload it again."
            )
        raise ParseError("wrong_type", f"{name} is {predecessor}: save it as {ending} and upload that.")
    raise ParseError("wrong_type", f"{name} is not {kind}: upload it under the ending of its real format.")
