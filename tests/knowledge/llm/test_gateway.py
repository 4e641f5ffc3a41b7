import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from knowledge.answering.prompt import build_prompt
from knowledge.llm.anthropic import AnthropicProvider
from knowledge.llm.base import Finished, ModelConfig, Passage, ProviderError, TextDelta, Usage
from knowledge.llm.calls import Attempt, count_bytes
from knowledge.llm.extractive import ExtractiveProvider
from knowledge.llm.gateway import Gateway, GatewayEvent, Restarted, RetryPolicy
from knowledge.llm.wire import estimate_tokens
from tests.stub_provider import Block, Reply, StubProvider

CONFIG = ModelConfig(provider="anthropic", model="claude-haiku-5-5", first_byte_seconds=2, call_seconds=3)
QUICK = RetryPolicy(first_seconds=0.05, max_seconds=0.2)
PROMPT = build_prompt(
    question="What is the hold time?",
    passages=[Passage(1, "Edge BGP", "edge.md", "Timers", "The hold time is 30 seconds. Keepalive is 10.")],
)
GOOD = Reply(blocks=(Block("Thirty.", cites=((0, 0, 1),)),))


@pytest.fixture
async def gateway(stub: StubProvider) -> AsyncIterator[Gateway]:
    made = make(stub)
    yield made
    await made.close()


def make(stub: StubProvider, policy: RetryPolicy = QUICK) -> Gateway:
    first = AnthropicProvider(api_key="k", base_url=stub.url)
    return Gateway([first, ExtractiveProvider()], policy=policy)


async def collect(
    gateway: Gateway, config: ModelConfig = CONFIG, *, seconds: float = 5
) -> list[GatewayEvent]:
    deadline = time.monotonic() + seconds
    return [event async for event in gateway.stream(PROMPT, [config], deadline=deadline)]


def attempts(events: list[GatewayEvent]) -> list[tuple[str, str]]:
    return [(e.provider, e.status) for e in events if isinstance(e, Attempt)]


def text(events: list[GatewayEvent]) -> str:
    shown = ""
    for event in events:
        if isinstance(event, Restarted):
            shown = ""
        elif isinstance(event, TextDelta):
            shown += event.text
    return shown


