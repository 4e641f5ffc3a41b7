"""Embedding for questions: those that come while the model is busy go together, and the latest are remembered.

A vector depends on its text and model alone, so that whose question it was makes no difference, and nothing of one
tenant reaches another. What the process remembers never leaves it.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from knowledge.embedding.base import Embedder, Vectors

REMEMBERED = 1000  # questions; 1.5 KB each
LONGEST_REMEMBERED = 2000  # characters
MOST_TEXTS = 64  # in one call, so that the first of a crowd need not wait for all of it

Embed = Callable[[Sequence[str]], Vectors]


@dataclass
class _Waiting:
    texts: Sequence[str]
    done: "asyncio.Future[Vectors]"


@dataclass
class _Batcher:
    """One a model, kind of text and event loop: everything but ``_run`` happens in the loop's thread."""

    embed: Embed
    executor: ThreadPoolExecutor
    waiting: list[_Waiting] = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None

    async def take(self, texts: Sequence[str]) -> Vectors:
        waiting = _Waiting(texts, asyncio.get_running_loop().create_future())
        self.waiting.append(waiting)
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._work())
        return await waiting.done

    async def _work(self) -> None:
        try:
            while self.waiting:
                await self._embed_together(self._next_batch())
        finally:
            self.task = None

    def _next_batch(self) -> list[_Waiting]:
        """The first that waits, and those behind it that fit into the same call; who gave up is left out."""
        batch: list[_Waiting] = []
        count = 0
        while self.waiting:
            first = self.waiting[0]
            if batch and count + len(first.texts) > MOST_TEXTS:
                break
            self.waiting.pop(0)
            if not first.done.done():
                batch.append(first)
                count += len(first.texts)
        return batch

    async def _embed_together(self, batch: Sequence[_Waiting]) -> None:
        texts = [text for each in batch for text in each.texts]
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(self.executor, self.embed, texts)
        except Exception as error:
            if len(batch) > 1:  # one bad text must not fail its neighbours
                for each in batch:
                    await self._embed_together([each])
            elif batch and not batch[0].done.done():
                batch[0].done.set_exception(error)
            return
        begin = 0
        for each in batch:
            if not each.done.done():
                each.done.set_result(vectors[begin : begin + len(each.texts)])
            begin += len(each.texts)


_batchers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _Batcher]] = WeakKeyDictionary()
_executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="embed")


def _batcher(embedder: Embedder, kind: str, embed: Embed) -> _Batcher:
    ours = _batchers.setdefault(asyncio.get_running_loop(), {})
    key = (embedder.name, kind)
    if key not in ours:
        ours[key] = _Batcher(embed, _executor)
    return ours[key]


class _Memory:
    """The questions asked last, with their vectors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[str, str], Vectors] = OrderedDict()

    def get(self, model: str, text: str) -> Vectors | None:
        with self._lock:
            found = self._vectors.get((model, text))
            if found is not None:
                self._vectors.move_to_end((model, text))
            return found

    def put(self, model: str, text: str, vector: Vectors) -> Vectors:
        kept = np.array(vector)  # a copy: a row of a batch would keep the whole batch
        kept.flags.writeable = False  # it is handed to everyone who asks the same
        if len(text) <= LONGEST_REMEMBERED:
            with self._lock:
                self._vectors[model, text] = kept
                while len(self._vectors) > REMEMBERED:
                    self._vectors.popitem(last=False)
        return kept

    def clear(self) -> None:
        with self._lock:
            self._vectors.clear()


memory = _Memory()


def remembered_question(text: str, *, model: str) -> Vectors | None:
    """The vector of a question that this process has seen lately."""
    return memory.get(model, text)


def remember_question(text: str, *, model: str, vector: Vectors) -> Vectors:
    """Keeps a vector that was made elsewhere; returns it as it is kept, read-only."""
    return memory.put(model, text, vector)


async def embed_question(text: str, *, embedder: Embedder) -> Vectors:
    """The vector of a question, of shape ``(dimensions,)``, read-only.

    Raises:
        EmbeddingError: it could not be made.
    """
    found = memory.get(embedder.name, text)
    if found is not None:
        return found
    vectors = await _batcher(embedder, "question", embedder.embed_queries).take([text])
    return memory.put(embedder.name, text, vectors[0])


def embed_question_now(text: str, *, embedder: Embedder) -> Vectors:
    """Likewise, for code that runs in a thread of its own."""
    found = memory.get(embedder.name, text)
    if found is not None:
        return found
    return memory.put(embedder.name, text, embedder.embed_queries([text])[0])


async def embed_texts(texts: Sequence[str], *, embedder: Embedder) -> Vectors:
    """The vectors of texts that answer questions, of shape ``(len(texts), dimensions)``."""
    return await _batcher(embedder, "text", embedder.embed).take(texts)
