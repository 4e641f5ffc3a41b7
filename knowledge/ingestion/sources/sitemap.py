"""Sitemaps: lists of a site's addresses, as XML, as text, packed, or as an index of further ones."""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice

from lxml import etree

from knowledge.ingestion.sources.base import SourceError

MAX_BYTES = 50 * 2**20
MAX_URLS = 50_000
MAX_SITEMAPS, MAX_ADDRESS = 100, 2048
# Fifty thousand addresses with ten pictures each have fewer.
MAX_ELEMENTS = 2_000_000
_GZIP = b"\x1f\x8b"
_MAX_MEMBERS, _PIECE = 10_000, 16 * 1024
_MAX_GAP = 2**20
_BLANK = b"\xef\xbb\xbf \t\r\n"


def list_pages(
    first: Iterable[str], *, read: Callable[[str], bytes], follows: Callable[[str], bool]
) -> Iterator[str]:
    """The pages that sitemaps list, those of an index included; addresses as they are written.

    Args:
        first: the addresses of the sitemaps to begin with.
        read: fetches one.
        follows: whether a sitemap that an index names is to be read.

    Raises:
        SourceError: one of them cannot be read.
    """
    queue, seen = deque(islice(first, MAX_SITEMAPS)), set[str]()
    while queue and len(seen) < MAX_SITEMAPS:
        address = queue.popleft()
        if address in seen:
            continue
        seen.add(address)
        for kind, found in read_sitemap(read(address)):
            if len(found) > MAX_ADDRESS:
                continue
            if kind == "page":
                yield found
            elif len(queue) < MAX_SITEMAPS and found not in seen and found not in queue and follows(found):
                queue.append(found)


def is_sitemap(data: bytes) -> bool:
    """Whether this lists addresses, rather than being a page.

    Raises:
        SourceError: it is packed and cannot be unpacked.
    """
    text = (_unpack(data) if data.startswith(_GZIP) else data).lstrip(_BLANK)
    if not text.startswith(b"<"):
        addresses = (b"http://", b"https://")
        return text.startswith(addresses) and all(
            line.startswith(addresses) for line in map(bytes.strip, text.splitlines()) if line
        )
    with suppress(etree.XMLSyntaxError, SourceError):
        for root in _open_xml(text, event="start"):
            return _name(root) in ("urlset", "sitemapindex")
    return False


def read_sitemap(data: bytes) -> Iterator[tuple[str, str]]:
    """``("page" | "sitemap", address)`` in order, at most 50,000 of them.

    Raises:
        SourceError: it is none, or too large; not permanent where it breaks off.
    """
    if data.startswith(_GZIP):
        data = _unpack(data)
    found = _read_xml(data) if data.lstrip(_BLANK).startswith(b"<") else _read_text(data)
    for number, entry in enumerate(found):
        if number >= MAX_URLS:
            return
        yield entry


def _unpack(data: bytes) -> bytes:
    """All members of a gzip file; what follows the last one is none of it."""
    unpacked, at = bytearray(), 0
    for _ in range(_MAX_MEMBERS):
        if not data.startswith(_GZIP, at):
            return bytes(unpacked)
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            piece = data[at : at + _PIECE]
            if not piece:
                raise SourceError(
                    "The sitemap breaks off in the middle; nothing was deleted. It is read again at the next sync.",
                    permanent=False,
                )
            try:
                unpacked += member.decompress(piece, MAX_BYTES + 1 - len(unpacked))
            except zlib.error:
                raise SourceError("The sitemap cannot be unpacked.", permanent=True) from None
            if len(unpacked) > MAX_BYTES:
                raise SourceError(f"The sitemap unpacks to more than {MAX_BYTES >> 20} MB.", permanent=True)
            at += len(piece) - len(member.unused_data)
    raise SourceError("The sitemap is packed in too many pieces.", permanent=True)


def _read_text(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.decode("utf-8", "replace").splitlines():
        if line.strip().startswith(("http://", "https://")):
            yield "page", line.strip()


def _open_xml(data: bytes, *, event: str) -> Iterator["etree._Element"]:
    """The elements of a document at their start or end. Each is let go after its end, whatever it is.

    Raises:
        XMLSyntaxError: it is damaged.
        SourceError: it has too many elements, or too much that is none.
    """
    parser = etree.XMLPullParser(
        events=(event,),
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    elements = last = 0
    for at in range(0, len(data), _PIECE):
        if at - last > _MAX_GAP:
            raise SourceError(
                f"The sitemap has {_MAX_GAP >> 20} MB without an element: correct it, or have the site crawled.",
                permanent=True,
            )
        parser.feed(data[at : at + _PIECE])
        for _, node in parser.read_events():
            elements, last = elements + 1, at
            if elements > MAX_ELEMENTS:
                raise SourceError(
                    f"The sitemap has more than {MAX_ELEMENTS:,} elements: split it, or have the site crawled.",
                    permanent=True,
                )
            yield node
            if event == "end":
                # As a tree they would take thirty times as much memory.
                node.clear()
                while node.getprevious() is not None:
                    del node.getparent()[0]
    parser.close()


def _read_xml(data: bytes) -> Iterator[tuple[str, str]]:
    try:
        for node in _open_xml(data, event="end"):
            parent = node.getparent()
            if parent is None or _name(node) != "loc":
                continue
            kind = {"url": "page", "sitemap": "sitemap"}.get(_name(parent))
            if kind and node.text and node.text.strip():
                yield kind, node.text.strip()
    except etree.XMLSyntaxError as error:
        raise SourceError(f"The sitemap is damaged ({str(error)[:120]}).", permanent=True) from None


def _name(node: "etree._Element") -> str:
    return str(etree.QName(node).localname)
