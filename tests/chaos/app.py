"""The worker that the chaos tests kill: the real one, with an embedder that loads at once and takes its time for a batch."""

import hashlib
import os
import time
from collections.abc import Sequence

import django
import numpy as np

from ragsite.celery import app as app

django.setup()

import knowledge.tasks  # noqa: E402
from knowledge.embedding.base import Vectors  # noqa: E402


class HashEmbedder:
    """Words to vectors by their hashes: the same text has the same vector, in every process."""

    name = "hashed-words"
    dimensions = 64

    def embed(self, texts: Sequence[str]) -> Vectors:
        time.sleep(float(os.environ.get("CHAOS_SECONDS_PER_BATCH", "0")))
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, hashlib.md5(word.encode()).digest()[0] % self.dimensions] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


knowledge.tasks.embedder = HashEmbedder  # type: ignore[attr-defined]
