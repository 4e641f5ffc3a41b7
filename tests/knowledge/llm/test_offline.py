"""Work that nobody waits for: batches at half the price, and several tasks in one call."""

import json
from collections.abc import AsyncIterator
from datetime import date

import pytest

from knowledge.llm.anthropic import AnthropicProvider
from knowledge.llm.base import Finished, ModelConfig, ProviderError, Usage
from knowledge.llm.extractive import ExtractiveProvider
from knowledge.llm.gateway import Gateway
from knowledge.llm.offline import AnthropicBatches, Task, complete_together
from knowledge.llm.prices import DEFAULT_PRICES, price_usage
from tests.stub_provider import Block, Reply, StubProvider, count_tokens

CONFIG = ModelConfig(provider="anthropic", model="claude-haiku-5-5", max_tokens=50)
TASKS = [Task(f"q-{n}", "Write a question.", f"Passage number {n} about VLAN {n}") for n in range(12)]


@pytest.fixture
async def batches(stub: StubProvider) -> AsyncIterator[AnthropicBatches]:
    made = AnthropicBatches(api_key="k", base_url=stub.url)
    yield made
    await made.close()


async def test_a_batch_is_handed_over_waited_for_and_read(
    stub: StubProvider, batches: AnthropicBatches
) -> None:
    stub.batches.looks, stub.batches.failing = 2, {"q-3"}
    pk = await batches.submit(TASKS, config=CONFIG)
    outcomes = {o.key: o for o in await batches.wait(pk, config=CONFIG, poll_seconds=0.01)}
    assert set(outcomes) == {task.key for task in TASKS}
    assert outcomes["q-5"].answer == TASKS[5].text and outcomes["q-5"].finished is not None
    assert outcomes["q-3"].finished is None and "refused" in outcomes["q-3"].error
    assert [r.method for r in stub.requests][:4] == ["POST", "GET", "GET", "GET"]


async def test_a_batch_costs_half() -> None:
    usage = Usage(input_tokens=1000, output_tokens=100)

    def price(is_batch: bool) -> object:
        return price_usage(
            rows=DEFAULT_PRICES,
            provider="anthropic",
            model="claude-haiku-5-5",
            usage=usage,
            on=date(2026, 11, 1),
            is_batch=is_batch,
        )

    assert price(True) * 2 == price(False) > 0  # type: ignore[operator]


async def test_a_batch_may_be_cancelled_or_not_ended(stub: StubProvider, batches: AnthropicBatches) -> None:
    stub.batches.looks = 10**6
    pk = await batches.submit(TASKS[:2], config=CONFIG)
    with pytest.raises(ProviderError, match="not ended"):
        await batches.wait(pk, config=CONFIG, poll_seconds=0.01, seconds=0.03)
    await batches.cancel(pk, config=CONFIG)
    outcomes = await batches.wait(pk, config=CONFIG, poll_seconds=0.01)
    assert {o.error for o in outcomes} == {"The batch was cancelled before this task."}
    with pytest.raises(ProviderError) as gone:
        await batches.wait("msgbatch_gone", config=CONFIG)
    assert gone.value.permanent
    for tasks in ([], [TASKS[0], TASKS[0]]):
        with pytest.raises(ValueError, match="key of its own"):
            await batches.submit(tasks, config=CONFIG)


async def test_several_tasks_go_in_one_call_and_cost_less(stub: StubProvider) -> None:
    system = "Say whether the question is simple or complex. " * 20
    tasks = [Task(f"t{n}", system, f"Question {n}?") for n in range(5)]
    reply = [{"n": n + 1, "answer": f"simple {n}"} for n in range(4)]  # one is left out
    stub.script(Reply(blocks=(Block("Here: " + json.dumps(reply)),)))
    gateway = Gateway([AnthropicProvider(api_key="k", base_url=stub.url), ExtractiveProvider()])

    async def complete(*, system: str, text: str) -> tuple[str, Finished]:
        return await gateway.complete(system=system, text=text, models=[CONFIG])

    answers, (spent,) = await complete_together(tasks, complete=complete)
    assert answers == {f"t{n}": f"simple {n}" for n in range(4)}
    assert len(stub.requests) == 1
    alone = len(tasks) * count_tokens(system)
    assert spent.usage.prompt_tokens < alone / 2
    stub.script(Reply(blocks=(Block("no JSON"),)), Reply(status=401))
    assert (await complete_together(tasks, complete=complete))[0] == {}
    assert (await complete_together(tasks, complete=complete)) == ({}, [])
    await gateway.close()
