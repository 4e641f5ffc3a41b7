"""An answer's events on their way to a client, in the format that was asked for."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Self
from uuid import UUID

from django.http import HttpRequest, StreamingHttpResponse
from redis.exceptions import RedisError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from knowledge.access import access_answer
from knowledge.answering.events import LINGER_SECONDS, STOPPED, Event, Readers
from knowledge.answering.record import answer_object, present_answers
from knowledge.answering.work import pour
from knowledge.models import Answer
from ragsite.core.background import in_background
from ragsite.core.problems import Problem
from tenants.models import Membership
from tenants.rest import dump_json

NDJSON, SSE = "application/x-ndjson", "text/event-stream"
HEARTBEAT_SECONDS = 15.0
LOOK_SECONDS = 0.5


class Pump:
    """Runs a generator of events in one task from its beginning to its end.

    The task carries the scope of the request that started it, although the middleware has left that scope by the time the
    body is sent; and time limits inside the generator belong to one task, whoever reads. The queue is not bounded: an
    answer is small, and a slow reader must not hold the model's connection open.
    """

    def __init__(self, events: AsyncGenerator[Event, None], *, readers: Readers | None = None) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._readers = readers
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(pour(events, self._queue))

    @classmethod
    async def start(cls, events: AsyncGenerator[Event, None], *, readers: Readers | None = None) -> Self:
        """Starts, and waits for the first event.

        Args:
            readers: where a reader who has left shows up again; without them the work ends with its reader.

        Raises:
            Problem, KeyError: whatever the generator raises before it.
        """
        pump = cls(events, readers=readers)
        try:
            first = await pump._queue.get()
            if first is None:
                await pump._task  # raises what ended it
        except asyncio.CancelledError:
            await pump.close()
            raise
        pump._first = first
        return pump

    _first: Event | None = None
    _begun = False
    _has_left = False

    async def read(self) -> AsyncGenerator[Event | None, None]:
        """The events, with a ``None`` whenever nothing came for 15 seconds; closing it ends the work, at once
        or when nobody has come back."""
        self._begun = True
        try:
            event = self._first
            while event is not None:
                yield event
                while True:
                    try:
                        # Not wait_for: before Python 3.12 it forgets a cancellation that comes with an event.
                        async with asyncio.timeout(HEARTBEAT_SECONDS):
                            event = await self._queue.get()
                        break
                    except TimeoutError:
                        yield None
            await self._task
        finally:
            if self._readers is None:
                await self.close()
            else:
                self._leave()

    def take_ready(self) -> list[Event]:
        """The events that have come already, after one that was read."""
        ready: list[Event] = []
        while not self._queue.empty():
            event = self._queue.get_nowait()
            if event is None:  # the end, which ``read`` looks for
                self._queue.put_nowait(None)
                break
            ready.append(event)
        return ready

    def _leave(self) -> None:
        """The reader has gone: the work ends, or goes on for those who may come back."""
        if self._has_left or self._task.done():
            return
        self._has_left = True
        if self._readers is None or not self._begun:
            self._task.cancel()
            return
        in_background(self._linger(self._readers))

    async def _linger(self, readers: Readers) -> None:
        """Lets the work go on while its reader may come back, or has."""
        left = self._loop.time()
        try:
            while not self._task.done() and self._loop.time() - left < LINGER_SECONDS:
                await asyncio.wait({self._task}, timeout=LOOK_SECONDS)
                # Redis may be slow for once; when it is gone, nobody can come back and the time runs out.
                with contextlib.suppress(RedisError, OSError, TimeoutError):
                    reading, stopped = await readers.look()
                    if stopped:
                        break
                    if reading:
                        left = self._loop.time()
        finally:
            await self.close()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    def abandon(self) -> None:
        """From any thread, for a response whose body was never begun, or never closed: Django closes the response alone
        when its client leaves while a part is being sent."""
        with contextlib.suppress(RuntimeError):  # the loop is gone, and the task with it
            self._loop.call_soon_threadsafe(self._leave)


def wants_sse(request: HttpRequest) -> bool:
    return request.get_preferred_type([NDJSON, SSE]) == SSE


class AnyFormat(DefaultContentNegotiation):
    """A stream or a file has its own format; problems before it are JSON whatever was asked for."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return JSONRenderer(), "application/json"


async def stream_events(
    request: HttpRequest, events: AsyncGenerator[Event, None], *, readers: Readers | None = None
) -> StreamingHttpResponse:
    """Sends events as they come: one JSON object a line, or Server-Sent Events.

    Args:
        readers: of an answer that goes on for a while when its reader leaves, since they may come back.

    Raises:
        Problem, KeyError: what is wrong is known before the first event, and said with a status, not in the stream.
    """
    sse, sequence = wants_sse(request), itertools.count(1)

    def write(event: Event) -> str:
        data = dump_json(event)
        return f"event: {event['type']}\nid: {next(sequence)}\ndata: {data}\n\n" if sse else f"{data}\n"

    return await send_events(events, write=write, content_type=SSE if sse else NDJSON, readers=readers)


async def send_events(
    events: AsyncGenerator[Event, None],
    *,
    write: Callable[[Event], str],
    content_type: str,
    readers: Readers | None = None,
) -> StreamingHttpResponse:
    """Sends what ``write`` makes of each event, in whatever protocol; server-sent events keep the connection awake.

    Raises:
        Problem, KeyError: as ``stream_events``.
    """
    pump = await Pump.start(events, readers=readers)

    async def body() -> AsyncIterator[bytes]:
        async with aclosing(pump.read()) as beating:
            async for event in beating:
                if event is not None:
                    # What has come together is sent together: each part of a body costs as much as its events.
                    yield "".join(map(write, (event, *pump.take_ready()))).encode()
                elif content_type == SSE:
                    yield b": still here\n\n"

    response = StreamingHttpResponse(body(), content_type=content_type)
    response._resource_closers.append(pump.abandon)  # type: ignore[attr-defined]
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


async def play_events(events: list[Event]) -> AsyncGenerator[Event, None]:
    """Events that are known already, as a stream."""
    for event in events:
        yield event


def stored_events(*, membership: Membership, pk: UUID) -> list[Event] | None:
    """The events of a stored answer as it may be read now; ``None`` where there is none. One that broke off ends in an
    ``error``, as it did."""
    try:
        answer = access_answer(membership, pk)
    except Problem:
        return None
    shown = present_answers([answer], membership=membership)[0]
    done = answer_object(answer, with_body=False) | {name: shown[name] for name in ("citations", "marks")}
    return [
        {"type": "sources", "data": shown["sources"]},
        {"type": "answer_chunk", "data": shown["answer"]},
        *({"type": "citation", "data": citation} for citation in shown["citations"]),
        *({"type": "mark", "data": mark} for mark in shown["marks"]),
        {"type": "error", "data": _end_of(answer).document()}
        if answer.is_broken
        else {"type": "done", "data": done},
    ]


def _end_of(answer: Answer) -> Problem:
    if answer.status == "cancelled":
        return STOPPED
    return Problem(503, "answer-interrupted", "This answer broke off before its end: ask again.")
