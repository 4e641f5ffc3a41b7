"""Sitemaps: the pages that they list, packed, hostile, cut off and empty ones."""

import gzip
import subprocess
import sys
import time

import pytest

from knowledge.ingestion.sources import sitemap
from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.sitemap import is_sitemap, list_pages, read_sitemap
from knowledge.ingestion.sources.web import WebConnector
from knowledge.ingestion.sources.web_scope import WebOptions
from tests.knowledge.ingestion.sources.crawling import Crawl
from tests.knowledge.ingestion.sources.sites import Page, Site


def test_sitemaps_list_pages(site: Site) -> None:
    def urlset(*paths: str) -> str:
        rows = "".join(
            f"<url><loc>{site.url}{path}</loc><lastmod>2025-01-01</lastmod></url>" for path in paths
        )
        return f'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{rows}</urlset>'

    for path in ("/", "/1", "/2", "/3", "/4", "/unlisted"):
        site.html(path, path, links=("/unlisted",))
    index = "".join(
        f"<sitemap><loc>{site.url}/{name}</loc></sitemap>" for name in ("one.xml", "two.xml.gz", "index.xml")
    )
    site.pages["/index.xml"] = Page(f"<sitemapindex>{index}</sitemapindex>", "application/xml")
    site.pages["/one.xml"] = Page(urlset("/1", "/2?utm_source=map"), "application/xml")
    site.pages["/two.xml.gz"] = Page(gzip.compress(urlset("/2", "/3").encode()), "application/gzip")
    site.pages["/plain.txt"] = Page(f"{site.url}/4\nnonsense\nhttp://127.0.0.2/foreign\n", "text/plain")
    site.pages["/robots.txt"] = Page(
        f"Sitemap: {site.url}/index.xml\nSitemap: {site.url}/plain.txt\nUser-agent: *\nDisallow: /3",
        "text/plain",
    )
    crawl = Crawl(site, sitemap=True)
    assert crawl.paths == {"/1", "/2", "/4"} and "/unlisted" not in crawl.asked
    assert Crawl(site, "/one.xml", sitemap=True).paths == {"/1", "/2"}
    site.pages["/robots.txt"] = Page(status=404)
    with pytest.raises(SourceError, match="sitemap"):  # a list that is missing deletes nothing
        Crawl(site, sitemap=True, state=crawl.state)
    site.pages["/sitemap.xml"] = Page(urlset("/3"))
    assert Crawl(site, sitemap=True).paths == {"/3"}


def urlset(site: Site, *paths: str) -> str:
    return f"<urlset>{''.join(f'<url><loc>{site.url}{path}</loc></url>' for path in paths)}</urlset>"


