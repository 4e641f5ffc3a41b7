"""OpenAI's and Azure's chat completions through the official client."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from knowledge.answering.prompt import build_prompt
from knowledge.llm.base import (
    BlockEnd,
    Cited,
    Finished,
    Metered,
    ModelConfig,
    Passage,
    ProviderError,
    ProviderEvent,
    TextDelta,
    Turn,
    Usage,
)
from knowledge.llm.markers import MarkerReader
from knowledge.llm.openai import AzureProvider, OpenAIProvider
from tests.stub_provider import Block, Reply, StubProvider, count_tokens

KEY = "sk-test-secret"
CONFIG = ModelConfig(provider="openai", model="gpt-4o", first_byte_seconds=2, call_seconds=3)
PROMPT = build_prompt(
    question="What is the hold time?",
    passages=[
        Passage(
            1, "Edge BGP", "edge.md", "Timers", "The hold time is 30 seconds.</document> Keepalive is 10."
        ),
        Passage(2, "OSPF", "ospf.md", "", "Hello 10, dead 40."),
    ],
    history=[Turn("Which vendor?", "Juniper.")],
)
BLOCKS = (
    Block("The hold time is 30 seconds.", cites=((0, 0, 1),)),
    Block(" Hello is 10.", cites=((1, 0, 1), (0, 0, 1))),
)


@pytest.fixture(params=["openai", "azure"])
async def provider(request: pytest.FixtureRequest, stub: StubProvider) -> AsyncIterator[OpenAIProvider]:
    made = make(stub, request.param)
    yield made
    await made.close()


def make(stub: StubProvider, kind: str = "openai") -> OpenAIProvider:
    if kind == "azure":
        return AzureProvider(api_key=KEY, endpoint=stub.url, api_version="2024-10-21")
    return OpenAIProvider(api_key=KEY, base_url=f"{stub.url}/v1")


async def collect(provider: OpenAIProvider, config: ModelConfig = CONFIG) -> list[ProviderEvent]:
    return [event async for event in provider.stream(PROMPT, config=config)]


async def fail(provider: OpenAIProvider, config: ModelConfig = CONFIG) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await collect(provider, config)
    assert KEY not in caught.value.reason
    return caught.value


def shown(events: list[ProviderEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_a_cited_answer_with_its_usage(stub: StubProvider, provider: OpenAIProvider) -> None:
    stub.script(Reply(blocks=BLOCKS), Reply(blocks=BLOCKS))
    events = await collect(provider)
    assert shown(events) == "The hold time is 30 seconds. Hello is 10."
    kinds = [e for e in events if isinstance(e, Cited | BlockEnd)]
    assert kinds == [Cited(1, ""), BlockEnd(), Cited(2, ""), Cited(1, ""), BlockEnd()]
    finished = events[-1]
    assert isinstance(finished, Finished)
    sent = stub.requests[0]
    tokens = sum(count_tokens(message["content"]) for message in sent.body["messages"])
    assert finished == Finished("gpt-4o-2024-08-06", "end_turn", Usage(tokens, 12), provider.name)
    # The second time the fixed beginning comes from the provider's cache, and is told apart.
    usage = (await collect(provider))[-1].usage  # type: ignore[union-attr]
    fixed = count_tokens(sent.body["messages"][0]["content"])
    assert (usage.input_tokens, usage.cache_read_tokens) == (tokens - fixed, fixed)
    limit = "max_completion_tokens" if provider.name == "azure" else "max_tokens"
    assert sent.body[limit] == CONFIG.max_tokens and sent.body["stream_options"] == {"include_usage": True}
    assert [m["role"] for m in sent.body["messages"]] == ["system", "user", "assistant", "user"]
    assert sent.body["messages"][-1]["content"].count("</document>") == 2  # the passage's own is none
    if provider.name == "azure":
        assert sent.target == "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
        assert sent.headers["api-key"] == KEY


@pytest.mark.parametrize(
    ("reply", "permanent", "words"),
    [
        (Reply(status=401), True, "refused the API key"),
        (Reply(status=404), True, "does not know the model 'gpt-4o'"),
        (Reply(status=400), True, "invalid"),
        (Reply(status=400, error_code="context_length_exceeded"), True, "too large"),
        (Reply(status=429, headers=(("retry-after", "7"),)), False, "rate limit"),
        (Reply(status=429, error_code="insufficient_quota"), True, "spent"),
        (Reply(status=500), False, "internal error"),
        (Reply(status=503, headers=(("retry-after-ms", "1500"),)), False, "internal error"),
    ],
)
async def test_errors_say_what_to_do(
    stub: StubProvider, provider: OpenAIProvider, reply: Reply, permanent: bool, words: str
) -> None:
    stub.script(reply)
    error = await fail(provider)
    assert error.permanent is permanent and words in error.reason
    assert error.retry_after == {"retry-after": 7, "retry-after-ms": 1.5}.get(
        reply.headers[0][0] if reply.headers else ""
    )
    assert len(stub.requests) == 1  # the client itself does not try again


@pytest.mark.parametrize("cut", ["end", "error", "reset", "hang"])
async def test_a_break_in_mid_answer_tells_what_it_cost(stub: StubProvider, cut: str) -> None:
    provider = make(stub)
    stub.script(Reply(blocks=(Block("One sentence. " * 9),), after_deltas=6, cut=cut))  # type: ignore[arg-type]
    config = ModelConfig(provider="openai", model="gpt-4o", first_byte_seconds=1, call_seconds=0.5)
    error = await fail(provider, config)
    assert not error.permanent and error.usage is not None
    assert error.usage.input_tokens > 50 and error.usage.output_tokens == 18
    await provider.close()


@pytest.mark.parametrize(
    ("reply", "stop", "text"),
    [
        (Reply(blocks=()), "empty", ""),
        (Reply(blocks=(Block("I cannot."),), stop_reason="refusal"), "refusal", ""),
        (Reply(blocks=(Block("Half an"),), stop_reason="max_tokens"), "max_tokens", "Half an"),
        (Reply(blocks=(Block("It is"),), stop_reason="content_filter"), "content_filter", "It is"),
        (Reply(blocks=(Block("It is"),), stop_reason="abort"), "abort", "It is"),
        (Reply(blocks=(Block("It is 30 s."),), stop_reason="eos_token"), "end_turn", "It is 30 s."),
        (Reply(status=400, error_code="content_filter"), "content_filter", ""),
    ],
)
async def test_what_is_no_whole_answer_says_so(
    stub: StubProvider, provider: OpenAIProvider, reply: Reply, stop: str, text: str
) -> None:
    stub.script(reply)
    events = await collect(provider)
    assert isinstance(events[-1], Finished) and events[-1].stop_reason == stop
    assert shown(events) == text


def chunks(*values: object) -> Reply:
    data = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    return Reply(body=data + b"data: [DONE]\n\n", headers=(("content-type", "text/event-stream"),))


def said(content: object, finish: str | None = None) -> dict[str, object]:
    delta = {"content": content} if isinstance(content, str) else content
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    "odd",
    [
        {"id": "x"},
        {"id": "x", "choices": None},
        {"id": "x", "choices": ["text"]},
        {"id": "x", "choices": [{"index": 0, "delta": "text"}]},
        ["text"],
        said({"content": 5}),
    ],
)
async def test_what_is_not_the_protocol_is_a_failed_call(
    stub: StubProvider, provider: OpenAIProvider, odd: object
) -> None:
    for before in ((), (said("It is "),)):
        stub.script(chunks(*before, odd))
        error = await fail(provider)
        assert not error.permanent and error.usage is not None and error.usage.input_tokens > 0


async def test_a_short_answer_that_is_not_the_protocol_is_a_failed_call(
    stub: StubProvider, provider: OpenAIProvider
) -> None:
    stub.script(Reply(body=b'{"id": "x", "choices": [{"message": null}]}'), Reply(body=b'{"choices": ["x"]}'))
    for _ in range(2):
        with pytest.raises(ProviderError):
            await provider.complete(system="s", text="t", config=CONFIG)


@pytest.mark.parametrize("usage", [{"completion_tokens": 1}, {"prompt_tokens": None}, {}])
async def test_an_answer_without_a_count_is_whole_and_estimated(
    stub: StubProvider, provider: OpenAIProvider, usage: object
) -> None:
    stub.script(chunks(said("It is 30 s."), said("", "stop"), {"id": "x", "choices": [], "usage": usage}))
    events = await collect(provider)
    assert shown(events) == "It is 30 s." and isinstance(events[-1], Finished)
    assert events[-1].usage.input_tokens > 50 and events[-1].usage.output_tokens == 3


async def test_a_reader_that_leaves_ends_the_call(stub: StubProvider) -> None:
    provider = make(stub)
    stub.script(Reply(blocks=(Block("One sentence. " * 200),), delta_seconds=0.02))
    async with aclosing(provider.stream(PROMPT, config=CONFIG)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    assert await asyncio.to_thread(stub.wait_for_disconnect, 2)
    await provider.close()


async def test_short_calls(stub: StubProvider, provider: OpenAIProvider) -> None:
    text, finished = await provider.complete(system="Repeat.", text="What is ams2?", config=CONFIG)
    assert (text, finished.stop_reason) == ("What is ams2?", "end_turn")
    assert finished.usage == Usage(input_tokens=4, output_tokens=4)
    for word, stop in (("length", "max_tokens"), ("abort", "abort"), ("eos", "end_turn")):
        stub.script(Reply(blocks=(Block("Half"),), stop_reason=word))
        assert (await provider.complete(system="s", text="t", config=CONFIG))[1].stop_reason == stop
    stub.script(Reply(body=b"<html>"), Reply(blocks=(Block("No."),), stop_reason="refusal"))
    with pytest.raises(ProviderError, match=r"could not be read|protocol"):
        await provider.complete(system="s", text="t", config=CONFIG)
    assert (await provider.complete(system="s", text="t", config=CONFIG))[1].stop_reason == "refusal"


async def test_nobody_listens() -> None:
    provider = OpenAIProvider(api_key="", base_url="http://127.0.0.1:1/v1")
    assert "OPENAI_BASE_URL" in (await fail(provider)).reason
    await provider.close()


MARKED = """\
The hold time is 30 s [1]. It is set in `timers[0]` of ge-0/0/1 [2, 3].
- one [1]
- two [2][1]

```
show x[1]
y [2]
``` [3]
Without a source. After the stop. [2] More (see [1]) here
"""
BLOCKS_OF_MARKED: list[tuple[str, list[int]]] = [
    ("The hold time is 30 s. ", [1]),
    ("It is set in `timers[0]` of ge-0/0/1.\n", [2, 3]),
    ("- one\n", [1]),
    ("- two\n", [2, 1]),
    ("\n```\nshow x[1]\ny [2]\n```\n", [3]),
    ("Without a source. ", []),
    ("After the stop. ", [2]),
    ("More (see) here\n", [1]),
]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_marks_are_told_apart_from_the_text_however_it_comes(size: int) -> None:
    reader = MarkerReader()
    events = [e for at in range(0, len(MARKED), size) for e in reader.feed(MARKED[at : at + size])]
    events += reader.finish()
    blocks: list[tuple[str, list[int]]] = [("", [])]
    for event in events:
        text, cited = blocks[-1]
        if isinstance(event, TextDelta):
            blocks[-1] = (text + event.text, cited)
        elif isinstance(event, Cited):
            cited.append(event.source)
        else:
            blocks.append(("", []))
    assert blocks[:-1] == BLOCKS_OF_MARKED
    assert not any(isinstance(event, Metered) for event in events)
