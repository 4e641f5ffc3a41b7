"""How a question is answered: one frozen value, passed in. An experiment's variant would be another instance."""

import hashlib
from dataclasses import asdict, dataclass, field

from knowledge.answering.prompt import PROMPT_VERSION
from knowledge.llm.base import ModelConfig
from ragsite.core.config import config


@dataclass(frozen=True)
class RetrievalConfig:
    """Retrieval.

    Attributes:
        candidates: chunks taken from each arm.
        feedback_passages, feedback_weight: one step of Rocchio: the dense arm goes again with
            ``q + weight · mean of the best passages' vectors``, each of length 1; 0 passages: not.
        rerank_candidates: so many of the best go before the reranker.
        rerank_phrase, rerank_proximity, rerank_title, rerank_recency: what the features of ``retrieval/rerank.py`` add
            to the fused score; all 0: no feature reranker.
        keyword_weight: weight of the standardised keyword score; the dense one weighs the rest.
        dense_deviation: the standard deviation of cosines over a corpus, a constant of the embedding model.
        bm25_k1, bm25_b: as in Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009).
        midpoint, slope: the fused score becomes ``1 / (1 + exp(-(fused - midpoint) / slope))``.
        coverage_weight, evidence_midpoint, evidence_slope: of the confidence (``retrieval/evidence.py``).
        evidence_floor: the least confidence at which a question is answered at all.
        section_tokens: how far a passage may grow into its section.
        context_tokens: the budget of all passages together.
    """

    candidates: int = 100
    feedback_passages: int = 3
    feedback_weight: float = 0.3
    rerank_candidates: int = 50
    rerank_phrase: float = 0.0
    rerank_proximity: float = 0.0
    rerank_title: float = 0.0
    rerank_recency: float = 0.0
    keyword_weight: float = 0.3
    dense_deviation: float = 0.10
    bm25_k1: float = 0.9
    bm25_b: float = 0.5
    midpoint: float = 4.0
    slope: float = 1.0
    coverage_weight: float = 0.5
    evidence_midpoint: float = 0.70
    evidence_slope: float = 0.08
    evidence_floor: float = 0.5
    section_tokens: int = 450
    context_tokens: int = 4000


@dataclass(frozen=True)
class AnswerConfig:
    """The whole of it; ``fingerprint`` goes into cache keys."""

    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(provider="extractive", model="extractive"))
    small_model: ModelConfig = field(
        default_factory=lambda: ModelConfig(provider="extractive", model="extractive")
    )
    k: int = 5
    history_turns: int = 3
    cache_seconds: int = 3600

    def fingerprint(self) -> str:
        text = repr((asdict(self.retrieval), asdict(self.model), self.history_turns, PROMPT_VERSION))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def answer_config() -> AnswerConfig:
    """What the environment asks for."""
    settings = config()
    if not settings.anthropic_api_key:
        return AnswerConfig(cache_seconds=settings.answer_cache_seconds)

    def model(name: str, max_tokens: int) -> ModelConfig:
        return ModelConfig(
            provider="anthropic",
            model=name,
            max_tokens=max_tokens,
            first_byte_seconds=settings.first_byte_seconds,
            call_seconds=settings.call_seconds,
        )

    return AnswerConfig(
        model=model(settings.model, settings.max_tokens),
        small_model=model(settings.small_model, 200),
        cache_seconds=settings.answer_cache_seconds,
    )
