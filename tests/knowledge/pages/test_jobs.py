"""Jobs: whose one sees, how they are told while they run, and cancelling and retrying them."""

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from knowledge.embedding.factory import embedder
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Document, Job, Source
from knowledge.views.shown_jobs import describe_seconds
from tenants.models import AuditEvent, Membership, Role
from tenants.scope import scope
from tests.knowledge.helpers import upload
from tests.knowledge.pages.helpers import HTMX, count_queries, html_of, signed_in, table_of, words_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def in_acme(cast: Any) -> Any:
    return scope(tenant_id=cast.acme.pk, tags=None)


def uploaded(
    cast: Any, name: str = "note.md", data: bytes = b"# Note\n\nA line.\n", who: str = "nina"
) -> str:
    response = upload(getattr(cast, who), name, data, tags=["runbooks"])
    assert response.status_code == 202, response.content
    return str(response.json()["task_id"])


def run(cast: Any, job: str) -> None:
    with in_acme(cast):
        run_claimed_job(job_id=job, embedder=embedder())


def make(cast: Any, **values: Any) -> Job:
    with in_acme(cast):
        job: Job = Job.objects.create(**({"kind": "reindex", "state": "SUCCESS"} | values))
    return job


def of(cast: Any, job: str) -> Job:
    with in_acme(cast):
        found: Job = Job.objects.get(pk=job)
    return found


def test_uploaders_see_their_own_and_those_who_manage_see_all(cast: Any) -> None:
    hers, his = uploaded(cast, "hers.md"), uploaded(cast, "his.md", who="ada")
    nina = html_of(signed_in("nina").get("/jobs/"))
    assert hers in nina and his not in nina and "his.md" not in nina and "Your jobs" in nina
    ada = html_of(signed_in("ada").get("/jobs/"))
    assert hers in ada and his in ada and "nina" in words_of(table_of(ada))
    assert hers not in html_of(signed_in("gus").get("/jobs/"))
    assert signed_in("hal").get("/jobs/").status_code == 403
    assert signed_in("hal").get(f"/jobs/{hers}/").status_code == 403


def test_a_job_of_a_document_that_one_does_not_read_any_more_keeps_its_name_back(cast: Any) -> None:
    job = uploaded(cast, "quarterly-numbers.md")
    with in_acme(cast):
        Document.objects.filter(uri="quarterly-numbers.md").update(tags=["incident_reports"])
    nina = signed_in("nina")
    for page in (html_of(nina.get("/jobs/")), html_of(nina.get(f"/jobs/{job}/"))):
        assert "quarterly-numbers" not in page and "a document you may not see" in page
    assert nina.post(f"/jobs/{job}/retry/").status_code == 404
    assert "quarterly-numbers" in html_of(signed_in("ada").get("/jobs/"))


def test_the_list_is_live_while_something_runs(cast: Any) -> None:
    old = make(cast, state="CANCELLED")
    job = uploaded(cast)
    nina, ada = signed_in("nina"), signed_in("ada")
    page = html_of(ada.get("/jobs/"))
    live = re.search(r'<tbody hx-get="([^"]+)" hx-trigger="every 2s, jobs-changed from:body"', page)
    assert live and "waiting" in table_of(page)
    with in_acme(cast):
        Job.objects.filter(pk=job).update(state="PROGRESS", step="embedding", progress=37)
    newer = uploaded(cast, "newer.md")
    part = html_of(ada.get(live[1].replace("&amp;", "&"), headers=HTMX))
    assert part.lstrip().startswith("<tbody") and "<table" not in part
    assert 'value="37"' in part and "indexing" in part
    assert newer in part and str(old.pk) in part, "what has come since is there, down to where the page ended"
    with in_acme(cast):
        Job.objects.filter(pk=job).update(state="PENDING")
    run(cast, job)
    run(cast, newer)
    part = html_of(ada.get(live[1].replace("&amp;", "&"), headers=HTMX))
    assert "every 2s" not in part and 'hx-trigger="jobs-changed from:body"' in part
    assert "every" not in html_of(nina.get("/jobs/"))


