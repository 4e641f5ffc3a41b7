"""The swap: what is kept keeps its rows and vectors, and readers see the old or the new, never half."""

import threading
from typing import Any

import pytest

from knowledge.embedding.factory import embedder
from knowledge.ingestion.index import Original, index_document
from knowledge.ingestion.parse import ParseError
from knowledge.ingestion.storage import store_original
from knowledge.models import Chunk, Collection, Corpus, Document, Embedding
from tenants.scope import scope
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


def text_of(sections: dict[str, str]) -> bytes:
    return "# Guide\n\n{}\n".format("\n\n".join(f"## {k}\n\n{v}" for k, v in sections.items())).encode()


def index(document: Document, data: bytes, **options: Any) -> Any:
    stored = store_original(tenant_id=document.tenant_id, data=data)
    return index_document(
        document=document,
        original=Original(data=data, filename="guide.md", stored_name=stored),
        embedder=embedder(),
        **options,
    )


def vector_of(chunk: Chunk) -> list[float]:
    return list(Embedding.objects.get(text_hash=chunk.embedding_hash).vector)


def rows_of(document: Document) -> dict[str, tuple[Any, list[float], str]]:
    return {
        c.heading_path[-1]: (c.pk, vector_of(c), c.text)
        for c in Chunk.objects.filter(document=document).order_by("ordinal")
    }


@pytest.fixture
def document(shared: Any) -> Any:
    with scope(tenant_id=shared.acme.pk, tags=None):
        collection = Collection.objects.get(slug="handbook")
        yield Document.objects.create(collection=collection, uri="guide.md", title="guide", tags=["faq"])


def long(text: str) -> str:
    """Enough for a chunk of its own: small sections of one chapter share one."""
    return " ".join(f"{text} ({n})." for n in range(9))


SECTIONS = {name: long(f"Everything about {name} is written in this section") for name in "abcde"}


def test_a_change_of_one_section_touches_that_one_alone(document: Document) -> None:
    first = index(document, text_of(SECTIONS))
    assert (first.added, first.kept, first.removed) == (5, 0, 0)
    before, version = rows_of(document), Corpus.current_version()
    new = {"new": long("A section that moves those after it")}
    changed = {"a": SECTIONS["a"]} | new | SECTIONS | {"c": long("Rewritten it was")}
    del changed["e"]
    result = index(document, text_of(changed))
    assert (result.added, result.kept, result.removed) == (2, 3, 2)
    after = rows_of(document)
    assert list(after) == ["a", "new", "b", "c", "d"]
    for name in "abd":
        assert after[name] == before[name], name
    assert after["c"][0] != before["c"][0]
    assert Corpus.current_version() > version
    document.refresh_from_db()
    assert document.chunk_count == 5 and document.version == 2
    for chunk in Chunk.objects.filter(document=document):
        assert document.text[chunk.start : chunk.end] == chunk.text
    # The same again: nothing is embedded, every row stays.
    same = index(document, text_of(changed))
    assert (same.added, same.kept, same.removed) == (0, 5, 0) and rows_of(document) == after


def test_a_file_that_cannot_be_read_leaves_everything(document: Document) -> None:
    index(document, text_of(SECTIONS))
    before = rows_of(document)
    with pytest.raises(ParseError):
        index(document, b"  \n")
    with pytest.raises(RuntimeError):
        index(document, text_of({"x": "y"}), before_commit=lambda: (_ for _ in ()).throw(RuntimeError()))
    assert rows_of(document) == before


def test_readers_see_the_old_or_the_new(document: Document, shared: Any) -> None:
    old = {f"old{n}": long(f"The old text number {n}") for n in range(6)}
    new = {f"new{n}": long(f"The new text number {n}") for n in range(4)}
    index(document, text_of(old))
    seen: set[tuple[str, ...]] = set()
    stop, looked = threading.Event(), threading.Event()

    def read() -> None:
        from django.db import connections

        with scope(tenant_id=shared.acme.pk, tags=["faq"]):
            while not stop.is_set():
                rows = Chunk.objects.filter(document=document).values_list("heading_path", flat=True)
                seen.add(tuple(sorted(path[-1] for path in rows)))
                looked.set()
        connections.close_all()

    thread = threading.Thread(target=read)
    thread.start()
    assert looked.wait(10)
    for sections in (new, old, new):
        index(document, text_of(sections))
    stop.set()
    thread.join()
    assert seen <= {tuple(sorted(old)), tuple(sorted(new))} and len(seen) == 2


def test_a_long_document_can_be_given_up_while_its_terms_are_counted(
    document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowledge.ingestion import index as module

    counted: list[float] = []
    monkeypatch.setattr(module, "INSERT_BATCH", 2)
    index(document, text_of(SECTIONS), on_progress=counted.append)
    assert counted.count(0.1) >= 1 + 3  # five chunks, two at a time
