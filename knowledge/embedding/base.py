"""The port to text embedding."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors whose dot product is their cosine similarity."""

    name: str
    dimensions: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape ``(len(texts), dimensions)``, float32, of length 1; texts beyond the model's window are cut."""
        ...

    def count_tokens(self, text: str) -> int:
        """The number of the model's tokens in ``text``, special tokens left out, however long it is."""
        ...
