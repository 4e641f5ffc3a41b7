"""A web site: by its links or its sitemap, within its robots.txt, asking again only for what has changed.

Pages are yielded as they come, so that what is read is indexed while the crawl goes on. A page that a server says is not
there (404, 410, 451, noindex) goes; one that could not be had (a 5xx, a time-out, 401 and 403) stays as it was.
"""

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin

import httpx2
import structlog

from knowledge.ingestion.names import media_type_name
from knowledge.ingestion.sources.base import ItemError, SourceError, SourceItem
from knowledge.ingestion.sources.client import Fetched, GuardedClient, TooLarge
from knowledge.ingestion.sources.guard import Refused, read_url
from knowledge.ingestion.sources.robots import Robots, read_robots
from knowledge.ingestion.sources.sitemap import MAX_BYTES, MAX_SITEMAPS, read_sitemap
from knowledge.ingestion.sources.spool import Spool
from knowledge.ingestion.sources.web_page import PageFacts, in_utf8, is_wanted, read_page
from knowledge.ingestion.sources.web_scope import MAX_QUERIES_PER_PATH, Scope, WebOptions, bare_host
from knowledge.ingestion.sources.web_state import Known, read_state, write_state
from ragsite.core.config import config

logger = structlog.get_logger(__name__)

PAGE_SECONDS = 30.0
SYNC_SECONDS = 3000.0  # below the worker's time limit
MAX_HOPS = 5
FAILURES_IN_A_ROW = 10
_GONE = frozenset({404, 410, 451})


@dataclass(frozen=True)
class _Visit:
    """What became of asking for an address.

    Attributes:
        item: the document, if there is one.
        canonical: another address that the page says is its own.
        links: clean addresses that it names.
        moved: a clean address that it redirects to.
        failed: it could not be had for the moment.
    """

    item: SourceItem | None = None
    canonical: str = ""
    links: tuple[str, ...] = ()
    moved: str = ""
    failed: bool = False


@dataclass
class _Frontier:
    """Addresses to be visited: each once, and not endlessly many of one path (calendars, filters)."""

    limit: int
    queue: deque[tuple[str, int, int]] = field(default_factory=deque)
    seen: set[str] = field(default_factory=set)
    variants: dict[str, int] = field(default_factory=dict)

    def add(self, address: str, *, depth: int, hops: int = 0) -> None:
        if address in self.seen or len(self.seen) >= self.limit:
            return
        path, mark, _ = address.partition("?")
        if mark:
            if self.variants.get(path, 0) >= MAX_QUERIES_PER_PATH:
                return
            self.variants[path] = self.variants.get(path, 0) + 1
        self.seen.add(address)
        self.queue.append((address, depth, hops))


