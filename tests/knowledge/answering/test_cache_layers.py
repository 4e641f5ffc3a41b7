"""The layers below the answer: question vectors, passages, what a model said to the same prompt."""

import re
from decimal import Decimal
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from knowledge.answering.layers import LAYERS
from knowledge.answering.responses import Response, Said, hear, read_response, write_response
from knowledge.embedding.batching import memory
from knowledge.llm.base import BlockEnd, Cited, Finished, TextDelta
from ragsite.core.redis import redis_connection
from tests.knowledge.helpers import HOLD_TIMER, ask, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
GOOD = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))
OTHER = Reply(blocks=(Block("It is 30 seconds on edge routers.", cites=((0, 0, 1),)),))


def search(member: Any, question: str = HOLD_TIMER, **options: Any) -> dict[str, Any]:
    response = send(member, "post", "search", {"question": question, **options})
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def counts(shared: Any, layer: str) -> tuple[int, int]:
    found = send(shared.ada, "get", "cache/stats").json()["layers"][layer]
    return found["hits"], found["misses"]


def forget_answers() -> None:
    for key in redis_connection().scan_iter(match="*:exact:*"):
        redis_connection().delete(key)


@pytest.fixture(autouse=True)
def forget_vectors() -> None:
    memory.clear()


def test_passages_are_found_again_by_those_who_read_the_same(shared: Any) -> None:
    first = search(shared.nina)
    assert "retrieve" in first["timings"]
    again = search(shared.nina)
    assert again["sources"] == first["sources"] and "retrieve" not in again["timings"]
    assert counts(shared, "passages") == (1, 1)
    # Another way to look, another reader, another tenant: none of them sees these.
    for other in (
        search(shared.nina, k=2),
        search(shared.nina, tags=["runbooks"]),
        search(shared.nina, collections=["handbook"]),
        search(shared.sam),
        search(shared.gina),
    ):
        assert "retrieve" in other["timings"]
    assert not {s["document_id"] for s in search(shared.sam)["sources"]} & {
        s["document_id"] for s in first["sources"]
    }
    figures = send(shared.ada, "get", "cache/stats").json()["layers"]["passages"]
    assert figures["entries"] == 5 and figures["bytes"] > 1000


def test_passages_never_outlive_a_change_of_documents_or_rights(shared: Any) -> None:
    path = f"documents/{search(shared.nina)['sources'][0]['document_id']}"
    pk = path.removeprefix("documents/")
    send(shared.ada, "delete", path)
    assert pk not in str(search(shared.nina)["sources"])
    send(shared.ada, "post", f"{path}/restore")
    assert pk in str(search(shared.nina)["sources"])
    role, tags = f"roles/{shared.nina.membership.role_id}", shared.nina.membership.role.tags
    send(shared.ada, "patch", role, {"tags": ["faq"]})
    assert pk not in str(search(shared.nina)["sources"])
    send(shared.ada, "patch", role, {"tags": tags})
    assert pk in str(search(shared.nina)["sources"])


def test_a_vector_is_made_once_for_all_processes(shared: Any, monkeypatch: Any) -> None:
    from knowledge.embedding.factory import embedder

    made: list[str] = []
    embed = embedder().embed_queries
    monkeypatch.setattr(embedder(), "embed_queries", lambda texts: made.extend(texts) or embed(texts))
    first = search(shared.nina)
    assert made == [HOLD_TIMER] and counts(shared, "embedding") == (0, 1)
    memory.clear()  # as another process
    again = search(shared.nina, k=4)
    assert made == [HOLD_TIMER] and counts(shared, "embedding") == (1, 1)
    assert [s["score"] for s in again["sources"]] == [s["score"] for s in first["sources"]][:4]
    search(shared.nina, k=3)  # from the process itself
    assert made == [HOLD_TIMER] and counts(shared, "embedding") == (2, 1)
    memory.clear()
    search(shared.gina)
    assert made == [HOLD_TIMER] * 2, "another tenant has its own"


def test_the_same_prompt_is_not_paid_for_again(shared: Any, model: StubProvider) -> None:
    model.script(GOOD, OTHER)
    first = ask(shared.nina)
    assert Decimal(first["usage"]["cost_usd"]) > 0
    forget_answers()
    again = ask(shared.nina)
    assert again["cache"] == "miss" and len(model.requests) == 1
    assert again["usage"] == {"input_tokens": 0, "output_tokens": 0, "cost_usd": "0"}
    for name in ("answer", "sources", "citations", "marks", "grounded", "confidence", "model", "provider"):
        assert again[name] == first[name], name
    assert counts(shared, "response") == (1, 1)
    # Who wants it without a cache asks the model.
    assert ask(shared.nina, cache=False)["answer"] == "It is 30 seconds on edge routers."
    assert len(model.requests) == 2


