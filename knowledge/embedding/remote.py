"""Embedding by a server that speaks OpenAI's protocol, through the official client.

``openai:NAME`` asks for the model NAME with the dimensions it has, ``openai:NAME@DIMENSIONS`` for fewer.
"""

import email.utils
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import httpx2
import numpy as np
import openai
from openai import omit
from tokenizers import Tokenizer

from knowledge.embedding.base import EmbeddingError, Vectors, clean_text
from knowledge.embedding.bundled import bundled_folder

PREFIX = "openai:"
# What the protocol's own server takes in one call is 2,048 texts and 300,000 tokens; smaller calls lose less when one fails.
BATCH_TEXTS = 128
BATCH_TOKENS = 50_000
WINDOW = 8000  # tokens of one text, by our estimate; 8,192 is the limit of OpenAI's models
CALL_SECONDS = 30.0
CONNECT_SECONDS = 5.0
TRIES = 3
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
_TRANSIENT = frozenset({408, 409, 425, 429})
_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


class RemoteEmbedder:
    """A client of one model. Safe to call from several threads.

    Tokens are counted with the tokenizer of the bundled model: an estimate, mostly a little high.

    Args:
        name: ``openai:NAME`` or ``openai:NAME@DIMENSIONS``.
        call_seconds: for one try.
        sleep: waits between tries.

    Raises:
        EmbeddingError: the name cannot be read, or there is no key for OpenAI's own server.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: str,
        base_url: str | None,
        call_seconds: float = CALL_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        model, at, wanted = name.removeprefix(PREFIX).rpartition("@")
        self._model = model if at else wanted
        if not self._model or (at and not (wanted.isascii() and wanted.isdigit() and int(wanted) > 0)):
            raise EmbeddingError(
                f"EMBEDDING_MODEL cannot be “{name}”: write openai:NAME or openai:NAME@DIMENSIONS, for instance "
                "openai:text-embedding-3-small@512.",
                permanent=True,
            )
        if not api_key and not base_url:
            raise EmbeddingError(
                "The embedding model needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server without keys.",
                permanent=True,
            )
        self._wanted = int(wanted) if at else 0
        self._found = self._wanted
        self._lock = threading.Lock()
        self._sleep = sleep
        self._client = openai.OpenAI(
            api_key=api_key or "none",
            base_url=base_url or "https://api.openai.com/v1",
            max_retries=0,
            timeout=httpx2.Timeout(call_seconds, connect=min(CONNECT_SECONDS, call_seconds)),
        )
        self._tokenizer = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @property
    def dimensions(self) -> int:
        """Asked of the server at first use.

        Raises:
            EmbeddingError: it does not answer.
        """
        if not self._found:
            self.embed(["dimensions"])
        return self._found

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        cut = [self._cut(text) for text in texts]
        return np.concatenate([self._embed_batch(batch) for batch in _batches(cut)])

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed(texts)

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(clean_text(text), add_special_tokens=False).ids)

    def _cut(self, text: str) -> tuple[str, int]:
        """What is sent of a text, and its tokens. A server refuses the empty text, which a space stands for."""
        text = clean_text(text)
        if not text.strip():
            return " ", 1
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        if len(encoded.ids) > WINDOW:
            text = text[: encoded.offsets[WINDOW - 1][1]]
        return text, max(1, min(len(encoded.ids), WINDOW))

    def _embed_batch(self, texts: Sequence[str]) -> Vectors:
        for tried in range(1, TRIES + 1):
            try:
                return self._call(texts)
            except EmbeddingError as error:
                wait = min(FIRST_WAIT_SECONDS * 2 ** (tried - 1), LONGEST_WAIT_SECONDS)
                wait *= random.uniform(1, 1.1)  # noqa: S311
                asked = error.retry_after
                # A server that wants to be left alone for minutes is not waited for inside of a call.
                if error.permanent or tried == TRIES or (asked or 0) > LONGEST_WAIT_SECONDS:
                    raise
                self._sleep(wait if asked is None else asked)
        raise AssertionError("the last try returns or raises")

    def _call(self, texts: Sequence[str]) -> Vectors:
        try:
            # Without an encoding of ours the client asks for base64 and decodes whichever it gets.
            answer = self._client.embeddings.create(
                model=self._model, input=list(texts), dimensions=self._wanted or omit
            )
            rows = sorted(answer.data, key=lambda each: each.index)
            places = [each.index for each in rows]
            vectors = np.array([each.embedding for each in rows], dtype=np.float32)
        except openai.APIStatusError as error:
            raise _map_status(error, model=self._model) from error
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            _raise_unreachable(error)
        except (ValueError, TypeError, AttributeError) as error:
            raise EmbeddingError(
                "The embedding server's answer cannot be read: check OPENAI_BASE_URL.", permanent=False
            ) from error
        return self._check(vectors, places=places, count=len(texts))

    def _check(self, vectors: Vectors, *, places: Sequence[int], count: int) -> Vectors:
        if list(places) != list(range(count)) or vectors.ndim != 2:
            raise EmbeddingError(
                f"The embedding server answered {len(places)} vectors for {count} texts: check OPENAI_BASE_URL.",
                permanent=False,
            )
        with self._lock:
            self._found = self._found or vectors.shape[1]
        if vectors.shape[1] != self._found:
            raise EmbeddingError(
                f"The embedding server answered vectors of {vectors.shape[1]} dimensions instead of {self._found}: "
                "another model answers under the same name.",
                permanent=True,
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise EmbeddingError(
                "The embedding server answered a vector without a direction.", permanent=False
            )
        return np.asarray(vectors / lengths, dtype=np.float32)


def _batches(texts: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    batch: list[str] = []
    tokens = 0
    for text, count in texts:
        if batch and (len(batch) >= BATCH_TEXTS or tokens + count > BATCH_TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += count
    yield batch


def _map_status(error: openai.APIStatusError, *, model: str) -> EmbeddingError:
    status = error.status_code
    if error.code in _SPENT:
        return EmbeddingError(
            "The account of the embedding server is spent: raise its limit.", permanent=True
        )
    if status in (401, 403):
        reason = "The embedding server refused the key: check OPENAI_API_KEY."
    elif status == 404:
        reason = f"The embedding server does not know the model “{model}”: check EMBEDDING_MODEL and OPENAI_BASE_URL."
    elif status == 429:
        reason = "The embedding server's rate limit is reached: try again later."
    elif status >= 500 or status in _TRANSIENT:
        reason = f"The embedding server failed ({status}): try again later."
    else:
        reason = f"The embedding server refused the call ({status}): check EMBEDDING_MODEL."
    return EmbeddingError(
        reason,
        permanent=status < 500 and status not in _TRANSIENT,
        retry_after=_retry_after(error.response.headers),
    )


def _raise_unreachable(error: Exception) -> NoReturn:
    if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException):
        reason = "The embedding server did not answer in time: try again later."
    else:
        reason = "The embedding server cannot be reached: check the network and OPENAI_BASE_URL."
    raise EmbeddingError(reason, permanent=False) from error


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds to wait, given as seconds or as an HTTP date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        date = email.utils.parsedate_tz(value)
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None
