"""Anthropic's models through the official client: streaming, citations, usage and prompt caching."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NoReturn, cast

import anthropic
import httpx2
from anthropic import types

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
    Usage,
)
from knowledge.llm.framing import EventReader
from knowledge.llm.network import LIMITS, gather_streams
from knowledge.llm.sentences import partition_text
from knowledge.llm.wire import (
    FAILURES,
    client_timeout,
    end_body,
    estimate_tokens,
    may_have_arrived,
    next_event,
    parse_retry_after,
    size_of,
    until,
)

DEFAULT_BASE_URL = "https://api.anthropic.com"

# Models from 5.5 on think before they answer unless told otherwise, and what they think counts against
# max_tokens and the first byte. Quoting the right passage needs none of it. Each model has its own word for
# that; where thinking cannot be turned off, the lowest effort is asked for. Other models get no such field.
_QUICK: dict[str, dict[str, Any]] = {
    "claude-haiku-5-5": {"thinking": {"type": "disabled"}},
    "claude-sonnet-5-5": {"thinking": {"type": "between_tools"}},
    "claude-opus-5-5": {"output_config": {"effort": "low"}},
}

_ADVICE: dict[str, str] = {
    "authentication_error": "Anthropic refused the API key; check ANTHROPIC_API_KEY.",
    "permission_error": "The Anthropic API key may not use this model; choose another model or another key.",
    "billing_error": "The Anthropic account cannot pay for this call; check its billing settings.",
    "not_found_error": "Anthropic does not know the model '{model}'; check the model's name.",
    "request_too_large": "The question with its passages is too large for Anthropic; ask with a smaller k.",
    "invalid_request_error": "Anthropic refused the request as invalid; check the model's name and settings.",
    "rate_limit_error": "Anthropic's rate limit is reached; try again later.",
    "timeout_error": "Anthropic took too long to answer; try again later.",
    "overloaded_error": "Anthropic is overloaded; try again later.",
    "api_error": "Anthropic had an internal error; try again later.",
}
_TRANSIENT_TYPES = frozenset({"rate_limit_error", "timeout_error", "overloaded_error", "api_error"})
_TYPE_OF_STATUS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_FAILURES = (anthropic.AnthropicError, *FAILURES)
# These 429s stay until somebody raises a limit, so waiting does not help.
_SPENT = frozenset({"contract_spend_limit_reached", "enforced_spend_limit_reached"})


class AnthropicProvider:
    """Anthropic's Messages API.

    Retries belong to the gateway, so the client makes none. The connection pool belongs to the event loop
    that first used it: one provider for each loop, closed in that loop.
    """

    name = "anthropic"

    def __init__(self, *, api_key: str, base_url: str | None = None) -> None:
        client = anthropic.DefaultAsyncHttpxClient(limits=LIMITS)
        gather_streams(client)
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key, base_url=base_url or DEFAULT_BASE_URL, max_retries=0, http_client=client
        )

    async def stream(self, prompt: Prompt, *, config: ModelConfig) -> AsyncGenerator[ProviderEvent, None]:
        """Answers `prompt` from its passages; see Provider.stream.

        An error in mid-stream carries the usage so far; its output tokens are estimated from the text that
        had arrived, as Anthropic reports them at the end only.
        """
        deadline = time.monotonic() + config.call_seconds
        first_byte = min(deadline, time.monotonic() + config.first_byte_seconds)
        meter = _Meter(model=config.model)
        response: anthropic.AsyncStream[types.RawMessageStreamEvent] | None = None
        parts: AsyncIterator[list[dict[str, Any]]] | None = None
        try:
            async with until(first_byte):
                response = await self._client.messages.create(
                    model=config.model,
                    max_tokens=config.max_tokens,
                    system=system_blocks(prompt.system),
                    messages=_messages(prompt),
                    stream=True,
                    timeout=client_timeout(config),
                    **quick_options(config.model),
                )
                parts = _read_events(response.response)
                events = await anext(parts, None)
            while events is not None:
                for out in meter.read(events):
                    yield out
                events = None if meter.is_over else await next_event(parts, deadline)
            if not meter.is_over:
                raise ProviderError("Anthropic's answer broke off; try again.", permanent=False, unheard=True)
            yield meter.finish(provider=self.name)
        except ProviderError as error:
            error.usage = meter.usage_so_far()
            raise
        except _FAILURES as error:
            raise_mapped(error, config=config, usage=meter.usage_so_far())
        finally:
            if response is not None and parts is not None and meter.is_over:
                end_body(parts, response.close)
            elif response is not None:
                await response.close()

    async def complete(self, *, system: str, text: str, config: ModelConfig) -> tuple[str, Finished]:
        try:
            async with asyncio.timeout(config.call_seconds):
                message = await self._client.messages.create(
                    model=config.model,
                    max_tokens=config.max_tokens,
                    system=system_blocks(system),
                    messages=[{"role": "user", "content": text}],
                    timeout=client_timeout(config),
                    **quick_options(config.model),
                )
            if not isinstance(message, types.Message):
                # The client hands a body that is not JSON through as it came.
                raise ProviderError(
                    "The server at ANTHROPIC_BASE_URL does not speak Anthropic's protocol; check the address.",
                    permanent=True,
                )
            return read_message(message)
        except _FAILURES as error:
            raise_mapped(error, config=config, usage=None)

    async def close(self) -> None:
        await self._client.close()


def quick_options(model: str) -> dict[str, Any]:
    """What keeps a model from thinking at length."""
    return _QUICK.get(model, {})


def read_message(message: types.Message) -> tuple[str, Finished]:
    """The text of a whole answer, and its end."""
    answer = "".join(block.text for block in message.content if block.type == "text").strip()
    stop_reason = str(message.stop_reason or "end_turn")
    if not answer and stop_reason == "end_turn":
        stop_reason = "empty"
    usage = _merge_usage(Usage(), message.usage.to_dict())
    return answer, Finished(str(message.model), stop_reason, usage, AnthropicProvider.name)


async def _read_events(response: httpx2.Response) -> AsyncIterator[list[dict[str, Any]]]:
    """The events of a stream, those together that came together.

    The client's own way makes an object of its types of every token, which costs more than everything that is done with it.
    """
    reader = EventReader()
    async for data in response.aiter_bytes():
        events = reader.feed(data)
        wrong = next((at for at, event in enumerate(events) if event["type"] == "error"), None)
        if before := events[:wrong]:
            yield before
        if wrong is not None:
            raise anthropic.APIStatusError("an error in the stream", response=response, body=events[wrong])


class _Meter:
    """Turns Anthropic's events into ours and keeps count of what they cost."""

    def __init__(self, *, model: str) -> None:
        self.model = model
        self.stop_reason = "end_turn"
        self.usage: Usage | None = None
        self.got = 0
        self.is_over = False

    def read(self, events: Sequence[Mapping[str, Any]]) -> Iterable[ProviderEvent]:
        """What came together; its text is given on in one piece as far as nothing comes between."""
        text = ""
        for event in events:
            delta = event.get("delta") or {}
            if event["type"] == "content_block_delta" and delta["type"] == "text_delta":
                text += delta["text"]
                continue
            if text:
                yield from self._text(text)
                text = ""
            yield from self._read_other(event, delta)
        yield from self._text(text)

    def _read_other(self, event: Mapping[str, Any], delta: Mapping[str, Any]) -> Iterable[ProviderEvent]:
        kind = event["type"]
        if kind == "message_start":
            self.model = str(event["message"]["model"])
            self.usage = _merge_usage(Usage(), event["message"]["usage"])
            yield Metered(self.usage)
        elif kind == "content_block_start" and event["content_block"]["type"] == "text":
            yield from self._text(event["content_block"]["text"])
        elif kind == "content_block_delta" and delta["type"] == "citations_delta":
            citation = delta["citation"]
            # document_index counts the document blocks of the request: one a passage, in their order.
            if citation["type"] == "content_block_location":
                yield Cited(source=citation["document_index"] + 1, quote=citation["cited_text"])
        elif kind == "content_block_stop":
            yield BlockEnd()
        elif kind == "message_delta":
            self.stop_reason = str(delta.get("stop_reason") or self.stop_reason)
            self.usage = _merge_usage(self.usage or Usage(), event["usage"])
            yield Metered(self.usage)
        elif kind == "message_stop":
            self.is_over = True

    def _text(self, text: str) -> Iterable[ProviderEvent]:
        self.got += size_of(text)
        if text:
            yield TextDelta(text)

    def usage_so_far(self) -> Usage | None:
        if self.usage is None:
            return None
        return replace(self.usage, output_tokens=max(self.usage.output_tokens, estimate_tokens(self.got)))

    def finish(self, *, provider: str) -> Finished:
        empty = not self.got and self.stop_reason == "end_turn"
        return Finished(
            model=self.model,
            stop_reason="empty" if empty else self.stop_reason,
            usage=self.usage or Usage(),
            provider=provider,
        )


