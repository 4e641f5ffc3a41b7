"""What a web site may take of memory and time, however large or slow it is."""

import json

import httpx2
import pytest

from knowledge.ingestion.sources import web_frontier, web_scope, web_state
from knowledge.ingestion.sources.web import WebConnector
from knowledge.ingestion.sources.web_scope import WebOptions
from tests.knowledge.ingestion.sources.crawling import Crawl
from tests.knowledge.ingestion.sources.sites import Site


def test_long_links_are_followed_and_not_all_remembered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [f"/p{n}" for n in range(9)]
    site.html("/", "Home", links=tuple(pages), etag='"h"')
    for n, path in enumerate(pages):
        # The links of the first page fit, those of the others do not.
        long = tuple(f"/{n}-{m}-{'x' * 900}" for m in range(30 if n else 10))
        site.html(path, path, links=(f"/deep{n}", *long) if n else long, etag='"p"')
        site.html(f"/deep{n}", "Deep")
    monkeypatch.setattr(web_state, "MAX_LINK_BYTES", 25_000)
    connector = WebConnector(address=f"{site.url}/", options=WebOptions(delay=0, max_pages=21), state={})
    paths = {item.uri.removeprefix(site.url) for item in connector.list_items()}
    assert paths == {"/", *pages, "/deep1"}
    links = {link for page in connector._visitor.pages.values() for link in page.links}
    assert 9_000 < sum(map(len, links)) < 25_000
    state = connector.state()
    connector.close()
    assert len(json.dumps(state)) < 35_000
    # What was found when there was room counts in the row as well.
    whole = {
        f"https://e.org/{n}": web_state.Known(etag="e", links=(f"https://e.org/{n}-{'x' * 900}",))
        for n in range(100)
    }
    written = web_state.write_state(whole, WebOptions())
    assert len(json.dumps(written)) < 35_000
    known = web_state.read_state(written, WebOptions())
    assert known.keys() == whole.keys() and 20 < sum(bool(page.links) for page in known.values()) < 30
    assert all(bool(page.etag) == bool(page.links) for page in known.values())
    # Pages whose links were not kept are asked for whole, so that what they name is found again.
    before = len(site.asked)
    assert Crawl(site, state=state, max_pages=21).paths == paths
    conditional = {one.path for one in site.asked[before:] if "if-none-match" in one.headers}
    assert {"/", "/p0"} <= conditional and "/p1" not in conditional


def test_addresses_take_only_so_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_frontier, "MAX_CHARS", 2000)
    frontier = web_frontier.Frontier(limit=1000, depth=1, known={})
    frontier.add_links(tuple(f"https://e.org/{n:086}" for n in range(100)), depth=0)
    assert len(frontier.seen) == 20
    scope = web_scope.Scope(httpx2.URL("https://e.org/"), WebOptions())
    for n in range(10):
        assert scope.clean(f"/{n}?utm_source={'x' * 1500}") == f"https://e.org/{n}"
        assert scope.clean(f"/{n}", base=f"https://e.org/{'x' * 10_000}/") == f"https://e.org/{n}"
        assert scope.clean(f"{n}", base=f"https://e.org/{'x' * 10_000}/") == ""
    assert len(scope._cleaned) == 10
    monkeypatch.setattr(web_scope._Remembered, "_room", 1000)
    other = web_scope.Scope(httpx2.URL("https://e.org/"), WebOptions())
    assert all(other.clean(f"/{n:086}") for n in range(100)) and len(other._cleaned) == 5
