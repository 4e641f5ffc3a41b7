"""Reranking with a real cross-encoder, tiny and random, made here."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from knowledge.config import RetrievalConfig
from knowledge.retrieval import cross_encoder
from knowledge.retrieval.cross_encoder import CrossEncoderReranker, reranker_for
from knowledge.retrieval.rerank import FeatureReranker, RerankError, rerank_candidates
from tests.knowledge.retrieval.test_rerank import passage
from tests.knowledge.tiny_bert import save_tiny_bert

WORDS = ["hold", "timer", "is", "thirty", "seconds", "router", "the", "what", "call", "officer"]
PASSAGES = [passage("call the officer"), passage("the hold timer is thirty seconds"), passage("router")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with one label, saved as sentence-transformers loads it."""
    folder = tmp_path_factory.mktemp("cross-encoder")
    save_tiny_bert(folder, words=WORDS, labels=1)
    return folder


def test_the_model_decides_the_order(tiny: Path) -> None:
    reranker = CrossEncoderReranker(str(tiny), seconds=60)
    scores = reranker.rerank("what is the hold timer", PASSAGES)
    assert len(set(scores)) == 3
    assert scores == pytest.approx(reranker.rerank("what is the hold timer", PASSAGES))
    ordered = rerank_candidates(reranker=reranker, question="what is the hold timer", candidates=PASSAGES)
    expected = [each for _, each in sorted(zip(scores, PASSAGES, strict=True), key=lambda pair: -pair[0])]
    assert ordered == expected


def test_a_long_passage_is_cut_and_not_refused(tiny: Path) -> None:
    reranker = CrossEncoderReranker(str(tiny), seconds=60)
    assert len(reranker.rerank("timer " * 300, [passage("router " * 2000), passage("")])) == 2


def test_a_model_that_is_not_there_leaves_the_order_and_is_tried_again(tmp_path: Path) -> None:
    reranker = CrossEncoderReranker(str(tmp_path / "nowhere"), seconds=60)
    for _ in range(2):
        with pytest.raises(RerankError, match="cannot be loaded"):
            reranker.rerank("timer", PASSAGES)
    assert rerank_candidates(reranker=reranker, question="timer", candidates=PASSAGES) == PASSAGES


def test_a_slow_model_costs_no_more_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    class Slow:
        def predict(self, pairs: list[Any], **_: Any) -> list[float]:
            release.wait(30)
            return [0.0] * len(pairs)

    monkeypatch.setattr(cross_encoder, "_load", lambda name: Slow())
    reranker = CrossEncoderReranker("slow", seconds=0.2, waiting=2)
    try:
        begun = time.monotonic()
        for _ in range(2):
            with pytest.raises(RerankError) as caught:
                reranker.rerank("timer", PASSAGES)
            assert caught.value.status == "timeout"
        assert time.monotonic() - begun < 10
    finally:
        release.set()
    # What was given up on makes place again.
    deadline = time.monotonic() + 20
    while True:
        try:
            assert reranker.rerank("timer", PASSAGES) == [0.0] * 3
            break
        except RerankError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_those_who_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    release, began = threading.Event(), threading.Event()

    class Slow:
        def predict(self, pairs: list[Any], **_: Any) -> list[float]:
            began.set()
            release.wait(30)
            return [0.0] * len(pairs)

    monkeypatch.setattr(cross_encoder, "_load", lambda name: Slow())
    reranker = CrossEncoderReranker("slow", seconds=30, waiting=1)
    first = threading.Thread(target=reranker.rerank, args=("timer", PASSAGES))
    first.start()
    try:
        assert began.wait(20)
        with pytest.raises(RerankError) as caught:
            reranker.rerank("timer", PASSAGES)
        assert caught.value.status == "busy"
    finally:
        release.set()
        first.join()


def test_a_model_without_a_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty:
        def predict(self, pairs: list[Any], **_: Any) -> list[float]:
            return [float("nan")] * len(pairs)

    monkeypatch.setattr(cross_encoder, "_load", lambda name: Empty())
    with pytest.raises(RerankError, match="one label"):
        CrossEncoderReranker("empty", seconds=30).rerank("timer", PASSAGES)


def test_what_is_configured_is_used(configure: Any, tiny: Path) -> None:
    off = RetrievalConfig(rerank_phrase=0, rerank_proximity=0, rerank_title=0, rerank_recency=0)
    assert reranker_for(off) is None
    assert isinstance(reranker_for(RetrievalConfig(rerank_title=0.1)), FeatureReranker)
    configure(RAGSITE_RERANKER_MODEL=tiny, RAGSITE_RERANKER_SECONDS=20)
    chosen = reranker_for(off)
    assert isinstance(chosen, CrossEncoderReranker) and chosen.name == str(tiny)
    assert reranker_for(off) is chosen
