"""Sources: made by a form, said in plain words, run, paused, deleted."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from knowledge.embedding.factory import embedder
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Chunk, Document, Job, Source
from knowledge.sources import save_source, source_of_folder, task_name
from ragsite.core.problems import Problem
from tenants.models import AuditEvent, Tenant
from tenants.scope import scope, unscoped
from tests.knowledge.pages.helpers import HTMX, count_queries, html_of, signed_in, table_of, words_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


@pytest.fixture
def root(tmp_path: Path, configure: Any) -> Path:
    configure(RAGSITE_INGEST_ROOT=tmp_path)
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "a.md").write_text("# Lynx\n\nThe lynx link is up.\n")
    (tmp_path / "team" / "bad.pdf").write_bytes(b"no pdf at all")
    return tmp_path


def in_acme(cast: Any) -> Any:
    return scope(tenant_id=cast.acme.pk, tags=None)


def form(**changes: Any) -> dict[str, Any]:
    return {
        "path": "team",
        "name": "Team folder",
        "collection": "handbook",
        "tags": ["faq"],
        "schedule_kind": "daily",
        "daily_at": "02:00",
        "time_zone": "Europe/Berlin",
        **changes,
    }


def make(cast: Any, **changes: Any) -> Source:
    response = signed_in("ada").post("/sources/new/", form(**changes))
    assert response.status_code == 302, response.content.decode()[-3000:]
    with in_acme(cast):
        found: Source = Source.objects.select_related("collection").get(
            pk=response.headers["Location"].split("/")[2]
        )
    return found


def run_all(cast: Any) -> None:
    with in_acme(cast):
        for pk in Job.objects.filter(state=Job.State.PENDING).values_list("pk", flat=True):
            run_claimed_job(job_id=str(pk), embedder=embedder())


def test_one_is_made_and_its_schedule_is_said_in_plain_words(cast: Any, root: Path) -> None:
    source = make(cast)
    assert (source.schedule, source.time_zone, source.tags) == ("0 2 * * *", "Europe/Berlin", ["faq"])
    assert not source.trusted
    beat = PeriodicTask.objects.get(name=task_name(source))
    assert beat.enabled and str(beat.crontab.timezone) == "Europe/Berlin"
    page = words_of(html_of(signed_in("ada").get("/sources/")))
    assert "every day at 02:00, Europe/Berlin next" in page and "never" in page
    berlin = datetime.now(UTC).astimezone(ZoneInfo("Europe/Berlin"))
    due = berlin + timedelta(days=berlin.hour >= 2)
    assert f"next {due:%a} {due.day} {due:%b}, 02:00" in page
    assert page.count("02:00") == 2, "the next run is told in the schedule's own zone"
    with in_acme(cast):
        event = AuditEvent.objects.get(action="source.create")
    assert event.actor_name == "ada" and event.detail["schedule"] == "0 2 * * *"


def test_new_schedules_are_in_the_zone_of_the_tenant(cast: Any, root: Path) -> None:
    with unscoped(reason="tests"):
        Tenant.objects.filter(slug="acme").update(time_zone="Asia/Tokyo")
    page = html_of(signed_in("ada").get("/sources/new/"))
    assert 'name="time_zone" value="Asia/Tokyo"' in page


def test_it_can_be_fetched_at_once_and_its_run_is_told(cast: Any, root: Path) -> None:
    source, ada = make(cast, sync="1", schedule_kind="never"), signed_in("ada")
    page = html_of(ada.get("/sources/"))
    assert 'hx-trigger="every 2s"' in page and "Stop" in words_of(page)
    run_all(cast)
    page = html_of(ada.get("/sources/"))
    row = words_of(table_of(page))
    assert "done, with errors" in row and "1 indexed, 1 failed" in row and "only by hand" in row
    assert 'hx-trigger="every 2s"' not in page, "the polling ends"
    assert f'href="/documents/?source={source.pk}">1<' in page
    page = html_of(ada.get(f"/sources/{source.pk}/"))
    words = words_of(page)
    assert "bad.pdf" in words and "is not a PDF: upload it under the ending of its real format" in words
    assert "With it go 1 document" in words and "The folder itself stays" in words
    again = ada.post(f"/sources/{source.pk}/sync/", {"place": "source"}, headers=HTMX)
    part = html_of(again)
    assert "<html" not in part and 'hx-trigger="every 2s"' in part and "waiting" in part
    run_all(cast)
    runs = table_of(html_of(ada.get(f"/sources/{source.pk}/")))
    assert runs.count("<tr>") == 2 and words_of(runs).count("ada") == 2
    with in_acme(cast):
        assert AuditEvent.objects.filter(action="source.sync", actor_name="ada").count() == 2


def test_a_second_request_finds_the_run_that_is_on(cast: Any, root: Path) -> None:
    source, ada = make(cast), signed_in("ada")
    for _ in range(2):
        assert ada.post(f"/sources/{source.pk}/sync/").headers["Location"] == "/sources/"
    with in_acme(cast):
        assert Job.objects.filter(source=source).count() == 1


def test_pausing_stops_the_schedule_even_when_the_folder_is_gone(cast: Any, root: Path) -> None:
    source, ada = make(cast), signed_in("ada")
    (root / "team").rename(root / "elsewhere")
    assert ada.post(f"/sources/{source.pk}/pause/").status_code == 302
    page = html_of(ada.get("/sources/"))
    assert "paused" in words_of(table_of(page)) and "next" not in words_of(table_of(page))
    assert "Team folder is paused." in page and "Resume" in page
    assert not PeriodicTask.objects.get(name=task_name(source)).enabled
    part = html_of(ada.post(f"/sources/{source.pk}/pause/", {"enabled": "on"}, headers=HTMX))
    assert "follows its schedule again" in part and "Resume" not in part
    assert PeriodicTask.objects.get(name=task_name(source)).enabled
    with in_acme(cast):
        events = AuditEvent.objects.filter(target_id=str(source.pk))
        assert {"source.pause", "source.resume"} <= set(events.values_list("action", flat=True))


def test_it_is_changed(cast: Any, root: Path, configure: Any) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1", RAGSITE_INGEST_ROOT=root)
    source, ada = make(cast), signed_in("ada")
    page = html_of(ada.get(f"/sources/{source.pk}/edit/"))
    assert 'value="daily" checked' in page and 'name="daily_at" value="02:00"' in page
    assert 'value="faq" checked' in page
    changed = form(schedule_kind="weekly", weekly_at="06:30", weekly_on=["1", "3"], tags=[], name="Renamed")
    changed["callback_url"] = "http://127.0.0.1:9/done"
    response = ada.post(f"/sources/{source.pk}/edit/", changed)
    assert response.headers["Location"] == f"/sources/{source.pk}/"
    words = words_of(html_of(ada.get(f"/sources/{source.pk}/")))
    assert "every Monday and Wednesday at 06:30, Europe/Berlin" in words and "Renamed" in words
    page = html_of(ada.get(f"/sources/{source.pk}/edit/"))
    assert 'name="callback_url" value="http://127.0.0.1:9/done"' in page
    assert 'name="weekly_on" value="1" checked' in page and 'name="weekly_on" value="2">' in page
    ada.post(f"/sources/{source.pk}/edit/", form(schedule_kind="never"))
    assert not PeriodicTask.objects.filter(name=task_name(source)).exists()


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"path": "../outside"}, "path", "below the allowed root"),
        ({"path": "/etc"}, "path", "below the allowed root"),
        ({"path": "nowhere"}, "path", "There is no folder"),
        ({"path": ""}, "path", "may not be blank"),
        ({"schedule_kind": "daily", "daily_at": "late"}, "schedule", "such as 02:00"),
        ({"schedule_kind": "weekly", "weekly_at": "02:00"}, "schedule", "at least one day"),
        ({"schedule_kind": "cron", "cron": "61 * * * *"}, "schedule", "cannot be read"),
        ({"schedule_kind": "never", "time_zone": "Mars/Olympus"}, "time_zone", "is no time zone"),
        ({"other_tags": "A!"}, "tags", "is not a tag"),
        ({"callback_url": "http://169.254.169.254/done"}, "callback_url", "public internet"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    cast: Any, root: Path, change: dict[str, Any], field: str, words: str
) -> None:
    page = html_of(signed_in("ada").post("/sources/new/", form(**change)), 400)
    error = re.search(rf'id="{field}-error">([^<]+)<', page)
    assert error and words in error[1], page[-6000:]
    assert 'value="Team folder"' in page, "what was typed is there again"
    if "cron" in change:
        assert 'value="cron" checked' in page and 'value="61 * * * *"' in page
    with in_acme(cast):
        assert (
            not Source.objects.exists()
            and not PeriodicTask.objects.filter(task="knowledge.sync_source").exists()
        )


def test_a_name_and_a_place_are_taken_once(cast: Any, root: Path) -> None:
    make(cast)
    (root / "other").mkdir()
    ada = signed_in("ada")
    assert "A source named Team folder exists already." in html_of(
        ada.post("/sources/new/", form(path="other")), 409
    )
    assert "a source of this collection already" in html_of(
        ada.post("/sources/new/", form(name="Another")), 409
    )


def test_the_form_says_while_it_is_filled_in_what_holds(cast: Any, root: Path) -> None:
    ada = signed_in("ada")

    def said(check: str, **values: Any) -> str:
        return words_of(html_of(ada.post(f"/sources/check/?check={check}", form(**values), headers=HTMX)))

    assert said("path") == "This folder is there."
    assert "There is no folder" in said("path", path="nowhere")
    assert "below the allowed root" in said("path", path="../..")
    assert said("schedule").startswith("Every day at 02:00, Europe/Berlin. Next:")
    assert said("schedule").count("02:00") == 4  # the words and three runs
    assert "at least one day" in said("schedule", schedule_kind="weekly", weekly_at="02:00")
    assert "is no time zone" in said("schedule", time_zone="Berlin")
    assert said("schedule", schedule_kind="never") == "Only by hand."
    with in_acme(cast):
        assert not Source.objects.exists()


def test_deleting_takes_its_documents_with_it(cast: Any, root: Path) -> None:
    source, ada = make(cast, sync="1"), signed_in("ada")
    run_all(cast)
    with in_acme(cast):
        [document] = Document.objects.filter(source=source, status="indexed")
        assert Chunk.objects.filter(document=document).exists()
    assert ada.post(f"/sources/{source.pk}/delete/").headers["Location"] == "/sources/"
    assert "Source Team folder and its documents are deleted." in html_of(ada.get("/sources/"))
    with in_acme(cast):
        assert not Source.objects.exists() and not Document.objects.filter(source=source.pk).exists()
        assert not Chunk.objects.filter(document=document.pk).exists()
        assert Document.objects.count() == 5
    assert not PeriodicTask.objects.filter(name=task_name(source)).exists()
    assert (root / "team" / "a.md").exists()


def test_a_folder_named_by_the_operator_does_not_open_the_server_to_an_admin(cast: Any, root: Path) -> None:
    """A source made on the command line may lie anywhere; whoever changes its folder on a page names one below the root."""
    outside = root.parent / f"outside-{uuid.uuid4().hex}"
    outside.mkdir()
    with in_acme(cast):
        source = source_of_folder(
            directory=str(outside), collection=cast.collections["acme"], tags=["faq"], trusted=True
        )
    ada = signed_in("ada")
    path = f"/sources/{source.pk}/edit/"
    page = html_of(ada.post(path, form(path="/etc", name=source.name)), 400)
    assert "below the allowed root" in page
    with in_acme(cast):
        source.refresh_from_db()
        assert source.path == str(outside) and source.trusted
    # What it is may stay as it was.
    assert ada.post(path, form(path=str(outside), name="Still there")).status_code == 302
    assert ada.post(path, form(path="team", name="Moved")).status_code == 302
    with in_acme(cast):
        source.refresh_from_db()
        assert source.path == "team" and not source.trusted
        source = Source.objects.select_related("collection").get(pk=source.pk)
        with pytest.raises(Problem):
            save_source(source=source, changes={"path": "/etc"}, principal=cast.ada.principal)
    response = cast.ada.client.patch(
        f"/api/v1/sources/{source.pk}", {"path": "/etc"}, content_type="application/json"
    )
    assert response.status_code == 400


def test_they_are_for_those_who_manage_and_of_their_tenant(cast: Any, root: Path) -> None:
    source = make(cast)
    paths = [f"/sources/{source.pk}/{end}" for end in ("edit/", "sync/", "pause/", "delete/")]
    for username, status in (("nina", 403), ("hal", 403), ("gus", 404)):
        client = signed_in(username)
        for path in paths:
            assert client.post(path, form(name="Mine")).status_code == status, (username, path)
        assert client.get(paths[0]).status_code == client.get(f"/sources/{source.pk}/").status_code == status
        if username != "gus":
            assert client.get("/sources/").status_code == client.get("/sources/new/").status_code == 403
            assert client.post("/sources/check/", form()).status_code == 403
            assert client.post("/sources/new/", form()).status_code == 403
        else:
            assert "Team folder" not in html_of(client.get("/sources/"))
    with in_acme(cast):
        source.refresh_from_db()
        assert source.name == "Team folder" and source.enabled and not Job.objects.exists()


def test_a_foreign_collection_is_not_found(cast: Any, root: Path) -> None:
    foreign = form(collection=str(cast.collections["globex"].pk))
    assert signed_in("ada").post("/sources/new/", foreign).status_code == 404


def test_the_number_of_queries_does_not_grow(cast: Any, root: Path) -> None:
    source, ada = make(cast, sync="1"), signed_in("ada")
    run_all(cast)

    def look() -> None:
        html_of(ada.get("/sources/"))
        html_of(ada.get(f"/sources/{source.pk}/"))

    few, ada_user = count_queries(look), cast.ada.membership.user
    with in_acme(cast):
        for number in range(12):
            other = Source.objects.create(
                name=f"S{number}",
                path=f"s{number}",
                collection=cast.collections["acme"],
                schedule="0 2 * * *",
            )
            for row in (other, source):
                Job.objects.create(
                    kind="sync", source=row, state="SUCCESS", user=ada_user, started_at=timezone.now()
                )
            Document.objects.create(
                source=other, collection=cast.collections["acme"], title="T", uri="t.md", tags=["faq"]
            )
    assert count_queries(look) == few <= 26


def test_many_runs_come_by_pages(cast: Any, root: Path) -> None:
    source, ada = make(cast), signed_in("ada")
    with in_acme(cast):
        for number in range(25):
            Job.objects.create(kind="sync", source=source, state="SUCCESS", seen=number)
    page = html_of(ada.get(f"/sources/{source.pk}/"))
    more = re.search(r'hx-get="(\?cursor=[^"]+)"', page)
    assert more and table_of(page).count("<tr>") == 20
    rows = html_of(ada.get(f"/sources/{source.pk}/{more[1]}", headers=HTMX))
    assert "<table" not in rows and rows.count("<tr>") == 5
