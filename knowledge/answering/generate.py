"""From passages to an answer: the prompt, the model's call, and what becomes of its words."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict

from knowledge.answering.citations import AnswerAssembler, Piece
from knowledge.answering.compress import compress_passages
from knowledge.answering.events import Event
from knowledge.answering.journey import Journey
from knowledge.answering.prompt import build_prompt
from knowledge.answering.responses import Response, hear
from knowledge.answering.spending import reserve_again
from knowledge.config import AnswerConfig
from knowledge.llm.base import Finished, Passage, Prompt, ProviderError, Turn
from knowledge.llm.calls import Attempt
from knowledge.llm.gateway import Gateway, GatewayEvent, Restarted
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem

DOES_NOT_SAY = "Your documents don't say."
NEAREST = " The passages nearest to your question are listed as sources."


def prompt_of(journey: Journey, *, turns: tuple[Turn, ...], config: AnswerConfig) -> Prompt:
    passages = [
        Passage(n=p.n, title=p.title, uri=p.uri, heading=p.heading, text=p.text) for p in journey.passages
    ]
    sent: Sequence[Passage] = passages
    if config.has_model:
        sent = compress_passages(passages, question=journey.standalone, tokens=config.prompt_tokens)
    return build_prompt(question=journey.standalone, passages=sent, history=turns, whole=passages)


async def generate_answer(
    journey: Journey,
    *,
    config: AnswerConfig,
    gateway: Gateway,
    prompt: Prompt,
    response: Response | None = None,
) -> AsyncGenerator[Event, None]:
    """Streams the answer into the journey.

    Args:
        response: what the model has said to this prompt before; it is not asked again.

    Raises:
        Problem: 503, no provider could answer.
    """
    assembler = AnswerAssembler(prompt.shown, sent=prompt.passages, question=prompt.question)

    def take(pieces: list[Piece]) -> list[Event]:
        events: list[Event] = []
        for piece in pieces:
            journey.text += piece.text
            if piece.text:
                events.append({"type": "answer_chunk", "data": piece.text})
            for citation in piece.citations:
                data = {"source": citation.source, "start": citation.start, "end": citation.end}
                journey.citations.append(data)
                events.append({"type": "citation", "data": data})
            for mark in piece.marks:
                journey.marks.append(asdict(mark))
                events.append({"type": "mark", "data": asdict(mark)})
        return events

    begun = time.perf_counter()
    first_byte = can_pay = True
    stream: AsyncGenerator[GatewayEvent, None]
    if response is not None:
        stream = response.stream()
    else:
        stream = gateway.stream(
            prompt,
            config.models,
            deadline=journey.deadline,
            can_pay=lambda: can_pay,
            on_cancelled=lambda attempt: journey.attempts.append((attempt, "answer")),
        )
    try:
        async with aclosing(stream) as events:
            async for event in events:
                if first_byte and not isinstance(event, Attempt | Restarted):
                    journey.watch.add("first_byte", time.perf_counter() - begun)
                    first_byte = False
                if isinstance(event, Attempt):
                    journey.attempts.append((event, "answer"))
                    if event.status != "success" and journey.reserved and can_pay:
                        can_pay = await run_db(
                            reserve_again,
                            membership=journey.principal.membership,
                            request_id=journey.question.request_id,
                            failed=event,
                        )
                elif isinstance(event, Restarted):
                    assembler.restart()
                    journey.text, journey.citations, journey.marks = "", [], []
                    journey.said.clear()
                    yield {"type": "restart", "data": {"reason": event.reason}}
                elif isinstance(event, Finished):
                    journey.finished = event
                else:
                    hear(journey.said, event)
                    for out in take(assembler.feed(event)):
                        yield out
    except ProviderError as error:
        raise Problem(
            503,
            "model-unavailable",
            f"No answer could be made: {error.reason} Search still works.",
            headers={"Retry-After": "30"},
        ) from None
    finally:
        journey.watch.add("generate", time.perf_counter() - begun)
    is_cut = journey.finished is not None and not journey.finished.is_whole
    for out in take(assembler.finish(is_cut=is_cut)):
        yield out
    if not journey.text.strip():  # refused or empty everywhere: that is said, not shown as nothing
        journey.text = DOES_NOT_SAY + NEAREST
        yield {"type": "answer_chunk", "data": journey.text}
    journey.grounded = assembler.is_grounded
    journey.confidence = round(journey.confidence * assembler.support, 4)
    # A model that cites nothing has, by its instructions, found nothing.
    journey.answered = bool(journey.citations)
