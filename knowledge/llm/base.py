"""The port to language models: what goes in, what comes out as a stream, and what can go wrong."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True)
class Passage:
    """One retrieved passage; `n` is 1-based and is the number that the reader sees."""

    n: int
    title: str
    uri: str
    heading: str
    text: str


@dataclass(frozen=True)
class Turn:
    question: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """A question with everything that may be used to answer it; `history` is oldest first.

    `unconfirmed` are names and numbers of the question that no passage holds. `whole` are the passages before they were
    cut down for a model, where they were: what quotes them has no tokens to save.
    """

    system: str
    question: str
    passages: tuple[Passage, ...]
    history: tuple[Turn, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    whole: tuple[Passage, ...] = ()

    @property
    def shown(self) -> tuple[Passage, ...]:
        """The passages as the reader is shown them."""
        return self.whole or self.passages

    @property
    def asked(self) -> str:
        """The question as a model is asked it."""
        if not self.unconfirmed:
            return self.question
        return (
            f"{self.question}\n\n(The documents do not hold: {', '.join(self.unconfirmed)}. If the question takes that for "
            "granted, say first that the documents do not confirm it.)"
        )


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and its limits. `max_tokens` counts the thinking of models that always think."""

    provider: str
    model: str
    max_tokens: int = 1000
    first_byte_seconds: float = 10
    call_seconds: float = 30


@dataclass(frozen=True)
class Usage:
    """Tokens of one call; `input_tokens` leaves out what was read from or written to the prompt cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens


@dataclass(frozen=True)
class TextDelta:
    text: str


@dataclass(frozen=True)
class Cited:
    """The current text block rests on `quote`, a verbatim part of the passage with `n == source`; on no part in
    particular where `quote` is empty."""

    source: int
    quote: str


@dataclass(frozen=True)
class BlockEnd:
    """The current text block, with its citations, is complete."""


@dataclass(frozen=True)
class Metered:
    """What the provider has counted so far, so that a call that is cut off can still be settled."""

    usage: Usage


@dataclass(frozen=True)
class Finished:
    """The end of an answer.

    `stop_reason` is `end_turn`, `max_tokens`, `refusal`, `content_filter`, another word of the provider's own, or `empty`
    where the model ended without a text. `fallback` is set by the gateway: another than the first provider answered.
    """

    model: str
    stop_reason: str
    usage: Usage
    provider: str
    fallback: bool = False

    @property
    def is_whole(self) -> bool:
        """The model has said all that it wanted to; for any other reason, known or not, it was cut off."""
        return self.stop_reason == "end_turn"


ProviderEvent: TypeAlias = TextDelta | Cited | BlockEnd | Metered | Finished


class ProviderError(Exception):
    """A call that failed.

    Args:
        reason: one sentence that says what to do; never holds a key or a document's text.
        permanent: the same call would fail again, so it is not retried.
        retry_after: seconds that the provider asked to wait, if it did.
        usage: what the call had cost when it broke, if anything.
        unheard: it may have reached the provider, of which no more was heard; then it has cost what was sent at least.
    """

    def __init__(
        self,
        reason: str,
        *,
        permanent: bool,
        retry_after: float | None = None,
        usage: Usage | None = None,
        unheard: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        self.retry_after = retry_after
        self.usage = usage
        self.unheard = unheard


class Provider(Protocol):
    """One source of answers. Closing a stream's generator ends the call at once, upstream too."""

    name: str

    def stream(self, prompt: Prompt, *, config: ModelConfig) -> AsyncGenerator[ProviderEvent, None]:
        """Answers `prompt`; the last event is `Finished`. Raises ProviderError."""
        ...

    async def complete(self, *, system: str, text: str, config: ModelConfig) -> tuple[str, Finished]:
        """Answers `text` in one piece, without documents. Raises ProviderError."""
        ...

    async def close(self) -> None: ...
