"""Folder sources: what is new, changed, unchanged, gone, broken; and what a schedule is."""

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from knowledge.ingestion.sources.folder import FolderConnector
from ragsite.core.config import config
from tests.knowledge.helpers import check_problem, conforms, run_job, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture
def root(tmp_path: Path, configure: Any) -> Path:
    configure(RAGSITE_INGEST_ROOT=tmp_path)
    return tmp_path


def add_source(shared: Any, folder: Path, **form: Any) -> str:
    body = {"path": folder.name, "tags": ["runbooks"], "collection": "handbook", **form}
    response = send(shared.ada, "post", "sources", body)
    assert response.status_code == 201, response.content
    return str(response.json()["id"])


def sync(shared: Any, source: str) -> dict[str, Any]:
    return run_job(shared.ada, send(shared.ada, "post", f"sources/{source}/sync").json()["task_id"])


def documents_of(shared: Any, source: str) -> dict[str, dict[str, Any]]:
    rows = send(shared.ada, "get", "documents?page_size=200").json()["results"]
    return {row["uri"]: row for row in rows if row["source"] == source}


def stored_files(shared: Any) -> int:
    return sum(path.is_file() for path in (config().documents_root / str(shared.acme.pk)).rglob("*"))


def test_a_folder_is_kept_in_step(shared: Any, root: Path) -> None:
    from knowledge.models import Chunk
    from tenants.scope import scope

    folder = root / "team"
    (folder / "sub").mkdir(parents=True)
    one, two = (
        "The lynx link is up (%d). " * 12 % (*range(12),),
        "The second section, sentence %d. " * 12 % (*range(12),),
    )
    (folder / "a.md").write_text(f"# A\n\n## One\n\n{one}\n\n## Two\n\n{two}\n")
    (folder / "sub" / "b.txt").write_text("The lynx link is down.\n")
    (folder / "bad.pdf").write_bytes(b"no pdf at all")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "empty.md").write_text("")
    (folder / ".hidden.md").write_text("# Hidden\n\nThe lynx is hidden.\n")
    os.symlink("/etc/hostname", folder / "link.txt")
    source = add_source(shared, folder)

    job = sync(shared, source)
    assert job["state"] == "SUCCESS" and job["progress"] == 100
    counts = {"seen": 4, "deleted": 0, "failed": 2}
    assert job["documents"] == counts | {"changed": 2, "unchanged": 0}
    assert {error["document"] for error in job["errors"]} == {"bad.pdf", "empty.md"}
    assert all(error["reason"] for error in job["errors"])
    assert job["chunks"]["added"] == 3
    found = documents_of(shared, source)
    assert {uri for uri, row in found.items() if row["status"] == "indexed"} == {"a.md", "sub/b.txt"}
    assert found["a.md"]["tags"] == ["runbooks"]

    def chunks() -> set[Any]:
        with scope(tenant_id=shared.acme.pk, tags=None):
            return set(Chunk.objects.filter(document_id=found["a.md"]["id"]).values_list("pk", flat=True))

    kept, files = chunks(), stored_files(shared)
    again = sync(shared, source)
    assert again["documents"] == counts | {"changed": 0, "unchanged": 2}
    assert again["chunks"] == {"added": 0, "kept": 0, "removed": 0}
    assert chunks() == kept
    # Touched but not changed is unchanged: the hash decides, not the time.
    (folder / "sub" / "b.txt").touch()
    two = two.replace("second", "other")
    (folder / "a.md").write_text(f"# A\n\n## One\n\n{one}\n\n## Two\n\n{two}\n")
    third = sync(shared, source)
    assert third["documents"]["changed"] == 1 and third["documents"]["unchanged"] == 1
    assert third["chunks"] == {"added": 1, "kept": 1, "removed": 1}
    assert len(chunks() & kept) == 1
    assert stored_files(shared) == files, "files of failed or replaced documents stay on the disk"

    (folder / "sub" / "b.txt").unlink()
    fourth = sync(shared, source)
    assert fourth["documents"]["deleted"] == 1
    assert "sub/b.txt" not in documents_of(shared, source)
    hits = send(shared.nina, "post", "search", {"question": "lynx link", "tags": ["runbooks"]}).json()[
        "sources"
    ]
    assert "is up" in str(hits) and "is down" not in str(hits) and "hidden" not in str(hits)
    # It comes back: a fresh document beside the deleted one, which can no longer be restored over it.
    (folder / "sub" / "b.txt").write_text("The lynx link is down.\n")
    assert sync(shared, source)["documents"]["changed"] == 1
    gone = send(shared.ada, "get", "documents?deleted=true").json()["results"]
    old = next(row for row in gone if row["source"] == source)
    check_problem(send(shared.ada, "post", f"documents/{old['id']}/restore"), 409)


