"""How events become the parts of a body."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from knowledge.answering.events import Event
from knowledge.api.streaming import NDJSON, send_events


async def test_what_comes_together_is_sent_together() -> None:
    go_on = asyncio.Event()

    async def events() -> AsyncGenerator[Event, None]:
        for number in range(3):
            yield {"type": "answer_chunk", "data": str(number)}
        await go_on.wait()
        yield {"type": "citation", "data": {}}
        yield {"type": "done", "data": {}}

    response = await send_events(events(), write=lambda event: f"{event['type']}\n", content_type=NDJSON)
    body: Any = aiter(response)
    await asyncio.sleep(0)
    assert await anext(body) == b"answer_chunk\n" * 3
    go_on.set()
    assert [part async for part in body] == [b"citation\ndone\n"]
