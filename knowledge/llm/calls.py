"""One call to one provider, and what the ledger is told of it."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from knowledge.llm.base import (
    BlockEnd,
    Cited,
    Finished,
    Metered,
    ModelConfig,
    Prompt,
    Provider,
    ProviderError,
    TextDelta,
    Usage,
)
from knowledge.llm.prices import FREE_PROVIDERS
from knowledge.llm.wire import Cleaner, clean_words, estimate_tokens, size_of
from ragsite.core.breaker_rules import Permit

# The words of the providers for an answer that they would not give.
REFUSALS = frozenset({"refusal", "content_filter"})

AttemptStatus: TypeAlias = Literal[
    "success", "empty", "refused", "transient", "permanent", "broken", "cancelled"
]


@dataclass(frozen=True)
class Attempt:
    """One call to one provider, for the ledger; `seconds` is its wall time.

    `broken` failed after text had arrived, `cancelled` was given up by its reader. `estimated`: it has no count of the
    provider's to its end; what was sent and what had come are estimated. `reason` says why an attempt failed.
    """

    provider: str
    model: str
    status: AttemptStatus
    usage: Usage
    seconds: float
    reason: str = ""
    estimated: bool = False


def count_bytes(prompt: Prompt) -> int:
    """Of everything that is sent, in UTF-8."""
    passages = sum(size_of(p.title, p.uri, p.heading, p.text) for p in prompt.passages)
    history = sum(size_of(turn.question, turn.answer) for turn in prompt.history)
    return size_of(prompt.system, prompt.asked) + passages + history


def fit_config(config: ModelConfig, *, deadline: float, last: bool = False) -> ModelConfig:
    """A call may not outlive the question's deadline."""
    left = deadline - time.monotonic()
    if last or left >= config.call_seconds:
        return config
    left = max(left, 0.001)
    return replace(config, call_seconds=left, first_byte_seconds=min(config.first_byte_seconds, left))


class Call:
    """One call to one provider: passes its events on and remembers what the ledger needs.

    `config` is `wanted` with the time that is left; `sent` are the bytes of what is sent.
    """

    def __init__(self, *, provider: Provider, config: ModelConfig, wanted: ModelConfig, sent: int) -> None:
        self._provider = provider
        self.config = config
        self.wanted = wanted
        self.permit = Permit()
        self._started = time.monotonic()
        self._usage = Usage()
        self._sent, self._got = sent, 0
        self._finished: Finished | None = None

    @property
    def is_free(self) -> bool:
        return self._provider.name in FREE_PROVIDERS

    @property
    def has_text(self) -> bool:
        return self._got > 0

    @property
    def finished(self) -> Finished:
        assert self._finished is not None
        return self._finished

    @property
    def status(self) -> AttemptStatus:
        if self.finished.stop_reason in REFUSALS:
            return "refused"
        return "success" if self.has_text else "empty"

    def ran_out_of_our_time(self, attempt: Attempt) -> bool:
        """Cut short by the question's deadline, for which the provider is not to blame."""
        was_cut = self.config.call_seconds < self.wanted.call_seconds
        return was_cut and attempt.seconds >= 0.95 * self.config.call_seconds

    async def stream(self, prompt: Prompt) -> AsyncGenerator[TextDelta | Cited | BlockEnd, None]:
        cleaner = Cleaner()
        async with aclosing(self._provider.stream(prompt, config=self.config)) as events:
            async for event in events:
                if isinstance(event, Metered):
                    self._usage = event.usage
                elif isinstance(event, Finished):
                    self._finished = event
                    self._usage = event.usage
                elif isinstance(event, TextDelta):
                    self._got += size_of(event.text)
                    if text := cleaner.take(event.text):
                        yield TextDelta(text)
                elif isinstance(event, Cited):
                    yield replace(event, quote=clean_words(event.quote))
                else:
                    yield event
        if self._finished is None:
            raise ProviderError("The language model's answer broke off; try again.", permanent=False)

    async def complete(self, *, system: str, text: str) -> str:
        answer, self._finished = await self._provider.complete(system=system, text=text, config=self.config)
        self._usage, self._got = self._finished.usage, size_of(answer)
        return clean_words(answer)

    def fail(self, error: ProviderError) -> Attempt:
        self._usage = error.usage or self._usage
        if (error.unheard or self.has_text) and not self.is_free:
            self._estimate()
        if self.has_text:
            return self.attempt("broken", reason=error.reason)
        return self.attempt("permanent" if error.permanent else "transient", reason=error.reason)

    def cancel(self) -> Attempt:
        if self._finished is None and not self.is_free:
            self._estimate()
        return self.attempt("cancelled")

    def attempt(self, status: AttemptStatus, *, reason: str = "") -> Attempt:
        return Attempt(
            provider=self._provider.name,
            model=self._finished.model if self._finished else self.config.model,
            status=status,
            usage=self._usage,
            seconds=time.monotonic() - self._started,
            reason=reason,
            estimated=self._finished is None and self._usage != Usage(),
        )

    def _estimate(self) -> None:
        """What has been sent, where nobody has counted it, and what had come."""
        usage = self._usage
        sent = usage.input_tokens if usage.prompt_tokens else estimate_tokens(self._sent)
        got = max(usage.output_tokens, estimate_tokens(self._got))
        self._usage = replace(usage, input_tokens=sent, output_tokens=got)
