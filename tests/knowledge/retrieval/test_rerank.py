"""The feature reranker, and what happens when a reranker fails."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from knowledge.config import RetrievalConfig
from knowledge.retrieval import rerank
from knowledge.retrieval.analysis import count_terms
from knowledge.retrieval.rerank import Candidate, FeatureReranker, RerankError, rerank_candidates
from ragsite.core.observability import RERANKED

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STOP = {"what", "is", "the", "of", "on", "to", "for", "a", "how"}
WEIGHTS = RetrievalConfig(rerank_phrase=0.5, rerank_proximity=0.5, rerank_title=0.5, rerank_recency=0.01)


def content_terms(question: str, language: str) -> list[str]:
    words = " ".join(word for word in question.lower().split() if word.strip("?") not in STOP)
    return list(count_terms(words, language=language))


def passage(
    text: str, *, title: str = "", headings: tuple[str, ...] = (), score: float = 1.0, **more: Any
) -> Candidate:
    return Candidate(
        chunk_id=uuid4(),
        score=score,
        title=title,
        headings=headings,
        text=text,
        **({"updated_at": NOW} | more),
    )


def best(question: str, passages: list[Candidate]) -> Candidate:
    reranker = FeatureReranker(WEIGHTS, content_terms=content_terms)
    return rerank_candidates(reranker=reranker, question=question, candidates=passages)[0]


def test_the_exact_phrase_goes_before_its_words_apart() -> None:
    apart = passage(
        "The timer was replaced. Later on, in quite another chapter, we hold a meeting about routers."
    )
    together = passage("On this router the hold timer is thirty seconds.")
    assert best("What is the hold timer?", [apart, together]) == together


def test_an_identifier_is_a_phrase() -> None:
    other = passage("Interface ge-0/0/11 and ge-1/0/0 are down since 0 h 0 min.")
    same = passage("Interface ge-0/0/1 is down.")
    assert best("ge-0/0/1 down?", [other, same]) == same


def test_title_and_headings_count_and_inflected_words_do() -> None:
    plain = passage("Call the duty officer.", title="Handbook")
    titled = passage("Call the duty officer.", title="Handbook", headings=("Escalations",))
    assert best("How to escalate?", [plain, titled]) == titled


def test_of_equals_the_newer_goes_first_and_a_better_score_outweighs_age() -> None:
    old = passage("The hold timer is 30.", updated_at=NOW - timedelta(days=900))
    new = passage("The hold timer is 30.")
    assert best("hold timer", [old, new]) == new
    assert (
        best("hold timer", [passage("The hold timer is 30.", updated_at=NOW - timedelta(1), score=1.1), new])
        != new
    )


def test_features_are_shares() -> None:
    reranker = FeatureReranker(WEIGHTS, content_terms=content_terms)
    texts = ["", "hold timer", "timer hold", "hold hold hold hold timer timer", "Haltezeit 日本語 مهلة"]
    for row in reranker.features(
        "hold timer hold timer 日本語", [passage(text, title=text) for text in texts]
    ):
        assert all(0 <= value <= 1 for value in row), row
    assert reranker.features("the of", [passage("the of")])[0][:3] == (0.0, 0.0, 0.0)
    assert reranker.features("hold", [passage("hold")])[0][:2] == (0.0, 0.0)


def test_without_weights_the_fused_order_stays() -> None:
    passages = [passage("nothing", score=2.0), passage("the hold timer", score=1.0)]
    reranker = FeatureReranker(
        RetrievalConfig(rerank_phrase=0, rerank_proximity=0, rerank_title=0, rerank_recency=0)
    )
    reranker._content_terms = content_terms
    assert rerank_candidates(reranker=reranker, question="hold timer", candidates=passages) == passages
    assert rerank_candidates(reranker=None, question="hold timer", candidates=passages) == passages


class Broken:
    name = "broken"

    def rerank(self, question: str, passages: Sequence[Candidate]) -> list[float]:
        raise RerankError("it took too long", status="timeout")


def test_a_reranker_that_fails_leaves_the_order_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by caplog: another test of the same process may have set logging up anew.
    told: list[str] = []
    monkeypatch.setattr(
        rerank, "logger", SimpleNamespace(warning=lambda words, **facts: told.append(f"{words} {facts}"))
    )
    passages = [passage("a"), passage("b")]
    before = RERANKED.labels("timeout")._value.get()
    assert rerank_candidates(reranker=Broken(), question="b", candidates=passages) == passages
    assert RERANKED.labels("timeout")._value.get() == before + 1
    assert len(told) == 1 and "it took too long" in told[0]
