"""Reranking by a cross-encoder: a model that reads question and passage together, through sentence-transformers."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from functools import cache
from typing import Any

import structlog

from knowledge.config import RetrievalConfig
from knowledge.retrieval.rerank import Candidate, FeatureReranker, Reranker, RerankError
from ragsite.core.config import config

logger = structlog.get_logger(__name__)

BATCH = 16


class CrossEncoderReranker:
    """One model in this process, loaded at its first question, which does not wait for it.

    One thread works; a question that finds it busy for ``seconds`` goes on without, and while as many wait as may, the
    next does not even queue. So a slow or broken model costs a question at most ``seconds``.
    """

    def __init__(self, name: str, *, seconds: float, waiting: int = 4) -> None:
        self.name = name
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(waiting)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reranker")
        self._loading: Future[Any] | None = None
        self._lock = threading.Lock()

    def rerank(self, question: str, passages: Sequence[Candidate]) -> list[float]:
        model = self._model()
        if not self._places.acquire(blocking=False):
            raise RerankError("other questions wait for the model already", status="busy")
        pairs = [(question, _text_of(passage)) for passage in passages]
        work = self._thread.submit(_predict, model, pairs)
        work.add_done_callback(lambda _: self._places.release())
        try:
            scores: list[float] = work.result(timeout=self._seconds)
        except FutureTimeout:
            work.cancel()
            raise RerankError(f"no scores within {self._seconds:g} s", status="timeout") from None
        except Exception as error:
            raise RerankError(f"{type(error).__name__}: {error}") from error
        return scores

    def _model(self) -> Any:
        """The model.

        Raises:
            RerankError: it is being loaded still, or could not be; the next question tries again.
        """
        with self._lock:
            if self._loading is None:
                logger.info("loading the reranking model", model=self.name)
                self._loading = self._thread.submit(_load, self.name)
            loading = self._loading
        try:
            return loading.result(timeout=self._seconds)
        except FutureTimeout:
            raise RerankError("the model is being loaded", status="loading") from None
        except Exception as error:
            with self._lock:
                self._loading = None
            raise RerankError(f"{self.name} cannot be loaded: {error}") from error


def _load(name: str) -> Any:
    # Nothing is fetched behind one's back: a name that is not on disk must be downloaded by the operator.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sentence_transformers import CrossEncoder

    return CrossEncoder(name, device="cpu")


def _predict(model: Any, pairs: Sequence[tuple[str, str]]) -> list[float]:
    scores = [float(score) for score in model.predict(list(pairs), batch_size=BATCH, show_progress_bar=False)]
    if len(scores) != len(pairs) or any(score != score for score in scores):
        raise ValueError("the model gave no number for some passage: is it a cross-encoder with one label?")
    return scores


def _text_of(passage: Candidate) -> str:
    head = " > ".join(part for part in (passage.title, *passage.headings) if part)
    return f"{head}\n{passage.text}" if head else passage.text


@cache
def _cross_encoder(name: str, seconds: float) -> CrossEncoderReranker:
    return CrossEncoderReranker(name, seconds=seconds)


def reranker_for(retrieval: RetrievalConfig) -> Reranker | None:
    """The cross-encoder when one is configured, else the features when they have a weight, else none."""
    settings = config()
    if settings.reranker_model:
        return _cross_encoder(settings.reranker_model, settings.reranker_seconds)
    weights = (
        retrieval.rerank_phrase,
        retrieval.rerank_proximity,
        retrieval.rerank_title,
        retrieval.rerank_recency,
    )
    return FeatureReranker(retrieval) if any(weights) else None
