"""Search over the real database: identifiers, filters, sections, roles."""

from dataclasses import replace
from typing import Any

import pytest

from knowledge.config import RetrievalConfig
from knowledge.embedding.factory import embedder
from knowledge.models import Chunk, Document
from knowledge.retrieval.base import Filters, FoundPassage
from knowledge.retrieval.search import search_passages
from tenants.scope import enter, scope, unscoped
from tests.cast import add_indexed
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast

NOISE = [
    "The interface {n} of the lab is used for tests of cabling and has no customer on it.",
    "Address plans of the branch offices begin in the year {n} and are reviewed twice.",
    "Errors of the type {n} were seen in the wireless controllers and went away by themselves.",
]
EXACT = {
    "ge-0/0/1": "Interface ge-0/0/1 leads to the transit provider.",
    "10.1.0.0/16": "The prefix 10.1.0.0/16 belongs to the warehouse.",
    "ERR-4711": "ERR-4711 means that the bastion refused a key.",
    "64512:100": "Community 64512:100 marks customer routes.",
}


@pytest.fixture(scope="module")
def corpus(shared: Any) -> Any:
    with scope(tenant_id=shared.acme.pk, tags=None):
        collection = shared.collections["acme"]
        for number, (name, text) in enumerate(EXACT.items()):
            noise = "\n\n".join(
                f"## {n}\n\n" + line.format(n=n)
                for n in range(number * 10, number * 10 + 8)
                for line in NOISE
            )
            body = f"# Notes {number}\n\n{noise}\n\n## About\n\n{text}\n"
            add_indexed(collection=collection, name=f"notes-{number}.md", tags=["configs"], text=body)
            assert name in body
    return shared


def search(
    member: Any, question: str, k: int = 5, filters: Filters | None = None, **options: Any
) -> list[FoundPassage]:
    config = replace(RetrievalConfig(), **options)
    with enter(member.principal.scope()):
        return search_passages(
            membership=member.membership,
            question=question,
            vector=embedder().embed([question])[0],
            k=k,
            filters=filters or Filters(),
            config=config,
        )


def test_exact_identifiers_are_found_first(corpus: Any) -> None:
    for name, sentence in EXACT.items():
        for question in (name, f"What about {name}?", f"Tell me what {name} is."):
            best = search(corpus.nina, question, section_tokens=0)[:2]
            assert any(sentence in passage.text for passage in best), (question, [p.text for p in best])


def test_a_document_and_its_role(corpus: Any) -> None:
    for member in (corpus.hal, corpus.mona):
        assert not [p for p in search(member, "10.1.0.0/16", k=20) if p.uri.startswith("notes")]
    assert not [p for p in search(corpus.gina, "64512:100 marks customer routes", k=20) if "64512" in p.text]
    untagged = search(corpus.ada, "Project Harbour warehouse network")[0]
    assert untagged.uri == "merger.md"
    assert "merger.md" not in {p.uri for p in search(corpus.nina, "Project Harbour", k=20)}


def test_filters_and_k(corpus: Any) -> None:
    for k in (1, 3, 20):
        passages = search(corpus.nina, "interface", k=k)
        assert len(passages) == k and [p.n for p in passages] == list(range(1, k + 1))
        assert [p.score for p in passages] == sorted((p.score for p in passages), reverse=True)
    tagged = search(corpus.nina, "interface", k=20, filters=Filters(tags=("standards",)))
    assert {p.uri for p in tagged} == {"edge-policy.md"}
    nowhere = Filters(collection_ids=(corpus.collections["globex"].pk,))
    assert search(corpus.nina, "interface", filters=nowhere) == []
    both = Filters(collection_ids=(corpus.collections["acme"].pk,), tags=("runbooks",))
    assert {p.uri for p in search(corpus.nina, "interface", k=20, filters=both)} == {"bgp-session-down.md"}


def test_a_passage_is_the_text_between_its_offsets(corpus: Any) -> None:
    passages = search(corpus.nina, "ERR-4711 bastion", k=10)
    with scope(tenant_id=corpus.acme.pk, tags=None):
        for passage in passages:
            document = Document.objects.get(pk=passage.document_id)
            assert document.text[passage.start : passage.end] == passage.text
            chunk = Chunk.objects.get(pk=passage.chunk_id)
            assert passage.start <= chunk.start and chunk.end <= passage.end


def test_a_section_in_several_chunks_joins_the_context(corpus: Any) -> None:
    long = " ".join(
        f"Step {n} of the otter procedure turns screw number {n} by a quarter." for n in range(60)
    )
    with scope(tenant_id=corpus.acme.pk, tags=None):
        document = add_indexed(
            collection=corpus.collections["acme"],
            name="otter.md",
            tags=["configs"],
            text=f"# Otter\n\n## Procedure\n\n{long}\n\n## Afterwards\n\nThe otter is put back.\n",
        )
        sizes = list(Chunk.objects.filter(document=document).values_list("tokens", flat=True))
    assert len(sizes) >= 4
    narrow = search(corpus.nina, "Step 30 of the otter procedure", k=1, section_tokens=0)[0]
    wide = search(corpus.nina, "Step 30 of the otter procedure", k=1, section_tokens=3000)[0]
    assert wide.start < narrow.start and wide.end > narrow.end
    assert narrow.text in wide.text and "put back" not in wide.text
    several = search(corpus.nina, "otter procedure steps", k=6, section_tokens=3000)
    of_otter = sorted((p.start, p.end) for p in several if p.document_id == document.pk)
    assert len(of_otter) > 1


def test_a_document_that_goes_while_it_is_being_found(corpus: Any, monkeypatch: Any) -> None:
    """Another connection deletes it between the statements of the search."""
    from knowledge.retrieval import search as module

    with scope(tenant_id=corpus.acme.pk, tags=None):
        document = add_indexed(
            collection=corpus.collections["acme"],
            name="v.md",
            tags=["configs"],
            text="# V\n\nThe vole is quick.\n",
        )
    whole = module.expand_spans

    def delete_then_expand(**arguments: Any) -> Any:
        with unscoped(reason="tests"):
            gone = Document.objects.filter(pk=document.pk).update(deleted_at="2026-01-01T00:00:00Z")
        assert gone == 1
        return whole(**arguments)

    monkeypatch.setattr(module, "expand_spans", delete_then_expand)
    passages = search(corpus.nina, "How quick is the vole?")
    assert all(p.n == place for place, p in enumerate(passages, start=1))
