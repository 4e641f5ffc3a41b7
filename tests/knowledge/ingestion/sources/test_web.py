"""Web sites, well behaved and not: what is found, what is asked for, what goes and what stays."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from knowledge.ingestion.names import file_name
from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.kinds import read_model
from knowledge.ingestion.sources.web import WebConnector
from knowledge.ingestion.sources.web_kind import WebCredentials
from knowledge.ingestion.sources.web_scope import WebOptions
from ragsite.core.problems import Problem
from tests.knowledge.ingestion.sources.crawling import Crawl
from tests.knowledge.ingestion.sources.sites import Asked, Page, Site, bomb, redirect, serve_site


def test_a_site_is_followed_by_its_links(site: Site) -> None:
    site.html(
        "/",
        "Home",
        links=("/a", "b/", "#top", "mailto:x@y", "/a#part", "/picture.png", "http://127.0.0.2/out"),
    )
    site.html(
        "/a", "A", "The heron link.", links=("/", "/a?utm_source=mail", "/c.md", "/d.pdf", "/e.txt?x=1")
    )
    site.html("/b/", "B", links=("deep/1",))
    site.html("/b/deep/1", "Deep 1", links=("/b/deep/2",))
    site.html("/b/deep/2", "Deep 2", links=("/b/deep/3",))
    site.html("/b/deep/3", "Deep 3")
    site.pages["/c.md"] = Page("# C\n", "text/markdown")
    site.pages["/d.pdf"] = Page(b"%PDF-1.4", "application/pdf")
    site.pages["/e.txt?x=1"] = Page("plain", "text/plain")
    crawl = Crawl(site, depth=3)
    assert crawl.paths == {"/", "/a", "/b/", "/c.md", "/d.pdf", "/e.txt?x=1", "/b/deep/1", "/b/deep/2"}
    assert len(crawl.asked) == len(set(crawl.asked)) == 9, crawl.asked  # each page once, and robots.txt
    assert b"heron" in crawl.bodies["/a"] and not crawl.errors
    names = {path: file_name(item.uri, item.media_type) for path, item in crawl.items.items()}
    assert names["/"] == "page.html" and names["/a"] == "a.html" and names["/b/"] == "b.html"
    assert names["/c.md"] == "c.md" and names["/d.pdf"] == "d.pdf" and names["/e.txt?x=1"] == "e.txt"
    assert Crawl(site, depth=0).paths == {"/"}
    assert len(Crawl(site, max_pages=3).paths) == 3


def test_the_path_and_patterns_bound_a_source(site: Site) -> None:
    site.html(
        "/docs/index.html",
        "Docs",
        links=("/docs/bgp", "/docs/ospf", "/docs/old/x", "/blog/", "/docs/bgp?print=1"),
    )
    for path in ("/docs/bgp", "/docs/ospf", "/docs/old/x", "/blog/", "/docs/bgp?print=1"):
        site.html(path, path)
    start = "/docs/index.html"
    assert Crawl(site, start).paths == {start, "/docs/bgp", "/docs/ospf", "/docs/old/x", "/docs/bgp?print=1"}
    assert "/blog/" in Crawl(site, start, prefix="/").paths
    assert Crawl(site, start, exclude=["/docs/old/*", "*print=*"]).paths == {start, "/docs/bgp", "/docs/ospf"}
    # The first page is read for its links even where it is not wanted itself.
    assert Crawl(site, start, include=["*bgp", "*ospf"], ignore_query=True).paths == {
        "/docs/bgp",
        "/docs/ospf",
    }
    assert Crawl(site, start, ignore_query=True).asked.count("/docs/bgp") == 1


@pytest.mark.parametrize(
    "options",
    [{"sitemap": "all"}, {"depth": -1}, {"depth": 1.5}, {"depth": 51}, {"max_pages": 0}, {"max_pages": 10**6},
     {"prefix": "docs"}, {"include": [1]}, {"exclude": ["*" * 11]}, {"delay": "x"}, {"ignore_query": "?"}, {"mode": 1}],
)  # fmt: skip
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        read_model(WebOptions, "options", options, kind="web")
    assert [error.field for error in caught.value.errors] == [f"options.{next(iter(options))}"]


def test_what_has_not_changed_is_not_read_again(site: Site) -> None:
    site.html("/", "Home", links=("/a", "/plain"), etag='"1"')
    site.html("/a", "A", links=("/b",), etag='"2"')
    site.html("/b", "B", "The bittern link.", etag='"3"')
    site.html("/plain", "No ETag")
    first = Crawl(site)
    again = Crawl(site, state=first.state)
    assert again.items.keys() == first.items.keys() == {"/", "/a", "/b", "/plain"}
    assert {p: i.fingerprint for p, i in again.items.items()} == {
        p: i.fingerprint for p, i in first.items.items()
    }
    conditional = [one.path for one in site.asked[-5:] if "if-none-match" in one.headers]
    assert sorted(conditional) == ["/", "/a", "/b"]  # the links of pages that were not sent are remembered
    site.html("/b", "B", "The bittern link is down.", etag='"4"')
    third = Crawl(site, state=again.state)
    changed = {p for p in third.items if third.items[p].fingerprint != first.items[p].fingerprint}
    assert changed == {"/b"}
    # Other options: what was remembered of the links says nothing any more, and every page is read whole.
    site.html("/a", "A", links=("/b", "/c"), etag='"2"')
    site.html("/c", "C")
    assert "/c" not in Crawl(site, state=third.state).paths
    assert "/c" in Crawl(site, state=third.state, depth=7).paths


def test_what_is_forced_is_asked_for_whole(site: Site) -> None:
    site.html("/", "Home", "The avocet link.", etag='"1"')
    state = Crawl(site).state
    connector = WebConnector(address=site.url, options=WebOptions(delay=0), state=state)
    (item,) = connector.list_items()
    assert b"avocet" in connector.fetch(item)
    site.pages["/"] = Page(status=500)
    with pytest.raises(OSError, match="500"):
        connector.fetch(item)
    connector.close()


def test_pages_that_are_gone_go_and_pages_that_fail_stay(site: Site) -> None:
    paths = ("/gone", "/dead", "/broken", "/slow", "/secret", "/hidden", "/left", "/limit")
    site.html("/", "Home", links=paths)
    for path in paths:
        site.html(path, path, links=(f"{path}/child",))
        site.html(f"{path}/child", path)
    first = Crawl(site)
    assert len(first.paths) == 17
    site.pages["/gone"] = Page(status=404)
    site.pages["/dead"] = Page(status=410)
    site.pages["/broken"] = Page(status=502)
    site.pages["/slow"] = lambda asked: (time.sleep(0.6), Page("late"))[1]
    site.pages["/secret"] = Page(status=403)
    site.html("/hidden", "Hidden", headers=(("X-Robots-Tag", "noindex, nofollow"),))
    site.pages["/left"] = redirect("http://127.0.0.2:1/")
    site.pages["/limit"] = Page(status=429)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("knowledge.ingestion.sources.web_visit.PAGE_SECONDS", 0.3)
        second = Crawl(site, state=first.state)
    stay = {"/", "/broken", "/slow", "/secret", "/limit"}
    assert second.paths == stay | {f"{path}/child" for path in stay - {"/"}}
    assert all(second.items[path].fingerprint == first.items[path].fingerprint for path in stay)
    # A page that never was there and cannot be had is an error of its own.
    site.html("/", "Home", links=("/broken", "/new"))
    site.pages["/new"] = Page(status=500)
    third = Crawl(site, state=second.state)
    assert "500" in third.errors["/new"] and third.items["/new"].fingerprint == ""


@pytest.mark.parametrize("status", [500, 503, 401, 403, 404, 410, 429])
def test_a_site_that_is_down_or_shut_is_an_error_as_a_whole(site: Site, status: int) -> None:
    site.html("/", "Home", links=("/a",))
    site.html("/a", "A")
    state = Crawl(site).state
    site.pages["/"] = Page(status=status)
    with pytest.raises(SourceError) as caught:
        Crawl(site, state=state)
    assert caught.value.permanent == (status not in (429, 500, 503))


def test_a_site_that_dies_on_the_way_deletes_nothing(site: Site) -> None:
    site.html("/", "Home", links=tuple(f"/{n}" for n in range(40)))
    for n in range(40):
        site.html(f"/{n}", str(n))
    state = Crawl(site).state
    for n in range(5, 40):
        site.pages[f"/{n}"] = Page(status=503)
    with pytest.raises(SourceError, match="does not answer any more") as caught:
        Crawl(site, state=state)
    assert not caught.value.permanent
    with serve_site() as gone:
        gone.html("/", "Home")
        address = gone.url
    connector = WebConnector(address=address, options=WebOptions(), state={})
    with pytest.raises(SourceError, match="could not be asked"):
        list(connector.list_items())
    connector.close()


@contextmanager
def slow(site: Site, *, requests: int) -> Iterator[None]:
    """A crawl in it has time for so many requests: its clock ticks at each of them."""
    with pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(monotonic=lambda: float(len(site.asked)))
        patch.setattr("knowledge.ingestion.sources.web.time", clock)
        patch.setattr("knowledge.ingestion.sources.web.SYNC_SECONDS", float(requests))
        yield


def test_a_slow_crawl_comes_to_every_page(site: Site) -> None:
    # Two levels, and links that lead to no page.
    site.html("/", "Home", links=(*(f"/s{n}" for n in range(8)), "/gone", "/moved", "/shut"), etag='"h"')
    site.pages["/shut"] = Page(status=403)
    site.pages["/moved"] = redirect("/s0")
    for n in range(8):
        site.html(f"/s{n}", f"S{n}", links=tuple(f"/s{n}/p{m}" for m in range(9)), etag=f'"s{n}"')
        for m in range(9):
            site.html(f"/s{n}/p{m}", f"P{n}.{m}", etag=f'"p{n}.{m}"')
    crawls: list[Crawl] = []
    with slow(site, requests=20):
        for _ in range(5):
            crawls.append(Crawl(site, state=crawls[-1].state if crawls else None))
        pages = [len(crawl.paths - {"/shut"}) for crawl in crawls]
        assert pages == sorted(pages) and pages[0] < 21 and pages[-1] == 81, pages
        for before, after in pairwise(crawls):
            assert before.paths - {"/shut"} <= after.paths  # what time did not suffice for stays
        assert "cut after" in crawls[0].state["said"][0] and "new pages" in crawls[0].state["said"][0]
        # All are known now: those that have waited longest are looked at first, so that each is within some syncs.
        site.html("/s7/p8", "P7.8", "The smew link.", etag='"new"')
        site.pages["/s3/p3"] = Page(status=404)
        changed = crawls[-1].items["/s7/p8"].fingerprint
        crawl = crawls[-1]
        for _ in range(6):
            crawl = Crawl(site, state=crawl.state)
        assert crawl.items["/s7/p8"].fingerprint != changed and "/s3/p3" not in crawl.paths
        assert len(crawl.paths - {"/shut"}) == 80 and "not looked at again" in crawl.state["said"][0]
        # Other options: the links are to be found anew, and nothing goes meanwhile.
        other = Crawl(site, state=crawl.state, depth=6)
        assert other.paths - {"/shut"} == crawl.paths - {"/shut"}
    # With time enough it is as ever, what is linked no more included.
    site.html("/", "Home", links=tuple(f"/s{n}" for n in range(7)), etag='"h2"')
    free = Crawl(site, state=Crawl(site, state=crawl.state).state)
    assert len(free.paths) == 1 + 7 + 62 and free.state["said"] == [] and not free.state["cut"]


def test_a_crawl_that_is_cut_says_by_what(site: Site) -> None:
    site.html("/", "Home", links=tuple(f"/{n}" for n in range(30)))
    for n in range(30):
        site.html(f"/{n}", str(n))
    crawl = Crawl(site, max_pages=10)
    assert len(crawl.paths) == 10 and "cut at 10 pages" in crawl.state["said"][0]
    assert "21 more addresses" in crawl.state["said"][0] and len(crawl.state["said"]) == 1
    assert Crawl(site, max_pages=10, state=crawl.state).paths == crawl.paths
    # A site that wants to be asked less: what was read is kept, and the next sync goes on.
    answers = dict(site.pages)
    for n in range(15, 30):
        site.pages[f"/{n}"] = Page(status=429)
    busy = Crawl(site)
    assert "429" in busy.state["said"][0] and len(busy.bodies) == 16
    site.pages |= answers
    rest = Crawl(site, state=busy.state)
    assert len(rest.paths) == 31 and all(item.fingerprint for item in rest.items.values())


def test_robots_are_told_what_they_may_read(site: Site) -> None:
    site.html("/", "Home", links=("/private/x", "/open", "/for-others", "/no", "/nofollow", "/linked"))
    site.html("/private/x", "X")
    site.html("/open", "Open")
    site.html("/for-others", "Others", headers=(("X-Robots-Tag", "otherbot: noindex"),))
    site.pages["/no"] = Page('<meta name="ROBOTS" content="NoIndex"><a href="/behind-no">x</a>')
    site.pages["/nofollow"] = Page('<meta name="ragsite" content="nofollow">x<a href="/behind">x</a>')
    site.pages["/linked"] = Page('text <a rel="nofollow ugc" href="/ugc">x</a>')
    for path in ("/behind", "/behind-no", "/ugc"):
        site.html(path, path)
    rules = "User-agent: *\nDisallow: /\n\nUser-agent: ragsite\nDisallow: /private\nCrawl-delay: 0.05\n"
    site.pages["/robots.txt"] = Page(rules, "text/plain")
    started = time.monotonic()
    crawl = Crawl(site)
    assert crawl.paths == {"/", "/open", "/for-others", "/nofollow", "/linked", "/behind-no"}
    assert "/private/x" not in crawl.asked
    assert time.monotonic() - started > 0.05 * (len(crawl.asked) - 2)
    assert all(one.headers["user-agent"].startswith("ragsite/") for one in site.asked)
    site.pages["/robots.txt"] = Page("User-agent: *\nDisallow: /", "text/plain")
    with pytest.raises(SourceError, match="does not let robots read") as caught:
        Crawl(site)
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("status", "readable"), [(404, True), (403, True), (500, False), (503, False), (429, False)]
)
def test_a_robots_txt_that_cannot_be_read_forbids_everything(site: Site, status: int, readable: bool) -> None:
    site.html("/", "Home")
    site.pages["/robots.txt"] = Page("User-agent: *\nDisallow: /", status=status)
    if readable:
        assert Crawl(site).paths == {"/"}
        return
    with pytest.raises(SourceError, match=r"robots\.txt") as caught:
        Crawl(site)
    assert not caught.value.permanent and "/" not in site.paths()


@pytest.mark.parametrize(
    ("tags", "is_kept", "is_followed"),
    [
        (["otherbot: nofollow, noindex"], True, True),
        (["otherbot: noindex", "nofollow"], True, False),
        (["nofollow", "OtherBot: none"], True, False),
        (["otherbot: noindex, ragsite: nofollow"], True, False),
        (["Ragsite: noindex, nofollow"], False, False),
        (["max-snippet: 20, noindex"], False, True),
        (["unavailable_after: Friday, 25-Jun-27 15:00:00 GMT, noindex"], False, True),
    ],
)
def test_a_header_for_another_robot_is_not_for_us(
    site: Site, tags: list[str], is_kept: bool, is_followed: bool
) -> None:
    site.html("/", "Home", links=("/a",), headers=tuple(("X-Robots-Tag", tag) for tag in tags))
    site.html("/a", "A")
    assert Crawl(site).paths == ({"/"} if is_kept else set()) | ({"/a"} if is_followed else set())


def test_spellings_of_one_page_are_one_document(site: Site) -> None:
    site.html("/", "Home", links=("/a?b=2&a=1", "/a?a=1&b=2#x", "/a?a=1&b=2&fbclid=9", "/moved", "/print",
                                  "/p;jsessionid=AB", "/x/../p", "/twin-1", "/orphan"))  # fmt: skip
    site.html("/a?a=1&b=2", "A")
    site.html("/p", "P")
    site.pages["/moved"] = redirect("/also-moved", 302)
    site.pages["/also-moved"] = redirect("/p", 308)
    site.pages["/print"] = Page('<link rel="canonical" href="/p?utm_medium=x"><p>P to print')
    # Two that each call the other the true one; and one whose true page is not there.
    site.pages["/twin-1"] = Page('<link rel="canonical" href="/twin-2"><p>twin 1')
    site.pages["/twin-2"] = Page('<link rel="canonical" href="/twin-1"><p>twin 2')
    site.pages["/orphan"] = Page('<link rel="canonical" href="/nowhere"><p>orphan')
    crawl = Crawl(site)
    twins = crawl.paths & {"/twin-1", "/twin-2"}
    assert crawl.paths - twins == {"/", "/a?a=1&b=2", "/p", "/nowhere"} and len(twins) == 1
    assert b"<h1>P</h1>" in crawl.bodies["/p"] and b"orphan" in crawl.bodies["/nowhere"]
    assert not crawl.errors


def test_traps_have_an_end(site: Site) -> None:
    def endless(asked: Asked) -> Page:
        path = asked.path.partition("?")[0]
        day = int(asked.path.rpartition("=")[2] or 0) if "=" in asked.path else 0
        return Page(
            f'<p>{asked.path}</p><a href="?day={day + 1}">next</a><a href="?day={day + 2}">after</a>'
            f'<a href="more/">deeper</a><a href="{path}?a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8&i=9">filters</a>'
        )

    site.fallback = endless
    site.pages["/robots.txt"] = Page(status=404)
    crawl = Crawl(site, depth=50, max_pages=400)
    assert len(crawl.asked) < 300  # 50 days of each of a few folders
    assert not any("i=9" in path or path.count("more") > 3 for path in crawl.asked)
    site.pages["/loop"] = redirect("/loop2")
    site.pages["/loop2"] = redirect("/loop")
    for n in range(9):
        site.pages[f"/chain{n}"] = redirect(f"/chain{n + 1}")
    site.html("/start", "Start", links=("/loop", "/chain0"))
    assert Crawl(site, "/start", depth=1).paths == {"/start"}


def test_hostile_answers_fail_alone(site: Site, configure: Any) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1", RAGSITE_MAX_UPLOAD_BYTES=200_000)
    with serve_site(host="127.0.0.2") as inside:
        inside.html("/", "Secret")
        site.html(
            "/",
            "Home",
            links=("/bomb", "/huge", "/drip", "/meta", "/inside", "/other", "/iso", "/good", "/wall"),
        )
        site.pages["/bomb"] = bomb(50 * 2**20)
        site.pages["/huge"] = Page("x" * 200_001)
        site.pages["/drip"] = Page("x" * 500, drip=0.05)
        site.pages["/meta"] = redirect("http://169.254.169.254/latest/meta-data/")
        site.pages["/inside"] = redirect(inside.url)
        site.pages["/other"] = redirect("file:///etc/passwd")
        site.pages["/iso"] = Page(b"\0" * 150_000, "application/x-iso9660-image")
        site.html("/good", "Good")

        def wall(asked: Asked) -> Page:
            if "cookie" in asked.headers:
                return Page("behind the wall")
            return Page(status=302, headers=(("Location", "/wall"), ("Set-Cookie", "ok=1; Path=/")))

        site.pages["/wall"] = wall
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("knowledge.ingestion.sources.web_visit.PAGE_SECONDS", 0.4)
            started = time.monotonic()
            crawl = Crawl(site)
            assert time.monotonic() - started < 3
    assert not inside.asked
    assert crawl.paths == {"/", "/good", "/wall", "/bomb", "/huge", "/drip"}
    assert crawl.items["/bomb"].size > 200_000 and crawl.items["/huge"].size > 200_000  # told as too large
    assert "did not answer" in crawl.errors["/drip"]
    assert crawl.bodies["/wall"] == b"behind the wall"


def test_an_endless_wall_of_cookies_fails_alone(site: Site) -> None:
    site.html("/", "Home", links=("/wall",))
    site.pages["/wall"] = lambda asked: Page(
        status=302, headers=(("Location", "/wall"), ("Set-Cookie", "n=1"))
    )
    crawl = Crawl(site)
    assert "redirects more than" in crawl.errors["/wall"] and crawl.asked.count("/wall") == 6


def test_the_header_tells_an_encoding_that_the_file_does_not(site: Site) -> None:
    text = "<p>Größe der Übertragung</p>"
    site.html("/", "Home", links=("/latin", "/liar", "/meta", "/unknown"))
    site.pages["/latin"] = Page(text.encode("latin-1"), "text/html; charset=iso-8859-1")
    site.pages["/liar"] = Page(text.encode(), "text/html; charset=iso-8859-1")
    site.pages["/meta"] = Page(
        b'<meta charset="windows-1252">' + text.encode("cp1252"), "text/html; charset=utf-8"
    )
    site.pages["/unknown"] = Page(text.encode("latin-1"), "text/html; charset=klingon")
    crawl = Crawl(site)
    assert crawl.bodies["/latin"].decode() == crawl.bodies["/liar"].decode() == text
    assert crawl.bodies["/meta"].endswith(text.encode("cp1252"))  # the parser reads what the page says
    assert crawl.bodies["/unknown"] == text.encode("latin-1")


def test_the_start_may_move_within_its_site(site: Site) -> None:
    site.pages["/"] = redirect("/en/docs/")
    site.html("/en/docs/", "Docs", links=("/en/docs/a", "/en/blog"))
    site.html("/en/docs/a", "A")
    assert Crawl(site).paths == {"/en/docs/", "/en/docs/a"}
    site.pages["/"] = redirect("http://127.0.0.2:1/login")
    with pytest.raises(SourceError, match=r"redirects to 127\.0\.0\.2") as caught:
        Crawl(site)
    assert caught.value.permanent
    site.pages["/"] = redirect("/loop")
    site.pages["/loop"] = redirect("/")
    with pytest.raises(SourceError, match="circle"):
        Crawl(site)


def test_credentials(site: Site) -> None:
    def guarded(asked: Asked) -> Page:
        known = asked.headers.get("authorization") == "Basic YWRhOnDDpHNz"
        return Page("<p>inside</p>") if known else Page(status=401)

    site.pages["/"] = guarded
    with pytest.raises(SourceError, match="asks for credentials"):
        Crawl(site)
    given = WebCredentials.model_validate({"username": "ada", "password": "päss"})
    assert Crawl(site, authorization=given.authorization).bodies["/"] == b"<p>inside</p>"
    assert WebCredentials.model_validate({"token": "t"}).authorization == "Bearer t"
    assert WebCredentials().authorization == ""
    for wrong in ({"password": "p"}, {"token": "t", "username": "u"}, {"token": "a\r\nX-Evil: 1"}):
        with pytest.raises(Problem):
            read_model(WebCredentials, "credentials", wrong, kind="web")


def test_a_busy_server_is_waited_for(site: Site) -> None:
    busy = iter([Page(status=503, headers=(("Retry-After", "0"),)), Page("<p>now</p>")])
    site.html("/", "Home", links=("/busy",))
    site.pages["/busy"] = lambda asked: next(busy)
    assert Crawl(site).bodies["/busy"] == b"<p>now</p>"
