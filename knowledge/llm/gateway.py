"""The way to an answer through several providers: retry, then the next one, the extractive one last.

Every call to a provider passes ``Gateway._begin`` and ``Gateway._end``, whatever it is for: there the breakers are asked and
told. Each ends as an ``Attempt``, whatever became of it, and by those it is settled.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

import structlog

from knowledge.llm.base import (
    BlockEnd,
    Cited,
    Finished,
    ModelConfig,
    Prompt,
    Provider,
    ProviderError,
    TextDelta,
)
from knowledge.llm.calls import Attempt, Call, count_bytes, fit_config
from knowledge.llm.wire import size_of
from ragsite.core.background import in_background
from ragsite.core.breaker import Breaker, model_breaker
from ragsite.core.breaker_rules import BreakerOpen, Outcome

logger = structlog.get_logger(__name__)

NO_MODEL = "No language model is configured; set ANTHROPIC_API_KEY, OPENAI_API_KEY or AZURE_OPENAI_API_KEY."
EXTRACTIVE = ModelConfig(provider="extractive", model="extractive")
# What a call tells of its provider's health. A request that is wrong, or whose reader left, tells nothing.
_HEALTH: dict[str, Outcome] = {
    "success": "success",
    "empty": "success",
    "refused": "success",
    "transient": "failure",
    "broken": "failure",
}


@dataclass(frozen=True)
class RetryPolicy:
    """`tries` for each provider, waiting `first_seconds`, doubled up to `max_seconds`, ± `jitter` (a share).

    A provider's Retry-After replaces the wait.
    """

    tries: int = 3
    first_seconds: float = 1
    max_seconds: float = 30
    jitter: float = 0.1

    def wait_seconds(self, *, tried: int, retry_after: float | None) -> float:
        """Seconds to wait after the `tried`-th try (1-based) has failed."""
        if retry_after is not None:
            return retry_after
        wait = min(self.max_seconds, self.first_seconds * 2.0 ** (tried - 1))
        # Spreads the retries of many clients; nothing secret rests on it.
        return wait * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311


@dataclass(frozen=True)
class Restarted:
    """Forget the text so far: another provider begins again."""

    reason: str


GatewayEvent: TypeAlias = TextDelta | Cited | BlockEnd | Attempt | Restarted | Finished


class Gateway:
    """Tries models in the order that a call gives; the extractive answerer, where there is one, comes last.

    Args:
        breakers: of a provider, by its name.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        policy: RetryPolicy | None = None,
        breakers: Callable[[str], Breaker] = model_breaker,
    ) -> None:
        if not providers:
            raise ValueError("A gateway needs at least one provider; pass the extractive one.")
        self._providers = {provider.name: provider for provider in providers}
        self._policy = policy or RetryPolicy()
        self._breakers = breakers

    @property
    def providers(self) -> tuple[str, ...]:
        """The names of the providers of language models that are configured."""
        return tuple(name for name in self._providers if name != EXTRACTIVE.provider)

    async def stream(
        self,
        prompt: Prompt,
        models: Sequence[ModelConfig],
        *,
        deadline: float = math.inf,
        can_pay: Callable[[], bool] = lambda: True,
        on_cancelled: Callable[[Attempt], None] | None = None,
    ) -> AsyncGenerator[GatewayEvent, None]:
        """Answers `prompt`, with an `Attempt` for every call made and `Finished` last.

        Args:
            models: in the order in which they are tried; those of providers that are not configured are passed over.
            deadline: by the monotonic clock; no call begins after it, nor outlives it. The last provider is exempt, as
                somebody has to answer.
            can_pay: asked before every call that costs; where it says no, what is free answers.
            on_cancelled: called with the attempt that was under way when the reader went away, as a closed
                generator has no event left to tell what was spent. Must not block.

        Raises:
            ProviderError: the last one failed as well.
        """
        plan = [model for model in models if model.provider in self.providers]
        if EXTRACTIVE.provider in self._providers:
            plan.append(EXTRACTIVE)
        if not plan:
            raise ProviderError(NO_MODEL, permanent=True)
        sent = count_bytes(prompt)
        for index, model in enumerate(plan):
            last = index == len(plan) - 1
            tried = 0
            while (last or time.monotonic() < deadline) and (model is EXTRACTIVE or can_pay()):
                tried += 1
                config = fit_config(model, deadline=deadline, last=last)
                call = Call(provider=self._providers[model.provider], config=config, wanted=model, sent=sent)
                try:
                    await self._begin(call)
                except BreakerOpen as error:
                    if last:
                        raise _left_alone(error) from None
                    break
                try:
                    async with aclosing(call.stream(prompt)) as events:
                        async for event in events:
                            yield event
                except (GeneratorExit, asyncio.CancelledError):
                    if on_cancelled is not None:
                        on_cancelled(call.cancel())
                    self._release(call)
                    raise
                except Exception as raised:
                    failure = _expect(raised, call)
                    attempt = call.fail(failure)
                    try:
                        yield attempt
                    finally:
                        await self._end(call, attempt)
                    wait = self._policy.wait_seconds(tried=tried, retry_after=failure.retry_after)
                    give_up = (
                        failure.permanent
                        or call.has_text
                        or tried >= self._policy.tries
                        or time.monotonic() + wait >= deadline
                        or not can_pay()
                    )
                    if give_up and last:
                        raise failure from raised.__cause__
                    if not give_up:
                        await asyncio.sleep(wait)
                        continue
                    if call.has_text:
                        yield Restarted(failure.reason)
                    break
                # It is the reader's before anything is waited for: whoever is gone by then has it all the same.
                attempt = call.attempt(call.status)
                try:
                    yield attempt
                finally:
                    await self._end(call, attempt)
                # A refusal or an empty answer helps nobody; the next provider can still quote the documents.
                if call.status == "success" or last:
                    yield replace(call.finished, fallback=index > 0)
                    return
                if call.has_text:
                    yield Restarted("The language model declined to go on; the answer starts again.")
                break
        raise ProviderError("There is no money left to ask another language model.", permanent=True)

    async def complete(
        self,
        *,
        system: str,
        text: str,
        models: Sequence[ModelConfig],
        deadline: float = math.inf,
        on_attempt: Callable[[Attempt], None] = lambda attempt: None,
    ) -> tuple[str, Finished]:
        """One short call, to the first model whose provider is not left alone; not retried: its callers have a way
        without it.

        Args:
            deadline: by the monotonic clock; no call begins after it, nor outlives it.
            on_attempt: called with each call made, a failed or cancelled one too. Must not block.

        Raises:
            ProviderError: no model is configured, all are left alone, there is no time, or the call failed.
        """
        resting: BreakerOpen | None = None
        for model in models:
            if model.provider not in self.providers:
                continue
            if time.monotonic() >= deadline:
                raise ProviderError("There was no time left to ask a language model.", permanent=False)
            call = Call(
                provider=self._providers[model.provider],
                config=fit_config(model, deadline=deadline),
                wanted=model,
                sent=size_of(system, text),
            )
            try:
                await self._begin(call)
            except BreakerOpen as error:
                resting = error
                continue
            try:
                answer = await call.complete(system=system, text=text)
            except asyncio.CancelledError:
                on_attempt(call.cancel())
                self._release(call)
                raise
            except Exception as raised:
                failure = _expect(raised, call)
                attempt = call.fail(failure)
                on_attempt(attempt)
                await self._end(call, attempt)
                raise failure from raised.__cause__
            attempt = call.attempt(call.status)
            on_attempt(attempt)
            await self._end(call, attempt)
            return answer, call.finished
        raise _left_alone(resting) if resting else ProviderError(NO_MODEL, permanent=True)

    async def _begin(self, call: Call) -> None:
        """Before every call. Raises BreakerOpen."""
        if not call.is_free:
            call.permit = await self._breakers(call.wanted.provider).admit()

    async def _end(self, call: Call, attempt: Attempt) -> None:
        """After every call."""
        if call.is_free:
            return
        outcome = "unknown" if call.ran_out_of_our_time(attempt) else _HEALTH.get(attempt.status, "unknown")
        try:
            await self._breakers(call.wanted.provider).report(call.permit, outcome, reason=attempt.reason)
        except asyncio.CancelledError:
            self._release(call)
            raise

    def _release(self, call: Call) -> None:
        """A probe whose reader left makes way for another at once."""
        if call.permit.is_probe:
            in_background(self._breakers(call.wanted.provider).report(call.permit, "unknown"))

    async def close(self) -> None:
        for provider in self._providers.values():
            await provider.close()


def _expect(raised: Exception, call: Call) -> ProviderError:
    """A fault of a provider's, or of ours in asking it, fails the call and no more; as it tells nothing of the provider's
    health, it is permanent."""
    if isinstance(raised, ProviderError):
        return raised
    logger.error("model call failed unexpectedly", provider=call.wanted.provider, exc_info=raised)
    return ProviderError("The language model's answer could not be used; see the log.", permanent=True)


def _left_alone(error: BreakerOpen) -> ProviderError:
    return ProviderError(
        f"The language model has failed again and again; it is tried again in {error.retry_after:.0f} seconds.",
        permanent=False,
        retry_after=error.retry_after,
    )
