"""Documents that are of age leave, those that say the same are known, and what nothing needs is cleared away."""

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.schedules import maybe_schedule
from django.utils import timezone

from knowledge.duplicates import find_same_content
from knowledge.freshness import read_freshness
from knowledge.ingestion.storage import original_path, store_original
from knowledge.models import Chunk, Collection, Document, Embedding, ExpiredItem, Job, Source
from knowledge.retention import clear_away
from knowledge.tasks import apply_retention, build_spaces, clear_what_is_left, erase_deleted_documents
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.helpers import send, upload_indexed
from tests.knowledge.ingestion.syncing import documents_of, long, make_source, sync, write
from tests.knowledge.rows import html_of, signed_in
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture(autouse=True)
def inside(shared: Any) -> Iterator[None]:
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield


def test_new_content_that_waits_is_not_of_age(tmp_path: Path) -> None:
    collection = Collection.objects.create(slug="awaited", name="Awaited", retention_days=10)
    write(tmp_path / "old.md", "# Old\n\nThe numbat plan is old.\n")
    source = make_source(tmp_path, collection=collection)
    sync(source)
    old = documents_of(source)["old.md"]
    make_old(11, pk=old.pk)
    Document.objects.filter(pk=old.pk).update(pending_name="x" * 32)
    apply_retention()
    assert documents_of(source)
    Document.objects.filter(pk=old.pk).update(pending_name="")
    apply_retention()
    assert not documents_of(source)


def make_old(days: float, **of: Any) -> None:
    moment = timezone.now() - timedelta(days=days)
    Document.objects.filter(**of).update(current_since=moment, indexed_at=moment, created_at=moment)


def test_of_age_is_deleted_restorable_and_stays_away(tmp_path: Path, shared: Any) -> None:
    collection = Collection.objects.create(slug="short", name="Short", retention_days=10)
    write(tmp_path / "old.md", "# Old\n\nThe wombat plan is old.\n")
    write(tmp_path / "new.md", "# New\n\nThe wombat plan is new.\n")
    source = make_source(tmp_path, collection=collection)
    sync(source)
    old = documents_of(source)["old.md"]
    make_old(11, pk=old.pk)
    make_old(9, uri="new.md")
    make_old(400, collection__slug="handbook")  # kept for good
    apply_retention()
    assert set(documents_of(source)) == {"new.md"}
    assert Document.objects.filter(collection__slug="handbook", deleted_at__isnull=True).exists()
    event = AuditEvent.objects.get(action="document.expire", target_id=str(old.pk))
    assert event.method == "system" and event.detail["days"] == 10
    hits = send(shared.hal, "post", "search", {"question": "wombat plan"}).json()["sources"]
    assert "new" in str(hits) and "is old" not in str(hits)

    job = sync(source)
    assert (job.seen, job.unchanged, job.changed) == (2, 2, 0) and job.result["changes"]["expired"] == [
        "old.md"
    ]
    assert set(documents_of(source)) == {"new.md"}
    # Touched, and the same: it stays away; restored by a person, it is of today.
    write(tmp_path / "old.md", "# Old\n\nThe wombat plan is old.\n", age=5)
    assert sync(source).result["changes"]["expired"] == ["old.md"]
    assert send(shared.ada, "post", f"documents/{old.pk}/restore").status_code == 200
    apply_retention()
    assert sync(source).unchanged == 2 and set(documents_of(source)) == {"old.md", "new.md"}
    # Other content is another matter.
    make_old(11, pk=old.pk)
    apply_retention()
    write(tmp_path / "old.md", "# Old\n\nThe wombat plan was revised.\n")
    assert sync(source).changed == 1 and set(documents_of(source)) == {"old.md", "new.md"}
    # Kept longer by the collection: it may come back.
    make_old(11, uri="new.md")
    apply_retention()
    assert ExpiredItem.objects.filter(source=source, uri="new.md").exists()
    Collection.objects.filter(pk=collection.pk).update(retention_days=None)
    source = Source.objects.select_related("collection").get(pk=source.pk)
    assert sync(source).changed == 1 and not ExpiredItem.objects.filter(source=source).exists()


