"""The client of Redis in tasks that are cancelled."""

import asyncio

from ragsite.core.redis import AT_ONCE, redis_client


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
        done, _ = await asyncio.wait({task}, timeout=2)
        if not done:
            forgotten += 1
            task.cancel()
    assert forgotten == 0


async def test_a_thousand_calls_at_once_are_all_answered_by_few_connections() -> None:
    client = redis_client()

    async def work(at: int) -> None:
        if at % 2:
            await client.ping()
        else:
            pipeline = client.pipeline(transaction=False)
            pipeline.ping()
            await pipeline.execute()

    await asyncio.gather(*(work(at) for at in range(1000)))
    assert 1 < len(client.connection_pool._available_connections) <= AT_ONCE