def test_a_folder_that_is_away_deletes_nothing(shared: Any, root: Path) -> None:
    folder = root / "mount"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nText.\n")
    source = add_source(shared, folder)
    sync(shared, source)
    folder.rename(root / "elsewhere")
    job = sync(shared, source)
    assert job["state"] == "FAILURE" and job["error"]
    assert list(documents_of(shared, source)) == ["a.md"]
    # Nor may the folder become a way out of the allowed root.
    os.symlink("/etc", folder)
    assert sync(shared, source)["state"] == "FAILURE"
    assert list(documents_of(shared, source)) == ["a.md"]


def test_an_empty_folder_that_was_not_empty_deletes_nothing_unless_it_is_meant(
    shared: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = root / "disk"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.md").write_text("# A\n\nText.\n")
    source = add_source(shared, folder)
    sync(shared, source)
    (folder / "sub" / "a.md").rename(root / "a.md")
    monkeypatch.setattr("knowledge.ingestion.sources.folder.MANY", 1)
    for there in ("an empty sub-folder", "nothing"):
        job = sync(shared, source)
        assert job["state"] != "SUCCESS" and "mount its disk again" in job["error"], there
        assert list(documents_of(shared, source)) == ["sub/a.md"]
        send(shared.ada, "delete", f"tasks/{job['id']}")
        if (folder / "sub").is_dir():
            (folder / "sub").rmdir()
    # Emptied on purpose.
    (folder / ".empty").touch()
    job = sync(shared, source)
    assert job["state"] == "SUCCESS" and job["documents"]["deleted"] == 1
    assert not documents_of(shared, source)
    # A few may well be deleted all at once.
    monkeypatch.undo()
    (folder / ".empty").unlink()
    (root / "a.md").rename(folder / "a.md")
    sync(shared, source)
    (folder / "a.md").unlink()
    assert sync(shared, source)["documents"]["deleted"] == 1


def test_a_disk_below_the_folder_that_is_not_mounted_deletes_nothing(shared: Any, root: Path) -> None:
    folder, disk = root / "disks", root / "disks" / "team" / "archive"
    disk.mkdir(parents=True)
    (folder / "a.md").write_text("# A\n\nText.\n")
    try:
        mount(disk)
        source = add_source(shared, folder)
        for text in ("# B\n\nText.\n", None, "# B\n\nText.\n"):
            (disk / "b.md").write_text(text) if text else (disk / "b.md").unlink()
            assert sync(shared, source)["state"] == "SUCCESS", "a disk that is there may well be empty"
            assert len(documents_of(shared, source)) == 1 + bool(text)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=False)
    (disk / ".hidden").touch()
    for there in ("an empty folder", "nothing"):
        job = sync(shared, source)
        assert job["state"] != "SUCCESS" and "“disks/team/archive” is not mounted" in job["error"], there
        assert set(documents_of(shared, source)) == {"a.md", "team/archive/b.md"}
        send(shared.ada, "delete", f"tasks/{job['id']}")
        if disk.is_dir():
            (disk / ".hidden").unlink()
            disk.rmdir()
    # Gone on purpose, from then on: nothing is said of it any more.
    disk.mkdir()
    (disk / ".empty").touch()
    assert sync(shared, source)["documents"]["deleted"] == 1
    (disk / ".empty").unlink()
    assert sync(shared, source)["state"] == "SUCCESS"


