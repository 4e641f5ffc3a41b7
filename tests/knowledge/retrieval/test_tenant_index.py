"""The index in step with the database, in this process and the next; segments, files, merging."""

import os
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from knowledge.documents import change_document, delete_document, erase_deleted, restore_document
from knowledge.embedding.factory import embedder
from knowledge.embedding.spaces import build_space
from knowledge.models import Chunk, Corpus, Document, Embedding, EmbeddingSpace, TagSet
from knowledge.retrieval import tenant_index
from knowledge.retrieval.segment import Segment, merge_segments
from knowledge.retrieval.tenant_index import IndexKey, TenantIndex, indexes
from knowledge.retrieval.view import IndexView, Part
from tenants.scope import scope
from tests.cast import add_indexed
from tests.knowledge.retrieval.rows import PUBLIC, SECRET, make_segment, make_view
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture
def inside(shared: Any) -> Iterator[Any]:
    indexes.forget()
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield shared
    indexes.forget()


def key_of() -> IndexKey:
    space = EmbeddingSpace.objects.get(state="active")
    return IndexKey(tenant_id=space.tenant_id, space_id=space.pk, dimensions=space.dimensions)


def now(index: TenantIndex) -> IndexView:
    return index.at(version=Corpus.current_version())


def contents(view: IndexView) -> dict[uuid.UUID, tuple[uuid.UUID, uuid.UUID, bytes, tuple[int, ...]]]:
    """What the index says of each chunk: document, tag set, vector, terms."""
    found = {}
    for part in view.parts:
        segment = part.segment
        for row in np.flatnonzero(part.alive):
            document = segment.documents[np.searchsorted(segment.starts, row, side="right") - 1]
            own = np.flatnonzero(segment.posting_rows == row)
            terms = segment.terms[np.searchsorted(segment.term_starts, own, side="right") - 1]
            found[uuid.UUID(bytes=segment.chunks[row].tobytes())] = (
                uuid.UUID(bytes=document.tobytes()),
                uuid.UUID(bytes=segment.tag_sets[segment.tag_set[row]].tobytes()),
                segment.vectors[row].tobytes(),
                tuple(sorted(int(each) for each in terms)),
            )
    return found


def expected() -> dict[uuid.UUID, uuid.UUID]:
    sets = {tuple(each.tags): each.pk for each in TagSet.objects.all()}
    chunks = Chunk.objects.filter(document__deleted_at__isnull=True)
    return {pk: sets[tuple(tags)] for pk, tags in chunks.values_list("pk", "tags")}


def write(shared: Any, name: str, text: str = "A sentence about herons.", tags: Any = ("faq",)) -> Document:
    body = f"# {name}\n\n{text} It is called {name}.\n"
    return add_indexed(collection=shared.collections["acme"], name=f"{name}.md", tags=list(tags), text=body)