def system_blocks(system: str) -> list[types.TextBlockParam]:
    return [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]


def _messages(prompt: Prompt) -> list[types.MessageParam]:
    messages: list[types.MessageParam] = []
    for turn in prompt.history:
        if turn.question.strip() and turn.answer.strip():
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer})
    content: list[types.ContentBlockParam] = [_document(p) for p in prompt.passages]
    content.append({"type": "text", "text": prompt.asked})
    messages.append({"role": "user", "content": content})
    return messages


def _document(passage: Passage) -> types.DocumentBlockParam:
    # One content block a paragraph or group of sentences: a citation names whole blocks, so small blocks
    # make small quotes.
    blocks: list[types.TextBlockParam] = [
        {"type": "text", "text": passage.text[start:end]} for start, end in partition_text(passage.text)
    ]
    # The API refuses a document without visible text; the number keeps its place for document_index.
    blocks = blocks or [{"type": "text", "text": "(empty)"}]
    context = " · ".join(part for part in (passage.heading, passage.uri) if part)
    document: types.DocumentBlockParam = {
        "type": "document",
        "source": {"type": "content", "content": blocks},
        "citations": {"enabled": True},
        "title": passage.title or passage.uri or f"Document {passage.n}",
    }
    if context:
        document["context"] = context
    return document


