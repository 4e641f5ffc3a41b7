"""Pages of a web source asked for one by one, and what became of each."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin

import httpx2

from knowledge.ingestion.names import media_type_name
from knowledge.ingestion.sources.base import ItemError, SourceError, SourceItem
from knowledge.ingestion.sources.client import Fetched, GuardedClient, TooLarge
from knowledge.ingestion.sources.guard import Refused
from knowledge.ingestion.sources.robots import Robots
from knowledge.ingestion.sources.spool import Spool
from knowledge.ingestion.sources.web_page import PageFacts, in_utf8, is_wanted, read_page
from knowledge.ingestion.sources.web_scope import MAX_LENGTH, Scope, WebOptions
from knowledge.ingestion.sources.web_state import Known, LinkRoom
from ragsite.core.config import config

PAGE_SECONDS = 30.0
GONE = frozenset({404, 410, 451})


@dataclass(frozen=True)
class Visit:
    """What became of asking for an address.

    Attributes:
        item: the document, if there is one.
        canonical: another address that the page says is its own.
        links: clean addresses that it names.
        moved: a clean address that it redirects to.
        failed: it could not be had for the moment.
        busy: because the site is asked too often.
    """

    item: SourceItem | None = None
    canonical: str = ""
    links: tuple[str, ...] = ()
    moved: str = ""
    failed: bool = False
    busy: bool = False


class Visitor:
    """Asks for pages, with the pauses that the site wishes, and remembers what it found.

    Args:
        known: what the last sync found.

    Attributes:
        scope, robots: of the site, once its beginning is known.
        first: the first page and its answer, which is not asked for twice.
        pages: what was found, in the order of asking.
        failures: why new pages could not be had.
    """

    def __init__(
        self, *, client: GuardedClient, options: WebOptions, scope: Scope, known: Mapping[str, Known]
    ) -> None:
        self._client, self._options = client, options
        self.scope, self.robots, self.known = scope, Robots(), known
        self.first: tuple[str, Fetched] | None = None
        self.pages: dict[str, Known] = {}
        self.failures: dict[str, ItemError] = {}
        self.spool = Spool()
        self._room = LinkRoom()
        self._last_request = 0.0

    def visit(self, address: str) -> Visit:
        """Asks for an address; why a new page cannot be had is kept in ``failures``."""
        try:
            answer = (
                self.first[1] if self.first and self.first[0] == address else self._ask_patiently(address)
            )
        except Refused:
            return self._note_nothing(address)
        except TooLarge:
            return Visit(item=SourceItem(uri=address, size=config().max_upload_bytes + 1))
        except SourceError as error:
            return self._fail(address, str(error), permanent=error.permanent)
        known = self.known.get(address)
        if answer.status == 304 and known is not None:
            return self.keep(address)
        if answer.location:
            moved = self.scope.clean(answer.location)
            return self._note_nothing(address, moved=moved if moved and self.scope.holds(moved) else "")
        if answer.status in GONE:
            return self._note_nothing(address)
        if answer.status != 200:
            visit = self._fail(address, describe_status(answer.status), permanent=is_permanent(answer.status))
            return replace(visit, busy=answer.status == 429)
        return self._read(address, answer)

    def _read(self, address: str, answer: Fetched) -> Visit:
        if not is_wanted(answer.url, answer.headers):
            return self._note_nothing(address)
        facts = read_page(answer.body, answer.headers)
        links, canonical = self._clean_facts(answer.url, facts)
        body = in_utf8(answer.body, answer.headers)
        known = self.known.get(address)
        kept = self._room.take(links)
        has_room = kept is not None  # where there is none, it is asked for whole the next time
        page = Known(
            etag=answer.headers.get("ETag", "")[:300] if has_room else "",
            modified=answer.headers.get("Last-Modified", "")[:100] if has_room else "",
            fingerprint=f"sha256:{hashlib.sha256(body).hexdigest()}" if facts.index else "",
            media_type=media_type_name(answer.headers.get("Content-Type", ""))[:100],
            canonical=canonical,
            links=kept or (),
        )
        self.pages[address] = page
        if facts.index and (known is None or known.fingerprint != page.fingerprint):
            self.spool.keep(address, body)
        return replace(self._visit_of(address, page, size=len(body)), links=links)

    def _visit_of(self, address: str, page: Known, *, size: int = 0) -> Visit:
        item = None
        if page.fingerprint and self.scope.holds(address):
            item = SourceItem(
                uri=address, size=size, fingerprint=page.fingerprint, media_type=page.media_type
            )
        return Visit(item=item, canonical=page.canonical, links=page.links)

    def _clean_facts(self, url: httpx2.URL, facts: PageFacts) -> tuple[tuple[str, ...], str]:
        try:
            # One that is too long for an address makes links that are too long as well.
            base = urljoin(str(url), facts.base[: 5 * MAX_LENGTH])
        except ValueError:
            base = str(url)
        links = dict.fromkeys(self.scope.clean(link, base=base) for link in facts.links)
        canonical = self.scope.clean(facts.canonical, base=base) if facts.canonical else ""
        return (
            tuple(link for link in links if link and self.scope.holds(link)),
            canonical if canonical and self.scope.holds(canonical) else "",
        )

    def keep(self, address: str) -> Visit:
        """As it was at the last sync."""
        page = self.pages[address] = self.known[address]
        return self._visit_of(address, page)

    def _note_nothing(self, address: str, *, moved: str = "") -> Visit:
        """There is no page, which is remembered too: who has little time asks for others first."""
        self.pages[address] = Known(links=(moved,) if moved else ())
        return Visit(moved=moved)

    def _fail(self, address: str, reason: str, *, permanent: bool) -> Visit:
        known = self.known.get(address)
        if known is not None and known.is_page:
            return replace(self.keep(address), failed=not permanent)
        if permanent:
            self._note_nothing(address)
        self.failures[address] = ItemError(reason, permanent=permanent)
        return Visit(item=SourceItem(uri=address, size=0), failed=not permanent)

    # Asking

    def conditions(self, address: str) -> dict[str, str]:
        known = self.known.get(address)
        return known.conditions if known is not None else {}

    def _ask_patiently(self, address: str) -> Fetched:
        """Asks, and a second time after as long as a busy server wishes."""
        answer = self.ask(address, self.conditions(address))
        wait = answer.headers.get("Retry-After", "")
        if answer.status in (429, 503) and wait.isdigit() and int(wait) <= PAGE_SECONDS:
            self._client.pause(int(wait))
            answer = self.ask(address, self.conditions(address))
        return answer

    def ask(
        self,
        address: str,
        headers: Mapping[str, str],
        *,
        wants: Callable[[httpx2.URL, Mapping[str, str]], bool] = is_wanted,
    ) -> Fetched:
        self.pause()
        return self._client.request(
            "GET",
            address,
            max_bytes=config().max_upload_bytes,
            seconds=PAGE_SECONDS,
            headers=headers,
            # To the same page again: a wall of cookies. Everything else is visited as a page of its own.
            follow=lambda url: self.scope.clean(str(url)) == address,
            wants=wants,
        )

    def pause(self) -> None:
        """Waits as long as there should be between two requests."""
        delay = max(self._options.delay, self.robots.delay)
        self._client.pause(self._last_request + delay - time.monotonic())
        self._last_request = time.monotonic()


def is_permanent(status: int) -> bool:
    """Whether a site that answers so would say the same again."""
    return status < 500 and status not in (408, 429)


def describe_status(status: int) -> str:
    if status in (401, 403):
        return f"The site answered {status}: enter credentials that may read it, or leave its path out of the source."
    return f"The site answered {status}."