def test_packed_sitemaps_are_read_whole_or_not_at_all(site: Site) -> None:
    paths = [f"/p{n}" for n in range(40)]
    for path in ("/", *paths):
        site.html(path, path)
    lines = "".join(f"{site.url}{path}\n" for path in paths).encode()
    xml = urlset(site, *paths).encode()
    site.pages["/robots.txt"] = Page(f"Sitemap: {site.url}/map.gz", "text/plain")

    def crawl(data: bytes) -> set[str]:
        site.pages["/map.gz"] = Page(data, "application/gzip")
        return Crawl(site, sitemap=True).paths

    for whole in (lines, xml):
        half = len(whole) // 2
        members = gzip.compress(whole[:half]) + gzip.compress(b"") + gzip.compress(whole[half:])
        assert crawl(members) == crawl(members + bytes(512)) == set(paths)
        packed = gzip.compress(whole)
        for broken in (packed[: len(packed) // 2], packed[:-5], members[:-5]):
            with pytest.raises(SourceError, match="breaks off") as caught:
                crawl(broken)
            assert not caught.value.permanent
    with pytest.raises(SourceError, match="too many pieces"):
        crawl(gzip.compress(b"") * 20_000)


def test_a_sitemap_is_known_as_one(site: Site) -> None:
    for path in ("/", "/a", "/b"):
        site.html(path, path)
    site.pages["/map.xml"] = Page(urlset(site, "/a", "/b"), "application/xml")
    site.pages["/map.txt"] = Page(f"{site.url}/a\n{site.url}/b\n", "text/plain")
    site.pages["/map.xml.gz"] = Page(gzip.compress(urlset(site, "/a", "/b").encode()), "application/gzip")
    site.pages["/map?all=1"] = Page(
        f'<?xml version="1.0"?><!-- x --><s:sitemapindex xmlns:s="urn:s"><s:sitemap><s:loc>{site.url}/map.xml</s:loc>'
        "</s:sitemap></s:sitemapindex>",
        "text/xml",
    )
    for start in ("/map.xml", "/map.txt", "/map.xml.gz", "/map?all=1"):
        assert Crawl(site, start).paths == {"/a", "/b"}
        connector = WebConnector(address=site.url + start, options=WebOptions(delay=0), state={})
        assert "sitemap" in connector.check()
        connector.close()
    site.pages["/note.txt"] = Page(f"See\n{site.url}/a", "text/plain")
    assert Crawl(site, "/note.txt").paths == {"/note.txt"}
    for kind in ("application/xml", "application/json", "image/png"):
        site.pages["/feed"] = Page("<rss></rss>", kind)
        with pytest.raises(SourceError, match="enter the address of a page") as caught:
            Crawl(site, "/feed")
        assert caught.value.permanent


def test_a_sitemap_that_lists_nothing_deletes_nothing(site: Site) -> None:
    site.html("/", "Home")
    site.html("/a", "A")
    site.pages["/sitemap.xml"] = Page(urlset(site, "/a"), "application/xml")
    state = Crawl(site, sitemap=True).state
    for empty in ("<urlset></urlset>", "", "Under maintenance", urlset(site, "/other.png")):
        site.pages["/sitemap.xml"] = Page(empty, "application/xml")
        with pytest.raises(SourceError, match="lists no page") as caught:
            Crawl(site, sitemap=True, state=state)
        assert caught.value.permanent and "nothing was deleted" in str(caught.value)


def test_a_start_that_robots_may_not_read_has_a_sitemap_all_the_same(site: Site) -> None:
    site.html("/", "Home")
    site.html("/a", "A")
    site.html("/b", "B")
    site.pages["/sitemap.xml"] = Page(urlset(site, "/a", "/b"), "application/xml")
    site.pages["/robots.txt"] = Page("User-agent: *\nDisallow: /\nAllow: /a\n", "text/plain")
    crawl = Crawl(site, sitemap=True)
    assert crawl.paths == {"/a"} and "/" not in crawl.asked
    site.pages["/robots.txt"] = Page("User-agent: *\nDisallow: /\n", "text/plain")
    with pytest.raises(SourceError, match="does not let robots read the pages"):
        Crawl(site, sitemap=True, state=crawl.state)


def test_hostile_sitemaps_are_bounded(site: Site) -> None:
    site.fallback = lambda asked: Page(f"<p>{asked.path}</p>")
    site.pages["/robots.txt"] = Page(status=404)
    rows = "".join(f"<url><loc>{site.url}/p{n}</loc></url>" for n in range(60_000))
    site.pages["/sitemap.xml"] = Page(f"<urlset>{rows}</urlset>", "application/xml")
    crawl = Crawl(site, sitemap=True, max_pages=25)
    assert len(crawl.paths) == 25 and len(crawl.asked) < 30
    entities = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
    )
    for body in (
        f"{entities}]><urlset><url><loc>{site.url}/&j;</loc></url></urlset>",
        f'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><urlset><url><loc>{site.url}/&f;</loc></url></urlset>',
        "<urlset><url>",
        gzip.compress(b" " * 60 * 2**20),
        b"\x1f\x8b no gzip",
    ):
        site.pages["/sitemap.xml"] = Page(body, "application/xml")
        started = time.monotonic()
        try:
            paths = Crawl(site, sitemap=True).paths
        except SourceError:
            paths = set()
        assert time.monotonic() - started < 2 and not any("root" in path or "aaa" in path for path in paths)
    loop = f"<sitemapindex><sitemap><loc>{site.url}/sitemap.xml</loc></sitemap></sitemapindex>"
    site.pages["/sitemap.xml"] = Page(loop, "application/xml")
    before = len(site.asked)
    with pytest.raises(SourceError, match="lists no page"):
        Crawl(site, sitemap=True)
    assert site.paths()[before:].count("/sitemap.xml") == 1


_MEASURED = """
import re
from pathlib import Path
from knowledge.ingestion.sources.sitemap import is_sitemap, read_sitemap

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

for rows in (b"<a/>" * 600_000, b"<url>" + b"<a/>" * 600_000 + b"</url>"):
    data, before = b"<urlset>" + rows + b"</urlset>", peak()
    assert is_sitemap(data) and not list(read_sitemap(data))
    print(peak() - before)
"""


def test_a_sitemap_is_no_tree_in_memory() -> None:
    done = subprocess.run([sys.executable, "-c", _MEASURED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(int(grown) < 20 * 1024 for grown in done.stdout.split()), done.stdout  # kB; as a tree 70 MB


def test_what_is_none_of_a_sitemap_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemap, "MAX_ELEMENTS", 10_000)
    for rows, words in (
        ("<a/>" * 20_000, "more than 10,000 elements"),
        ("<url>" + "<loc/>" * 20_000 + "</url>", "more than 10,000 elements"),
        ("<!---->" * 200_000, "1 MB without an element"),
        ("<a " + " ".join(f'a{n}=""' for n in range(200_000)) + "/>", "1 MB without an element"),
    ):
        data = f"<urlset>{rows}</urlset>".encode()
        assert is_sitemap(data)
        with pytest.raises(SourceError, match=words) as caught:
            list(read_sitemap(data))
        assert caught.value.permanent
    assert not is_sitemap(b"<!---->" * 200_000 + b"<urlset/>")
    # Pictures of a page have addresses too, which are none of pages; what follows them is.
    page = "<url><image:image><image:loc>https://e.org/x.png</image:loc></image:image><loc>https://e.org/{}</loc></url>"
    rows = "".join(page.format(n) for n in range(2000))
    names = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="urn:image"'
    found = list(read_sitemap(f"<urlset {names}>{rows}</urlset>".encode()))
    assert found == [("page", f"https://e.org/{n}") for n in range(2000)]


def test_what_an_index_names_is_not_gathered_without_end() -> None:
    read: list[str] = []
    followed: list[str] = []

    def read_index(address: str) -> bytes:
        read.append(address)
        rows = "".join(f"<sitemap><loc>{address}/{n}{'x' * n}</loc></sitemap>" for n in range(2100))
        return f"<sitemapindex>{rows}</sitemapindex>".encode()

    def follow(address: str) -> bool:
        followed.append(address)
        return True

    first = ["https://e.org/index.xml"]
    assert not list(list_pages(first, read=read_index, follows=follow))
    assert len(read) == sitemap.MAX_SITEMAPS and len(followed) <= 2 * sitemap.MAX_SITEMAPS
    rows = f"<urlset><url><loc>https://e.org/{'x' * 2100}</loc></url><url><loc>https://e.org/a</loc></url></urlset>"
    assert list(list_pages(first, read=lambda address: rows.encode(), follows=follow)) == ["https://e.org/a"]
