import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from knowledge.answering.prompt import build_prompt
from knowledge.llm.anthropic import AnthropicProvider
from knowledge.llm.base import (
    BlockEnd,
    Cited,
    Finished,
    Metered,
    ModelConfig,
    Passage,
    Prompt,
    ProviderError,
    ProviderEvent,
    TextDelta,
    Turn,
)
from knowledge.llm.wire import parse_retry_after
from tests.stub_provider import Block, Reply, StubProvider

KEY = "sk-ant-test-secret"
CONFIG = ModelConfig(provider="anthropic", model="claude-haiku-5-5")
TIMERS = "Hold time is 30 seconds on every eBGP session.\n\n" + "The route servers offer no BFD at all. " * 8
PASSAGES = (
    Passage(1, "Edge BGP policy", "standards/edge.md", "Session parameters", TIMERS),
    Passage(2, "OSPF design", "standards/ospf.md", "", "OSPF uses hello 10 and dead 40 seconds."),
)


@pytest.fixture
async def provider(stub: StubProvider) -> AsyncIterator[AnthropicProvider]:
    made = AnthropicProvider(api_key=KEY, base_url=stub.url)
    yield made
    await made.close()


def prompt(question: str = "What is the hold time?", history: tuple[Turn, ...] = ()) -> Prompt:
    return build_prompt(question=question, passages=PASSAGES, history=history)


async def collect(provider: AnthropicProvider, config: ModelConfig = CONFIG) -> list[ProviderEvent]:
    return [event async for event in provider.stream(prompt(), config=config)]


async def fail(provider: AnthropicProvider, config: ModelConfig = CONFIG) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await collect(provider, config)
    assert KEY not in caught.value.reason
    return caught.value


async def test_a_cited_answer(stub: StubProvider, provider: AnthropicProvider) -> None:
    stub.script(
        Reply(
            blocks=(
                Block("Thirty seconds.", cites=((0, 0, 1),)),
                Block(" Also:"),
                Block("OSPF.", cites=((1, 0, 1),)),
            )
        )
    )
    events = await collect(provider)
    shown = [e for e in events if not isinstance(e, Metered | TextDelta)]
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "Thirty seconds. Also:OSPF."
    assert shown[:5] == [
        Cited(1, "Hold time is 30 seconds on every eBGP session.\n\n"),
        BlockEnd(),
        BlockEnd(),
        Cited(2, "OSPF uses hello 10 and dead 40 seconds."),
        BlockEnd(),
    ]
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.model, finished.stop_reason, finished.provider) == (
        "claude-haiku-5-5",
        "end_turn",
        "anthropic",
    )
    assert finished.usage.input_tokens > 50
    assert finished.usage.output_tokens == 5
    assert finished.usage.cache_write_tokens > 100


async def test_the_request(stub: StubProvider, provider: AnthropicProvider) -> None:
    history = (Turn("Who are you?", "A search."), Turn("Lost?", "  "))
    async for _ in provider.stream(prompt(history=history), config=CONFIG):
        pass
    body = stub.requests[0].body
    assert "temperature" not in body
    assert body["max_tokens"] == 1000
    assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert [m["role"] for m in body["messages"]] == ["user", "assistant", "user"]
    first, second, question = body["messages"][-1]["content"]
    assert first["title"] == "Edge BGP policy"
    assert first["context"] == "Session parameters · standards/edge.md"
    assert first["citations"] == {"enabled": True}
    blocks = [b["text"] for b in first["source"]["content"]]
    assert "".join(blocks) == TIMERS
    assert len(blocks) >= 2
    assert second["context"] == "standards/ospf.md"
    assert question == {"type": "text", "text": "What is the hold time?"}


@pytest.mark.parametrize(
    ("model", "extra"),
    [
        ("claude-haiku-5-5", {"thinking": {"type": "disabled"}}),
        ("claude-sonnet-5-5", {"thinking": {"type": "between_tools"}}),
        ("claude-opus-5-5", {"output_config": {"effort": "low"}}),
        ("claude-haiku-4-5", {}),
    ],
)
async def test_no_model_thinks_before_it_quotes(
    stub: StubProvider, provider: AnthropicProvider, model: str, extra: dict[str, object]
) -> None:
    await collect(provider, ModelConfig(provider="anthropic", model=model))
    body = stub.requests[0].body
    assert {k: body[k] for k in ("thinking", "output_config") if k in body} == extra


