"""One sync of a web site, for the tests of what a crawl finds."""

from typing import Any

from knowledge.ingestion.sources.base import SourceError, SourceItem
from knowledge.ingestion.sources.web import WebConnector
from knowledge.ingestion.sources.web_scope import WebOptions
from tests.knowledge.ingestion.sources.sites import Site


class Crawl:
    """One sync: the items, the bodies of those that a sync would fetch, what it costs."""

    def __init__(
        self, site: Site, start: str = "/", *, state: dict[str, Any] | None = None, **options: Any
    ) -> None:
        before = len(site.asked)
        authorization = options.pop("authorization", "")
        connector = WebConnector(
            address=site.url + start,
            options=WebOptions.model_validate({"delay": 0, **options}),
            state=state or {},
            authorization=authorization,
        )
        try:
            self.items: dict[str, SourceItem] = {}
            self.bodies: dict[str, bytes] = {}
            self.errors: dict[str, str] = {}
            known = set((state or {}).get("addresses", []))
            for item in connector.list_items():
                path = item.uri.removeprefix(site.url)
                assert path not in self.items, "yielded twice"
                self.items[path] = item
                if item.size <= 50 * 2**20 and not (item.fingerprint and item.uri in known):
                    try:
                        self.bodies[path] = connector.fetch(item)
                    except (OSError, SourceError) as error:
                        self.errors[path] = str(error)
            self.state = connector.state()
        finally:
            connector.close()
        self.asked = [one.path for one in site.asked[before:]]

    @property
    def paths(self) -> set[str]:
        return set(self.items)
