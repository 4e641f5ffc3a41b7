"""The clients of Redis. When it has failed, they leave it alone for a while, so that nobody waits for it."""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import redis
import redis.asyncio as aioredis
from redis.asyncio.client import Pipeline as AsyncPipeline
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ragsite.core.breaker_rules import BreakerOpen, BreakerPolicy, LocalBreaker, Outcome, Permit
from ragsite.core.config import config

KEY_PREFIX = "rag"
CACHE = BreakerPolicy(failures=2, open_seconds=15, probe_seconds=5)
# Whether Redis works cannot be kept in Redis: each process finds out for itself, at the cost of two failed calls.
cache_breaker = LocalBreaker("cache", CACHE)
# These wait on purpose, and running into the socket's time limit says nothing of the server.
_BLOCKING = frozenset({"XREAD", "XREADGROUP", "BLPOP", "BRPOP"})
# A process talks to Redis by so many connections at once, whatever number of answers it is about; more only queue in Redis.
# Those that wait on purpose have connections of their own.
AT_ONCE = 64
_MOST_CONNECTIONS = 1000
# The server does not answer. Its other errors are answers.
_AWAY = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)


class _Pulse:
    """How busy an event loop is: it beats five times in the time that a call may take, and less often where the loop does
    not get round to it. A reply that is late by the clock of a busy loop may have been there all the while."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, seconds: float) -> None:
        self.beats = 0
        self._loop, self._every = loop, seconds / 5
        self._beat()

    def _beat(self) -> None:
        self.beats += 1
        self._loop.call_later(self._every, self._beat)

    def was_busy(self, *, since: int) -> bool:
        """Whether fewer than half of the beats came of a call that has used up its time; it began at beat ``since``."""
        return self.beats - since < 3


@contextmanager
def _guarded(command: Any = "", *, pulse: _Pulse | None = None) -> Iterator[None]:
    """One call under the breaker; refused as a lost connection is, which every caller expects.

    Args:
        pulse: of the loop whose clock measures the call. That a process was too busy to read a reply says nothing of the
            server, and is no reason to do without the cache just when it is needed most.
    """
    began = pulse.beats if pulse else 0
    try:
        permit: Permit = cache_breaker.admit(uuid.uuid4().hex)
    except BreakerOpen as error:
        raise RedisConnectionError(str(error)) from None
    outcome: Outcome = "unknown"
    reason = ""
    try:
        yield
        outcome = "success"
    except _AWAY as error:
        is_late = isinstance(error, RedisTimeoutError | TimeoutError)
        says_nothing = command in _BLOCKING or (pulse is not None and pulse.was_busy(since=began))
        outcome = "unknown" if is_late and says_nothing else "failure"
        reason = type(error).__name__
        raise
    except redis.RedisError:
        outcome = "success"
        raise
    finally:
        cache_breaker.report(permit, outcome, reason)


class _GuardedPipeline(Pipeline):
    def execute(self, *args: Any, **options: Any) -> Any:
        with _guarded():
            return super().execute(*args, **options)


class GuardedRedis(redis.Redis):
    """What django-redis makes its connections of."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        with _guarded(args[0]):
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        return _GuardedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


@contextmanager
def _heeding_cancellation() -> Iterator[None]:
    """Before Python 3.12 ``asyncio.wait_for``, with which the client sends, forgets a cancellation that comes as its work is
    done; the task then goes on for nobody."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


class _GuardedAsyncPipeline(AsyncPipeline):
    room: asyncio.Semaphore
    pulse: _Pulse

    async def execute(self, *args: Any, **options: Any) -> Any:
        with _heeding_cancellation():
            async with self.room:
                with _guarded(pulse=self.pulse):
                    return await super().execute(*args, **options)


class GuardedAsyncRedis(aioredis.Redis):
    """To be made and used in one event loop."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._room = asyncio.Semaphore(AT_ONCE)
        seconds = (
            self.connection_pool.connection_kwargs.get("socket_timeout") or config().redis_timeout_seconds
        )
        self._pulse = _Pulse(asyncio.get_running_loop(), seconds=seconds)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with _heeding_cancellation():
            async with contextlib.nullcontext() if args[0] in _BLOCKING else self._room:
                with _guarded(args[0], pulse=self._pulse):
                    return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> AsyncPipeline:
        made = _GuardedAsyncPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.room, made.pulse = self._room, self._pulse
        return made


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, aioredis.Redis] = WeakKeyDictionary()


def redis_client() -> aioredis.Redis:
    """The event loop's own client; calls are bounded by the configured timeout."""
    loop = asyncio.get_running_loop()
    client = _clients.get(loop)
    if client is None:
        seconds = config().redis_timeout_seconds
        client = GuardedAsyncRedis.from_url(
            config().redis_url,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            max_connections=_MOST_CONNECTIONS,
            # Once more, for a connection that the server has closed meanwhile; the default waits for seconds.
            retry=AsyncRetry(NoBackoff(), 1),
        )
        _clients[loop] = client
    return client


def redis_connection() -> redis.Redis:
    """The client for code that is not a coroutine."""
    from django_redis import get_redis_connection

    connection: redis.Redis = get_redis_connection("default")
    return connection
