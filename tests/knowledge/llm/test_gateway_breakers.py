"""What the gateway tells the breakers: of probes that succeed, fail or lose their reader, and of calls that end then."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from knowledge.llm.anthropic import AnthropicProvider
from knowledge.llm.base import ModelConfig, Prompt, ProviderEvent, TextDelta
from knowledge.llm.calls import Attempt
from knowledge.llm.extractive import ExtractiveProvider
from knowledge.llm.gateway import Gateway
from ragsite.core import breaker_rules
from ragsite.core.breaker import Breaker
from ragsite.core.breaker_rules import BreakerOpen, BreakerPolicy, Permit
from ragsite.core.redis import redis_connection
from tests.knowledge.llm.test_gateway import CONFIG, GOOD, PROMPT, QUICK, attempts, collect, text
from tests.stub_provider import Block, Reply, StubProvider

# The first failure opens it, the next call is the probe; a probe that is not given back is held for the whole test.
POLICY = BreakerPolicy(failures=1, open_seconds=0, successes=2, probe_seconds=60)
LONG = Reply(blocks=(Block("word " * 400),), delta_seconds=0.02)


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("test", POLICY)


@pytest.fixture
async def gateway(stub: StubProvider, breaker: Breaker) -> AsyncIterator[Gateway]:
    provider = AnthropicProvider(api_key="k", base_url=stub.url)
    made = Gateway([provider, ExtractiveProvider()], policy=QUICK, breakers=lambda name: breaker)
    yield made
    await made.close()


async def open_it(breaker: Breaker) -> None:
    await breaker.report(await breaker.admit(), "failure", reason="It hangs.")
    assert state(breaker) == "open"


def state(breaker: Breaker) -> str:
    found: Any = redis_connection().hget(breaker.key, "state")
    return str(found.decode())


async def probe_is_free(breaker: Breaker) -> None:
    """Waits until the next call may try it; takes that one's place."""
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await breaker.admit()).is_probe
                return
            except BreakerOpen:
                await asyncio.sleep(0.01)


async def test_two_probes_that_succeed_close_it_and_the_log_says_so(
    stub: StubProvider, gateway: Gateway, breaker: Breaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by capture_logs: another test of the same process may have set logging up for good.
    logged: list[tuple[str, ...]] = []

    def note(level: str) -> Any:
        return lambda event, **facts: logged.append(
            (level, event, facts["component"], facts["state"], facts["reason"])
        )

    logger = SimpleNamespace(info=note("info"), warning=note("warning"))
    monkeypatch.setattr(breaker_rules, "logger", logger)
    stub.script(GOOD, GOOD)
    await open_it(breaker)
    for after in ("half_open", "closed"):
        assert attempts(await collect(gateway)) == [("anthropic", "success")]
        assert state(breaker) == after
    assert logged == [
        ("warning", "breaker", "test", "open", "It hangs."),
        ("info", "breaker", "test", "half_open", ""),
        ("info", "breaker", "test", "closed", ""),
    ]


async def test_a_probe_that_fails_opens_it_again(
    stub: StubProvider, gateway: Gateway, breaker: Breaker
) -> None:
    stub.script(GOOD, Reply(status=401), Reply(blocks=(Block("Half of it"),), after_deltas=1, cut="end"))
    await open_it(breaker)
    await collect(gateway)
    # A request that is wrong tells nothing: another may try.
    assert attempts(await collect(gateway)) == [("anthropic", "permanent"), ("extractive", "success")]
    assert state(breaker) == "half_open"
    assert attempts(await collect(gateway)) == [("anthropic", "broken"), ("extractive", "success")]
    assert state(breaker) == "open"


async def test_a_probe_whose_reader_leaves_makes_way(
    stub: StubProvider, gateway: Gateway, breaker: Breaker
) -> None:
    stub.script(LONG)
    await open_it(breaker)
    async with aclosing(gateway.stream(PROMPT, [CONFIG])) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
        with pytest.raises(BreakerOpen):
            await breaker.admit()
    await probe_is_free(breaker)


async def test_a_short_call_that_is_given_up_makes_way(
    stub: StubProvider, gateway: Gateway, breaker: Breaker
) -> None:
    stub.script(Reply(wait_seconds=30))
    await open_it(breaker)
    task = asyncio.create_task(gateway.complete(system="s", text="t", models=[CONFIG]))
    while not stub.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await probe_is_free(breaker)


class Odd:
    """A provider with a fault that nobody has thought of."""

    name = "anthropic"

    async def stream(self, prompt: Prompt, *, config: ModelConfig) -> AsyncGenerator[ProviderEvent, None]:
        yield TextDelta("It is ")
        raise RuntimeError("odd")

    async def complete(self, **_: Any) -> Any:
        raise RuntimeError("odd")

    async def close(self) -> None: ...


async def test_a_fault_of_a_provider_is_a_failed_call_and_the_next_one_answers(breaker: Breaker) -> None:
    await open_it(breaker)
    gateway = Gateway([Odd(), ExtractiveProvider()], policy=QUICK, breakers=lambda name: breaker)
    events = await collect(gateway)
    assert attempts(events) == [("anthropic", "broken"), ("extractive", "success")]
    assert text(events).startswith("The hold time is 30 seconds.")
    broken = next(event for event in events if isinstance(event, Attempt))
    assert broken.usage.input_tokens > 50 and broken.usage.output_tokens == 2 and broken.estimated
    await breaker.report(await breaker.admit(), "unknown")  # the probe is not held
    seen: list[Attempt] = []
    with pytest.raises(Exception, match="see the log"):
        await gateway.complete(system="s", text="t", models=[CONFIG], on_attempt=seen.append)
    assert [attempt.status for attempt in seen] == ["permanent"]


class SlowToHear:
    """A breaker that is never done with being told."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def admit(self) -> Permit:
        return Permit()

    async def report(self, *_: object, **__: object) -> None:
        self.told.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("reply", [GOOD, Reply(status=401)])
async def test_a_call_is_handed_over_before_its_breaker_is_told(stub: StubProvider, reply: Reply) -> None:
    stub.script(reply)
    slow: Any = SlowToHear()
    provider = AnthropicProvider(api_key="k", base_url=stub.url)
    gateway = Gateway([provider, ExtractiveProvider()], policy=QUICK, breakers=lambda name: slow)
    seen: list[Attempt] = []

    async def read() -> None:
        async for event in gateway.stream(PROMPT, [CONFIG], on_cancelled=seen.append):
            if isinstance(event, Attempt):
                seen.append(event)

    task = asyncio.create_task(read())
    await asyncio.wait_for(slow.told.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [attempt.provider for attempt in seen] == ["anthropic"]
    await gateway.close()
