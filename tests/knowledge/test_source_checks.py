"""Trying sources: who waits in vain leaves nothing behind, and nobody's slow place is in the way of others."""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from knowledge.ingestion.sources.base import SourceError
from knowledge.models import Source
from knowledge.source_checks import ask_source
from tenants.scope import scope
from tests.knowledge.helpers import eventually
from tests.knowledge.ingestion.sources.sites import Page, Site, serve_site
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture
def site(configure: Any, tmp_path: Path) -> Iterator[Site]:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1", RAGSITE_INGEST_ROOT=tmp_path)
    with serve_site() as found:
        yield found


def ask(tenant: uuid.UUID, path: str, *, kind: str = "web", seconds: float = 10, **options: Any) -> str:
    """What is there, or what is wrong."""
    source = Source(kind=kind, path=path, options=options, trusted=kind == "folder", tenant_id=tenant)
    with scope(tenant_id=tenant, tags=None):
        try:
            return ask_source(source=source, seconds=seconds)[0]
        except SourceError as error:
            return str(error)


def nobody_looks_on(seconds: float) -> None:
    eventually(
        lambda: not [one for one in threading.enumerate() if one.name == "source-check"],
        seconds,
        "a place is still being looked at",
    )


def test_who_waits_in_vain_leaves_nothing_behind(shared: Any, site: Site) -> None:
    site.html("/", "Home")
    site.pages["/robots.txt"] = Page("User-agent: *\nCrawl-delay: 6\n", "text/plain")
    assert "did not answer within" in ask(shared.acme.pk, f"{site.url}/", seconds=0.5, sitemap=True)
    nobody_looks_on(2)
    assert "/sitemap.xml" not in site.paths()


def test_one_tenant_does_not_hold_up_others(shared: Any, site: Site, tmp_path: Path) -> None:
    go_on = threading.Event()

    def slow(asked: Any) -> Page:
        go_on.wait(20)
        return Page("<p>slow</p>")

    site.pages["/slow"] = slow
    site.html("/", "Home")
    (tmp_path / "team").mkdir()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, shared.acme.pk, f"{site.url}/slow") for _ in range(2)]
        eventually(lambda: site.paths().count("/slow") == 2, 10, "nobody asked")
        started = time.monotonic()
        assert "try again in some seconds" in ask(shared.acme.pk, f"{site.url}/")
        assert "robots may read" in ask(shared.globex.pk, f"{site.url}/")
        assert "try again" not in ask(shared.acme.pk, str(tmp_path / "team"), kind="folder")
        assert time.monotonic() - started < 4
        go_on.set()
        assert all("robots may read" in one.result() for one in waiting)
    nobody_looks_on(5)
    assert "robots may read" in ask(shared.acme.pk, f"{site.url}/")
