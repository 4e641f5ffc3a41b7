"""BM25, against a hand-computed example."""

from typing import Any

import numpy as np
import pytest
from django.contrib.postgres.search import SearchVector
from django.db.models import Value

from knowledge.models import Chunk, Collection, Document
from knowledge.retrieval.base import Arm
from knowledge.retrieval.fusion import fuse_arms
from knowledge.retrieval.keyword import question_lexemes, search_keywords
from knowledge.retrieval.vector import cosines_of, search_vectors
from tenants.scope import atomic, scope
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast

# text, tokens: the mean length is 16/3
TEXTS = (("router a router", 4), ("the router is up", 4), ("bgp neighbours of O'Brien \\ more words here", 8))


@pytest.fixture
def made(shared: Any) -> Any:
    with scope(tenant_id=shared.acme.pk, tags=None), atomic():
        collection, _ = Collection.objects.get_or_create(tenant_id=shared.acme.pk, slug="bm25", name="BM25")
        document = Document.objects.create(collection=collection, uri="x", title="x")
        rows = [
            Chunk(
                document=document,
                collection=collection,
                ordinal=number,
                start=0,
                end=len(text),
                text=text,
                tokens=tokens,
                content_hash=str(number),
                search=SearchVector(Value(text), config="english"),
                embedding=[1.0 if place == number else 0.0 for place in range(384)],
            )
            for number, (text, tokens) in enumerate(TEXTS)
        ]
        Chunk.objects.bulk_create(rows)
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield [row.pk for row in rows], Chunk.objects.filter(document=document)


def search(chunks: Any, question: str, limit: int = 10) -> Arm:
    lexemes = question_lexemes(question=question, languages=["english"])
    return search_keywords(chunks=chunks, lexemes=lexemes, limit=limit, k1=0.9, b=0.5)


def test_bm25_by_hand(made: Any) -> None:
    (first, second, third), chunks = made
    arm = search(chunks, "Which routers?")
    # idf = ln(1 + (3 - 2 + 0.5) / (2 + 0.5)) = 0.470004; the norm of a chunk of 4 tokens is
    # 0.9 · (0.5 + 0.5 · 4 / 5.3333) = 0.7875: 0.470004 · 2 / 2.7875 and 0.470004 · 1 / 1.7875
    assert arm.scores == {first: pytest.approx(0.337223, abs=1e-5), second: pytest.approx(0.262939, abs=1e-5)}
    assert list(arm.scores) == [first, second]
    # Over all three, the third scoring 0: mean 0.200054, mean square 0.060952
    assert arm.deviation == pytest.approx(0.144645, abs=1e-4)
    # idf = ln(1 + 2.5 / 1.5) = 0.980829; norm 0.9 · (0.5 + 0.5 · 8 / 5.3333) = 1.125
    assert search(chunks, "bgp").scores == {third: pytest.approx(0.461567, abs=1e-5)}
    both = search(chunks, "bgp router")
    assert list(both.scores) == [third, first, second]
    assert list(search(chunks, "bgp router", limit=1).scores) == [third]


def test_what_holds_no_word_or_odd_ones(made: Any) -> None:
    (_, _, third), chunks = made
    for question in (
        "the of is",
        "?!",
        "absent",
        "<script>",
        "a & b | !c",
        "it's 'quoted' \\ back",
        ":* <-> x",
    ):
        assert set(search(chunks, question).scores) <= {third}, question
    assert set(search(chunks, "O'Brien").scores) == {third}
    assert search(chunks.none(), "router").scores == {}
    assert len(question_lexemes(question=" ".join(f"w{n}x" for n in range(500)), languages=["english"])) <= 60


def test_the_dense_arm_is_the_cosine(made: Any) -> None:
    (first, second, third), chunks = made
    vector = np.zeros(384, dtype=np.float32)
    vector[0], vector[1] = 0.6, 0.8
    arm = search_vectors(chunks=chunks, vector=vector, limit=2, deviation=0.1)
    assert arm.scores == {second: pytest.approx(0.8, abs=1e-6), first: pytest.approx(0.6, abs=1e-6)}
    assert list(arm.scores) == [second, first] and arm.deviation == 0.1
    missing = cosines_of(chunks=chunks, vector=vector, ids=[third])
    assert missing == {third: pytest.approx(0.0, abs=1e-6)}


def test_fusion_counts_each_arm_by_how_far_it_stands_out(made: Any) -> None:
    (a, b, c), _ = made
    dense = Arm(scores={a: 0.5, b: 0.4, c: 0.1}, deviation=0.1)
    keyword = Arm(scores={b: 2.0, c: 1.0}, deviation=0.5)
    fused = fuse_arms(dense=dense, keyword=keyword, keyword_weight=0.3)
    # a: 0.7·5; b: 0.7·4 + 0.3·4; c: 0.7·1 + 0.3·2
    assert [pk for pk, _ in fused] == [b, a, c]
    assert [score for _, score in fused] == [pytest.approx(4.0), pytest.approx(3.5), pytest.approx(1.3)]
    silent = fuse_arms(dense=dense, keyword=Arm(scores={}, deviation=0.0), keyword_weight=0.3)
    assert [pk for pk, _ in silent] == [a, b, c]
    tied = Arm(scores={c: 0.5, a: 0.5, b: 0.5}, deviation=0.1)
    order = [pk for pk, _ in fuse_arms(dense=tied, keyword=keyword, keyword_weight=0.0)]
    assert order == sorted([a, b, c])
