"""Which addresses belong to a web source, and how one address is told from another spelling of itself."""

import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import urlencode, urljoin

import httpx2
from django.utils.translation import gettext_lazy as _
from pydantic import field_validator

from knowledge.ingestion.sources.guard import Refused, origin_of, read_url
from knowledge.ingestion.sources.kinds import Options, option, patterns

MAX_LENGTH = 1000
MAX_SEGMENTS = 25
MAX_REPEATS = 3
MAX_PARAMETERS = 8
MAX_QUERIES_PER_PATH = 50
MAX_REMEMBERED, MAX_REMEMBERED_CHARS = 100_000, 16 * 2**20
HARD_MAX_PAGES = 20_000

# What says where a visitor came from or who they are, and nothing about the page.
_TRACKING = re.compile(
    r"utm_.+|_ga|_gl|_hs(enc|mi)|gclid|gclsrc|dclid|fbclid|msclkid|yclid|igshid|mc_[ce]id|mkt_tok|pk_.+|piwik_.+|mtm_.+"
    r"|phpsessid|jsessionid|sessionid|session_id|sid|aspsessionid.*|cfid|cftoken",
    re.IGNORECASE,
)
_PATH_SESSION = re.compile(r";(?:jsessionid|phpsessid|sid)=[^/?#]*", re.IGNORECASE)
_NO_PAGES = frozenset(
    """
    css js mjs map png jpg jpeg gif svg webp avif ico bmp tif tiff mp3 mp4 m4a m4v avi mov webm ogg wav
    woff woff2 ttf eot otf zip gz tgz bz2 xz 7z rar tar exe msi dmg iso img bin deb rpm jar war apk
    rss atom xml json wasm
    """.split()  # noqa: SIM905
)


class WebOptions(Options):
    """What is chosen for a web site. ``include`` bounds what is kept and followed; the first page is read in any case."""

    sitemap: bool = option(
        _("Take what the sitemap lists"), _("Instead of following links from page to page."), default=False
    )
    depth: int = option(_("Links away from the address, at most"), default=5, ge=0, le=50)
    max_pages: int = option(_("Pages, at most"), default=1000, ge=1, le=HARD_MAX_PAGES)
    prefix: str = option(
        _("Only below this path"), _("For instance /docs/; empty: the folder of the address."), max_length=500
    )
    include: tuple[str, ...] = patterns(
        _("Only these paths"), _("Patterns such as /docs/* or *bgp*; empty: all.")
    )
    exclude: tuple[str, ...] = patterns(_("Not these paths"), _("Patterns such as */archive/* or *print=*."))
    ignore_query: bool = option(
        _("Ignore what follows a “?”"), _("Pages that differ there alone are one."), default=False
    )
    delay: float = option(
        _("Seconds between two requests"),
        _("The site's robots.txt may ask for more."),
        default=0.2,
        ge=0,
        le=60,
    )

    @field_validator("prefix")
    @classmethod
    def _is_path(cls, value: str) -> str:
        if value and not value.startswith("/"):
            raise ValueError("Give a path that begins with /, for instance /docs/.")
        return value

    @field_validator("include", "exclude")
    @classmethod
    def _are_patterns(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        if any(not 0 < len(line) <= 200 or line.count("*") > 10 for line in lines):
            raise ValueError("A pattern has at most 200 characters and ten stars, for instance /docs/*.")
        return lines


class _Remembered(dict[str, str]):
    """Addresses and the one spelling of each, as many as there is room for."""

    _room = MAX_REMEMBERED_CHARS

    def keep(self, address: str, cleaned: str) -> None:
        size = len(address) + len(cleaned)
        if len(address) <= MAX_LENGTH and len(self) < MAX_REMEMBERED and size <= self._room:
            self._room -= size
            self[address] = cleaned


@dataclass(frozen=True)
class Scope:
    """The part of a web site that a source is about.

    Attributes:
        start: where it begins, after the redirects of the address that was given.
    """

    start: httpx2.URL
    options: WebOptions

    @cached_property
    def _prefix(self) -> str:
        return self.options.prefix or (self.start.path.rpartition("/")[0] + "/")

    @cached_property
    def _patterns(self) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
        return (
            [re.compile(translate(one)) for one in self.options.include],
            [re.compile(translate(one)) for one in self.options.exclude],
        )

    def clean(self, link: str, *, base: str = "") -> str:
        """The one spelling of an address of this site; empty for what is none of its pages.

        Fragment, tracking and session parameters go; what remains is sorted; http and https of the site are one.
        """
        link = link.strip()
        if len(link) > 4 * MAX_LENGTH:
            return ""
        try:
            address = urljoin(base or str(self.start), link).partition("#")[0]
        except ValueError:
            return ""
        if len(address) > 4 * MAX_LENGTH:
            return ""
        # Most links of a site are on every page of it.
        known = self._cleaned.get(address)
        if known is None:
            known = self._clean(address)
            self._cleaned.keep(address, known)
        return known

    def _clean(self, address: str) -> str:
        try:
            url = read_url(address)
            if not self._is_here(url):
                return ""
            path = _PATH_SESSION.sub("", url.raw_path.partition(b"?")[0].decode("ascii")) or "/"
            kept = [] if self.options.ignore_query or not url.query else sorted(
                (name, value) for name, value in url.params.multi_items() if not _TRACKING.fullmatch(name)
            )  # fmt: skip
            query = f"?{urlencode(kept)}" if kept else ""
            text = f"{self._origin}{path}{query}"
        except (Refused, httpx2.InvalidURL, ValueError, TypeError):
            return ""
        return text if len(text) <= MAX_LENGTH and len(kept) <= MAX_PARAMETERS else ""

    @cached_property
    def _cleaned(self) -> _Remembered:
        return _Remembered()

    @cached_property
    def _origin(self) -> str:
        return str(self.start.copy_with(raw_path=b"/", fragment=None)).removesuffix("/")

    def _is_here(self, url: httpx2.URL) -> bool:
        _, host, port = origin_of(url)
        _, own_host, own_port = origin_of(self.start)
        if host != own_host:
            return False
        return port == own_port or {port, own_port} <= {80, 443}

    def holds(self, address: str) -> bool:
        """Whether a clean address is a page of this source: below its path, wanted, and no trap."""
        url = httpx2.URL(address)
        path = url.path
        below = path.startswith(self._prefix) or path == self._prefix.rstrip("/")
        if not below or PurePosixPath(path).suffix.lower().removeprefix(".") in _NO_PAGES:
            return False
        segments = [one for one in path.split("/") if one]
        # /a/b/a/b/a/b: a relative link that never ends.
        if len(segments) > MAX_SEGMENTS or any(n > MAX_REPEATS for n in Counter(segments).values()):
            return False
        include, exclude = self._patterns
        text = path + (f"?{url.query.decode('ascii', 'replace')}" if url.query else "")
        if include and not any(one.match(text) or one.match(path) for one in include):
            return False
        return not any(one.match(text) or one.match(path) for one in exclude)


def bare_host(url: httpx2.URL) -> str:
    """A site's name without the www. that many answer to as well."""
    return origin_of(url)[1].removeprefix("www.")
