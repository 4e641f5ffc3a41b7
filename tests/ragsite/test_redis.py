"""The client of Redis in tasks that are cancelled."""

import asyncio

from ragsite.core.redis import redis_client


async def test_a_cancellation_is_never_forgotten() -> None:
    client = redis_client()

    async def work() -> None:
        while True:
            await client.ping()
            pipeline = client.pipeline(transaction=False)
            pipeline.ping()
            await pipeline.execute()

    forgotten = 0
    for turns in range(300):
        task = asyncio.create_task(work())
        for _ in range(turns % 30):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=0.2)
        if not done:
            forgotten += 1
            task.cancel()
    assert forgotten == 0
