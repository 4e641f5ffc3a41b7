"""The file name under which a document is read: what has no ending of its own gets the one of its media type."""

import mimetypes
from pathlib import PurePath
from urllib.parse import unquote, urlsplit

from knowledge.ingestion.parse import SUPPORTED_EXTENSIONS, is_supported

_ENDINGS = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/markdown": ".md",
    "text/x-markdown": ".md",
    "text/plain": ".txt",
    "text/x-rst": ".rst",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/pdf": ".pdf",
    "application/json": ".json",
    "application/yaml": ".yaml",
    "application/x-yaml": ".yaml",
    "text/yaml": ".yaml",
    "application/toml": ".toml",
    "application/xml": ".xml",
    "text/xml": ".xml",
    "application/epub+zip": ".epub",
    "message/rfc822": ".eml",
    "application/x-ipynb+json": ".ipynb",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}


def media_type_name(value: str) -> str:
    """``text/html`` of ``Text/HTML; charset=utf-8``."""
    return value.partition(";")[0].strip().lower()


def says_nothing(media_type: str) -> bool:
    """Whether it is what servers say of files whose kind they do not know."""
    return media_type_name(media_type) in (
        "",
        "text/plain",
        "application/octet-stream",
        "binary/octet-stream",
    )


def ending_of(media_type: str) -> str:
    """The ending of a media type that can be read; else empty."""
    ending = _ENDINGS.get(media_type_name(media_type), "")
    return ending if ending in SUPPORTED_EXTENSIONS else ""


def file_name(uri: str, media_type: str = "") -> str:
    """The name that tells a document's format.

    Args:
        uri: a path, or an address with ``://``, whose query is no part of the name.
        media_type: as its source gives it; goes before the ending of an address, where it says anything.
    """
    is_address = _is_address(uri)
    name = PurePath(unquote(urlsplit(uri).path) if is_address else uri).name
    own = PurePath(name).suffix.lower()
    if own in SUPPORTED_EXTENSIONS and (not is_address or says_nothing(media_type)):
        return name
    ending = ending_of(media_type)
    if not ending or own == ending or (own, ending) == (".htm", ".html"):
        return name or "page"
    return f"{name or 'page'}{ending}"


def holds_no_text(uri: str, media_type: str = "") -> bool:
    """Whether a document's name says so: it is a picture, sound, film or font.

    The name of an address says nothing: what it leads to does. Of any other kind that is not read its source is told.
    """
    if _is_address(uri) or is_supported(file_name(uri, media_type)):
        return False
    kind = mimetypes.guess_type(uri)[0] or ""
    return kind.partition("/")[0] in ("image", "audio", "video", "font")


def _is_address(uri: str) -> bool:
    return "://" in uri
