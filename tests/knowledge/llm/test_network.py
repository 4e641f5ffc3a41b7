"""Many streams at once are read seldom and much; nothing of them is lost, and nothing else is changed."""

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import pytest

from knowledge.llm.anthropic import AnthropicProvider
from knowledge.llm.base import BlockEnd, Finished, ModelConfig, ProviderError, TextDelta
from knowledge.llm.network import Crowd, GatheringBackend, GatheringStream
from tests.knowledge.helpers import eventually
from tests.knowledge.llm.test_anthropic import CONFIG, KEY, collect, prompt
from tests.stub_provider import Block, Reply, StubProvider

WORDS = Reply(blocks=(Block("word " * 60), Block("last " * 12)), delta_seconds=0.02)


def backend_of(provider: AnthropicProvider) -> GatheringBackend:
    found: Any = provider._client._client._transport
    backend: GatheringBackend = found._pool._network_backend
    return backend


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often data came up from connections."""
    counted: Counter[str] = Counter()
    gather = GatheringStream._gather

    def count(self: GatheringStream, data: bytes) -> bytes:
        counted["reads"] += 1
        return gather(self, data)

    monkeypatch.setattr(GatheringStream, "_gather", count)
    return counted


async def test_a_few_streams_are_read_as_they_come_and_many_together(
    stub: StubProvider, reads: Counter[str]
) -> None:
    provider = AnthropicProvider(api_key=KEY, base_url=stub.url)
    crowd = backend_of(provider)._crowd
    told = []

    def is_back_at(count: int) -> bool:
        return crowd.open == count

    for others in (0, 10_000):
        crowd.open = others
        reads.clear()
        stub.script(WORDS)
        events = await collect(provider)
        # It has been one of them; its connection ends after the answer.
        await asyncio.to_thread(eventually, partial(is_back_at, others))
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert text == "word " * 60 + "last " * 12
        assert sum(isinstance(event, BlockEnd) for event in events) == 2
        assert isinstance(events[-1], Finished) and events[-1].usage.output_tokens == 73
        told.append((reads["reads"], sum(isinstance(event, TextDelta) for event in events)))
    # 30 deltas, each 20 ms after the other
    assert told[1][0] < told[0][0] / 2 and told[1][1] < told[0][1] / 2
    await asyncio.sleep(0.3)  # the end of the body, after the end of the answer
    assert stub.open_connections <= 2  # of two that may have met, none is left behind
    await provider.close()


async def test_a_connection_is_used_again(stub: StubProvider) -> None:
    """Or each question would wait for a handshake with the provider."""
    provider = AnthropicProvider(api_key=KEY, base_url=stub.url)
    for _ in range(3):
        stub.script(Reply(blocks=(Block("word " * 60),)))
        assert isinstance((await collect(provider))[-1], Finished)
        await asyncio.sleep(0.1)
    assert stub.connections == 1
    await provider.close()


def test_the_pause_grows_with_the_crowd_up_to_a_tenth_of_a_second() -> None:
    crowd = Crowd()
    assert crowd.pause == 0
    crowd.open = 100
    assert crowd.pause == pytest.approx(0.02)
    crowd.open = 5000
    assert crowd.pause == pytest.approx(0.1)


async def test_streams_that_break_or_are_left_count_no_longer(stub: StubProvider) -> None:
    provider = AnthropicProvider(api_key=KEY, base_url=stub.url)
    crowd = backend_of(provider)._crowd
    stub.script(Reply(blocks=(Block("word " * 40),), after_deltas=4, cut="end"))
    with pytest.raises(ProviderError):
        await collect(provider)
    stub.script(Reply(blocks=(Block("word " * 40),), after_deltas=4, cut="hang"))
    events = provider.stream(prompt(), config=CONFIG)
    async for event in events:
        if isinstance(event, TextDelta):
            assert crowd.open == 1
            break
    await events.aclose()
    stub.script(Reply(status=529))
    with pytest.raises(ProviderError):
        await collect(provider)
    # An answer in one piece has no chunks.
    await provider.complete(system="s", text="t", config=ModelConfig("anthropic", "claude-haiku-5-5"))
    await asyncio.sleep(0)
    assert crowd.open == 0
    await provider.close()