def _merge_usage(seen: Usage, new: Mapping[str, Any]) -> Usage:
    """Usage is cumulative, and a field that a later event leaves out keeps its value."""

    def pick(name: str, old: int) -> int:
        value = new.get(name)
        return old if value is None else int(value)

    return Usage(
        input_tokens=pick("input_tokens", seen.input_tokens),
        output_tokens=pick("output_tokens", seen.output_tokens),
        cache_read_tokens=pick("cache_read_input_tokens", seen.cache_read_tokens),
        cache_write_tokens=pick("cache_creation_input_tokens", seen.cache_write_tokens),
    )


def raise_mapped(error: Exception, *, config: ModelConfig, usage: Usage | None) -> NoReturn:
    if isinstance(error, anthropic.APIStatusError):
        raise _map_status(error, model=config.model, usage=usage) from error
    if isinstance(error, anthropic.APITimeoutError | httpx2.TimeoutException | TimeoutError):
        reason = "Anthropic did not answer in time; try again later."
    elif usage is not None:
        reason = "Anthropic's answer broke off; try again."
    elif isinstance(error, anthropic.APIConnectionError | httpx2.HTTPError):
        reason = "Anthropic cannot be reached; check the network and ANTHROPIC_BASE_URL."
    else:
        reason = "Anthropic's answer could not be read; check ANTHROPIC_BASE_URL and try again."
    raise ProviderError(reason, permanent=False, usage=usage, unheard=may_have_arrived(error)) from error


def _map_status(error: anthropic.APIStatusError, *, model: str, usage: Usage | None) -> ProviderError:
    # An error inside a stream comes with status 200, so the type in the body is asked first.
    kind = cast("str | None", error.type)
    if kind not in _ADVICE:
        fallback: Literal["api_error", "invalid_request_error"] = (
            "invalid_request_error" if 400 <= error.status_code < 500 else "api_error"
        )
        kind = _TYPE_OF_STATUS.get(error.status_code, fallback)
    if error.error_code in _SPENT:
        return ProviderError(
            "The Anthropic account's spending limit is reached; raise it or wait for its next period.",
            permanent=True,
            usage=usage,
        )
    return ProviderError(
        _ADVICE[kind].format(model=model),
        permanent=kind not in _TRANSIENT_TYPES and error.status_code not in (408, 409),
        retry_after=parse_retry_after(error.response.headers),
        usage=usage,
    )