def mount(folder: Path) -> None:
    """A disk of its own, in memory."""
    command = ["mount", "-t", "tmpfs", "none", folder]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only who may mount a disk can tell what happens when it is away")


@pytest.mark.parametrize(("call", "path"), [("scandir", "sub"), ("lstat", "sub/b.md")])
def test_a_part_that_cannot_be_read_deletes_nothing(
    call: str, path: str, shared: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = root / f"ailing-{call}"
    (folder / "sub").mkdir(parents=True)
    (folder / "lost+found").mkdir()
    (folder / "a.md").write_text("# A\n\nText.\n")
    (folder / "sub" / "b.md").write_text("# B\n\nText.\n")
    source = add_source(shared, folder)
    sync(shared, source)
    (folder / "c.md").write_text("# C\n\nText.\n")
    real, broken = getattr(os, call), {str(folder / path), str(folder / "lost+found")}

    def fail(asked: Any, *args: Any, **options: Any) -> Any:
        if str(asked) in broken:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(asked))
        return real(asked, *args, **options)

    monkeypatch.setattr(os, call, fail)
    job = sync(shared, source)
    assert job["state"] != "SUCCESS" and f"“{folder.name}/{path}” cannot be read (Stale" in job["error"]
    assert job["documents"]["deleted"] == 0 and set(documents_of(shared, source)) == {"a.md", "sub/b.md"}
    broken.remove(str(folder / path))
    send(shared.ada, "delete", f"tasks/{job['id']}")
    job = sync(shared, source)
    assert job["state"] == "SUCCESS" and set(documents_of(shared, source)) == {"a.md", "c.md", "sub/b.md"}