async def test_the_system_prompt_is_read_from_the_cache_the_second_time(provider: AnthropicProvider) -> None:
    first, second = (await collect(provider))[-1], (await collect(provider))[-1]
    assert isinstance(first, Finished) and isinstance(second, Finished)
    assert first.usage.cache_read_tokens == 0
    assert second.usage.cache_write_tokens == 0
    assert second.usage.cache_read_tokens == first.usage.cache_write_tokens > 0


async def test_citations_before_their_text_and_thinking_blocks(
    stub: StubProvider, provider: AnthropicProvider
) -> None:
    stub.script(
        Reply(blocks=(Block("Dead is 40.", cites=((1, 0, 1),)),), citations_first=True, thinking=True)
    )
    events = [e for e in await collect(provider) if not isinstance(e, Metered)]
    assert isinstance(events[1], Cited)
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "Dead is 40."


@pytest.mark.parametrize(
    ("reply", "stop_reason"),
    [
        (Reply(blocks=(Block("Half an"),), stop_reason="max_tokens"), "max_tokens"),
        (Reply(blocks=(), stop_reason="refusal"), "refusal"),
        (Reply(blocks=()), "empty"),
        (Reply(blocks=(Block(""),)), "empty"),
    ],
)
async def test_the_stop_reason(
    stub: StubProvider, provider: AnthropicProvider, reply: Reply, stop_reason: str
) -> None:
    stub.script(reply)
    finished = (await collect(provider))[-1]
    assert isinstance(finished, Finished)
    assert finished.stop_reason == stop_reason


@pytest.mark.parametrize(
    ("status", "permanent", "word"),
    [
        (400, True, "invalid"),
        (401, True, "ANTHROPIC_API_KEY"),
        (402, True, "billing"),
        (403, True, "another model"),
        (404, True, "claude-haiku-5-5"),
        (413, True, "too large"),
        (429, False, "rate limit"),
        (500, False, "later"),
        (502, False, "later"),
        (503, False, "later"),
        (529, False, "overloaded"),
    ],
)
async def test_errors(
    stub: StubProvider, provider: AnthropicProvider, status: int, permanent: bool, word: str
) -> None:
    stub.script(Reply(status=status, headers=(("retry-after", "7"),), message=f"the key {KEY} is bad"))
    error = await fail(provider)
    assert error.permanent is permanent
    assert word in error.reason
    assert error.retry_after == 7
    assert error.usage is None
    assert len(stub.requests) == 1


async def test_a_spent_account_is_permanent(stub: StubProvider, provider: AnthropicProvider) -> None:
    stub.script(Reply(status=429, error_code="enforced_spend_limit_reached"))
    error = await fail(provider)
    assert error.permanent
    assert "spending limit" in error.reason


async def test_retry_after_as_milliseconds_and_as_a_date() -> None:
    import email.utils

    import httpx2

    assert parse_retry_after(httpx2.Headers({"retry-after-ms": "1500"})) == 1.5
    date = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 55 < (parse_retry_after(httpx2.Headers({"retry-after": date})) or 0) <= 60
    assert parse_retry_after(httpx2.Headers({"retry-after": "soon"})) is None
    assert parse_retry_after(httpx2.Headers({})) is None


async def test_no_first_byte_in_time(stub: StubProvider, provider: AnthropicProvider) -> None:
    stub.script(Reply(wait_seconds=30))
    began = time.monotonic()
    error = await fail(provider, ModelConfig("anthropic", "claude-haiku-5-5", first_byte_seconds=0.2))
    assert time.monotonic() - began < 3
    assert not error.permanent
    assert "in time" in error.reason
    assert await asyncio.to_thread(stub.wait_for_disconnect)


