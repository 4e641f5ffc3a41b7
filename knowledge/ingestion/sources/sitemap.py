"""Sitemaps: lists of a site's addresses, as XML, as text, packed, or as an index of further ones."""

import zlib
from collections.abc import Iterator
from io import BytesIO

from lxml import etree

from knowledge.ingestion.sources.base import SourceError

MAX_BYTES = 50 * 2**20
MAX_URLS = 50_000
MAX_SITEMAPS = 100


def read_sitemap(data: bytes) -> Iterator[tuple[str, str]]:
    """``("page" | "sitemap", address)`` in order, at most 50,000 of them.

    Raises:
        SourceError: it is none, or too large.
    """
    if data.startswith(b"\x1f\x8b"):
        data = _unpack(data)
    found = _read_xml(data) if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else _read_text(data)
    for number, entry in enumerate(found):
        if number >= MAX_URLS:
            return
        yield entry


def _unpack(data: bytes) -> bytes:
    unpack = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpack.decompress(data, MAX_BYTES + 1)
    except zlib.error:
        raise SourceError("The sitemap cannot be unpacked.", permanent=True) from None
    if len(unpacked) > MAX_BYTES:
        raise SourceError(f"The sitemap unpacks to more than {MAX_BYTES >> 20} MB.", permanent=True)
    return unpacked


def _read_text(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.decode("utf-8", "replace").splitlines():
        if line.strip().startswith(("http://", "https://")):
            yield "page", line.strip()


def _read_xml(data: bytes) -> Iterator[tuple[str, str]]:
    reader = etree.iterparse(
        BytesIO(data),
        events=("end",),
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
    )
    try:
        for _, node in reader:
            name = etree.QName(node).localname if isinstance(node.tag, str) else ""
            parent = node.getparent()
            if name == "loc" and parent is not None and isinstance(parent.tag, str):
                kind = {"url": "page", "sitemap": "sitemap"}.get(etree.QName(parent).localname)
                if kind and node.text and node.text.strip():
                    yield kind, node.text.strip()
            elif name in ("url", "sitemap"):
                # What was read is let go, so that a list of 50,000 does not stay in memory as a tree.
                node.clear()
                while node.getprevious() is not None:
                    del node.getparent()[0]
    except etree.XMLSyntaxError as error:
        raise SourceError(f"The sitemap is damaged ({str(error)[:120]}).", permanent=True) from None
