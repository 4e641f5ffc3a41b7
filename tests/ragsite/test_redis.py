"""The client of Redis in tasks that are cancelled, in crowds, and in a process that is too busy to listen."""

import asyncio
import socket
import time

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ragsite.core.redis import AT_ONCE, CACHE, GuardedAsyncRedis, cache_breaker, redis_client


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


async def failures_of_ten(client: Redis, *, is_busy: bool) -> int:
    """How many of ten calls fail that connect first; a busy process gets round to them every 0.3 seconds alone."""

    async def work() -> int:
        try:
            await client.ping()
        except (RedisError, TimeoutError):
            return 1
        return 0

    tasks = [asyncio.create_task(work()) for _ in range(10)]
    while is_busy and not all(task.done() for task in tasks):
        time.sleep(0.3)
        await asyncio.sleep(0)
    return sum(await asyncio.gather(*tasks))


async def test_a_process_that_is_too_busy_to_listen_does_not_take_redis_for_dead() -> None:
    assert await failures_of_ten(redis_client(), is_busy=True) >= CACHE.failures
    assert cache_breaker.state == "closed"
    assert await failures_of_ten(redis_client(), is_busy=False) == 0


async def test_a_server_that_does_not_answer_is_left_alone() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(100)
        client = GuardedAsyncRedis(
            port=deaf.getsockname()[1], socket_timeout=0.25, socket_connect_timeout=0.25
        )
        assert await failures_of_ten(client, is_busy=False) == 10
    assert cache_breaker.state == "open"
