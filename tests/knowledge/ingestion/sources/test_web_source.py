"""A web site as a source, by the API: made, looked at, kept in step, and bound to where it may lie."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import reverse

from tests.knowledge.helpers import check_problem, run_job, send
from tests.knowledge.ingestion.sources.sites import Page, Site, serve_site
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture
def site(configure: Any) -> Iterator[Site]:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1")
    with serve_site() as found:
        yield found


def sync(shared: Any, source: str) -> dict[str, Any]:
    return run_job(shared.ada, send(shared.ada, "post", f"sources/{source}/sync").json()["task_id"])


def test_a_web_source_is_kept_in_step(shared: Any, site: Site) -> None:
    site.html("/guide/", "Guide", "The wagtail link is up.", links=("bgp", "plain.txt", "broken"), etag='"1"')
    site.html("/guide/bgp", "BGP", "The wagtail peer has 30 seconds.", etag='"2"')
    site.pages["/guide/plain.txt"] = Page("The wagtail note.", "text/plain", etag='"3"')
    site.pages["/guide/broken"] = Page(status=500)
    body = {
        "kind": "web", "path": f"{site.url}/guide/", "collection": "handbook", "tags": ["runbooks"],
        "options": {"delay": 0, "depth": 2}, "credentials": {"token": "s3cret"},
    }  # fmt: skip
    response = send(shared.ada, "post", "sources", body)
    assert response.status_code == 201, response.content
    row = response.json()
    assert (
        row["options"]["depth"] == 2 and row["has_credentials"] and "s3cret" not in response.content.decode()
    )
    check = send(shared.ada, "post", f"sources/{row['id']}/check").json()
    assert check["ok"] and "127.0.0.1" in check["detail"]

    job = sync(shared, row["id"])
    assert job["state"] == "SUCCESS" and job["documents"]["changed"] == 3, job
    assert [(error["document"], "500" in error["reason"]) for error in job["errors"]] == [
        (f"{site.url}/guide/broken", True)
    ]
    assert all(one.headers["authorization"] == "Bearer s3cret" for one in site.asked)

    def documents() -> dict[str, dict[str, Any]]:
        rows = send(shared.ada, "get", "documents?page_size=200").json()["results"]
        return {
            one["uri"].removeprefix(f"{site.url}/guide/"): one for one in rows if one["source"] == row["id"]
        }

    found = documents()
    assert {uri: (one["title"], one["media_type"]) for uri, one in found.items()} == {
        "": ("Guide", "text/html"), "bgp": ("BGP", "text/html"), "plain.txt": (found["plain.txt"]["title"], "text/plain")
    }  # fmt: skip
    # Nothing new: nothing is indexed. Then one page changes and one is gone.
    site.html("/guide/", "Guide", "The wagtail link is up.", links=("bgp", "plain.txt"), etag='"4"')
    second = sync(shared, row["id"])
    counts = {"seen": 3, "changed": 1, "unchanged": 2, "deleted": 0, "failed": 0}
    assert second["documents"] == counts, second
    site.html("/guide/bgp", "BGP", "The wagtail peer has 90 seconds.", etag='"5"')
    site.pages["/guide/plain.txt"] = Page(status=410)
    third = sync(shared, row["id"])
    assert third["documents"] == counts | {"seen": 2, "unchanged": 1, "deleted": 1}, third
    hits = send(shared.nina, "post", "search", {"question": "wagtail peer seconds"}).json()["sources"]
    assert "90 seconds" in hits[0]["text"] and hits[0]["uri"] == f"{site.url}/guide/bgp"
    # A page without an ending is indexed again from what is stored of it.
    again = send(shared.ada, "post", "reindex", {"source": row["id"]}).json()["task_id"]
    assert run_job(shared.ada, again)["documents"]["failed"] == 0
    # The site is down: the sync fails, and nothing is deleted.
    site.pages["/robots.txt"] = Page(status=503)
    fourth = sync(shared, row["id"])
    assert fourth["state"] in ("FAILURE", "PENDING") and len(documents()) == 2


def make_source(shared: Any, path: str, **options: Any) -> str:
    body = {"kind": "web", "path": path, "collection": "handbook", "options": {"delay": 0, **options}}
    response = send(shared.ada, "post", "sources", body)
    assert response.status_code == 201, response.content
    return str(response.json()["id"])


@pytest.mark.parametrize("status", [403, 503])
def test_pages_that_cannot_be_had_fail_alone(shared: Any, site: Site, status: int) -> None:
    shut = tuple(f"shut-{n}" for n in range(12))
    good = tuple(f"good-{n}" for n in range(4))
    links = [*shut, *good]
    if status == 503:  # ten in a row would be a site that is away
        links = [link for n in range(4) for link in (*shut[3 * n : 3 * n + 3], good[n])]
    site.html("/wall/", "Wall", f"The dunlin wall {status}.", links=tuple(links), etag=f'"{status}"')
    for path in shut:
        site.pages[f"/wall/{path}"] = Page(status=status)
    for path in good:
        site.html(f"/wall/{path}", path, f"The dunlin page {path} {status}.", etag=f'"{path}"')
    source = make_source(shared, f"{site.url}/wall/")
    job = sync(shared, source)
    assert job["state"] == "SUCCESS", job
    assert job["documents"] == {"seen": 17, "changed": 5, "unchanged": 0, "deleted": 0, "failed": 12}
    assert all(str(status) in error["reason"] for error in job["errors"]) and len(job["errors"]) == 12
    # What was read is remembered, and what was not is tried again.
    again = sync(shared, source)
    assert again["documents"] == {"seen": 17, "changed": 0, "unchanged": 5, "deleted": 0, "failed": 12}
    site.html(f"/wall/{shut[0]}", "Open", f"The dunlin page that opened {status}.")
    assert sync(shared, source)["documents"]["changed"] == 1


def test_a_crawl_that_is_cut_is_told(shared: Any, site: Site) -> None:
    site.html("/long/", "Long", links=tuple(f"{n}" for n in range(9)))
    for n in range(9):
        site.html(f"/long/{n}", f"Number {n}")
    source = make_source(shared, f"{site.url}/long/", max_pages=3)
    job = sync(shared, source)
    assert job["state"] == "SUCCESS" and "cut at 3 pages" in job["result"]["said"][0]
    pages = [reverse("source-page", args=[source]), reverse("job-page", args=[job["id"]])]
    for page in pages:
        response = shared.ada.client.get(page)
        assert response.status_code == 200 and "cut at 3 pages" in response.content.decode()
    send(shared.ada, "patch", f"sources/{source}", {"options": {"max_pages": 100}})
    assert "said" not in sync(shared, source)["result"]
    assert "cut at" not in shared.ada.client.get(pages[0]).content.decode()


def test_a_web_source_lies_where_it_may(shared: Any, site: Site) -> None:
    with serve_site(host="127.0.0.2") as inside:
        for path in (
            inside.url,
            "http://169.254.169.254/",
            "ftp://127.0.0.1/",
            "https://u:p@127.0.0.1/",
            "nonsense",
        ):
            body = {"kind": "web", "path": path, "collection": "handbook"}
            problem = check_problem(send(shared.ada, "post", "sources", body), 400, "invalid")
            assert problem["errors"][0]["field"] == "path"
        assert not inside.asked