def test_it_is_narrowed(cast: Any) -> None:
    rows = {
        "running": make(cast, state="PROGRESS"),
        "failed": make(cast, state="FAILURE", error="It broke."),
        "done": make(cast, state="SUCCESS", failed=3),
        "cancelled": make(cast, state="CANCELLED", kind="sync"),
    }
    ada = signed_in("ada")

    def shown(query: str) -> set[str]:
        page = html_of(ada.get(f"/jobs/{query}"))
        return {name for name, row in rows.items() if f'href="/jobs/{row.pk}/"' in page}

    assert shown("") == set(rows)
    assert shown("?state=running") == {"running"}
    assert shown("?state=failed") == {"failed", "done"}, "one with errors too"
    assert shown("?state=cancelled") == {"cancelled"}
    assert shown("?kind=sync") == {"cancelled"}
    assert shown("?kind=sync&state=done") == set()
    assert shown("?state=nonsense") == set(rows)
    part = ada.get("/jobs/?state=running&kind=", headers=HTMX)
    assert part.headers["HX-Push-Url"] == "/jobs/?state=running" and "<html" not in html_of(part)
    assert "No job matches." in html_of(ada.get("/jobs/?kind=sync&state=done"))
    assert "No job yet" in html_of(signed_in("nina").get("/jobs/"))


def test_the_pages_show_every_job_once(cast: Any) -> None:
    with in_acme(cast):
        Job.objects.bulk_create([Job(kind="reindex", state="SUCCESS") for _ in range(120)])
    ada, seen, path = signed_in("ada"), [], ""
    for _page in range(4):
        page = html_of(ada.get(f"/jobs/{path}"))
        seen += re.findall(r'href="/jobs/([0-9a-f-]{36})/">Index', page)
        found = re.search(r'href="(\?cursor=[^"]+)" hx-get', page)
        if not found:
            break
        path = found[1].replace("&amp;", "&")
    assert len(seen) == len(set(seen)) == 120
    part = html_of(ada.get(f"/jobs/{path}", headers=HTMX))
    assert part.lstrip().startswith("<tbody>")


def test_a_job_tells_each_documents_own_error(cast: Any) -> None:
    with in_acme(cast):
        source = Source.objects.create(name="Folder", path="folder", collection=cast.collections["acme"])
        known = cast.documents["acme"]["vpn-faq.md"]
        Document.objects.filter(pk=known.pk).update(source=source)
    job = make(
        cast,
        kind="sync",
        source=source,
        seen=7,
        changed=4,
        unchanged=1,
        failed=2,
        chunks_added=9,
        errors=[
            {"document": "vpn-faq.md", "reason": "It is protected by a password: remove the protection."},
            {"document": "gone/<b>.md", "reason": "The file could not be read: Permission denied."},
        ],
        user=cast.ada.membership.user,
        started_at=timezone.now() - timedelta(seconds=95),
        finished_at=timezone.now(),
    )
    page = html_of(signed_in("ada").get(f"/jobs/{job.pk}/"))
    words = words_of(page)
    assert "done, with errors" in words and "1 min 35 s" in words and "By ada" in words
    assert "remove the protection" in words and "Put the files right where they come from" in words
    assert f'href="/documents/{known.pk}/manage/">vpn-faq.md<' in page
    assert "gone/&lt;b&gt;.md" in page and "<b>" not in page
    assert f'href="/sources/{source.pk}/"' in page and "/retry/" in page
    assert "every 1500ms" not in page


def test_a_run_tells_the_document_it_is_at(cast: Any) -> None:
    job = make(cast, state="PROGRESS", step="routing/ospf.md", progress=12)
    ada = signed_in("ada")
    for path in ("/jobs/", f"/jobs/{job.pk}/"):
        assert "routing/ospf.md" in html_of(ada.get(path))
    with in_acme(cast):
        Job.objects.filter(pk=job.pk).update(state="FAILURE")
    assert "routing/ospf.md" not in html_of(ada.get("/jobs/"))


def test_cancelling(cast: Any) -> None:
    job, nina = uploaded(cast), signed_in("nina")
    assert nina.post(f"/jobs/{job}/cancel/").headers["Location"] == "/jobs/"
    assert of(cast, job).state == "CANCELLED"
    page = html_of(nina.get("/jobs/"))
    assert "Cancelled." in page and "cancelled" in words_of(table_of(page))
    with in_acme(cast):
        event = AuditEvent.objects.get(action="task.cancel")
        assert event.actor_name == "nina" and event.target_id == job
        assert Document.objects.get(uri="note.md").status == "failed"
    nina.post(f"/jobs/{job}/cancel/")
    assert "This job has ended already." in html_of(nina.get("/jobs/"))
    with in_acme(cast):
        assert AuditEvent.objects.filter(action="task.cancel").count() == 1
    running = make(cast, state="PROGRESS", user=cast.nina.membership.user)
    part = html_of(nina.post(f"/jobs/{running.pk}/cancel/", {"place": "job"}, headers=HTMX))
    assert "It stops after the passage" in part and "stopping" in part and "/cancel/" not in part
    assert of(cast, str(running.pk)).cancel_requested


