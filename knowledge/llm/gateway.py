"""The way to an answer through several providers: retry, then the next one, the extractive one last."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
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

CHARS_PER_TOKEN = 4
NO_MODEL = "No language model is configured; set ANTHROPIC_API_KEY to use one."


@dataclass(frozen=True)
class RetryPolicy:
    """`tries` for each provider, waiting `first_seconds`, doubled up to `max_seconds`, ± `jitter` (a share).

    A provider's Retry-After replaces the wait. Nothing is begun that cannot start before `deadline_seconds`
    after the question; the last provider is exempt, as somebody has to answer.
    """

    tries: int = 3
    first_seconds: float = 1
    max_seconds: float = 30
    jitter: float = 0.1
    deadline_seconds: float = 60

    def wait_seconds(self, *, tried: int, retry_after: float | None) -> float:
        """Seconds to wait after the `tried`-th try (1-based) has failed."""
        if retry_after is not None:
            return retry_after
        wait = min(self.max_seconds, self.first_seconds * 2.0 ** (tried - 1))
        # Spreads the retries of many clients; nothing secret rests on it.
        return wait * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311


AttemptStatus: TypeAlias = Literal[
    "success", "empty", "refused", "transient", "permanent", "broken", "cancelled"
]


@dataclass(frozen=True)
class Attempt:
    """One call to one provider, for the ledger; `seconds` is its wall time.

    `broken` failed after text had arrived, `cancelled` was given up by its reader; both have usage that is
    partly estimated. `reason` says why an attempt failed.
    """

    provider: str
    model: str
    status: AttemptStatus
    usage: Usage
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Restarted:
    """Forget the text so far: another provider begins again."""

    reason: str


GatewayEvent: TypeAlias = TextDelta | Cited | BlockEnd | Attempt | Restarted | Finished


class Gateway:
    """Tries `providers` in their order; the last one must always be able to answer."""

    def __init__(self, providers: Sequence[Provider], *, policy: RetryPolicy | None = None) -> None:
        if not providers:
            raise ValueError("A gateway needs at least one provider; pass the extractive one.")
        self._providers = tuple(providers)
        self._policy = policy or RetryPolicy()

    @property
    def has_model(self) -> bool:
        """Whether a language model is configured, in front of the extractive answerer."""
        return self._providers[0].name != "extractive"

    async def stream(
        self,
        prompt: Prompt,
        config: ModelConfig,
        *,
        on_cancelled: Callable[[Attempt], None] | None = None,
    ) -> AsyncGenerator[GatewayEvent, None]:
        """Answers `prompt`, with an `Attempt` for every call made and `Finished` last.

        Args:
            on_cancelled: called with the attempt that was under way when the reader went away, as a closed
                generator has no event left to tell what was spent. Must not block.

        Raises:
            ProviderError: the last provider failed as well.
        """
        started = time.monotonic()
        deadline = started + self._policy.deadline_seconds
        for index, provider in enumerate(self._providers):
            last = index == len(self._providers) - 1
            tried = 0
            while True:
                tried += 1
                call = _Call(provider=provider, config=_fit_config(config, deadline=deadline, last=last))
                try:
                    async with aclosing(call.stream(prompt)) as events:
                        async for event in events:
                            yield event
                except (GeneratorExit, asyncio.CancelledError):
                    if on_cancelled is not None:
                        on_cancelled(call.attempt("cancelled"))
                    raise
                except ProviderError as error:
                    yield call.fail(error)
                    wait = self._policy.wait_seconds(tried=tried, retry_after=error.retry_after)
                    give_up = (
                        error.permanent
                        or call.has_text
                        or tried >= self._policy.tries
                        or time.monotonic() + wait >= deadline
                    )
                    if give_up and last:
                        raise
                    if not give_up:
                        await asyncio.sleep(wait)
                        continue
                    if call.has_text:
                        yield Restarted(error.reason)
                    break
                yield call.attempt(call.status)
                # A refusal or an empty answer helps nobody; the next provider can still quote the documents.
                if call.status == "success" or last:
                    yield replace(call.finished, fallback=index > 0)
                    return
                if call.has_text:
                    yield Restarted("The language model declined to go on; the answer starts again.")
                break

    async def complete(self, *, system: str, text: str, config: ModelConfig) -> tuple[str, Finished]:
        """One short call to the first provider, not retried: its callers have a way without it.

        Raises:
            ProviderError: no model is configured, or the call failed.
        """
        if not self.has_model:
            raise ProviderError(NO_MODEL, permanent=True)
        return await self._providers[0].complete(system=system, text=text, config=config)

    async def close(self) -> None:
        for provider in self._providers:
            await provider.close()


def _fit_config(config: ModelConfig, *, deadline: float, last: bool) -> ModelConfig:
    """A call may not outlive the question's deadline."""
    left = deadline - time.monotonic()
    if last or left >= config.call_seconds:
        return config
    left = max(left, 0.001)
    return replace(config, call_seconds=left, first_byte_seconds=min(config.first_byte_seconds, left))


class _Call:
    """One call to one provider: passes its events on and remembers what the ledger needs."""

    def __init__(self, *, provider: Provider, config: ModelConfig) -> None:
        self._provider = provider
        self._config = config
        self._started = time.monotonic()
        self._usage = Usage()
        self._chars = 0
        self._finished: Finished | None = None

    @property
    def has_text(self) -> bool:
        return self._chars > 0

    @property
    def finished(self) -> Finished:
        assert self._finished is not None
        return self._finished

    @property
    def status(self) -> AttemptStatus:
        if self.finished.stop_reason == "refusal":
            return "refused"
        return "success" if self.has_text else "empty"

    async def stream(self, prompt: Prompt) -> AsyncGenerator[TextDelta | Cited | BlockEnd, None]:
        async with aclosing(self._provider.stream(prompt, config=self._config)) as events:
            async for event in events:
                if isinstance(event, Metered):
                    self._usage = event.usage
                elif isinstance(event, Finished):
                    self._finished = event
                    self._usage = event.usage
                else:
                    if isinstance(event, TextDelta):
                        self._chars += len(event.text)
                    yield event
        if self._finished is None:
            raise ProviderError("The language model's answer broke off; try again.", permanent=False)

    def fail(self, error: ProviderError) -> Attempt:
        self._usage = error.usage or self._usage
        if self.has_text:
            return self.attempt("broken", reason=error.reason)
        return self.attempt("permanent" if error.permanent else "transient", reason=error.reason)

    def attempt(self, status: AttemptStatus, *, reason: str = "") -> Attempt:
        usage = self._usage
        if status == "cancelled" and self._provider.name != "extractive":
            estimate = -(-self._chars // CHARS_PER_TOKEN)
            usage = replace(usage, output_tokens=max(usage.output_tokens, estimate))
        model = self._finished.model if self._finished else self._config.model
        if self._provider.name == "extractive":
            model = "extractive"
        return Attempt(
            provider=self._provider.name,
            model=model,
            status=status,
            usage=usage,
            seconds=time.monotonic() - self._started,
            reason=reason,
        )
