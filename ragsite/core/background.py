"""Work that goes on when the task that began it has ended."""

import asyncio
from collections.abc import Coroutine
from typing import Any

_background: set[asyncio.Task[Any]] = set()


def in_background(work: Coroutine[Any, Any, object]) -> None:
    try:
        task = asyncio.get_running_loop().create_task(work)
    except RuntimeError:  # no loop is left: the process is going down
        work.close()
        return
    _background.add(task)
    task.add_done_callback(_background.discard)
