"""How a question is answered: one frozen value, passed in. An experiment's variant would be another instance."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

from knowledge.answering.prompt import PROMPT_VERSION
from knowledge.answering.threshold import START
from knowledge.llm.base import ModelConfig
from ragsite.core.config import Config, config

# How long answers may be shown again, by the content class of the collections that they cite.
CLASS_SECONDS = {
    "reference": 7 * 86400,
    "documentation": 86400,
    "configuration": 12 * 3600,
    "troubleshooting": 3600,
    "state": 300,
}


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
    feedback_passages: int = 7
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
    evidence_midpoint: float = 0.66
    evidence_slope: float = 0.08
    evidence_floor: float = 0.5
    section_tokens: int = 450
    context_tokens: int = 4000


@dataclass(frozen=True)
class AnswerConfig:
    """The whole of it; ``fingerprint`` goes into cache keys.

    Attributes:
        models: for the answer, in the order in which they are tried; the extractive answerer comes after them.
        small_models: for simple questions and for what helps along the way, likewise.
        routing: ``off``, by ``rules``, or by the small ``model``'s word, which questions the small models get.
        prompt_tokens: the passages of a prompt are cut down to so many tokens; 0: not.
        cache_seconds: how long an answer that cites nothing may be shown again; 0: no answer at all.
        class_seconds: likewise one that cites, by the content class of what it cites; the shortest holds.
        semantic_cache: whether the answer of a question is shown for other words that ask the same.
        semantic_threshold: the cosine that both must have at least.
    """

    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    models: tuple[ModelConfig, ...] = ()
    small_models: tuple[ModelConfig, ...] = ()
    routing: str = "rules"
    prompt_tokens: int = 0
    k: int = 5
    history_turns: int = 3
    cache_seconds: int = 3600
    class_seconds: Mapping[str, int] = field(default_factory=lambda: dict(CLASS_SECONDS), hash=False)
    semantic_cache: bool = True
    semantic_threshold: float = START

    @property
    def has_model(self) -> bool:
        """Whether a language model is configured, in front of the extractive answerer."""
        return bool(self.models)

    def fingerprint(self) -> str:
        return _fingerprint(self)

    def limited_to(self, tokens: int | None) -> "AnswerConfig":
        """With answers of at most so many tokens, where that is less than they may have."""

        def limited(models: tuple[ModelConfig, ...]) -> tuple[ModelConfig, ...]:
            return tuple(replace(m, max_tokens=min(m.max_tokens, tokens or m.max_tokens)) for m in models)

        return replace(self, models=limited(self.models), small_models=limited(self.small_models))


@lru_cache(maxsize=256)
def _fingerprint(config: AnswerConfig) -> str:
    """Kept: several keys of a question hold it, and there are few configurations."""
    models = [[asdict(model) for model in models] for models in (config.models, config.small_models)]
    lives = (
        config.cache_seconds,
        sorted(config.class_seconds.items()),
    )  # what is kept must not outlive a new rule
    rest = (config.routing, config.prompt_tokens, config.history_turns, PROMPT_VERSION, lives)
    text = repr((asdict(config.retrieval), models, rest))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def answer_config() -> AnswerConfig:
    """What the environment asks for."""
    settings = config()
    names = [(provider, MODELS_OF[provider](settings)) for provider in configured_providers()]
    return AnswerConfig(
        models=tuple(model_of(provider, large) for provider, (large, _) in names),
        small_models=tuple(model_of(provider, small) for provider, (_, small) in names),
        routing=settings.routing,
        prompt_tokens=settings.prompt_tokens,
        cache_seconds=settings.answer_cache_seconds,
        semantic_cache=settings.semantic_cache,
    )


def model_of(provider: str, model: str) -> ModelConfig:
    """A model with the limits of the environment."""
    settings = config()
    return ModelConfig(
        provider=provider,
        model=model,
        max_tokens=settings.max_tokens,
        first_byte_seconds=settings.first_byte_seconds,
        call_seconds=settings.call_seconds,
    )


# The model for answers and the small one, of each provider.
MODELS_OF: dict[str, Callable[[Config], tuple[str, str]]] = {
    "anthropic": lambda c: (c.model, c.small_model),
    "openai": lambda c: (c.openai_model, c.openai_small_model or c.openai_model),
    "azure": lambda c: (
        c.azure_openai_deployment,
        c.azure_openai_small_deployment or c.azure_openai_deployment,
    ),
}


def configured_providers() -> tuple[str, ...]:
    """The providers of language models that the environment has all it takes for, in its order."""
    settings = config()
    has = {
        "anthropic": bool(settings.anthropic_api_key),
        # The key may be there for embeddings alone, and a server of one's own needs none: the model's name decides.
        "openai": bool(settings.openai_model and (settings.openai_api_key or settings.openai_base_url)),
        "azure": bool(settings.azure_openai_api_key and settings.azure_openai_endpoint),
    }
    return tuple(name for name in settings.provider_order if has[name])
