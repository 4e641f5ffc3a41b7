"""Questions that come while the model is busy are embedded together."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from knowledge.embedding import batching
from knowledge.embedding.base import EmbeddingError, Vectors
from knowledge.embedding.batching import embed_question, embed_question_now, embed_texts
from knowledge.embedding.factory import embedder


class Slow:
    """An embedder whose first call waits until it is let go; a vector is the text's length."""

    name = "slow"
    dimensions = 1

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go = threading.Event()

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        self.go.wait(10)
        if "bad" in texts:
            raise EmbeddingError("bad", permanent=True)
        return np.array([[len(text)] for text in texts], dtype=np.float32)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed(texts)

    def count_tokens(self, text: str) -> int:
        return len(text)


@pytest.fixture(autouse=True)
def forget() -> None:
    batching.memory.clear()


async def until_called(slow: Slow) -> None:
    while not slow.calls:
        await asyncio.sleep(0.001)


async def test_what_waits_goes_together() -> None:
    slow = Slow()
    first = asyncio.create_task(embed_question("a", embedder=slow))
    await until_called(slow)
    others = [asyncio.create_task(embed_question("b" * size, embedder=slow)) for size in range(2, 12)]
    await asyncio.sleep(0)
    slow.go.set()
    assert (await first)[0] == 1
    assert [(await each)[0] for each in others] == list(range(2, 12))
    assert [len(call) for call in slow.calls] == [1, 10]


async def test_a_crowd_is_served_in_bounded_runs() -> None:
    slow = Slow()
    first = asyncio.create_task(embed_question("a", embedder=slow))
    await until_called(slow)
    crowd = [asyncio.create_task(embed_texts(["b"] * 30, embedder=slow)) for _ in range(3)]
    crowd += [asyncio.create_task(embed_texts(["c"] * 200, embedder=slow))]
    await asyncio.sleep(0)
    slow.go.set()
    await asyncio.gather(first, *crowd)
    assert [len(call) for call in slow.calls] == [1, 60, 30, 200]


async def test_one_that_fails_fails_alone() -> None:
    slow = Slow()
    first = asyncio.create_task(embed_question("a", embedder=slow))
    await until_called(slow)
    good = asyncio.create_task(embed_question("good", embedder=slow))
    bad = asyncio.create_task(embed_question("bad", embedder=slow))
    await asyncio.sleep(0)
    slow.go.set()
    await first
    assert (await good)[0] == 4
    with pytest.raises(EmbeddingError):
        await bad
    # And it is not remembered as anything.
    with pytest.raises(EmbeddingError):
        await embed_question("bad", embedder=slow)


async def test_who_gives_up_is_left_out() -> None:
    slow = Slow()
    first = asyncio.create_task(embed_question("a", embedder=slow))
    await until_called(slow)
    gone = asyncio.create_task(embed_question("gone", embedder=slow))
    stays = asyncio.create_task(embed_question("stays", embedder=slow))
    await asyncio.sleep(0)
    gone.cancel()
    first.cancel()
    await asyncio.sleep(0)
    slow.go.set()
    assert (await stays)[0] == 5
    assert slow.calls == [["a"], ["stays"]]


async def test_a_repeated_question_is_remembered_by_model() -> None:
    slow, other = Slow(), Slow()
    slow.go.set()
    other.go.set()
    other.name = "other"
    vector = await embed_question("again", embedder=slow)
    assert (await embed_question("again", embedder=slow)) is vector
    assert embed_question_now("again", embedder=slow) is vector
    assert slow.calls == [["again"]]
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 0
    await embed_question("again", embedder=other)
    assert other.calls == [["again"]]
    for number in range(batching.REMEMBERED):
        embed_question_now(f"question {number}", embedder=slow)
    before = len(slow.calls)
    await embed_question("again", embedder=slow)
    assert len(slow.calls) == before + 1, "the oldest was forgotten"


async def test_fifty_questions_at_once_get_their_own_vectors() -> None:
    questions = [f"How is device {number} replaced?" for number in range(50)]
    vectors = await asyncio.gather(*(embed_question(each, embedder=embedder()) for each in questions))
    assert np.abs(np.array(vectors) - embedder().embed(questions)).max() < 1e-4
