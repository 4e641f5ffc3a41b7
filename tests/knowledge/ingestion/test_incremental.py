"""What has not changed costs next to nothing, what has changed costs only itself, what has gone is gone at once."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from knowledge.ingestion.sources import folder as folders
from knowledge.ingestion.sources.folder import FolderConnector
from knowledge.models import Chunk, Collection, Document, Embedding
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.helpers import ask
from tests.knowledge.ingestion.syncing import (
    CountingEmbedder,
    documents_of,
    long,
    make_source,
    sync,
    write,
)
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture(autouse=True)
def inside(shared: Any) -> Iterator[None]:
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of files are believed at once; a test cannot set the time of an inode's change."""
    monkeypatch.setattr(folders, "RACY_SECONDS", -3600.0)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were read."""
    paths: list[str] = []
    fetch = FolderConnector.fetch

    def watched(self: Any, item: Any) -> bytes:
        paths.append(item.uri)
        return fetch(self, item)

    monkeypatch.setattr(FolderConnector, "fetch", watched)
    return paths


def test_an_unchanged_tree_is_neither_read_nor_queried_document_by_document(
    tmp_path: Path, fetched: list[str], trusting: None
) -> None:
    source = make_source(tmp_path)
    now = timezone.now()
    rows = []
    for number in range(5000):
        path = tmp_path / f"{number % 50:02}" / f"{number}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# Document {number}\n\nText.\n")
    items = list(FolderConnector(tmp_path).list_items())
    for item in items:
        rows.append(
            Document(
                collection=source.collection,
                source=source,
                uri=item.uri,
                title=item.uri,
                tags=["faq"],
                status="indexed",
                fingerprint=item.fingerprint,
                sha256=hashlib.sha256((tmp_path / item.uri).read_bytes()).hexdigest(),
                version=1,
                indexed_at=now,
            )
        )
    Document.objects.bulk_create(rows, batch_size=1000)
    embedder = CountingEmbedder()
    with CaptureQueriesContext(connections["default"]) as queries:
        begun = time.perf_counter()
        job = sync(source, embedder)
        seconds = time.perf_counter() - begun
    print(f"5,000 unchanged documents: {seconds:.2f} s, {len(queries)} queries")
    assert (job.state, job.seen, job.unchanged, job.progress) == ("SUCCESS", 5000, 5000, 100)
    assert embedder.texts == [] and fetched == []
    # A handful for the job and the source, and two a second for who watches.
    assert len(queries) <= 30 + 4 * seconds
    updates = [q for q in queries.captured_queries if q["sql"].startswith('UPDATE "knowledge_job"')]
    assert len(updates) <= 6 + 2 * seconds

    # Tags are followed all the same, in a few statements.
    source.tags = ["runbooks"]
    source.save()
    with CaptureQueriesContext(connections["default"]) as queries:
        assert sync(source, embedder).unchanged == 5000
    assert len(queries) <= 130 and fetched == []
    assert Document.objects.filter(source=source, tags=["runbooks"]).count() == 5000
    # Without a fingerprint the bytes decide, and what the source said is remembered.
    Document.objects.filter(source=source, uri__startswith="00/").update(fingerprint="")
    assert sync(source, embedder).unchanged == 5000 and len(fetched) == 100
    assert sync(source, embedder).unchanged == 5000 and len(fetched) == 100 and embedder.texts == []


def test_one_changed_section_embeds_its_own_chunks_alone(tmp_path: Path) -> None:
    sections = {name: long(f"The {name} of the fabric") for name in ("spine", "leaf", "border", "gateway")}

    def text() -> str:
        return "# Fabric\n\n" + "\n\n".join(f"## {k}\n\n{v}" for k, v in sections.items())

    write(tmp_path / "fabric.md", text())
    write(tmp_path / "other.md", f"# Other\n\n{long('Another thing')}")
    source = make_source(tmp_path)
    first = CountingEmbedder()
    assert sync(source, first).chunks_added == len(first.texts) == 5
    sections["border"] = long("Quite another border")
    write(tmp_path / "fabric.md", text())
    second = CountingEmbedder()
    job = sync(source, second)
    assert (job.changed, job.unchanged, job.chunks_added, job.chunks_kept, job.chunks_removed) == (
        1,
        1,
        1,
        3,
        1,
    )
    assert len(second.texts) == job.chunks_added and "Quite another border" in second.texts[0]
    assert job.result["changes"]["changed"] == ["fabric.md"]
    # What comes back finds the vectors that it had.
    sections["border"] = long("The border of the fabric")
    write(tmp_path / "fabric.md", text())
    third = CountingEmbedder()
    assert sync(source, third).chunks_added == 1 and third.texts == []


def test_a_change_within_the_same_tick_of_the_clock_is_not_missed(
    tmp_path: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.md"
    file.write_text("# A\n\nThe port is 1111.\n")
    source = make_source(tmp_path)
    sync(source)
    assert documents_of(source)["a.md"].fingerprint == "", "it is too young to be trusted"
    known = file.stat()
    file.write_text("# A\n\nThe port is 2222.\n")  # as long as it was, and in the same second
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert sync(source).changed == 1
    assert "2222" in documents_of(source)["a.md"].text
    monkeypatch.setattr(folders, "RACY_SECONDS", -3600.0)
    assert sync(source).unchanged == 1 and len(fetched) == 3
    assert sync(source).unchanged == 1 and len(fetched) == 3, "old enough: it is believed from now on"
    # A time that was set back does not hide a change.
    file.write_text("# A\n\nThe port is 3333.\n")
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert sync(source).changed == 1


def test_a_moved_file_keeps_its_document_its_vectors_and_its_history(tmp_path: Path) -> None:
    write(tmp_path / "old" / "guide.md", f"# Moving house\n\n{long('How to move')}")
    write(tmp_path / "same.md", f"# Same\n\n{long('It stays')}")
    source = make_source(tmp_path)
    sync(source)
    before = documents_of(source)["old/guide.md"]
    chunks = set(Chunk.objects.filter(document=before).values_list("pk", "embedding_hash"))
    (tmp_path / "new" / "deep").mkdir(parents=True)
    (tmp_path / "old" / "guide.md").rename(tmp_path / "new" / "deep" / "handbook.md")
    embedder = CountingEmbedder()
    job = sync(source, embedder)
    after = documents_of(source)["new/deep/handbook.md"]
    assert after.pk == before.pk and after.version == before.version and embedder.texts == []
    assert set(Chunk.objects.filter(document=after).values_list("pk", "embedding_hash")) == chunks
    assert (job.seen, job.unchanged, job.changed, job.deleted) == (2, 2, 0, 0)
    assert job.result["changes"]["moved"] == [{"from": "old/guide.md", "to": "new/deep/handbook.md"}]
    event = AuditEvent.objects.get(action="document.move", target_id=str(after.pk))
    assert event.detail == {"from": "old/guide.md", "to": "new/deep/handbook.md"}


def test_of_equal_files_each_is_followed_once(tmp_path: Path) -> None:
    text = f"# Template\n\n{long('The same words')}"
    for name in ("a/one.md", "b/two.md", "c/three.md"):
        write(tmp_path / name, text)
    source = make_source(tmp_path)
    sync(source)
    before = {uri: row.pk for uri, row in documents_of(source).items()}
    (tmp_path / "z").mkdir()
    (tmp_path / "b" / "two.md").rename(tmp_path / "z" / "two.md")
    (tmp_path / "c" / "three.md").rename(tmp_path / "c" / "renamed.md")
    write(tmp_path / "d" / "copy.md", text)
    embedder = CountingEmbedder()
    job = sync(source, embedder)
    after = {uri: row.pk for uri, row in documents_of(source).items()}
    assert set(after) == {"a/one.md", "z/two.md", "c/renamed.md", "d/copy.md"}
    assert after["a/one.md"] == before["a/one.md"]
    assert after["z/two.md"] == before["b/two.md"], "the same name says more than the folder"
    moved = {after["c/renamed.md"], after["d/copy.md"]} & set(before.values())
    assert moved == {before["c/three.md"]} and embedder.texts == []
    assert job.result["totals"] == {"moved": 2, "added": 1}


def test_a_title_that_was_the_files_name_changes_with_it(tmp_path: Path) -> None:
    write(tmp_path / "vlan.txt", long("Just lines"))
    source = make_source(tmp_path)
    sync(source)
    before = documents_of(source)["vlan.txt"]
    (tmp_path / "vlan.txt").rename(tmp_path / "trunks.txt")
    job = sync(source)
    after = documents_of(source)["trunks.txt"]
    assert after.pk == before.pk and after.title != before.title and after.title == "Trunks"
    assert job.result["totals"] == {"moved": 1, "changed": 1} and not documents_of(source).get("vlan.txt")


def test_what_is_gone_from_a_source_is_gone_from_answers_and_caches_at_once(
    tmp_path: Path, shared: Any
) -> None:
    collection = Collection.objects.create(slug="gone", name="Gone")
    file = write(
        tmp_path / "pangolin.md", "# Pangolin\n\nThe pangolin tunnel ends at port 6161 of the hub.\n"
    )
    write(tmp_path / "other.md", "# Other\n\nSomething else stays.\n")  # an empty folder would be asked about
    source = make_source(tmp_path, collection=collection)
    from knowledge.embedding.factory import embedder

    sync(source, embedder())
    question = "At which port does the pangolin tunnel end?"
    assert "6161" in ask(shared.hal, question)["answer"]
    cached = ask(shared.hal, question)
    assert cached["cache"] == "exact" and "6161" in cached["answer"]
    file.unlink()
    begun = time.perf_counter()
    job = sync(source, embedder())
    after = ask(shared.hal, question)
    print(f"from the file's end to an answer without it: {time.perf_counter() - begun:.2f} s")
    assert job.deleted == 1 and job.result["changes"]["deleted"] == ["pangolin.md"]
    assert "port 6161" not in str(after) and after["cache"] != "exact"


def test_vectors_are_shared_by_equal_chunks(tmp_path: Path) -> None:
    for name in ("x.md", "y.md", "z.md"):
        write(tmp_path / name, f"# Twin\n\n{long('Twins share a vector')}")
    embedder = CountingEmbedder()
    job = sync(make_source(tmp_path), embedder)
    assert job.chunks_added == 3 and len(embedder.texts) == 1
    assert (
        Embedding.objects.filter(
            text_hash__in=Chunk.objects.filter(document__source=job.source).values("embedding_hash")
        ).count()
        == 1
    )
