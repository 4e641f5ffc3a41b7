"""The port to text embedding."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors whose dot product is their cosine similarity.

    Attributes:
        name: what ``factory.embedder_for`` makes this embedder from. It tells model and way of computing, since
            vectors may be compared only with vectors of the same name.
        dimensions: of each vector.
    """

    name: str

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape ``(len(texts), dimensions)``, float32, of length 1; texts beyond the model's window are cut.

        Raises:
            EmbeddingError: the vectors could not be made.
        """
        ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Likewise of questions, which some models treat in another way than what answers them."""
        ...

    def count_tokens(self, text: str) -> int:
        """The number of the model's tokens in ``text``, special tokens left out, however long it is."""
        ...


class EmbeddingError(Exception):
    """Vectors that could not be made.

    Args:
        reason: one sentence that says what to do; never holds a key or a text.
        permanent: the same call would fail again, so it is not retried.
        retry_after: seconds that a server asked to wait, if it did.
    """

    def __init__(self, reason: str, *, permanent: bool, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        self.retry_after = retry_after


def clean_text(text: str) -> str:
    """Lone surrogates, which JSON can carry and UTF-8 cannot, become question marks."""
    return text.encode("utf-8", "replace").decode()