async def test_the_whole_call_is_limited(stub: StubProvider, provider: AnthropicProvider) -> None:
    stub.script(Reply(blocks=(Block("word " * 40),), after_deltas=5, cut="hang"))
    error = await fail(provider, ModelConfig("anthropic", "claude-haiku-5-5", call_seconds=0.5))
    assert not error.permanent
    assert error.usage is not None
    assert error.usage.input_tokens > 0
    assert error.usage.output_tokens >= 5 * 12 // 4
    assert await asyncio.to_thread(stub.wait_for_disconnect)


@pytest.mark.parametrize("cut", ["reset", "end", "error"])
async def test_a_break_in_mid_stream(stub: StubProvider, provider: AnthropicProvider, cut: str) -> None:
    stub.script(Reply(blocks=(Block("word " * 40),), after_deltas=4, cut=cut))  # type: ignore[arg-type]
    texts: list[str] = []
    with pytest.raises(ProviderError) as caught:
        async for event in provider.stream(prompt(), config=CONFIG):
            if isinstance(event, TextDelta):
                texts.append(event.text)
    assert not caught.value.permanent
    assert caught.value.usage is not None
    assert caught.value.usage.input_tokens > 0
    assert caught.value.usage.output_tokens >= 1
    if cut != "reset":  # a reset may overtake what was sent before it
        assert "".join(texts) == ("word " * 40)[:48]


async def test_a_short_answer_that_is_not_the_protocol_is_a_failed_call(
    stub: StubProvider, provider: AnthropicProvider
) -> None:
    odd = b'{"type": "message", "content": [{"type": "text", "text": "Yes."}], "model": "m", "usage": null}'
    stub.script(Reply(body=odd), Reply(body=b'{"type": "message", "content": null}'))
    for _ in range(2):
        with pytest.raises(ProviderError):
            await provider.complete(system="s", text="t", config=CONFIG)


async def test_closing_the_generator_ends_the_call_upstream(
    stub: StubProvider, provider: AnthropicProvider
) -> None:
    stub.script(Reply(blocks=(Block("word " * 400),), delta_seconds=0.02))
    async with aclosing(provider.stream(prompt(), config=CONFIG)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    assert await asyncio.to_thread(stub.wait_for_disconnect, 2)


async def test_cancelling_the_reader_ends_the_call_upstream(
    stub: StubProvider, provider: AnthropicProvider
) -> None:
    stub.script(Reply(blocks=(Block("a b"),), after_deltas=0, cut="hang"))
    task = asyncio.create_task(collect(provider))
    while not stub.requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(stub.wait_for_disconnect, 2)


async def test_nobody_there() -> None:
    provider = AnthropicProvider(api_key=KEY, base_url="http://127.0.0.1:9")
    error = await fail(provider)
    assert not error.permanent
    assert "reached" in error.reason
    await provider.close()


async def test_complete(stub: StubProvider, provider: AnthropicProvider) -> None:
    text, finished = await provider.complete(system="Repeat.", text="What is ams2?", config=CONFIG)
    assert text == "What is ams2?"
    assert finished.stop_reason == "end_turn"
    assert finished.usage.output_tokens > 0
    assert "stream" not in stub.requests[0].body


async def test_complete_fails_like_stream(stub: StubProvider, provider: AnthropicProvider) -> None:
    stub.script(
        Reply(status=529),
        Reply(wait_seconds=9),
        Reply(body=b"<html>", headers=(("content-type", "text/html"),)),
    )
    quick = ModelConfig("anthropic", "claude-haiku-5-5", call_seconds=0.3)
    for permanent, word in ((False, "overloaded"), (False, "in time"), (True, "ANTHROPIC_BASE_URL")):
        with pytest.raises(ProviderError) as caught:
            await provider.complete(system="s", text="t", config=quick)
        assert caught.value.permanent is permanent
        assert word in caught.value.reason


async def test_the_stub_refuses_what_the_api_refuses(stub: StubProvider, provider: AnthropicProvider) -> None:
    error = await fail(provider, ModelConfig("anthropic", "gpt-4o"))
    assert error.permanent and "gpt-4o" in error.reason
    error = await fail(provider, ModelConfig("anthropic", "claude-haiku-5-5", max_tokens=0))
    assert error.permanent and "invalid" in error.reason
