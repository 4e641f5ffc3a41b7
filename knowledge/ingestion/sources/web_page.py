"""What a fetched page says of itself: its links, its true address, whether robots may keep it."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath

import httpx2
from selectolax.lexbor import LexborHTMLParser

from knowledge.ingestion.names import ending_of, file_name, media_type_name, says_nothing
from knowledge.ingestion.parse import SUPPORTED_EXTENSIONS

MAX_LINKS = 2000
MAX_HTML_BYTES = 10 * 2**20
ROBOT = "ragsite"
_ROBOT_NAME = re.compile(r"[a-z][a-z0-9_.*-]*")
_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=", re.IGNORECASE)
# They can be read, but on a web site they are machinery.
_NEVER_INDEXED = frozenset({".js", ".ts", ".css", ".json", ".xml"})


@dataclass(frozen=True)
class PageFacts:
    """Of one page.

    Attributes:
        links: as they are written, in order.
        base: what they are relative to.
        canonical: as it is written; empty where the page names none.
        index: whether the page may be kept.
    """

    links: tuple[str, ...] = ()
    base: str = ""
    canonical: str = ""
    index: bool = True


def is_wanted(url: httpx2.URL, headers: Mapping[str, str]) -> bool:
    """Whether an answer is a document that can be read, by its headers; asked before its body is."""
    media_type = headers.get("Content-Type", "")
    ending = PurePath(file_name(str(url), media_type)).suffix.lower()
    if ending in _NEVER_INDEXED or ending not in SUPPORTED_EXTENSIONS:
        return False
    return bool(ending_of(media_type)) or says_nothing(media_type)


def is_html(headers: Mapping[str, str]) -> bool:
    return ending_of(headers.get("Content-Type", "")) == ".html"


def read_page(body: bytes, headers: Mapping[str, str]) -> PageFacts:
    """Links and wishes of a page; of what is no HTML the headers alone."""
    canonical = _canonical_of_header(headers.get("Link", ""))
    wishes = _wishes_of_header(_lines_of(headers, "X-Robots-Tag"))
    if not is_html(headers) or len(body) > MAX_HTML_BYTES:
        return PageFacts(canonical=canonical, index=not wishes & {"noindex", "none"})
    tree = LexborHTMLParser(body)
    for node in tree.css("meta[name][content]"):
        name = (node.attributes.get("name") or "").strip().lower()
        if name in ("robots", ROBOT):
            wishes |= _wishes(node.attributes.get("content") or "")
    for node in tree.css("link[rel][href]"):
        if "canonical" in (node.attributes.get("rel") or "").lower().split():
            canonical = (node.attributes.get("href") or "").strip()
            break
    links: dict[str, None] = {}
    if not wishes & {"nofollow", "none"}:
        for node in tree.css("a[href], area[href]"):
            if "nofollow" in (node.attributes.get("rel") or "").lower().split():
                continue
            href = (node.attributes.get("href") or "").strip()
            if href and not href.startswith(("#", "mailto:", "javascript:", "tel:", "data:")):
                links[href] = None
            if len(links) >= MAX_LINKS:
                break
    base = tree.css_first("base[href]")
    return PageFacts(
        links=tuple(links),
        base=(base.attributes.get("href") or "").strip() if base else "",
        canonical=canonical,
        index=not wishes & {"noindex", "none"},
    )


def _wishes(text: str) -> set[str]:
    """``noindex, nofollow`` of a page's own words."""
    return {part.strip() for part in text.lower().split(",")}


def _wishes_of_header(lines: Sequence[str]) -> set[str]:
    """``noindex, nofollow`` and ``ragsite: noindex``; what is said to another robot, to the line's end, is not for us."""
    found = set()
    for line in lines:
        for_us = True
        for part in line.lower().split(","):
            who, colon, what = (piece.strip() for piece in part.partition(":"))
            if colon and _ROBOT_NAME.fullmatch(who) and who not in _WITH_VALUE:
                for_us, part = who == ROBOT, what
            if for_us:
                found.add(part.strip())
    return found


def _lines_of(headers: Mapping[str, str], name: str) -> list[str]:
    """A header that may come several times, each as it was sent."""
    if isinstance(headers, httpx2.Headers):
        return headers.get_list(name)
    return [headers[name]] if name in headers else []


def _canonical_of_header(value: str) -> str:
    for part in value[:4000].split(","):
        target, _, rest = part.partition(";")
        if re.search(r"rel\s*=\s*\"?canonical\"?", rest, re.IGNORECASE):
            return target.strip().strip("<>")
    return ""


def in_utf8(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body in UTF-8 where only the header tells its encoding, which is gone once the file is stored.

    A page that is UTF-8 stays as it is, whatever the header says; one that names its encoding itself too.
    """
    kind = headers.get("Content-Type", "")
    found = re.search(r"charset\s*=\s*[\"']?([\w.:-]{2,40})", kind, re.IGNORECASE)
    if not found or not media_type_name(kind).startswith("text/") or _CHARSET.search(body[:4096]):
        return body
    with suppress(UnicodeDecodeError):
        body.decode("utf-8")
        return body
    with suppress(LookupError, UnicodeError):
        return body.decode(found[1]).encode()
    return body
