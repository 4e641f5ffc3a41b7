"""Which embedder a model's name stands for, and the ones that this process has loaded.

| name | embedder |
|---|---|
| ``all-MiniLM-L6-v2/onnx-int8`` | the bundled model in 8-bit integers |
| ``openai:NAME``, ``openai:NAME@DIMENSIONS`` | a server that speaks OpenAI's protocol |
| anything else | sentence-transformers; ``all-MiniLM-L6-v2`` is the bundled model in 32-bit floats |
"""

import threading
from functools import cache

import structlog
from asgiref.sync import sync_to_async

from knowledge.embedding.base import Embedder
from ragsite.core.config import config

logger = structlog.get_logger(__name__)

REMOTE = "openai:"

_lock = threading.Lock()
_loaded: dict[str, Embedder] = {}


def embedder_for(name: str) -> Embedder:
    """The embedder of a model by its name; the first call in a process loads it.

    Raises:
        EmbeddingError: it cannot be loaded.
    """
    found = _loaded.get(name)
    if found is not None:
        return found
    with _lock_of(name):
        if name not in _loaded:
            logger.info("loading the embedding model", model=name)
            _loaded[name] = _load(name)
        return _loaded[name]


def embedder() -> Embedder:
    """The configured embedder of this process."""
    return embedder_for(config().embedding_model)


async def load_embedder(name: str = "") -> Embedder:
    """The embedder of that name, or the configured one, without holding up the event loop while it is loaded."""
    name = name or config().embedding_model
    return _loaded.get(name) or await sync_to_async(embedder_for, thread_sensitive=False)(name)


def is_loaded() -> bool:
    """Whether a first question would not have to wait for the model."""
    return config().embedding_model in _loaded


@cache
def _lock_of_name(name: str) -> threading.Lock:
    return threading.Lock()


def _lock_of(name: str) -> threading.Lock:
    """One a model: a model that takes minutes to load holds up no other."""
    with _lock:
        return _lock_of_name(name)


def _load(name: str) -> Embedder:
    from knowledge.embedding import onnx

    settings = config()
    if name == onnx.NAME:
        from knowledge.embedding.prepared import ready_model

        return onnx.OnnxEmbedder(ready_model(models=settings.models_root), threads=settings.embedding_threads)
    if name.startswith(REMOTE):
        from knowledge.embedding.remote import RemoteEmbedder

        return RemoteEmbedder(
            name, api_key=settings.openai_api_key, base_url=settings.openai_base_url or None
        )
    from knowledge.embedding.sentence_transformers import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(name, threads=settings.embedding_threads)
