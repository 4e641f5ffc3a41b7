"""The values of a question's journey: what was asked, what is known before it, and what became of it."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knowledge.answering.prompt import PROMPT_VERSION
from knowledge.answering.responses import Said
from knowledge.llm.base import Finished, Turn
from knowledge.llm.calls import Attempt
from knowledge.llm.prices import FREE_PROVIDERS
from knowledge.models import Answer, ModelSettings
from knowledge.retrieval.base import Filters, FoundPassage
from ragsite.core.config import config
from ragsite.core.observability import Stopwatch
from tenants.access import Principal
from tenants.budgets import Standing
from tenants.rates import NO_GRANT, Grant

if TYPE_CHECKING:
    from knowledge.answering.cache import CachedAnswer  # which counts the lives of journeys' answers


@dataclass(frozen=True)
class Question:
    """What was asked, as it was validated at the edge; ``collections`` are slugs or ids.

    ``turns`` are what a client that keeps its conversations itself says came before; those of a ``conversation`` are ours.
    ``takes_stale``: a cached answer will do that is to be made again. ``is_renewal``: it is made again because the corpus
    has moved on; what the model has said to the very same prompt holds.
    ``may_go_on``: when whoever asked has gone, its answer may go on for others who wait for it, and old ones are made again
    when they have been shown; else nothing outlasts it.
    """

    request_id: UUID
    text: str
    endpoint: str
    k: int | None = None
    collections: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    conversation: UUID | None = None
    turns: tuple[Turn, ...] = ()
    use_cache: bool = True
    takes_stale: bool = True
    is_renewal: bool = False
    may_go_on: bool = True
    grant: Grant = NO_GRANT


@dataclass(frozen=True)
class Prepared:
    """What the database knows before anything is looked for."""

    filters: Filters
    corpus_version: int
    embedding_model: str
    turns: tuple[Turn, ...]
    answers: tuple[Answer, ...]  # that the turns are of; none where the client keeps its conversation
    noticed: bool
    standings: tuple[Standing, ...] = ()
    models: ModelSettings | None = None


@dataclass
class Journey:
    """What is known of an answer so far, so that it can be stored however it ends."""

    question: Question
    principal: Principal
    watch: Stopwatch = field(default_factory=Stopwatch)
    # Until when models may be asked, by the monotonic clock: all of them together, from the question's arrival.
    deadline: float = field(default_factory=lambda: time.monotonic() + config().answer_seconds)
    standalone: str = ""
    depends_on: tuple[UUID, ...] = ()  # the documents behind what was said before
    passages: tuple[FoundPassage, ...] = ()
    sources: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    citations: list[dict[str, int]] = field(default_factory=list)
    marks: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[tuple[Attempt, str]] = field(default_factory=list)
    finished: Finished | None = None
    said: list[Said] = field(default_factory=list)
    answered: bool = False
    confidence: float = 0.0
    grounded: bool = False
    cache: str = "miss"
    cached: dict[str, Any] | None = None
    key: str = ""  # of the exact cache
    fingerprint: str = ""  # of the configuration that it is answered under
    found: "CachedAnswer | None" = None  # what the exact cache holds of it
    renewing: str = ""  # the key of a cached answer that is shown although it is to be made again
    has_moved: bool = False  # … because the corpus has moved on
    warnings: tuple[str, ...] = ()
    reserved: bool = False
    reserving: "asyncio.Task[bool] | None" = None  # which goes on when whoever asked has gone
    is_followed: Callable[[], Awaitable[bool]] | None = None  # while others may wait for it, too
    # As far as it had come when its asker stopped it, while others wait for the rest.
    stopped: Answer | None = None

    @property
    def holds_money(self) -> bool:
        """Whether something is, or is about to be, set aside for it."""
        task = self.reserving
        if self.reserved or task is None or not task.done():
            return self.reserved or task is not None
        return not task.cancelled() and task.exception() is None and task.result()

    def end_of_share(self, share: float) -> float:
        """When something on the way to the answer has had its share of the time that is left."""
        now = time.monotonic()
        return now + share * max(0.0, self.deadline - now)

    @property
    def tokens(self) -> int:
        """What its model calls have used."""
        calls = [attempt for attempt, _ in self.attempts if attempt.provider not in FREE_PROVIDERS]
        return sum(call.usage.prompt_tokens + call.usage.output_tokens for call in calls)

    def stop(self) -> None:
        """Whoever asked has heard enough; others wait for the rest."""
        self.stopped = self.to_answer(status="cancelled")

    def to_answer(self, *, status: str) -> Answer:
        finished = self.finished
        return Answer(
            id=self.question.request_id,
            user=self.principal.membership.user,
            role_name=self.principal.membership.role.name,
            question=self.question.text,
            standalone_question=self.standalone,
            text=self.text,
            sources=self.sources,
            citations=list(self.citations),
            marks=list(self.marks),
            document_ids=list(dict.fromkeys(UUID(s["document_id"]) for s in self.sources)),
            depends_on=list(self.depends_on),
            answered=self.answered,
            grounded=self.grounded,
            confidence=self.confidence,
            cache=self.cache,
            provider=self.cached["provider"] if self.cached else (finished.provider if finished else ""),
            model=self.cached["model"] if self.cached else (finished.model if finished else ""),
            fallback=bool(finished and finished.fallback),
            stop_reason=finished.stop_reason[:40] if finished else "",
            prompt_version=PROMPT_VERSION,
            input_tokens=sum(attempt.usage.prompt_tokens for attempt, _ in self.attempts),
            output_tokens=sum(attempt.usage.output_tokens for attempt, _ in self.attempts),
            latency_ms=self.watch.elapsed_ms,
            timings=self.watch.timings,
            endpoint=self.question.endpoint,
            status=status,
        )


def source_object(passage: FoundPassage) -> dict[str, Any]:
    """A source of the API's answer object."""
    return {
        "n": passage.n,
        "document_id": str(passage.document_id),
        "title": passage.title,
        "uri": passage.uri,
        "collection": passage.collection,
        "chunk_id": str(passage.chunk_id),
        "heading": passage.heading,
        "text": passage.text,
        "score": passage.score,
        "page": passage.page,
        "start": passage.start,
        "end": passage.end,
        "updated_at": passage.updated_at,
    }


def new_question_id(request: Any) -> UUID:
    """The request id names the answer."""
    return uuid.UUID(getattr(request, "request_id", "") or str(uuid.uuid4()))
