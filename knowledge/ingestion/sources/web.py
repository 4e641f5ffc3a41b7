"""A web site: by its links or its sitemap, within its robots.txt, asking again only for what has changed.

Pages are yielded as they come, so that they can be counted; they are indexed once the crawl is over. A page that a server
says is not there (404, 410, 451, noindex) goes; one that could not be had (a 5xx, a time-out, 401 and 403) or that there was
no time for stays as it was. After a sync that had no time for every page the next asks for new pages first, and then for
those that have waited longest.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import httpx2
import structlog

from knowledge.ingestion.names import media_type_name
from knowledge.ingestion.sources.base import ItemError, SourceError, SourceItem
from knowledge.ingestion.sources.client import GuardedClient
from knowledge.ingestion.sources.guard import read_url
from knowledge.ingestion.sources.robots import read_robots
from knowledge.ingestion.sources.sitemap import MAX_BYTES, is_sitemap, list_pages
from knowledge.ingestion.sources.web_frontier import Frontier
from knowledge.ingestion.sources.web_page import in_utf8, is_wanted
from knowledge.ingestion.sources.web_scope import Scope, WebOptions, bare_host
from knowledge.ingestion.sources.web_state import read_state, was_cut, write_state
from knowledge.ingestion.sources.web_visit import GONE, Visit, Visitor, describe_status, is_permanent

logger = structlog.get_logger(__name__)

SITEMAP_SECONDS = 60.0
SYNC_SECONDS = 3000.0  # below the worker's time limit
CHECK_SECONDS = 9.0
MAX_HOPS = 5
FAILURES_IN_A_ROW = 10
TOLD = 5000  # addresses beyond the limit are counted so far
MAX_FORBIDDEN, LOOK_ROUND_EVERY = 100_000, 100  # addresses of sitemaps


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
        self._known, self._was_cut = read_state(state, options), was_cut(state, options)
        self._visitor = Visitor(
            client=self._client, options=options, scope=Scope(self._start, options), known=self._known
        )
        self._by_sitemap = options.sitemap
        self._addresses: dict[str, str] = {}
        self._in_a_row = 0
        self._not_asked: set[str] = set()
        self._is_cut = False
        self._said: list[str] = []
        self._ends_at = float("inf")

    def check(self) -> str:
        self._client.end_within(CHECK_SECONDS)
        self._find_start()
        if not self._by_sitemap:
            return f"{self._start.host} answers, and robots may read this page."
        next(self._addresses_of_sitemaps())
        return f"The sitemap of {self._start.host} lists pages of this source."

    def list_items(self) -> Iterator[SourceItem]:
        ends_at = self._ends_at = time.monotonic() + SYNC_SECONDS
        most = self._options.max_pages
        frontier = Frontier(
            limit=20 * most + 1000, depth=self._options.depth, known=self._known, patient=self._was_cut
        )
        self._find_start()
        if self._by_sitemap:
            for address in self._addresses_of_sitemaps():
                frontier.add(address, depth=frontier.depth)
                if len(frontier.seen) >= 2 * most:  # some may be redirects to others
                    break
        else:
            frontier.add(self._visitor.scope.clean(str(self._start)), depth=0)
        yielded: set[str] = set()
        waiting: dict[str, SourceItem] = {}
        asked = unread = 0
        ended = ""  # why nothing more is asked for
        while asked < most:
            # Pages that time did not suffice for stay, even where the links to them are not known any more.
            unreached = not self._by_sitemap and bool(ended or self._was_cut)
            found = frontier.pop(new=asked + frontier.waiting < most, unreached=unreached)
            if found is None:
                break
            address, depth, hops = found
            if not ended and time.monotonic() > ends_at:
                ended = f"after {SYNC_SECONDS / 60:.0f} minutes"
            if ended and unread >= TOLD and address not in self._known:
                continue
            if not self._visitor.robots.allows(address):
                continue
            if ended:
                if address not in self._known:
                    unread += 1
                    continue
                visit = self._visitor.keep(address)
                self._not_asked.add(address)
            else:
                asked += 1
                visit = self._visitor.visit(address)
                if self._is_worn_out(visit):
                    ended = f"when {self._start.host} asked for fewer requests (429)"
            if visit.moved and hops < MAX_HOPS:
                frontier.add(visit.moved, depth=depth, hops=hops + 1)
            frontier.add_links(visit.links, depth=depth)
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
        # What time did not suffice for, and what there is no room for.
        room = max(0, most - len(self._visitor.pages))
        beyond = sum(self._visitor.robots.allows(address) for address, *_ in islice(frontier.queue, TOLD))
        beyond, unread = beyond + max(0, unread - room), min(unread, room)
        self._say_what_was_cut(ended, unread=unread, beyond=beyond)

    def _say_what_was_cut(self, ended: str, *, unread: int, beyond: int) -> None:
        """
        Args:
            ended: why nothing more was asked for; empty: there was time enough.
            unread: new pages that there was no time for.
            beyond: addresses beyond the most that the source may have.
        """
        waited = sum(self._known[address].is_page for address in self._not_asked)
        self._is_cut = bool(ended)
        if ended and unread:
            self._said.append(
                f"The crawl was cut {ended}: at least {unread} new pages are not read yet. The next sync begins with them."
            )
        elif ended and waited:
            self._said.append(
                f"The crawl was cut {ended}: {waited} pages were not looked at again and stay as they were. "
                "The next sync begins with those that have waited longest."
            )
        if beyond:
            self._said.append(
                f"The crawl was cut at {self._options.max_pages} pages, the most that this source may have: at least "
                f"{beyond} more addresses were found. Allow more pages, or leave paths out."
            )
        for words in self._said:
            logger.info("web source not read to its end", host=self._start.host, said=words)

    def _copies(self, waiting: Mapping[str, SourceItem], yielded: set[str]) -> Iterator[SourceItem]:
        for canonical, item in waiting.items():
            own = self._addresses.get(item.uri, item.uri)
            # Two pages that each name the other are one.
            if canonical in yielded or own in yielded or not self._visitor.scope.holds(canonical):
                continue
            yielded.update((canonical, own))
            copy = SourceItem(
                uri=canonical, size=item.size, fingerprint=item.fingerprint, media_type=item.media_type
            )
            self._addresses[canonical] = own
            self._visitor.spool.rename(item.uri, canonical)
            if item.uri in self._visitor.failures:
                self._visitor.failures[canonical] = self._visitor.failures.pop(item.uri)
            yield copy

    def fetch(self, item: SourceItem) -> bytes:
        spooled = self._visitor.spool.take(item.uri)
        if spooled is not None:
            return spooled
        if item.uri in self._visitor.failures:
            raise self._visitor.failures[item.uri]
        try:
            answer = self._visitor.ask(self._addresses.get(item.uri, item.uri), {})
        except SourceError as error:
            raise OSError(str(error)) from None
        if answer.status != 200:
            if is_permanent(answer.status):
                raise ItemError(describe_status(answer.status), permanent=False)
            raise OSError(f"the site answered {answer.status}")
        return in_utf8(answer.body, answer.headers)

    def state(self) -> dict[str, Any]:
        if not self._visitor.pages:  # nothing was listed, only looked at
            return {}
        waited = [address for address in self._known if address in self._not_asked]
        pages = {**{address: self._visitor.pages[address] for address in waited}, **self._visitor.pages}
        return write_state(pages, self._options, is_cut=self._is_cut, said=self._said)

    def stop(self) -> None:
        self._client.stop()

    def close(self) -> None:
        self._client.close()
        self._visitor.spool.close()

    # The beginning

    def _find_start(self) -> None:
        """Reads robots.txt and the first page, and goes where that redirects to, within the same site."""
        for _ in range(MAX_HOPS + 1):
            self._visitor.scope = Scope(self._start, self._options)
            self._visitor.robots = read_robots(self._client, self._start)
            address = self._visitor.scope.clean(str(self._start))
            if not self._visitor.robots.allows(address):
                if self._by_sitemap:
                    return  # the pages that it lists may be allowed all the same
                raise SourceError(
                    f"robots.txt of {self._start.host} does not let robots read {self._start.path}.",
                    permanent=True,
                )
            answer = self._visitor.ask(address, self._visitor.conditions(address), wants=self._wants_start)
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
        if answer.status in GONE:
            raise SourceError(
                f"There is no such page ({answer.status}): correct the address.", permanent=True
            )
        if answer.status not in (200, 304):
            raise SourceError(
                f"{self._start.host} answered {answer.status}; nothing was changed.",
                permanent=is_permanent(answer.status),
            )
        self._visitor.first = (address, answer)
        if is_sitemap(answer.body):
            self._by_sitemap = True
        elif not self._by_sitemap and answer.status == 200 and not is_wanted(answer.url, answer.headers):
            kind = media_type_name(answer.headers.get("Content-Type", "")) or "of no known kind"
            raise SourceError(
                f"What is there ({kind[:100]}) is no page that can be read: enter the address of a page, or of a sitemap.",
                permanent=True,
            )

    def _wants_start(self, url: httpx2.URL, headers: Mapping[str, str]) -> bool:
        could_be_sitemap = _is_named_as_sitemap(url) or "xml" in headers.get("Content-Type", "")
        return self._by_sitemap or could_be_sitemap or is_wanted(url, headers)

    def _addresses_of_sitemaps(self) -> Iterator[str]:
        """Pages that the site's sitemaps list, as far as they belong to the source and robots may read them.

        Raises:
            SourceError: there is none, or none that can be read, or it lists no such page.
        """
        start = self._start
        answer = self._visitor.first[1] if self._visitor.first else None
        if _is_named_as_sitemap(start) or (answer is not None and is_sitemap(answer.body)):
            first = [str(start)]
        else:
            first = self._visitor.robots.sitemaps or [
                str(start.copy_with(raw_path=b"/sitemap.xml", fragment=None))
            ]
        found = forbidden = 0
        listed = list_pages(
            first,
            read=self._read_whole_sitemap,
            follows=lambda address: bare_host(read_url(address)) == bare_host(start),
        )
        for number, address in enumerate(listed):
            if number % LOOK_ROUND_EVERY == 0:
                self._look_round()
            clean = self._visitor.scope.clean(address)
            if not clean or not self._visitor.scope.holds(clean):
                continue
            if self._visitor.robots.allows(clean):
                found += 1
                yield clean
            else:
                forbidden += 1
                if forbidden > MAX_FORBIDDEN:
                    raise SourceError(
                        f"robots.txt of {start.host} forbids more than {MAX_FORBIDDEN} addresses that the sitemap lists; "
                        "nothing was deleted. Name a sitemap of pages that robots may read.",
                        permanent=True,
                    )
        if not found:
            # An empty list is more often a mistake than a wish to delete everything.
            why = (
                f"robots.txt of {start.host} does not let robots read the pages that the sitemap lists"
                if forbidden
                else "The sitemap lists no page of this source"
            )
            raise SourceError(
                f"{why}; nothing was deleted. Correct the address or the path below which the pages lie, or delete the "
                "source when it is not wanted any more.",
                permanent=True,
            )

    def _read_whole_sitemap(self, address: str) -> bytes:
        self._look_round()
        self._visitor.pause()
        answer = self._client.request("GET", address, max_bytes=MAX_BYTES, seconds=SITEMAP_SECONDS)
        if answer.status != 200:
            # A list that is missing must not delete what it listed.
            raise SourceError(
                f"The sitemap {httpx2.URL(address).path} is not there ({answer.status}): correct the address, or have "
                "the site crawled.",
                permanent=answer.status in GONE,
            )
        return answer.body

    def _look_round(self) -> None:
        """
        Raises:
            SourceError: nobody waits for this any more, or its time is over.
        """
        self._client.pause(0)
        if time.monotonic() > self._ends_at:
            raise SourceError(
                f"The sitemaps could not be read within {SYNC_SECONDS / 60:.0f} minutes; nothing was deleted. Name a "
                "smaller one, or have the site crawled.",
                permanent=False,
            )

    def _is_worn_out(self, visit: Visit) -> bool:
        """Whether the site wants to be asked no more for now.

        Raises:
            SourceError: it does not answer any more.
        """
        self._in_a_row = self._in_a_row + 1 if visit.failed else 0
        if self._in_a_row >= FAILURES_IN_A_ROW and not visit.busy:
            raise SourceError(
                f"{self._start.host} does not answer any more; nothing was deleted. It is tried again at the next sync.",
                permanent=False,
            )
        return self._in_a_row >= FAILURES_IN_A_ROW


def _is_named_as_sitemap(url: httpx2.URL) -> bool:
    return url.path.endswith((".xml", ".gz", ".txt"))
