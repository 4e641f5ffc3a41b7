"""Books (.epub): the chapters in the order of reading, each read as the HTML that it is."""

from __future__ import annotations

import posixpath
import re
import zipfile
from typing import Any
from urllib.parse import unquote

from lxml import etree

from knowledge.ingestion.formats.archive import open_archive
from knowledge.ingestion.formats.base import (
    HEADING,
    DocumentBuilder,
    ParsedDocument,
    ParseError,
    ParseLimits,
    make_title,
    shorten_title,
)
from knowledge.ingestion.formats.html import write_html
from knowledge.ingestion.formats.text import decode_text

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
# Fonts are obfuscated in books that anybody may read.
_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_XML = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, recover=True)
# HTML has no <title/>: read as HTML it would swallow all that follows.
_EMPTY_TAG = re.compile(r"<(title|script|style|a|p|div|span|i|b|em|strong|td|th|h[1-6])(\s[^<>]*)?/>")
_PAGE_TYPES = ("application/xhtml+xml", "text/html")


def parse_epub(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """Chapters with their headings; one without a heading goes under its title.

    Raises ParseError too_large, encrypted (copy protection), wrong_type, damaged and no_text.
    """
    builder = DocumentBuilder(filename=filename, limits=limits)
    with (
        open_archive(data, filename=filename, limits=limits, marks=_CONTAINER, kind="an EPUB book") as file,
        zipfile.ZipFile(file) as archive,
    ):
        names = set(archive.namelist())
        if _ENCRYPTION in names and _is_protected(archive.read(_ENCRYPTION)):
            raise ParseError(
                "encrypted",
                f"{filename} is copy-protected: upload a copy without protection that you may use.",
            )
        package_name = _find_package(archive.read(_CONTAINER))
        package = etree.fromstring(archive.read(package_name), _XML)
        title = shorten_title(_find_text(package, "title"))
        chapters = _list_chapters(package, folder=posixpath.dirname(package_name))
        if len(chapters) > limits.max_pages:
            raise ParseError(
                "too_large",
                f"{filename} has {len(chapters):,} chapters, {limits.max_pages:,} are allowed: split it.",
            )
        for name in chapters:
            if name in names:
                _write_chapter(builder, archive.read(name), filename=filename, limits=limits)
    if not builder.blocks:
        raise ParseError("no_text", f"{filename} holds no text: upload a book whose pages are not pictures.")
    return builder.build(title=title or make_title(filename), media_type=media_type)


def _is_protected(encryption: bytes) -> bool:
    root = etree.fromstring(encryption, _XML)
    methods = [node.get("Algorithm", "") for node in root.iter("{*}EncryptionMethod")]
    return any(method not in _OBFUSCATION for method in methods)


def _find_package(container: bytes) -> str:
    root = etree.fromstring(container, _XML)
    return next(str(node.get("full-path")) for node in root.iter("{*}rootfile") if node.get("full-path"))


def _find_text(package: Any, name: str) -> str:
    return next((node.text or "" for node in package.iter("{http://purl.org/dc/elements/1.1/}" + name)), "")


def _list_chapters(package: Any, *, folder: str) -> list[str]:
    """The archive's names of the pages in the order of reading, without the table of contents."""
    pages = {}
    for item in package.iter("{*}item"):
        if item.get("media-type") in _PAGE_TYPES and "nav" not in (item.get("properties") or "").split():
            path = posixpath.normpath(posixpath.join(folder, unquote(item.get("href") or "")))
            pages[item.get("id")] = path
    order = [node.get("idref") for node in package.iter("{*}itemref")]
    return list(dict.fromkeys(pages[one] for one in order if one in pages))


def _write_chapter(builder: DocumentBuilder, data: bytes, *, filename: str, limits: ParseLimits) -> None:
    if not data.strip():
        return
    html = _EMPTY_TAG.sub(r"<\1\2></\1>", decode_text(data, filename=filename, limits=limits))
    probe = DocumentBuilder(filename=filename, limits=limits)
    title = write_html(probe, html)
    if not probe.blocks:
        return
    if title and not probe.headings:
        builder.add(title, HEADING, level=1)
    builder.append(probe)
