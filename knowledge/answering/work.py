"""Events that are made in a task of their own, so that they can go on when their reader has gone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from knowledge.answering.events import Event


async def pour(events: AsyncGenerator[Event, None], queue: "asyncio.Queue[Event | None]") -> None:
    """Puts events into a queue as they come, and ``None`` when there are no more, whatever has ended them."""
    try:
        async with aclosing(events):
            async for event in events:
                queue.put_nowait(event)
    finally:
        queue.put_nowait(None)


class Work:
    """Runs a generator of events to its end. It carries the context of whoever starts it."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(pour(events, self._queue))
        self._task.add_done_callback(_note)

    @property
    def is_done(self) -> bool:
        return self._task.done()

    async def read(self) -> AsyncGenerator[Event, None]:
        """The events; raises what ended them. Closing it leaves the work alone."""
        while (event := await self._queue.get()) is not None:
            yield event
        await self._task

    async def wait(self, *, seconds: float) -> bool:
        """Whether it has ended within this time."""
        await asyncio.wait({self._task}, timeout=seconds)
        return self._task.done()

    def cancel(self) -> None:
        self._task.cancel()

    async def stop(self) -> None:
        """Cancels it, and waits for its end."""
        self._task.cancel()
        await asyncio.wait({self._task})


def _note(task: "asyncio.Task[None]") -> None:
    """What failed after its reader had gone is told by the work itself; asyncio need not say that nobody has looked."""
    if not task.cancelled():
        task.exception()