def test_the_schedule_holds_retention_and_clean_up() -> None:
    """As beat takes it from the settings, with tasks that a worker knows."""
    from ragsite.celery import app

    app.loader.import_default_modules()
    due = {entry["task"]: maybe_schedule(entry["schedule"]) for entry in app.conf.beat_schedule.values()}
    assert len(due) == len(app.conf.beat_schedule) and set(due) <= set(app.tasks)
    hour, day = timedelta(hours=1), timedelta(days=1)
    for task, longest in (
        (apply_retention, hour), (clear_what_is_left, day), (erase_deleted_documents, day),
        (build_spaces, timedelta(minutes=1)),
    ):  # fmt: skip
        assert app.tasks[task.name].run == task.run
        assert timedelta(0) < due[task.name].run_every <= longest


def test_of_age_stays_away_wherever_the_source_moves_it(tmp_path: Path, shared: Any) -> None:
    collection = Collection.objects.create(slug="moving", name="Moving", retention_days=10)
    write(tmp_path / "old.md", "# Old\n\nThe quokka plan is old.\n")
    write(tmp_path / "other.md", "# Other\n\nThe quokka had another plan.\n")
    source = make_source(tmp_path, collection=collection)
    sync(source)
    old = documents_of(source)["old.md"]
    make_old(11, source=source)
    apply_retention()
    # Onto the path of another one that is of age.
    (tmp_path / "new").mkdir()
    (tmp_path / "other.md").unlink()
    (tmp_path / "old.md").rename(tmp_path / "other.md")
    for place in (tmp_path / "other.md", tmp_path / "new" / "old.md"):
        if not place.exists():
            (tmp_path / "other.md").rename(place)
        for _ in range(2):  # by its bytes, then by its fingerprint
            job = sync(source)
            assert (job.changed, job.unchanged) == (0, 1) and not documents_of(source)
            assert job.result["changes"]["expired"] == [place.relative_to(tmp_path).as_posix()]
    assert ExpiredItem.objects.get(source=source).uri == "new/old.md"
    # Of two copies one has moved, the other has come.
    write(tmp_path / "copy.md", "# Old\n\nThe quokka plan is old.\n")
    assert sync(source).changed == 1 and set(documents_of(source)) == {"copy.md"}
    # Restored, it is at its new path, and stays.
    assert send(shared.ada, "post", f"documents/{old.pk}/restore").status_code == 200
    assert sync(source).deleted == 0 and set(documents_of(source)) == {"copy.md", "new/old.md"}
    assert documents_of(source)["new/old.md"].pk == old.pk


def test_being_indexed_again_makes_no_younger(shared: Any) -> None:
    collection = Collection.objects.create(slug="aging", name="Aging", retention_days=5)
    identifier = upload_indexed(
        shared.ada, "aging.md", "# Aging\n\nText.\n", collection="aging", tags=["faq"]
    )
    make_old(6, pk=identifier)
    from tests.knowledge.helpers import run_job

    task = send(shared.ada, "post", "reindex", {"document": identifier}).json()["task_id"]
    assert run_job(shared.ada, task)["state"] == "SUCCESS"
    apply_retention()
    assert Document.objects.get(pk=identifier).deleted_at is not None
    assert collection.retention_days == 5


def test_vectors_originals_and_jobs_that_nothing_needs_are_cleared_away(tmp_path: Path, shared: Any) -> None:
    file = write(tmp_path / "a.md", f"# A\n\n{long('A text that goes')}")
    source = make_source(tmp_path)
    sync(source)
    chunk = Chunk.objects.get(document__source=source)
    held = Embedding.objects.filter(text_hash=chunk.embedding_hash)
    name = documents_of(source)["a.md"].stored_name
    orphan = store_original(tenant_id=shared.acme.pk, data=b"nobody's")
    young = store_original(tenant_id=shared.acme.pk, data=b"being written")
    two_days_ago = time.time() - 2 * 24 * 3600
    for each in (name, orphan):
        os.utime(original_path(tenant_id=shared.acme.pk, stored_name=each), (two_days_ago, two_days_ago))
    ancient = Job.objects.create(
        kind="reindex", state="SUCCESS", finished_at=timezone.now() - timedelta(days=401)
    )
    clear_what_is_left()
    exists = {
        each: original_path(tenant_id=shared.acme.pk, stored_name=each).exists()
        for each in (name, orphan, young)
    }
    assert exists == {name: True, orphan: False, young: True}
    assert not Job.objects.filter(pk=ancient.pk).exists()

    file.write_text(f"# A\n\n{long('Another text that stays')}")
    sync(source)
    now = timezone.now() + timedelta(days=2)
    clear_away(now=now)
    assert held.get().unused_since is not None
    clear_away(now=now + timedelta(days=29))
    assert held.exists(), "it may come back for thirty days"
    clear_away(now=now + timedelta(days=31))
    assert not held.exists()
    present = Chunk.objects.get(document__source=source).embedding_hash
    assert Embedding.objects.get(text_hash=present).unused_since is None


