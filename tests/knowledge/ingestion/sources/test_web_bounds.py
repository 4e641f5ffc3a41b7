"""What a web site may take of memory and time, however large or slow it is."""

import itertools
import json
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import httpx2
import pytest

from knowledge.ingestion.sources import web, web_frontier, web_scope, web_state
from knowledge.ingestion.sources.web import WebConnector
from knowledge.ingestion.sources.web_scope import WebOptions
from tests.knowledge.ingestion.sources.crawling import Crawl
from tests.knowledge.ingestion.sources.failures import fails
from tests.knowledge.ingestion.sources.sites import Page, Site


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


# Time

SLOW_RULES = "User-agent: *\n" + "".join(f"Disallow: /*{n}z\n" for n in range(1900)) + "Disallow: /f\n"


def with_sitemap(site: Site, *paths: str, robots: str = "") -> WebConnector:
    site.html("/", "Home")
    rows = "".join(f"<url><loc>{site.url}{path}</loc></url>" for path in paths)
    site.pages["/sitemap.xml"] = Page(f"<urlset>{rows}</urlset>", "application/xml")
    site.pages["/robots.txt"] = Page(robots, "text/plain")
    options = WebOptions(delay=0, sitemap=True)
    return WebConnector(address=f"{site.url}/", options=options, state={})


def test_a_look_at_a_slow_site_ends_in_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(with_sitemap(site, "/a", robots="User-agent: *\nCrawl-delay: 30\n")) as connector:
        error = fails(connector.check)
        assert "synchronise it" in str(error) and not error.permanent
        assert "/sitemap.xml" not in site.paths()
    monkeypatch.setattr(web, "CHECK_SECONDS", 0.5)
    forbidden = [f"/f{n}{'x' * 400}" for n in range(20_000)]
    with closing(with_sitemap(site, *forbidden, robots=SLOW_RULES)) as connector:
        started = time.monotonic()
        assert "synchronise it" in str(fails(connector.check)) and time.monotonic() - started < 4
    site.pages["/sitemap.xml"] = Page("<urlset>", drip=1.0)
    with closing(
        WebConnector(address=f"{site.url}/", options=WebOptions(sitemap=True), state={})
    ) as connector:
        started = time.monotonic()
        assert "did not answer within" in str(fails(connector.check)) and time.monotonic() - started < 3


def test_who_is_stopped_reads_no_further_address(site: Site) -> None:
    forbidden = [f"/f{n}{'x' * 400}" for n in range(20_000)]
    with closing(with_sitemap(site, *forbidden, robots=SLOW_RULES)) as connector:
        threading.Timer(1.0, connector.stop).start()
        started = time.monotonic()
        error = fails(lambda: list(connector.list_items()))
        assert "Nobody waits" in str(error) and time.monotonic() - started < 5


def test_a_sync_by_sitemaps_has_an_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(with_sitemap(site, *(f"/{n}" for n in range(1000)))) as connector:
        # The clock ticks each time that somebody looks at it.
        monkeypatch.setattr(web, "time", SimpleNamespace(monotonic=itertools.count().__next__))
        monkeypatch.setattr(web, "SYNC_SECONDS", 5)
        error = fails(lambda: list(connector.list_items()))
    assert "nothing was deleted" in str(error) and not error.permanent
    monkeypatch.undo()
    monkeypatch.setattr(web, "SYNC_SECONDS", -1.0)
    before = len(site.asked)
    with closing(with_sitemap(site, "/a")) as connector:
        assert "nothing was deleted" in str(fails(lambda: list(connector.list_items())))
    assert "/sitemap.xml" not in site.paths()[before:]


def test_addresses_that_robots_may_not_read_count(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_FORBIDDEN", 500)
    paths = [f"/f{n}" for n in range(600)] + ["/a"]
    with closing(with_sitemap(site, *paths, robots="User-agent: *\nDisallow: /f\n")) as connector:
        error = fails(lambda: list(connector.list_items()))
    assert "nothing was deleted" in str(error) and "more than 500" in str(error) and error.permanent


def test_a_crawl_ends_among_addresses_that_robots_may_not_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.html("/", "Home", links=(*(f"/f{n}" for n in range(50)), "/a"))
    site.html("/a", "A")
    site.pages["/robots.txt"] = Page("User-agent: *\nDisallow: /f\n", "text/plain")
    assert Crawl(site).paths == {"/", "/a"}
    monkeypatch.setattr(web, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    monkeypatch.setattr(web, "SYNC_SECONDS", 20)
    crawl = Crawl(site)
    assert crawl.paths == {"/"} and "at least 1 new pages" in crawl.state["said"][0]


@pytest.mark.parametrize(
    ("robots", "readable"),
    [
        (SLOW_RULES, True),
        (SLOW_RULES + "".join(f"Disallow: /*{n}y\n" for n in range(200)), False),
        ("User-agent: *\n" + "".join(f"Disallow: /x{n}\n" for n in range(20_000)), True),
        ("".join(f"User-agent: a{n}\nDisallow: /\n\n" for n in range(2000)), True),
        (
            "".join(f"User-agent: a{n}\n\n" for n in range(2000))
            + "".join(f"Disallow: /{n}\n" for n in range(60)),
            False,
        ),
    ],
)
def test_rules_for_robots_are_bounded(site: Site, robots: str, readable: bool) -> None:
    with closing(with_sitemap(site, "/a", robots=robots)) as connector:
        if readable:
            assert "lists pages" in connector.check()
        else:
            error = fails(connector.check)
            assert "more rules than" in str(error) and error.permanent
