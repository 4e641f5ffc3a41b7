"""Which addresses a crawl has still to ask for, and in which order."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from knowledge.ingestion.sources.web_scope import MAX_QUERIES_PER_PATH
from knowledge.ingestion.sources.web_state import Known

MAX_CHARS = 64 * 2**20


@dataclass
class Frontier:
    """Addresses to be visited: each once, and not endlessly many of one path (calendars, filters).

    Attributes:
        limit: addresses at most; together they have no more than 64 million characters.
        depth: links away from the start at most.
        known: what the last sync found, what was asked for longest ago first.
        patient: known addresses wait until the new ones have been asked for; their links are followed at once.
    """

    limit: int
    depth: int
    known: Mapping[str, Known]
    patient: bool = False
    queue: deque[tuple[str, int, int]] = field(default_factory=deque)
    seen: set[str] = field(default_factory=set)
    _variants: dict[str, int] = field(default_factory=dict)
    _later: list[tuple[int, str, int]] = field(default_factory=list)
    _to_follow: deque[tuple[str, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._rank = {address: number for number, address in enumerate(self.known)}
        self._rest = deque(self.known)
        self._room = MAX_CHARS

    @property
    def waiting(self) -> int:
        """Known addresses that were put off."""
        return len(self._later)

    def add(self, address: str, *, depth: int, hops: int = 0) -> None:
        if address in self.seen or len(self.seen) >= self.limit or len(address) > self._room:
            return
        path, mark, _ = address.partition("?")
        if mark:
            if self._variants.get(path, 0) >= MAX_QUERIES_PER_PATH:
                return
            self._variants[path] = self._variants.get(path, 0) + 1
        self.seen.add(address)
        self._room -= len(address)
        if self.patient and self.seen != {address} and address in self._rank:  # the start is never put off
            heappush(self._later, (self._rank[address], address, depth))
            self._to_follow.append((address, depth))
        else:
            self.queue.append((address, depth, hops))

    def add_links(self, links: tuple[str, ...], *, depth: int) -> None:
        """The links of a page that lies so deep."""
        if depth < self.depth:
            for link in links:
                self.add(link, depth=depth + 1)

    def pop(self, *, new: bool, unreached: bool) -> tuple[str, int, int] | None:
        """The address that comes next, how deep it lies, and how many redirects led there.

        Args:
            new: whether there is room for addresses beside those that wait.
            unreached: known ones to which no link leads (any more) too, when there are no others.
        """
        while self._to_follow:
            address, depth = self._to_follow.popleft()
            self.add_links(self.known[address].links, depth=depth)
        if new and self.queue:
            return self.queue.popleft()
        if self._later:
            _, address, depth = heappop(self._later)
            return address, depth, 0
        while unreached and self._rest:
            address = self._rest.popleft()
            if address not in self.seen:
                self.seen.add(address)
                return address, self.depth, 0
        return None