class WebConnector:
    """Pages of one host.

    Args:
        address: where it begins: a page, or with ``sitemap`` also the sitemap itself.
        state: what the last sync left.
        authorization: sent to this host alone.
    """

    def __init__(
        self, *, address: str, options: WebOptions, state: Mapping[str, Any], authorization: str = ""
    ) -> None:
        self._start = read_url(address).copy_with(fragment=None)
        self._options = options
        self._client = GuardedClient(authorization=authorization, owner=self._start)
        self._known = read_state(state, options)
        self._pages: dict[str, Known] = {}
        self._robots = Robots()
        self._scope = Scope(self._start, options)
        self._spool = Spool()
        self._addresses: dict[str, str] = {}
        self._failures: dict[str, ItemError] = {}
        self._in_a_row = 0
        self._last_request = 0.0
        self._first: tuple[str, Fetched] | None = None

    def check(self) -> str:
        self._find_start()
        if not self._options.sitemap:
            return f"{self._start.host} answers, and robots may read this page."
        if next(self._addresses_of_sitemaps(), None) is None:
            raise SourceError(
                "The sitemap lists no page of this source: look at the path below which they lie.",
                permanent=True,
            )
        return f"The sitemap of {self._start.host} lists pages of this source."

    def list_items(self) -> Iterator[SourceItem]:
        ends_at = time.monotonic() + SYNC_SECONDS
        frontier = _Frontier(limit=20 * self._options.max_pages + 1000)
        self._find_start()
        if self._options.sitemap:
            for address in self._addresses_of_sitemaps():
                frontier.add(address, depth=self._options.depth)
                if len(frontier.seen) >= 2 * self._options.max_pages:  # robots.txt may forbid some
                    break
        else:
            frontier.add(self._scope.clean(str(self._start)), depth=0)
        yielded: set[str] = set()
        waiting: dict[str, SourceItem] = {}
        asked = 0
        while frontier.queue and asked < self._options.max_pages:
            address, depth, hops = frontier.queue.popleft()
            if not self._robots.allows(address):
                continue
            if time.monotonic() > ends_at:
                visit = self._keep(address) if address in self._known else _Visit()
            else:
                asked += 1
                visit = self._visit(address)
                self._count_failures(visit)
            if visit.moved and hops < MAX_HOPS:
                frontier.add(visit.moved, depth=depth, hops=hops + 1)
            if depth < self._options.depth:
                for link in visit.links:
                    frontier.add(link, depth=depth + 1)
            if visit.item is None:
                continue
            if visit.canonical and visit.canonical != address:
                # Better told by the page of that address itself; its copy stands in where that is not to be had.
                waiting.setdefault(visit.canonical, visit.item)
                frontier.add(visit.canonical, depth=depth)
            elif visit.item.uri not in yielded:
                yielded.add(visit.item.uri)
                yield visit.item
        yield from self._copies(waiting, yielded)
        if frontier.queue:
            logger.info("web source not read to its end", host=self._start.host, left=len(frontier.queue))

    def _copies(self, waiting: Mapping[str, SourceItem], yielded: set[str]) -> Iterator[SourceItem]:
        for canonical, item in waiting.items():
            own = self._addresses.get(item.uri, item.uri)
            # Two pages that each name the other are one.
            if canonical in yielded or own in yielded or not self._scope.holds(canonical):
                continue
            yielded.update((canonical, own))
            copy = SourceItem(
                uri=canonical, size=item.size, fingerprint=item.fingerprint, media_type=item.media_type
            )
            self._addresses[canonical] = own
            self._spool.rename(item.uri, canonical)
            if item.uri in self._failures:
                self._failures[canonical] = self._failures.pop(item.uri)
            yield copy

    def fetch(self, item: SourceItem) -> bytes:
        spooled = self._spool.take(item.uri)
        if spooled is not None:
            return spooled
        if item.uri in self._failures:
            raise self._failures[item.uri]
        try:
            answer = self._ask(self._addresses.get(item.uri, item.uri), {})
        except SourceError as error:
            raise OSError(str(error)) from None
        if answer.status != 200:
            if _is_permanent(answer.status):
                raise ItemError(_describe_status(answer.status), permanent=True)
            raise OSError(f"the site answered {answer.status}")
        return in_utf8(answer.body, answer.headers)

    def state(self) -> dict[str, Any]:
        if not self._pages:  # nothing was listed, only looked at
            return {}
        return write_state(self._pages, self._options)

    def stop(self) -> None:
        self._client.stop()

    def close(self) -> None:
        self._client.close()
        self._spool.close()

    # The beginning

    def _find_start(self) -> None:
        """Reads robots.txt and the first page, and goes where that redirects to, within the same site."""
        for _ in range(MAX_HOPS + 1):
            self._scope = Scope(self._start, self._options)
            self._robots = read_robots(self._client, self._start)
            address = self._scope.clean(str(self._start))
            if not self._robots.allows(address):
                raise SourceError(
                    f"robots.txt of {self._start.host} does not let robots read {self._start.path}.",
                    permanent=True,
                )
            answer = self._ask(address, self._conditions(address))
            if not answer.location:
                break
            target = read_url(answer.location).copy_with(fragment=None)
            if bare_host(target) != bare_host(self._start):
                raise SourceError(
                    f"The address redirects to {target.host}: enter the address there, or credentials if it is a "
                    "sign-in.",
                    permanent=True,
                )
            self._start = target
        else:
            raise SourceError("The address redirects in a circle.", permanent=True)
        if answer.status in (401, 403):
            raise SourceError(f"{self._start.host} asks for credentials ({answer.status}).", permanent=True)
        if answer.status in _GONE:
            raise SourceError(
                f"There is no such page ({answer.status}): correct the address.", permanent=True
            )
        if answer.status not in (200, 304):
            raise SourceError(
                f"{self._start.host} answered {answer.status}; nothing was changed.",
                permanent=answer.status < 500,
            )
        self._first = (address, answer)

    def _addresses_of_sitemaps(self) -> Iterator[str]:
        """Pages that the site's sitemaps list, as far as they belong to the source.

        Raises:
            SourceError: there is none, or none that can be read.
        """
        queue: deque[str] = deque()
        assert self._first is not None
        looks_like_one = self._first[1].body[:2000].lstrip(b"\xef\xbb\xbf \t\r\n")
        if self._start.path.endswith((".xml", ".xml.gz", ".gz", ".txt")) or (
            b"<urlset" in looks_like_one or b"<sitemapindex" in looks_like_one
        ):
            queue.append(str(self._start))
        else:
            queue.extend(
                self._robots.sitemaps or [str(self._start.copy_with(raw_path=b"/sitemap.xml", fragment=None))]
            )
        seen: set[str] = set()
        while queue and len(seen) < MAX_SITEMAPS:
            address = queue.popleft()
            if address in seen:
                continue
            seen.add(address)
            for kind, found in read_sitemap(self._read_whole_sitemap(address)):
                if kind == "sitemap":
                    if bare_host(read_url(found)) == bare_host(self._start):
                        queue.append(found)
                else:
                    clean = self._scope.clean(found)
                    if clean and self._scope.holds(clean):
                        yield clean

    def _read_whole_sitemap(self, address: str) -> bytes:
        self._pause()
        answer = self._client.request("GET", address, max_bytes=MAX_BYTES, seconds=2 * PAGE_SECONDS)
        if answer.status != 200:
            # A list that is missing must not delete what it listed.
            raise SourceError(
                f"The sitemap {httpx2.URL(address).path} is not there ({answer.status}): correct the address, or have "
                "the site crawled.",
                permanent=answer.status in _GONE,
            )
        return answer.body

    # One page

    def _visit(self, address: str) -> _Visit:
        try:
            answer = (
                self._first[1] if self._first and self._first[0] == address else self._ask_patiently(address)
            )
        except Refused:
            return _Visit()
        except TooLarge:
            return _Visit(item=SourceItem(uri=address, size=config().max_upload_bytes + 1))
        except SourceError as error:
            return self._fail(address, str(error), permanent=error.permanent)
        known = self._known.get(address)
        if answer.status == 304 and known is not None:
            return self._keep(address)
        if answer.location:
            moved = self._scope.clean(answer.location)
            return _Visit(moved=moved if moved and self._scope.holds(moved) else "")
        if answer.status in _GONE:
            return _Visit()
        if answer.status != 200:
            return self._fail(
                address, _describe_status(answer.status), permanent=_is_permanent(answer.status)
            )
        return self._read(address, answer)

    def _read(self, address: str, answer: Fetched) -> _Visit:
        if not is_wanted(answer.url, answer.headers):
            return _Visit()
        facts = read_page(answer.body, answer.headers)
        links, canonical = self._clean_facts(answer.url, facts)
        body = in_utf8(answer.body, answer.headers)
        known = self._known.get(address)
        page = Known(
            etag=answer.headers.get("ETag", "")[:300],
            modified=answer.headers.get("Last-Modified", "")[:100],
            fingerprint=f"sha256:{hashlib.sha256(body).hexdigest()}" if facts.index else "",
            media_type=media_type_name(answer.headers.get("Content-Type", ""))[:100],
            canonical=canonical,
            links=links,
        )
        self._pages[address] = page
        if facts.index and (known is None or known.fingerprint != page.fingerprint):
            self._spool.keep(address, body)
        return self._visit_of(address, page, size=len(body))

    def _visit_of(self, address: str, page: Known, *, size: int = 0) -> _Visit:
        item = None
        if page.fingerprint and self._scope.holds(address):
            item = SourceItem(
                uri=address, size=size, fingerprint=page.fingerprint, media_type=page.media_type
            )
        return _Visit(item=item, canonical=page.canonical, links=page.links)

    def _clean_facts(self, url: httpx2.URL, facts: PageFacts) -> tuple[tuple[str, ...], str]:
        try:
            base = urljoin(str(url), facts.base)
        except ValueError:
            base = str(url)
        links = dict.fromkeys(self._scope.clean(link, base=base) for link in facts.links)
        canonical = self._scope.clean(facts.canonical, base=base) if facts.canonical else ""
        return (
            tuple(link for link in links if link and self._scope.holds(link)),
            canonical if canonical and self._scope.holds(canonical) else "",
        )

    def _keep(self, address: str) -> _Visit:
        """As it was at the last sync."""
        page = self._pages[address] = self._known[address]
        return self._visit_of(address, page)

    def _fail(self, address: str, reason: str, *, permanent: bool) -> _Visit:
        if address in self._known:
            return replace(self._keep(address), failed=not permanent)
        self._failures[address] = ItemError(reason, permanent=permanent)
        return _Visit(item=SourceItem(uri=address, size=0), failed=not permanent)

    def _count_failures(self, visit: _Visit) -> None:
        self._in_a_row = self._in_a_row + 1 if visit.failed else 0
        if self._in_a_row >= FAILURES_IN_A_ROW:
            raise SourceError(
                f"{self._start.host} does not answer any more; nothing was deleted. It is tried again at the next sync.",
                permanent=False,
            )

    # Asking

    def _conditions(self, address: str) -> dict[str, str]:
        known = self._known.get(address)
        return known.conditions if known is not None else {}

    def _ask_patiently(self, address: str) -> Fetched:
        """Asks, and a second time after as long as a busy server wishes."""
        answer = self._ask(address, self._conditions(address))
        wait = answer.headers.get("Retry-After", "")
        if answer.status in (429, 503) and wait.isdigit() and int(wait) <= PAGE_SECONDS:
            self._client.pause(int(wait))
            answer = self._ask(address, self._conditions(address))
        return answer

    def _ask(self, address: str, headers: Mapping[str, str]) -> Fetched:
        self._pause()
        return self._client.request(
            "GET",
            address,
            max_bytes=config().max_upload_bytes,
            seconds=PAGE_SECONDS,
            headers=headers,
            # To the same page again: a wall of cookies. Everything else is visited as a page of its own.
            follow=lambda url: self._scope.clean(str(url)) == address,
            wants=lambda url, headers: self._options.sitemap or is_wanted(url, headers),
        )

    def _pause(self) -> None:
        delay = max(self._options.delay, self._robots.delay)
        self._client.pause(self._last_request + delay - time.monotonic())
        self._last_request = time.monotonic()


def _is_permanent(status: int) -> bool:
    """Whether a site that answers so would say the same again."""
    return status < 500 and status not in (408, 429)


def _describe_status(status: int) -> str:
    if status in (401, 403):
        return f"The site answered {status}: enter credentials that may read it, or leave its path out of the source."
    return f"The site answered {status}."