def test_another_prompt_another_reader_and_a_conversation_ask_the_model(
    shared: Any, model: StubProvider
) -> None:
    model.script(*[GOOD] * 4)
    first = ask(shared.nina)
    forget_answers()
    path = f"documents/{first['sources'][0]['document_id']}"
    send(shared.ada, "patch", path, {"title": "Another title"})
    ask(shared.nina)
    assert len(model.requests) == 2, "the title is in the prompt"
    send(shared.ada, "patch", path, {"title": first["sources"][0]["title"]})
    forget_answers()
    ask(shared.ada)
    assert len(model.requests) == 3, "who reads more has a cache of their own"
    before = counts(shared, "response")
    ask(shared.nina, "And what else is about it?", conversation=first["conversation"])
    assert len(model.requests) > 3 and counts(shared, "response") == before, "a conversation is private"


@pytest.mark.parametrize("stop_reason", ["max_tokens", "refusal"])
def test_what_was_cut_off_or_refused_is_not_kept(shared: Any, model: StubProvider, stop_reason: str) -> None:
    model.script(Reply(blocks=(Block("The hold", cites=()),), stop_reason=stop_reason), GOOD)
    ask(shared.nina)
    assert not list(redis_connection().scan_iter(match="*:response:*"))
    assert ask(shared.nina)["answer"] == "The hold timer is 30 seconds."


async def test_a_response_comes_back_as_it_was_given(shared: Any) -> None:
    said: list[Said] = []
    for each in (TextDelta("a"), TextDelta("b"), Cited(1, "quote"), BlockEnd(), TextDelta("ü😀"), BlockEnd()):
        hear(said, each)
    whole = Response(said=tuple(said), provider="anthropic", model="claude")
    membership = shared.nina.membership
    key = f"{membership.tenant_id}:response:test"
    await write_response(key=key, response=whole, seconds=60)
    found = await read_response(key=key, membership=membership)
    assert found is not None
    events = [event async for event in found.stream()]
    assert events[:-1] == [
        TextDelta("ab"),
        Cited(1, "quote"),
        BlockEnd(),
        TextDelta("ü😀"),
        BlockEnd(),
    ]
    last = events[-1]
    assert isinstance(last, Finished) and (last.provider, last.model) == ("anthropic", "claude")
    assert last.usage.prompt_tokens == last.usage.output_tokens == 0
    await write_response(key=f"{key}:2", response=whole, seconds=0)
    assert await read_response(key=f"{key}:2", membership=membership) is None


def test_clearing_forgets_every_layer(shared: Any, model: StubProvider) -> None:
    model.script(GOOD, GOOD)
    ask(shared.nina)
    client = redis_connection()
    kinds = {
        layer: len(list(client.scan_iter(match=f"*:{layer}:*")))
        for layer in ("exact", "semantic", "passages", "embedding", "response")
    }
    assert kinds == dict.fromkeys(kinds, 1)
    assert send(shared.ada, "delete", "cache").json() == {"removed": 5}
    assert ask(shared.nina)["cache"] == "miss" and len(model.requests) == 2


def test_without_redis_everything_is_looked_up(shared: Any, model: StubProvider, configure: Any) -> None:
    configure(REDIS_URL="unix:///tmp/there-is-no-redis-here.sock")
    model.script(GOOD, GOOD)
    for _ in range(2):
        assert ask(shared.nina)["answer"] == "The hold timer is 30 seconds."
    assert len(model.requests) == 2


def test_what_the_layers_hold_is_a_metric_without_a_tenants_name(
    shared: Any, client: Any, model: StubProvider, monkeypatch: Any
) -> None:
    def told() -> dict[str, float]:
        redis_connection().delete("rag:bytes-of-all")  # looked up once a minute
        text = client.get("/metrics").content.decode()
        assert str(shared.acme.pk) not in text
        found = re.findall(r'^rag_cache_bytes{layer="(\w+)"} (\S+)$', text, re.MULTILINE)
        return {layer: float(size) for layer, size in found}

    def held(layer: str) -> int:
        layers = [send(who, "get", "cache/stats").json()["layers"] for who in (shared.ada, shared.gus)]
        return sum(each[layer]["bytes"] for each in layers)

    model.script(GOOD, GOOD)
    for member in (shared.nina, shared.gina, shared.nina):
        ask(member)
    sizes = told()
    assert sizes.pop("process") >= held("process") > 0
    assert sizes == {layer: held(layer) for layer in LAYERS} and all(sizes.values())
    for n in range(8):
        search(shared.nina, f"{HOLD_TIMER} ({n})")
    assert client.get("/metrics").content.decode().count(f'"passages"}} {sizes["passages"]}') == 1
    assert told()["passages"] == held("passages") > sizes["passages"]
    # Of many entries some are measured.
    monkeypatch.setattr("knowledge.answering.layers.MOST_MEASURED", 3)
    assert 0.5 * held("passages") < told()["passages"] < 2 * held("passages")
    # Without Redis the other figures are told all the same.
    monkeypatch.setattr("ragsite.health.read_bytes_of_all", gone)
    assert client.get("/metrics").status_code == 200


def gone() -> None:
    raise RedisConnectionError
