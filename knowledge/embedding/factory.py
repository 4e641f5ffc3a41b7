"""Which embedder a model's name stands for, and the ones that this process has loaded."""

import threading
from functools import cache

import structlog

from knowledge.embedding.base import Embedder
from ragsite.core.config import config

logger = structlog.get_logger(__name__)

_lock = threading.Lock()


@cache
def _load(name: str) -> Embedder:
    from knowledge.embedding.sentence_transformers import SentenceTransformerEmbedder

    logger.info("loading the embedding model", model=name)
    return SentenceTransformerEmbedder(name)


def embedder_for(name: str) -> Embedder:
    """The embedder of a model by its name; the first call in a process loads it (a second or two)."""
    with _lock:
        return _load(name)


def embedder() -> Embedder:
    """The configured embedder of this process."""
    return embedder_for(config().embedding_model)


def is_loaded() -> bool:
    """Whether a first question would not have to wait for the model."""
    return _load.cache_info().currsize > 0
