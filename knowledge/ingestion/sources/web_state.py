"""What a web source remembers from one sync to the next, small enough for its row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from knowledge.ingestion.sources.web_scope import WebOptions

VERSION = 1
MAX_LINKS = 300_000
MAX_LINK_BYTES = 20 * 2**20
_PER_LINK = 8  # its place in a list of links, in memory as in the row


@dataclass(frozen=True)
class Known:
    """A page as it was.

    Attributes:
        fingerprint: of its content; empty where it may not be kept, or where there was no page.
        links: clean addresses, so that a crawl goes on past a page that has not changed.
    """

    etag: str = ""
    modified: str = ""
    fingerprint: str = ""
    media_type: str = ""
    canonical: str = ""
    links: tuple[str, ...] = ()

    @property
    def is_page(self) -> bool:
        """Whether there was a page, and not a redirect or nothing."""
        return bool(self.fingerprint or self.media_type)

    @property
    def conditions(self) -> dict[str, str]:
        return ({"If-None-Match": self.etag} if self.etag else {}) | (
            {"If-Modified-Since": self.modified} if self.modified else {}
        )


@dataclass
class LinkRoom:
    """What the links of all pages may take together: each address once, and a little for every page that names it."""

    left: int = field(default_factory=lambda: MAX_LINK_BYTES)
    _kept: dict[str, str] = field(default_factory=dict)

    def take(self, links: Sequence[str]) -> tuple[str, ...] | None:
        """The links of a page, as they are to be kept; ``None``: there is no room for them."""
        new = dict.fromkeys(link for link in links if link not in self._kept)
        size = _PER_LINK * len(links) + sum(map(len, new))
        if size > self.left:
            return None
        self.left -= size
        return tuple(self._kept.setdefault(link, link) for link in links)


def write_state(
    pages: Mapping[str, Known], options: WebOptions, *, is_cut: bool = False, said: Sequence[str] = ()
) -> dict[str, Any]:
    """Addresses once, links by their number. Where that grows too large, pages are asked for whole the next time.

    Args:
        pages: what was asked for longest ago first.
        is_cut: there was no time for all of them.
        said: what people should know, shown with the source.
    """
    numbers: dict[str, int] = {}
    number, room = MAX_LINKS, LinkRoom()
    rows = []
    for address, page in pages.items():
        fits = len(page.links) <= number and room.take(page.links) is not None
        number -= len(page.links) if fits else 0
        row = [numbers.setdefault(address, len(numbers)), page.fingerprint, page.media_type]
        row += [numbers.setdefault(page.canonical, len(numbers)) if page.canonical else -1]
        if fits:
            row += [
                page.etag, page.modified, [numbers.setdefault(link, len(numbers)) for link in page.links]
            ]  # fmt: skip
        rows.append(row)
    return {
        "version": VERSION,
        "options": _text(options),
        "addresses": list(numbers),
        "pages": rows,
        "cut": is_cut,
        "said": list(said),
    }


def read_state(state: Mapping[str, Any], options: WebOptions) -> dict[str, Known]:
    """What ``write_state`` gave. With other options its links say nothing: every page is then asked for whole."""
    if state.get("version") != VERSION:
        return {}
    addresses, same = state["addresses"], state["options"] == _text(options)
    found = {}
    for number, fingerprint, media_type, canonical, *rest in state["pages"]:
        etag, modified, links = rest if rest and same else ("", "", [])
        found[addresses[number]] = Known(
            etag=etag,
            modified=modified,
            fingerprint=fingerprint,
            media_type=media_type,
            canonical=addresses[canonical] if canonical >= 0 else "",
            links=tuple(addresses[link] for link in links),
        )
    return found


def was_cut(state: Mapping[str, Any], options: WebOptions) -> bool:
    """Whether the last sync, with the same options, had no time for every page."""
    return bool(state.get("cut")) and state.get("options") == _text(options)


def _text(options: WebOptions) -> str:
    return repr(sorted((name, value) for name, value in options.model_dump().items() if name != "delay"))
