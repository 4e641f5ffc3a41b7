"""Embedding by a server: the official client against a local server that speaks the protocol."""

import email.utils
import time
from collections.abc import Iterator

import numpy as np
import pytest

from knowledge.embedding import remote
from knowledge.embedding.base import EmbeddingError
from knowledge.embedding.remote import RemoteEmbedder
from tests.stub_embeddings import Reply, StubEmbeddings, vector_of


@pytest.fixture
def stub() -> Iterator[StubEmbeddings]:
    with StubEmbeddings() as stub:
        yield stub


class Waits(list[float]):
    """What was slept between tries."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def client(
    stub: StubEmbeddings, *, name: str = "openai:some/model", waits: Waits | None = None
) -> RemoteEmbedder:
    sleep = Waits() if waits is None else waits
    return RemoteEmbedder(name, api_key="secret-key", base_url=stub.url, call_seconds=0.5, sleep=sleep)


def expected(texts: list[str], dimensions: int = 8) -> np.ndarray:
    rows = np.array([vector_of(text, dimensions) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("encoding", ["asked", "float"])
def test_vectors_come_in_order_and_of_length_one(stub: StubEmbeddings, encoding: str) -> None:
    stub.default = Reply(encoding=encoding)
    texts = ["first", "second", "third"]
    vectors = client(stub).embed(texts)
    assert vectors.dtype == np.float32 and np.allclose(vectors, expected(texts), atol=1e-6)
    assert stub.requests[0]["model"] == "some/model" and "dimensions" not in stub.requests[0]
    assert stub.requests[0]["encoding_format"] == "base64"
    assert stub.keys == ["Bearer secret-key"]


def test_dimensions_are_asked_once(stub: StubEmbeddings) -> None:
    embedder = client(stub)
    assert embedder.dimensions == 8 == embedder.dimensions
    assert len(stub.requests) == 1
    assert embedder.embed([]).shape == (0, 8) and len(stub.requests) == 1


def test_fewer_dimensions_can_be_wanted(stub: StubEmbeddings) -> None:
    embedder = client(stub, name="openai:some/model@4")
    assert embedder.dimensions == 4 and not stub.requests
    assert np.allclose(embedder.embed_queries(["question"]), expected(["question"], 4), atol=1e-6)
    assert stub.requests[0]["dimensions"] == 4


@pytest.mark.parametrize("name", ["", "@4", "model@", "model@0", "model@²", "model@x"])
def test_a_name_that_cannot_be_read_is_refused(name: str) -> None:
    with pytest.raises(EmbeddingError, match="openai:NAME") as caught:
        RemoteEmbedder(f"openai:{name}", api_key="k", base_url=None)
    assert caught.value.permanent


def test_openai_itself_needs_a_key() -> None:
    with pytest.raises(EmbeddingError, match="OPENAI_API_KEY"):
        RemoteEmbedder("openai:model", api_key="", base_url=None)


def test_batches_are_bounded_by_texts_and_tokens(
    stub: StubEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BATCH_TEXTS", 3)
    monkeypatch.setattr(remote, "BATCH_TOKENS", 12)
    texts = ["a"] * 5 + ["route " * 10, "b", "route " * 20, "c"]
    vectors = client(stub).embed(texts)
    assert [len(request["input"]) for request in stub.requests] == [3, 3, 1, 1, 1]
    assert np.allclose(vectors, expected(texts), atol=1e-6)


def test_odd_texts_are_sent_as_the_server_takes_them(
    stub: StubEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "WINDOW", 3)
    vectors = client(stub).embed(["", " \n", "\ud800", "one two three four five"])
    assert vectors.shape == (4, 8)
    assert stub.requests[0]["input"] == [" ", " ", "?", "one two three"]


@pytest.mark.parametrize(
    ("reply", "match"),
    [
        (Reply(status=401), "OPENAI_API_KEY"),
        (Reply(status=404), "does not know the model"),
        (Reply(status=400), "refused the call"),
        (Reply(status=429, code="insufficient_quota"), "spent"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(stub: StubEmbeddings, reply: Reply, match: str) -> None:
    stub.default = reply
    with pytest.raises(EmbeddingError, match=match) as caught:
        client(stub).embed(["text of a document"])
    assert caught.value.permanent and len(stub.requests) == 1
    assert "secret-key" not in str(caught.value) and "text of" not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500),
        Reply(status=503),
        Reply(status=429),
        Reply(hang=True),
        Reply(cut=True),
        Reply(missing=1),
        Reply(body=b"<html>not JSON</html>"),
        Reply(body=b'{"object": "list", "data": [{"index": 0, "embedding": "%%%"}]}'),
        Reply(zeros=True),
    ],
)
def test_what_may_pass_is_tried_again(stub: StubEmbeddings, reply: Reply) -> None:
    stub.script(reply)
    waits = Waits()
    assert np.allclose(client(stub, waits=waits).embed(["x", "y"]), expected(["x", "y"]), atol=1e-6)
    assert len(stub.requests) == 2 and len(waits) == 1 and 1 <= waits[0] <= 1.1


def test_three_tries_are_all(stub: StubEmbeddings) -> None:
    stub.default = Reply(status=500)
    waits = Waits()
    with pytest.raises(EmbeddingError, match="failed") as caught:
        client(stub, waits=waits).embed(["x"])
    assert not caught.value.permanent and len(stub.requests) == 3
    assert [round(wait) for wait in waits] == [1, 2]


def test_the_server_says_how_long_to_wait(stub: StubEmbeddings) -> None:
    stub.script(Reply(status=429, headers={"retry-after": "7"}))
    waits = Waits()
    client(stub, waits=waits).embed(["x"])
    assert waits == [7]
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    stub.script(Reply(status=503, headers={"retry-after": date}))
    waits.clear()
    client(stub, waits=waits).embed(["x"])
    assert 17 < waits[0] <= 20
    # Minutes are for the caller, who knows better what to do with them.
    stub.script(Reply(status=429, headers={"retry-after": "600"}))
    with pytest.raises(EmbeddingError) as caught:
        client(stub).embed(["x"])
    assert caught.value.retry_after == 600


def test_another_size_of_vector_is_another_model(stub: StubEmbeddings) -> None:
    embedder = client(stub)
    embedder.embed(["x"])
    stub.default = Reply(dimensions=16)
    with pytest.raises(EmbeddingError, match="16 dimensions instead of 8") as caught:
        embedder.embed(["x"])
    assert caught.value.permanent


def test_a_server_that_is_away_is_named() -> None:
    embedder = RemoteEmbedder("openai:m", api_key="", base_url="http://127.0.0.1:9/v1", sleep=Waits())
    with pytest.raises(EmbeddingError, match="cannot be reached") as caught:
        embedder.embed(["x"])
    assert not caught.value.permanent
