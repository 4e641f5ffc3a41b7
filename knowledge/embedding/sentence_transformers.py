"""Embedding in process with sentence-transformers."""

import os
import threading
from collections.abc import Sequence

import numpy as np

from knowledge.embedding.base import EmbeddingError, Vectors, clean_text
from knowledge.embedding.bundled import BUNDLED, bundled_folder

BATCH = 32


class SentenceTransformerEmbedder:
    """One model in this process. Safe to call from several threads, one at a time in the model.

    Args:
        name: the bundled model's, or one that sentence-transformers finds on this machine, or a folder.
        threads: of one run.

    Raises:
        EmbeddingError: there is no such model here.
    """

    def __init__(self, name: str, *, threads: int) -> None:
        # Nothing is fetched behind one's back: a name that is not on disk must be downloaded by the operator.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.name = name
        try:
            path = str(bundled_folder()) if name == BUNDLED else name
            self._model = SentenceTransformer(path, device="cpu")
        except (OSError, ValueError) as error:
            raise EmbeddingError(
                f"The embedding model “{name}” is not on this machine: download it first, or give the path of its "
                "folder in EMBEDDING_MODEL.",
                permanent=True,
            ) from error
        self.dimensions: int = self._model.get_embedding_dimension() or 0
        self._tokenizer = self._model.tokenizer
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self._encode(texts, as_queries=False)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """With the prompt that the model's own configuration has for queries, if any."""
        return self._encode(texts, as_queries=True)

    def _encode(self, texts: Sequence[str], *, as_queries: bool) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        encode = self._model.encode_query if as_queries else self._model.encode_document
        with self._lock:
            vectors = encode(
                [clean_text(text) for text in texts],
                batch_size=BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return np.asarray(vectors, dtype=np.float32)

    def count_tokens(self, text: str) -> int:
        encoded = self._tokenizer(clean_text(text), add_special_tokens=False, truncation=False, verbose=False)
        return len(encoded["input_ids"])