def test_the_same_content_is_known_and_told_to_those_who_read_it(shared: Any) -> None:
    text = f"# Twins\n\n{long('Two of a kind')}\n"
    first = upload_indexed(shared.ada, "first.md", text, tags=["faq"])
    same = upload_indexed(shared.ada, "same.md", text, tags=["incident_reports"])
    words = upload_indexed(shared.ada, "words.txt", text.replace("# ", "").upper(), tags=["faq"])
    rows = {str(row.pk): row for row in Document.objects.filter(pk__in=[first, same, words])}
    assert rows[first].sha256 == rows[same].sha256 != rows[words].sha256
    assert len({row.text_sha256 for row in rows.values()}) == 1

    def told(member: Any) -> dict[str, bool]:
        found = find_same_content(document=rows[first], membership=member.membership)
        return {str(row.pk): exact for row, exact in found}

    assert told(shared.ada) == {same: True, words: False}
    assert told(shared.hal) == {words: False}, "helpdesk does not read incident reports"
    page = html_of(signed_in("ada").get(f"/documents/{first}/manage/"))
    assert "Same content as" in page and same in page and words in page
    alone = upload_indexed(shared.ada, "alone.md", "# Alone\n\nOne of a kind.\n", tags=["incident_reports"])
    twin = upload_indexed(shared.ada, "alone-2.md", "# Alone\n\nOne of a kind.\n", tags=["faq"])
    for member, document, name, seen in (
        (shared.ada, first, "first.md", True),
        (shared.ada, alone, "alone.md", True),
        (shared.hal, first, "first.md", True),
        (shared.hal, twin, "alone-2.md", False),  # the other one is none of his
    ):
        listed = html_of(signed_in(member.username).get(f"/documents/?q={name}"))
        assert ("the same content elsewhere" in listed) == seen, name
        assert send(member, "get", f"documents/{document}").json()["has_duplicates"] == seen
        (row,) = send(member, "get", f"documents?q={name}").json()["results"]
        assert row["has_duplicates"] == seen


def test_freshness_is_the_age_of_what_is_known_to_wait(tmp_path: Path, shared: Any) -> None:
    with scope(tenant_id=shared.globex.pk, tags=None):
        now = timezone.now()
        assert read_freshness(now=now).oldest is None
        write(tmp_path / "a.md", "# A\n\nText.\n")
        source = make_source(tmp_path)
        Source.objects.filter(pk=source.pk).update(schedule="*/15 * * * *", last_synced_at=now)
        assert read_freshness(now=now + timedelta(minutes=1)).overdue == []
        late = read_freshness(now=now + timedelta(minutes=40))
        assert [each.source.pk for each in late.overdue] == [source.pk]
        assert timedelta(minutes=24) <= late.age(now=now + timedelta(minutes=40)) <= timedelta(minutes=40)
        sync(source)
        assert read_freshness(now=timezone.now()).overdue == []


def test_a_revoked_tag_is_unanswerable_on_the_next_request(shared: Any) -> None:
    identifier = upload_indexed(
        shared.ada, "numbat.md", "# Numbat\n\nThe numbat passphrase is 9191-omega.\n", tags=["faq"]
    )
    question = {"question": "What is the numbat passphrase?"}
    assert "9191-omega" in str(send(shared.hal, "post", "query", question).json())
    assert send(shared.hal, "post", "query", question).json()["cache"] == "exact"
    begun = time.perf_counter()
    assert (
        send(shared.ada, "patch", f"documents/{identifier}", {"tags": ["incident_reports"]}).status_code
        == 200
    )
    answer = send(shared.hal, "post", "query", question).json()
    print(f"from the revocation to an answer without it: {1000 * (time.perf_counter() - begun):.0f} ms")
    assert "9191-omega" not in str(answer)