def finished(events: list[GatewayEvent]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


async def test_the_first_provider_answers(stub: StubProvider, gateway: Gateway) -> None:
    stub.script(GOOD)
    events = await collect(gateway)
    assert text(events) == "Thirty."
    assert attempts(events) == [("anthropic", "success")]
    assert finished(events).fallback is False
    attempt = next(e for e in events if isinstance(e, Attempt))
    assert attempt.model == "claude-haiku-5-5"
    assert attempt.usage == finished(events).usage != Usage()
    assert attempt.seconds > 0


async def test_transient_errors_are_retried_with_growing_waits(stub: StubProvider) -> None:
    # Long enough that a busy machine does not turn them round.
    gateway = make(stub, replace(QUICK, first_seconds=0.3, max_seconds=0.6))
    stub.script(Reply(status=529), Reply(status=500), GOOD)
    events = await collect(gateway)
    assert attempts(events) == [("anthropic", "transient")] * 2 + [("anthropic", "success")]
    assert text(events) == "Thirty."
    assert finished(events).fallback is False
    first, second, third = (r.at for r in stub.requests)
    assert 0.25 < second - first < third - second
    await gateway.close()


async def test_three_tries_and_then_the_documents_are_quoted(stub: StubProvider, gateway: Gateway) -> None:
    stub.script(*[Reply(status=503)] * 4)
    events = await collect(gateway)
    assert attempts(events) == [("anthropic", "transient")] * 3 + [("extractive", "success")]
    assert finished(events).fallback is True
    assert finished(events).provider == "extractive"
    assert "30 seconds" in text(events)
    assert not any(isinstance(e, Restarted) for e in events)


async def test_permanent_errors_are_not_retried(stub: StubProvider, gateway: Gateway) -> None:
    stub.script(Reply(status=401))
    events = await collect(gateway)
    assert attempts(events) == [("anthropic", "permanent"), ("extractive", "success")]
    assert "ANTHROPIC_API_KEY" in next(e.reason for e in events if isinstance(e, Attempt))
    assert len(stub.requests) == 1


async def test_retry_after_comes_before_our_own_waits(stub: StubProvider) -> None:
    gateway = make(stub, replace(QUICK, first_seconds=3))
    stub.script(Reply(status=429, headers=(("retry-after", "0.2"),)), GOOD)
    began = time.monotonic()
    assert text(await collect(gateway)) == "Thirty."
    assert 0.2 <= time.monotonic() - began < 2
    await gateway.close()


async def test_a_wait_beyond_the_deadline_is_not_begun(stub: StubProvider, gateway: Gateway) -> None:
    stub.script(Reply(status=429, headers=(("retry-after", "60"),)))
    began = time.monotonic()
    events = await collect(gateway)
    assert time.monotonic() - began < 2
    assert attempts(events) == [("anthropic", "transient"), ("extractive", "success")]


async def test_after_the_deadline_no_model_is_asked(stub: StubProvider, gateway: Gateway) -> None:
    events = await collect(gateway, seconds=0)
    assert attempts(events) == [("extractive", "success")] and finished(events).fallback is True
    with pytest.raises(ProviderError, match="no time left"):
        await gateway.complete(system="s", text="t", models=[CONFIG], deadline=time.monotonic())
    assert stub.requests == []


async def test_a_short_call_ends_with_the_deadline(stub: StubProvider, gateway: Gateway) -> None:
    stub.script(Reply(wait_seconds=30))
    patient = replace(CONFIG, call_seconds=600)
    async with asyncio.timeout(20):
        with pytest.raises(ProviderError, match="in time"):
            await gateway.complete(system="s", text="t", models=[patient], deadline=time.monotonic() + 0.3)


async def test_a_call_ends_with_the_deadline(stub: StubProvider, gateway: Gateway) -> None:
    stub.script(Reply(wait_seconds=30))
    began = time.monotonic()
    events = await collect(gateway, seconds=0.4)
    assert time.monotonic() - began < 1.5
    assert attempts(events) == [("anthropic", "transient"), ("extractive", "success")]


async def test_a_call_of_which_nothing_is_heard_has_cost_what_was_sent(stub: StubProvider) -> None:
    gateway = make(stub, replace(QUICK, tries=1))
    short = replace(CONFIG, first_byte_seconds=0.3)
    stub.script(Reply(wait_seconds=30), Reply(status=529))
    for sent in (estimate_tokens(count_bytes(PROMPT)), 0):
        attempt = next(e for e in await collect(gateway, short) if isinstance(e, Attempt))
        assert (attempt.status, attempt.usage, attempt.estimated) == ("transient", Usage(sent), sent > 0)
    seen: list[Attempt] = []
    stub.script(Reply(wait_seconds=30))
    with pytest.raises(ProviderError):
        await gateway.complete(
            system="はい" * 10,
            text="ok",
            models=[replace(short, call_seconds=0.3)],
            on_attempt=seen.append,
        )
    assert [(attempt.usage, attempt.estimated) for attempt in seen] == [(Usage(input_tokens=16), True)]
    await gateway.close()


async def test_a_call_that_reaches_nobody_has_cost_nothing() -> None:
    nobody = AnthropicProvider(api_key="k", base_url="http://127.0.0.1:1")
    gateway = Gateway([nobody, ExtractiveProvider()], policy=replace(QUICK, tries=1))
    attempt = next(e for e in await collect(gateway) if isinstance(e, Attempt))
    assert (attempt.status, attempt.usage, attempt.estimated) == ("transient", Usage(), False)
    await gateway.close()


@pytest.mark.parametrize("cut", ["end", "error", "hang"])
async def test_a_break_after_text_restarts_with_the_next_provider(stub: StubProvider, cut: str) -> None:
    gateway = make(stub)
    stub.script(Reply(blocks=(Block("Forty-two, and then " * 5),), after_deltas=3, cut=cut))  # type: ignore[arg-type]
    events = await collect(gateway, replace(CONFIG, call_seconds=0.5))
    assert attempts(events) == [("anthropic", "broken"), ("extractive", "success")]
    assert sum(isinstance(e, Restarted) for e in events) == 1
    assert "Forty" not in text(events) and "30 seconds" in text(events)
    broken = next(e for e in events if isinstance(e, Attempt))
    assert broken.usage.input_tokens > 0 and broken.usage.output_tokens >= 9 and broken.estimated
    assert len(stub.requests) == 1
    await gateway.close()


@pytest.mark.parametrize(
    ("reply", "status", "restarts"),
    [
        (Reply(blocks=()), "empty", 0),
        (Reply(blocks=(), stop_reason="refusal"), "refused", 0),
        (Reply(blocks=(Block("I would"),), stop_reason="refusal"), "refused", 1),
    ],
)
async def test_no_answer_from_the_model_is_quoted_instead(
    stub: StubProvider, gateway: Gateway, reply: Reply, status: str, restarts: int
) -> None:
    stub.script(reply)
    events = await collect(gateway)
    assert attempts(events) == [("anthropic", status), ("extractive", "success")]
    assert sum(isinstance(e, Restarted) for e in events) == restarts
    assert text(events).startswith("The hold time is 30 seconds.")


async def test_an_answer_cut_at_max_tokens_stays(stub: StubProvider, gateway: Gateway) -> None:
    stub.script(Reply(blocks=(Block("Half"),), stop_reason="max_tokens"))
    events = await collect(gateway)
    assert (text(events), finished(events).stop_reason) == ("Half", "max_tokens")


async def test_a_reader_that_leaves_ends_the_call_and_learns_its_cost(
    stub: StubProvider, gateway: Gateway
) -> None:
    stub.script(Reply(blocks=(Block("word " * 400),), delta_seconds=0.02))
    left: list[Attempt] = []
    async with aclosing(gateway.stream(PROMPT, [CONFIG], on_cancelled=left.append)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    assert await asyncio.to_thread(stub.wait_for_disconnect, 2)
    assert [a.status for a in left] == ["cancelled"]
    assert left[0].usage.input_tokens > 0
    assert left[0].usage.output_tokens >= 3


async def test_a_cancelled_task_reports_too(stub: StubProvider, gateway: Gateway) -> None:
    stub.script(Reply(wait_seconds=30))
    left: list[Attempt] = []

    async def read() -> None:
        async for _ in gateway.stream(PROMPT, [CONFIG], on_cancelled=left.append):
            pass

    task = asyncio.create_task(read())
    while not stub.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [a.status for a in left] == ["cancelled"]
    assert await asyncio.to_thread(stub.wait_for_disconnect, 2)


async def test_without_a_model_the_documents_are_quoted() -> None:
    gateway = Gateway([ExtractiveProvider()])
    events = await collect(gateway)
    assert gateway.providers == ()
    assert finished(events).fallback is False
    assert attempts(events) == [("extractive", "success")]
    with pytest.raises(ProviderError, match="ANTHROPIC_API_KEY"):
        await gateway.complete(system="s", text="t", models=[CONFIG])


async def test_the_last_providers_failure_is_the_answer(stub: StubProvider) -> None:
    gateway = Gateway([AnthropicProvider(api_key="k", base_url=stub.url)], policy=QUICK)
    stub.script(*[Reply(status=529)] * 3)
    seen: list[GatewayEvent] = []
    with pytest.raises(ProviderError, match="overloaded"):
        async for event in gateway.stream(PROMPT, [CONFIG]):
            seen.append(event)
    assert attempts(seen) == [("anthropic", "transient")] * 3
    await gateway.close()


async def test_without_money_for_another_call_what_is_free_answers(
    stub: StubProvider, gateway: Gateway
) -> None:
    stub.script(Reply(status=529))
    seen: list[GatewayEvent] = []
    async for event in gateway.stream(PROMPT, [CONFIG, CONFIG], can_pay=lambda: not seen):
        seen.append(event)
    assert attempts(seen) == [("anthropic", "transient"), ("extractive", "success")]


async def test_without_money_and_nothing_that_is_free_there_is_no_answer(stub: StubProvider) -> None:
    gateway = Gateway([AnthropicProvider(api_key="k", base_url=stub.url)], policy=QUICK)
    with pytest.raises(ProviderError, match="no money"):
        async for _ in gateway.stream(PROMPT, [CONFIG], can_pay=lambda: False):
            pass
    assert stub.requests == []
    await gateway.close()


async def test_complete_is_one_call(stub: StubProvider, gateway: Gateway) -> None:
    stub.script(Reply(status=529))
    with pytest.raises(ProviderError):
        await gateway.complete(system="s", text="t", models=[CONFIG])
    assert len(stub.requests) == 1
    answer, _ = await gateway.complete(system="s", text="echo me", models=[CONFIG])
    assert answer == "echo me"


def test_waits_double_up_to_the_limit_with_jitter() -> None:
    policy = RetryPolicy()
    for tried, seconds in ((1, 1), (2, 2), (3, 4), (6, 30), (60, 30)):
        waits = {policy.wait_seconds(tried=tried, retry_after=None) for _ in range(50)}
        assert seconds * 0.9 <= min(waits) < max(waits) <= seconds * 1.1
    assert policy.wait_seconds(tried=1, retry_after=45) == 45
