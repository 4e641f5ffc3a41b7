"""What a site's robots.txt allows, as RFC 9309 has it."""

import re
from dataclasses import dataclass

import httpx2
from protego import Protego

from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.client import GuardedClient
from knowledge.ingestion.sources.web_page import ROBOT

MAX_BYTES = 500 * 1024
MAX_DELAY = 30.0
# Each address is held against every rule; one with wildcards costs a few microseconds, and is kept once for each robot
# that it is said to.
MAX_RULES, MAX_WILDCARDS = 100_000, 2_000
_AGENT = re.compile(r"\s*user(?:-|\s*)agent\b", re.IGNORECASE)
_RULE = re.compile(r"\s*(?:dis)?allow\s*:", re.IGNORECASE)


@dataclass(frozen=True)
class Robots:
    """``rules`` is ``None`` where the site has no robots.txt: everything is allowed."""

    rules: Protego | None = None

    def allows(self, address: str) -> bool:
        return self.rules is None or bool(self.rules.can_fetch(address, ROBOT))

    @property
    def delay(self) -> float:
        """Seconds between two requests that the site asks for, 30 at most: slower, and no sync would end."""
        if self.rules is None:
            return 0.0
        delay = float(self.rules.crawl_delay(ROBOT) or 0)
        rate = self.rules.request_rate(ROBOT)
        if rate is not None and rate.requests:
            delay = max(delay, rate.seconds / rate.requests)
        return min(max(delay, 0.0), MAX_DELAY)

    @property
    def sitemaps(self) -> list[str]:
        return [str(one) for one in self.rules.sitemaps] if self.rules is not None else []


def read_robots(client: GuardedClient, site: httpx2.URL) -> Robots:
    """The robots.txt of a site: none (4xx) allows everything, one that cannot be read (5xx, no answer) nothing.

    Raises:
        SourceError: it cannot be read now, or for good where it has too many rules.
    """
    address = site.copy_with(raw_path=b"/robots.txt")
    answer = client.request("GET", address, max_bytes=5 * 2**20, seconds=20)
    if answer.status == 429 or answer.status >= 500:
        raise SourceError(
            f"{site.host} does not say what robots may read (robots.txt: {answer.status}); nothing was changed.",
            permanent=False,
        )
    if answer.status != 200:
        return Robots()
    text = answer.body[:MAX_BYTES].decode("utf-8", "replace")
    if _has_too_many_rules(text):
        raise SourceError(
            f"The robots.txt of {site.host} has more rules than can be held against every page; nothing was changed. Ask "
            "its owner to shorten it.",
            permanent=True,
        )
    return Robots(Protego.parse(text))


def _has_too_many_rules(text: str) -> bool:
    rules = wildcards = agents = 0
    in_rules = False
    for written in text.splitlines():
        line = written.partition("#")[0]
        if _AGENT.match(line):
            agents = 1 if in_rules else agents + 1
            in_rules = False
        elif line.strip():
            rules += agents
            wildcards += line.count("*") + line.count("$")
            in_rules = in_rules or bool(_RULE.match(line))
    return rules > MAX_RULES or wildcards > MAX_WILDCARDS