def test_in_a_list_the_list_is_told_to_look_again(cast: Any) -> None:
    job, nina = uploaded(cast), signed_in("nina")
    response = nina.post(f"/jobs/{job}/cancel/", {"place": "list"}, headers=HTMX)
    assert (response.status_code, response.headers["HX-Trigger"]) == (204, "jobs-changed")
    response = nina.post(f"/jobs/{job}/retry/", {"place": "list"}, headers=HTMX)
    assert (response.status_code, response.headers["HX-Trigger"]) == (204, "jobs-changed")
    with in_acme(cast):
        assert Job.objects.filter(state="PENDING").count() == 1


def test_retrying_a_document(cast: Any) -> None:
    job, nina = uploaded(cast), signed_in("nina")
    nina.post(f"/jobs/{job}/cancel/")
    response = nina.post(f"/jobs/{job}/retry/", {"place": "job"})
    again = response.headers["Location"].split("/")[2]
    assert again != job and "Begun again." in html_of(nina.get(f"/jobs/{again}/"))
    run(cast, again)
    assert of(cast, again).state == "SUCCESS"
    page = html_of(nina.get(f"/jobs/{again}/"))
    assert "done" in page and "/retry/" not in page
    nina.post(f"/jobs/{uploaded(cast, 'waits.md')}/retry/")
    assert "cancel it first, or wait" in html_of(nina.get("/jobs/"))


def test_retrying_what_takes_managing_is_for_those_who_still_manage(cast: Any) -> None:
    nina = cast.nina.membership.user
    with in_acme(cast):
        source = Source.objects.create(name="Folder", path="folder", collection=cast.collections["acme"])
    for values in ({"kind": "sync", "source": source}, {"kind": "reindex"}):
        job = make(cast, state="FAILURE", user=nina, **values)
        page = html_of(signed_in("nina").get("/jobs/"))
        assert f"/jobs/{job.pk}/retry/" not in page
        assert signed_in("nina").post(f"/jobs/{job.pk}/retry/").status_code == 403
        assert f"/jobs/{job.pk}/retry/" in html_of(signed_in("ada").get("/jobs/"))
        assert signed_in("ada").post(f"/jobs/{job.pk}/retry/").status_code == 302
    with in_acme(cast):
        assert Job.objects.filter(state="PENDING").count() == 2
        Membership.objects.filter(user=nina).update(role=Role.objects.get(name="admin"))
    assert signed_in("nina").post(f"/jobs/{job.pk}/retry/").status_code == 302


def test_other_peoples_jobs_are_like_absent_ones(cast: Any) -> None:
    job = uploaded(cast, who="ada")
    for username in ("nina", "gina", "gus"):
        client = signed_in(username)
        for pk in (job, uuid.uuid4()):
            assert client.get(f"/jobs/{pk}/").status_code == 404
            for action in ("cancel", "retry"):
                assert client.post(f"/jobs/{pk}/{action}/").status_code == 404
    assert of(cast, job).state == "PENDING"


def test_the_number_of_queries_does_not_grow(cast: Any) -> None:
    ada = signed_in("ada")
    uploaded(cast)
    with in_acme(cast):
        source = Source.objects.create(name="Folder", path="folder", collection=cast.collections["acme"])
    handbook, user = cast.collections["acme"], cast.ada.membership.user
    make(cast, source=source, kind="sync", user=user)
    make(cast, collection=handbook, user=user)
    few = count_queries(lambda: ada.get("/jobs/"))
    for number in range(12):
        uploaded(cast, f"{number}.md", who="ada" if number % 2 else "nina")
        make(cast, source=source, kind="sync")
        make(cast, collection=handbook, user=user)
    assert count_queries(lambda: ada.get("/jobs/")) == few <= 14


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "under 1 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (7384, "2 h 3 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert describe_seconds(seconds) == words