def test_names_that_cannot_be_kept_are_passed_over_and_told(shared: Any, root: Path) -> None:
    folder = root / "names"
    long = folder.joinpath(*["d" * 190] * 5)
    long.mkdir(parents=True)
    (long / f"{'e' * 60}.md").write_text("# Long\n\nText.\n")
    # Deeper than a path may be long for the system, too.
    place = os.open(long, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("f" * 200, dir_fd=place)
        deeper = os.open("f" * 200, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = deeper
    os.close(place)
    (folder / "größe.md").write_text("# Size\n\nText.\n")
    (folder / os.fsdecode(b"old\xfc.md")).write_text("# Old\n\nText.\n")
    (folder / os.fsdecode(b"m\xfcll")).mkdir()
    (folder / os.fsdecode(b"m\xfcll") / "b.md").write_text("# B\n\nText.\n")
    source = add_source(shared, folder)
    job = sync(shared, source)
    assert job["state"] == "SUCCESS" and job["documents"]["failed"] == 0, job
    assert list(documents_of(shared, source)) == ["größe.md"]
    page = shared.ada.client.get(f"/sources/{source}/").content.decode()
    assert "rename them" in page and "old�.md" in page and "m�ll/b.md" in page and page.count("d" * 190) >= 2
    assert sync(shared, source)["documents"]["unchanged"] == 1


@pytest.mark.parametrize("swapped", ["docs/sub/a.md", "docs/sub", "docs", ""])
def test_what_becomes_a_link_after_it_was_listed_is_not_read(swapped: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    for each in (folder, elsewhere):
        (each / "docs" / "sub").mkdir(parents=True)
        (each / "docs" / "sub" / "a.md").write_text(f"In {each.name}.")
    connector = FolderConnector(folder)
    (item,) = connector.list_items()
    assert connector.fetch(item) == b"In folder."
    (folder / swapped).rename(tmp_path / "moved")
    (folder / swapped).symlink_to(elsewhere / swapped)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels of symbolic links"):
        connector.fetch(item)


def test_what_a_source_says_reaches_its_documents(shared: Any, root: Path) -> None:
    folder = root / "moved"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nText.\n")
    source = add_source(shared, folder)
    sync(shared, source)
    send(shared.ada, "post", "collections", {"name": "Other", "slug": "other", "default_tags": ["faq"]})
    send(shared.ada, "patch", f"sources/{source}", {"tags": [], "collection": "other"})
    assert sync(shared, source)["documents"]["unchanged"] == 1
    row = documents_of(shared, source)["a.md"]
    assert row["tags"] == ["faq"] and row["collection"] == "other"
    body = {"question": "text of a", "collections": ["other"]}
    assert send(shared.hal, "post", "search", body).json()["sources"]


def test_a_document_of_a_source_is_changed_there(shared: Any, root: Path) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile
    from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

    folder = root / "fixed"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nText.\n")
    source = add_source(shared, folder)
    sync(shared, source)
    document = documents_of(shared, source)["a.md"]["id"]
    body = encode_multipart(BOUNDARY, {"file": SimpleUploadedFile("a.md", b"# B\n\nB.\n")})
    put = shared.ada.client.put(f"/api/v1/documents/{document}", body, content_type=MULTIPART_CONTENT)
    check_problem(put, 409, "of-a-source")


def test_a_deleted_source_takes_its_documents_and_files_along(shared: Any, root: Path) -> None:
    folder = root / "leaving"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nText.\n")
    files = stored_files(shared)
    source = add_source(shared, folder, schedule="*/5 * * * *")
    sync(shared, source)
    document = documents_of(shared, source)["a.md"]["id"]
    assert stored_files(shared) == files + 1
    assert send(shared.ada, "delete", f"sources/{source}").status_code == 204
    check_problem(send(shared.ada, "get", f"documents/{document}"), 404)
    assert stored_files(shared) == files
    assert not periodic(source)


def periodic(source: str) -> Any:
    from django_celery_beat.models import PeriodicTask

    return PeriodicTask.objects.filter(name__contains=source).first()


def test_a_schedule_is_a_row_of_beat_and_makes_a_job(shared: Any, root: Path) -> None:
    from knowledge.tasks import sync_source

    folder = root / "scheduled"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nText.\n")
    source = add_source(shared, folder, schedule="*/15 6-20 * * 1-5", time_zone="Europe/Berlin")
    row = periodic(source)
    assert row.task == "knowledge.sync_source" and row.enabled
    assert str(row.crontab.timezone) == "Europe/Berlin"
    assert (row.crontab.minute, row.crontab.hour, row.crontab.day_of_week) == ("*/15", "6-20", "1-5")
    assert row.schedule.is_due(timezone.now())

    def fire() -> None:
        # As beat sends it: arguments and headers from the row.
        sync_source.apply(kwargs=json.loads(row.kwargs), headers=json.loads(row.headers), throw=True)

    fire()
    waiting = send(shared.ada, "get", "tasks?state=PENDING").json()["results"]
    (job,) = [t for t in waiting if t["kind"] == "sync"]
    fire()  # one is waiting: no second one
    assert len(send(shared.ada, "get", "tasks?state=PENDING").json()["results"]) == len(waiting)
    assert run_job(shared.ada, job["id"])["documents"]["changed"] == 1

    response = send(shared.ada, "patch", f"sources/{source}", {"schedule": "0 3 * * *", "enabled": False})
    changed = conforms(response, "/api/v1/sources/{id}", "patch")
    assert changed["schedule"] == "0 3 * * *"
    row = periodic(source)
    assert row.crontab.minute == "0" and not row.enabled
    fire()
    assert not send(shared.ada, "get", "tasks?state=PENDING").json()["results"]
    for wrong in ("every day", "* * * *", "99 * * * *", "* * * * * *"):
        problem = check_problem(send(shared.ada, "patch", f"sources/{source}", {"schedule": wrong}), 400)
        assert problem["errors"][0]["field"] == "schedule"
    zone = check_problem(send(shared.ada, "patch", f"sources/{source}", {"time_zone": "Mars/Olympus"}), 400)
    assert zone["errors"][0]["field"] == "time_zone"
    send(shared.ada, "patch", f"sources/{source}", {"schedule": ""})
    assert periodic(source) is None


def test_a_task_without_its_tenant_does_nothing(shared: Any) -> None:
    from knowledge.tasks import sync_source

    with pytest.raises(RuntimeError, match="without a tenant"):
        sync_source.apply(kwargs={"source_id": "x"}, throw=True)
