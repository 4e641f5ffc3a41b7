"""Work that goes on when the task that began it has ended."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_background: set[asyncio.Task[Any]] = set()


def in_background(work: Coroutine[Any, Any, object]) -> None:
    try:
        task = asyncio.get_running_loop().create_task(work)
    except RuntimeError:  # no loop is left: the process is going down
        work.close()
        return
    _background.add(task)
    task.add_done_callback(_background.discard)


async def wait_for_background(*, seconds: float) -> None:
    """Waits for what still goes on in this event loop, which is about to end and would cancel it."""
    loop = asyncio.get_running_loop()
    if mine := [task for task in _background if task.get_loop() is loop]:
        await asyncio.wait(mine, timeout=seconds)


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Its result. When whoever waits for it is cancelled, the work is not."""
    task = asyncio.get_running_loop().create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return await asyncio.shield(task)
