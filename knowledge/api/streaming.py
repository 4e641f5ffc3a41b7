"""An answer's events on their way to a client, in the format that was asked for."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Self

from django.http import HttpRequest, StreamingHttpResponse

from knowledge.answering.events import Event
from tenants.rest import dump_json

NDJSON, SSE = "application/x-ndjson", "text/event-stream"
HEARTBEAT_SECONDS = 15.0


class Pump:
    """Runs a generator of events in one task from its beginning to its end.

    The task carries the scope of the request that started it, although the middleware has left that scope by the time the
    body is sent; and time limits inside the generator belong to one task, whoever reads. The queue is not bounded: an
    answer is small, and a slow reader must not hold the model's connection open.
    """

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(events))

    @classmethod
    async def start(cls, events: AsyncGenerator[Event, None]) -> Self:
        """Starts, and waits for the first event.

        Raises:
            Problem, KeyError: whatever the generator raises before it.
        """
        pump = cls(events)
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

    async def _run(self, events: AsyncGenerator[Event, None]) -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    self._queue.put_nowait(event)
        finally:
            self._queue.put_nowait(None)

    async def read(self) -> AsyncGenerator[Event | None, None]:
        """The events, with a ``None`` whenever nothing came for 15 seconds; closing it ends the work."""
        try:
            event = self._first
            while event is not None:
                yield event
                while True:
                    try:
                        event = await asyncio.wait_for(self._queue.get(), HEARTBEAT_SECONDS)
                        break
                    except TimeoutError:
                        yield None
            await self._task
        finally:
            await self.close()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    def abandon(self) -> None:
        """Ends the work from any thread, for a response whose body was never begun."""
        with contextlib.suppress(RuntimeError):  # the loop is gone, and the task with it
            self._loop.call_soon_threadsafe(self._task.cancel)


def wants_sse(request: HttpRequest) -> bool:
    accept = request.headers.get("Accept", "")
    return SSE in accept and (NDJSON not in accept or accept.index(SSE) < accept.index(NDJSON))


async def stream_events(request: HttpRequest, events: AsyncGenerator[Event, None]) -> StreamingHttpResponse:
    """Sends events as they come: one JSON object a line, or Server-Sent Events.

    Raises:
        Problem, KeyError: what is wrong is known before the first event, and said with a status, not in the stream.
    """
    pump = await Pump.start(events)
    sse = wants_sse(request)

    async def body() -> AsyncIterator[bytes]:
        sequence = 0
        async with aclosing(pump.read()) as beating:
            async for event in beating:
                if event is None:
                    if sse:
                        yield b": still here\n\n"
                    continue
                sequence += 1
                data = dump_json(event)
                if sse:
                    yield f"event: {event['type']}\nid: {sequence}\ndata: {data}\n\n".encode()
                else:
                    yield f"{data}\n".encode()

    response = StreamingHttpResponse(body(), content_type=SSE if sse else NDJSON)
    response._resource_closers.append(pump.abandon)  # type: ignore[attr-defined]
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response
