"""Models behind OpenAI's chat-completions protocol, through the official client: OpenAI, vLLM, Ollama, Azure OpenAI."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from typing import Any, NoReturn

import httpx2
import openai
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from knowledge.llm.base import (
    Finished,
    Metered,
    ModelConfig,
    Passage,
    Prompt,
    ProviderError,
    ProviderEvent,
    Usage,
)
from knowledge.llm.markers import INSTRUCTION, MarkerReader
from knowledge.llm.wire import (
    FAILURES,
    client_timeout,
    estimate_tokens,
    may_have_arrived,
    next_event,
    parse_retry_after,
    size_of,
    until,
)

DEFAULT_BASE_URL = "https://api.openai.com/v1"
# What other servers say of a whole answer is here, too; any other reason is passed on as it is.
_STOP_REASONS = {
    "stop": "end_turn",
    "eos": "end_turn",
    "eos_token": "end_turn",
    "stop_sequence": "end_turn",
    "length": "max_tokens",
}
_TRANSIENT = frozenset({408, 409, 425, 429})
# These stay until somebody pays or raises a limit, so waiting does not help.
_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_FILTERED = "content_filter"
_FAILURES = (openai.OpenAIError, *FAILURES)


class OpenAIProvider:
    """OpenAI's chat completions, or a server that speaks them.

    Retries belong to the gateway, so the client makes none. The connection pool belongs to the event loop that first
    used it: one provider for each loop, closed in that loop.

    Args:
        api_key: may be empty for a server of one's own.
        base_url: with its `/v1`; None: OpenAI's.
    """

    name = "openai"
    _label, _variable = "OpenAI", "OPENAI_API_KEY, OPENAI_BASE_URL and RAGSITE_OPENAI_MODEL"

    def __init__(self, *, api_key: str, base_url: str | None = None) -> None:
        self._client = openai.AsyncOpenAI(
            api_key=api_key or "none", base_url=base_url or DEFAULT_BASE_URL, max_retries=0
        )
        # The older name, which other servers know; OpenAI's reasoning models know the newer one alone.
        self._limit = "max_tokens" if base_url else "max_completion_tokens"

    async def stream(self, prompt: Prompt, *, config: ModelConfig) -> AsyncGenerator[ProviderEvent, None]:
        """Answers `prompt` from its passages; see Provider.stream.

        The protocol tells its usage at the end alone: what is cut off before is estimated from the text.
        """
        deadline = time.monotonic() + config.call_seconds
        first_byte = min(deadline, time.monotonic() + config.first_byte_seconds)
        messages = _messages(prompt)
        meter = _Meter(model=config.model, sent=size_of(*(str(m.get("content")) for m in messages)))
        response: openai.AsyncStream[ChatCompletionChunk] | None = None
        try:
            async with until(first_byte):
                response = await self._client.chat.completions.create(
                    model=config.model,
                    messages=messages,
                    stream=True,
                    stream_options={"include_usage": True},
                    timeout=client_timeout(config),
                    **self._limits(config),
                )
                chunks = aiter(response)
                chunk = await anext(chunks, None)
            yield Metered(meter.usage_so_far())
            while chunk is not None:
                for event in meter.read(chunk):
                    yield event
                chunk = await next_event(chunks, deadline)
            if not meter.stop_reason:
                raise ProviderError(f"{self._label}'s answer broke off; try again.", permanent=False)
            for event in meter.reader.finish():
                yield event
            yield meter.finish(provider=self.name)
        except ProviderError as error:
            error.usage = meter.usage_so_far()
            raise
        except _FAILURES as error:
            if _is_filtered(error):
                yield Finished(config.model, _FILTERED, Usage(), self.name)
                return
            self._raise_mapped(error, config=config, usage=meter.usage_so_far() if response else None)
        finally:
            if response is not None:
                await response.close()

    async def complete(self, *, system: str, text: str, config: ModelConfig) -> tuple[str, Finished]:
        try:
            async with asyncio.timeout(config.call_seconds):
                answer = await self._client.chat.completions.create(
                    model=config.model,
                    messages=[{"role": "system", "content": system}, {"role": "user", "content": text}],
                    timeout=client_timeout(config),
                    **self._limits(config),
                )
            return self._read_whole(answer, config=config, sent=size_of(system, text))
        except _FAILURES as error:
            if _is_filtered(error):
                return "", Finished(config.model, _FILTERED, Usage(), self.name)
            self._raise_mapped(error, config=config, usage=None)

    def _read_whole(self, answer: object, *, config: ModelConfig, sent: int) -> tuple[str, Finished]:
        if not isinstance(answer, ChatCompletion) or not answer.choices:
            # The client hands a body that is not JSON through as it came.
            raise ProviderError(
                f"The server does not speak OpenAI's protocol; check {self._variable}.", permanent=True
            )
        choice = answer.choices[0]
        shown = (choice.message.content or "").strip()
        reason = choice.finish_reason or "stop"
        stop = "refusal" if choice.message.refusal else _STOP_REASONS.get(reason, str(reason))
        if not shown and stop == "end_turn":
            stop = "empty"
        usage = _read_usage(answer.usage) or Usage(estimate_tokens(sent), estimate_tokens(size_of(shown)))
        return shown, Finished(answer.model or config.model, stop, usage, self.name)

    async def close(self) -> None:
        await self._client.close()

    def _limits(self, config: ModelConfig) -> dict[str, Any]:
        return {self._limit: config.max_tokens}

    def _raise_mapped(self, error: Exception, *, config: ModelConfig, usage: Usage | None) -> NoReturn:
        if isinstance(error, openai.APIStatusError):
            raise self._map_status(error, model=config.model) from error
        if getattr(error, "code", None) in _SPENT:
            raise ProviderError(self._spent, permanent=True, usage=usage) from error
        if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException | TimeoutError):
            reason = f"{self._label} did not answer in time; try again later."
        elif usage is not None:
            reason = f"{self._label}'s answer broke off; try again."
        elif isinstance(error, openai.APIConnectionError | httpx2.HTTPError):
            reason = f"{self._label} cannot be reached; check the network and {self._variable}."
        else:
            reason = f"{self._label}'s answer could not be read; check {self._variable} and try again."
        raise ProviderError(reason, permanent=False, usage=usage, unheard=may_have_arrived(error)) from error

    @property
    def _spent(self) -> str:
        return f"The {self._label} account is spent; raise its limit."

    def _map_status(self, error: openai.APIStatusError, *, model: str) -> ProviderError:
        status = error.status_code
        if error.code in _SPENT:
            return ProviderError(self._spent, permanent=True)
        if status in (401, 403):
            reason = f"{self._label} refused the API key; check {self._variable}."
        elif status == 404:
            reason = f"{self._label} does not know the model '{model}'; check {self._variable}."
        elif status == 413 or error.code == "context_length_exceeded":
            reason = f"The question with its passages is too large for {self._label}; ask with a smaller k."
        elif status == 429:
            reason = f"{self._label}'s rate limit is reached; try again later."
        elif status >= 500 or status in _TRANSIENT:
            reason = f"{self._label} had an internal error ({status}); try again later."
        else:
            reason = f"{self._label} refused the request as invalid; check {self._variable}."
        return ProviderError(
            reason,
            permanent=status < 500 and status not in _TRANSIENT,
            retry_after=parse_retry_after(error.response.headers),
        )


class AzureProvider(OpenAIProvider):
    """Azure OpenAI: the model of a call is the name of a deployment.

    Args:
        endpoint: `https://<resource>.openai.azure.com`.
    """

    name = "azure"
    _label, _variable = (
        "Azure OpenAI",
        "AZURE_OPENAI_API_KEY, AZURE_OPENAI_ENDPOINT and AZURE_OPENAI_DEPLOYMENT",
    )

    def __init__(self, *, api_key: str, endpoint: str, api_version: str) -> None:
        self._client = openai.AsyncAzureOpenAI(
            api_key=api_key, azure_endpoint=endpoint, api_version=api_version, max_retries=0
        )
        self._limit = "max_completion_tokens"


class _Meter:
    """Turns chunks into our events and keeps count of what they cost."""

    def __init__(self, *, model: str, sent: int) -> None:
        self.model = model
        self.stop_reason = ""
        self.reader = MarkerReader()
        self._sent = sent
        self._got = 0
        self._refused = False
        self._usage: Usage | None = None

    def read(self, chunk: ChatCompletionChunk) -> Iterable[ProviderEvent]:
        self.model = chunk.model or self.model
        if (usage := _read_usage(chunk.usage)) is not None:
            self._usage = usage
            yield Metered(usage)
        for choice in chunk.choices:  # Azure's first one has none, but what its filter says of the prompt
            if choice.delta and choice.delta.refusal:
                self._refused = True
            if choice.delta and choice.delta.content:
                self._got += size_of(choice.delta.content)
                yield from self.reader.feed(choice.delta.content)
            if choice.finish_reason:
                self.stop_reason = _STOP_REASONS.get(choice.finish_reason, str(choice.finish_reason))

    def usage_so_far(self) -> Usage:
        return self._usage or Usage(
            input_tokens=estimate_tokens(self._sent), output_tokens=estimate_tokens(self._got)
        )

    def finish(self, *, provider: str) -> Finished:
        stop = "refusal" if self._refused else self.stop_reason
        if not self._got and stop == "end_turn":
            stop = "empty"
        return Finished(model=self.model, stop_reason=stop, usage=self.usage_so_far(), provider=provider)


def _read_usage(usage: CompletionUsage | None) -> Usage | None:
    """Here `prompt_tokens` holds what came from the cache, which our `input_tokens` leaves out. `None` without a count."""
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    details = usage.prompt_tokens_details
    read = (details.cached_tokens or 0) if details else 0
    written = (details.cache_write_tokens or 0) if details else 0
    return Usage(
        input_tokens=max(0, usage.prompt_tokens - read - written),
        output_tokens=usage.completion_tokens,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def _is_filtered(error: Exception) -> bool:
    """Azure refuses a prompt that its content filter does not like with a status, before any answer."""
    return isinstance(error, openai.APIError) and error.code == _FILTERED


def _messages(prompt: Prompt) -> list[ChatCompletionMessageParam]:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": prompt.system.rstrip() + "\n" + INSTRUCTION}
    ]
    for turn in prompt.history:
        if turn.question.strip() and turn.answer.strip():
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer})
    documents = "\n\n".join(_document(passage) for passage in prompt.passages)
    messages.append({"role": "user", "content": f"{documents}\n\nQuestion: {prompt.asked}"})
    return messages


def _document(passage: Passage) -> str:
    about = " · ".join(part for part in (passage.title, passage.heading, passage.uri) if part)
    # A document's own text must not be able to end it.
    inside = f"{about}\n\n{passage.text}".replace("</document", "<\u200b/document")
    return f'<document number="{passage.n}">\n{inside}\n</document>'