def test_every_change_is_seen_by_the_next_search_and_costs_that_document_alone(
    inside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = TenantIndex(key_of())
    read: list[int] = []
    whole = TenantIndex._read_batch
    monkeypatch.setattr(
        TenantIndex,
        "_read_batch",
        lambda self, documents, **more: read.append(len(documents)) or whole(self, documents, **more),  # type: ignore[func-returns-value]
    )

    def check(documents_read: int) -> None:
        read.clear()
        view = now(index)
        assert {pk: tag_set for pk, (_, tag_set, *_) in contents(view).items()} == expected()
        assert sum(read) == documents_read
        # One that was made afresh says the same.
        assert contents(now(TenantIndex(key_of()))) == contents(view)

    check(Document.objects.count())
    heron = write(inside, "heron")
    check(1)
    change_document(document=heron, tags=["configs", "runbooks"])
    check(1)
    delete_document(document=heron)
    check(1)
    restore_document(document=heron)
    egret, ibis = write(inside, "egret"), write(inside, "ibis", tags=[])
    check(3)
    read.clear()
    assert now(index) is now(index) and not read
    delete_document(document=egret)
    delete_document(document=ibis)
    delete_document(document=heron)
    check(3)
    # Rows that go without a trace: everything is read again.
    Document.objects.filter(pk__in=[heron.pk, egret.pk, ibis.pk]).delete()
    Corpus.raise_version(without_trace=True)
    check(Document.objects.filter(deleted_at__isnull=True).count())


def test_chunks_of_the_version_before_have_terms_and_tag_sets_too(inside: Any) -> None:
    document = write(inside, "bittern", tags=["faq", "runbooks"])
    before = contents(now(TenantIndex(key_of())))
    Chunk.objects.filter(document=document).update(terms=None)
    TagSet.objects.filter(tags=["faq", "runbooks"]).delete()
    after = contents(now(TenantIndex(key_of())))
    pk = Chunk.objects.get(document=document).pk
    assert after[pk][3] == before[pk][3] and TagSet.objects.get(pk=after[pk][1]).tags == ["faq", "runbooks"]
    # A chunk whose vector is missing is found by its words.
    Chunk.objects.filter(document=document).update(embedding_hash=b"x" * 32)
    assert set(contents(now(TenantIndex(key_of())))[pk][2]) == {0}
    delete_document(document=document)


def test_vectors_that_come_later_are_read(inside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_index, "SAVED_ROWS", 1)
    avocet, space = write(inside, "avocet"), EmbeddingSpace.objects.get(state="active")
    pk, digest = Chunk.objects.values_list("pk", "embedding_hash").get(document=avocet)
    Embedding.objects.filter(space=space, text_hash=digest).delete()
    index = TenantIndex(key_of())
    for _ in range(2):  # as often as the version is raised
        assert set(contents(now(index))[pk][2]) == {0}
        Corpus.raise_version()
    assert not list(index._folder().glob("*.seg")), "the next process would not know what is missing"
    assert build_space(space)
    found = contents(now(index))
    assert set(found[pk][2]) != {0} and found == contents(now(TenantIndex(key_of())))
    delete_document(document=avocet)
    for each in index._folder().glob("*.seg"):
        each.unlink()


def test_an_index_is_kept_in_a_file_for_the_next_process(
    inside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_index, "SAVED_ROWS", 1)
    first = now(TenantIndex(key_of()))
    folder = TenantIndex(key_of())._folder()
    (path,) = folder.glob("*.seg")
    assert folder.stat().st_mode & 0o077 == 0

    def fail(*_: Any) -> Any:
        raise AssertionError("the database was read")

    with monkeypatch.context() as patch:
        patch.setattr(TenantIndex, "_read_batch", fail)
        mapped = TenantIndex(key_of())
        assert contents(now(mapped)) == contents(first) and mapped.nbytes == 0
    # A file that is older than a document: the document alone is read.
    stork = write(inside, "stork")
    assert set(contents(now(mapped))) == set(expected())
    assert set(contents(now(TenantIndex(key_of())))) == set(expected())
    # Cut short, of another kind, from the future, older than the floor: as if it were not there.
    data = path.read_bytes()
    for broken in (data[:-100], b"nonsense", b""):
        path.write_bytes(broken)
        assert set(contents(now(TenantIndex(key_of())))) == set(expected())
        for each in folder.glob("*.seg"):
            each.unlink()
        path.write_bytes(data)
    version = Corpus.current_version()
    path.rename(folder / f"{key_of().space_id}-{version + 1000}-aa.seg")
    assert set(contents(now(TenantIndex(key_of())))) == set(expected())
    delete_document(document=stork)
    for each in folder.glob("*.seg"):
        each.unlink()


def test_what_goes_without_a_trace_while_an_index_is_brought_up_goes_from_it(
    inside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, dunlin = TenantIndex(key_of()), write(inside, "dunlin")
    assert len(contents(now(index))) == len(expected())
    Corpus.raise_version()
    read = TenantIndex._changed_since

    def late(self: TenantIndex, version: int) -> Any:
        if dunlin.pk is not None:
            dunlin.delete()
            Corpus.raise_version(without_trace=True)
        return read(self, version)

    with monkeypatch.context() as patch:
        patch.setattr(TenantIndex, "_changed_since", late)
        now(index)
    assert set(contents(now(index))) == set(expected())


def test_what_was_erased_is_in_no_index_that_is_older_than_its_deletion(
    inside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_index, "SAVED_ROWS", 1)
    whimbrel, idle = write(inside, "whimbrel"), TenantIndex(key_of())
    folder = idle._folder()
    left = folder / "killed.seg.partial"
    folder.mkdir(parents=True, exist_ok=True)
    left.touch()
    os.utime(left, (0, 0))
    now(idle)
    assert list(folder.glob("*.seg")) and not left.exists()
    delete_document(document=whimbrel)
    version = now(TenantIndex(key_of())).version
    erase_deleted(before=timezone.now() + timedelta(days=1))
    assert Corpus.current_version() == version, "nothing changes for who has noticed the deletion"
    for index in (idle, TenantIndex(key_of())):
        assert set(contents(now(index))) == set(expected())
    for each in folder.glob("*.seg"):
        each.unlink()


def test_merging_beside_searches_loses_nothing(inside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_index, "INLINE_ROWS", 0)
    index = TenantIndex(key_of())
    now(index)
    begun, may_end = threading.Event(), threading.Event()
    whole = tenant_index._merged

    def slow(parts: Any, place: int) -> Any:
        if threading.current_thread().name == "merge-index":
            begun.set()
            assert may_end.wait(20)
        return whole(parts, place)

    monkeypatch.setattr(tenant_index, "_merged", slow)
    birds = [write(inside, f"crane-{number}") for number in range(12)]
    now(index)
    assert begun.wait(20)
    # While it is being merged: one goes, one changes, one comes.
    delete_document(document=birds[0])
    change_document(document=birds[1], tags=["configs"])
    birds.append(write(inside, "godwit"))
    assert set(contents(now(index))) == set(expected())
    may_end.set()
    for thread in threading.enumerate():
        if thread.name == "merge-index":
            thread.join(20)
    view = now(index)
    assert {pk: tag_set for pk, (_, tag_set, *_) in contents(view).items()} == expected()
    assert sum(int(part.alive.sum()) for part in view.parts) == len(expected())
    for bird in birds[1:]:
        delete_document(document=bird)


def test_merged_segments_are_as_if_made_at_once() -> None:
    texts = [f"word{n} common word{n % 3} filler {n}" for n in range(40)]
    vectors = np.random.default_rng(1).normal(size=(40, 384))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tags = [SECRET if n % 4 == 0 else PUBLIC for n in range(40)]
    documents = [uuid.UUID(int=5000 + n // 2).bytes for n in range(40)]
    at_once = make_segment(texts, vectors=vectors, tag_sets=tags, documents=documents)
    order = [*range(20, 40), *range(20)]
    parts = []
    for rows in (order[:14], order[14:30], order[30:]):
        segment = make_segment(
            [texts[n] for n in rows],
            vectors=vectors[rows],
            tag_sets=[tags[n] for n in rows],
            documents=[documents[n] for n in rows],
        )
        parts.append(segment)
    merged = merge_segments([(each, np.ones(each.size, dtype=np.bool_)) for each in parts])
    assert merged.starts.tolist() == at_once.starts.tolist()
    assert merged.documents.tolist() == at_once.documents.tolist()
    assert merged.vectors.tolist() == at_once.vectors.tolist() and (merged.bits == at_once.bits).all()
    assert merged.terms.tolist() == at_once.terms.tolist()
    assert merged.posting_rows.tolist() == at_once.posting_rows.tolist()
    assert merged.posting_counts.tolist() == at_once.posting_counts.tolist()
    assert merged.lengths.tolist() == at_once.lengths.tolist()
    sets = [merged.tag_sets[each].tobytes() for each in merged.tag_set]
    assert sets == tags
    # What is dead goes, with its documents and terms.
    alive = np.array([n >= 6 for n in range(40)])
    half = merge_segments([(at_once, alive)])
    assert half.size == 34 and half.rows_of_document(documents[0]) == slice(0, 0)
    assert half.rows_of_document(documents[6]) == slice(0, 2)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    segment = make_segment(["one two", "two three", ""])
    segment.save(tmp_path / "a.seg")
    found = Segment.load(tmp_path / "a.seg")
    assert contents(IndexView(1, (Part(found, np.ones(3, dtype=np.bool_)),))) == contents(make_view(segment))
    assert [each.name for each in tmp_path.iterdir()] == ["a.seg"]


def test_many_threads_one_reading(inside: Any, monkeypatch: pytest.MonkeyPatch, in_thread: Any) -> None:
    read: list[int] = []
    whole = TenantIndex._read_batch
    monkeypatch.setattr(
        TenantIndex,
        "_read_batch",
        lambda self, documents, **more: read.append(1) or whole(self, documents, **more),  # type: ignore[func-returns-value]
    )
    index, key = TenantIndex(key_of()), key_of()
    views: list[IndexView] = []

    def look() -> None:
        from django.db import connections

        with scope(tenant_id=key.tenant_id, tags=None):
            views.append(now(index))
        connections.close_all()

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(views) == 8 and len(read) == 1
    assert embedder().dimensions == views[0].parts[0].segment.vectors.shape[1]
