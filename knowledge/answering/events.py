"""The events of a question's journey, and where they are kept while somebody may come back for them."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from knowledge.answering.layers import acl_signature, tenant_prefix
from ragsite.core.background import in_background
from ragsite.core.problems import Problem
from ragsite.core.redis import redis_client
from tenants.models import Membership
from tenants.rest import dump_json

logger = structlog.get_logger(__name__)

Event = dict[str, Any]
KEPT_SECONDS = 600
TOGETHER_SECONDS = 0.1
FOLLOW_SECONDS = 90
# How long an answer goes on without a reader who may come back, and how long a reader counts as one without a sign.
LINGER_SECONDS = 10.0
READER_SECONDS = 3
LAST = ("done", "error")
STOPPED = Problem(409, "cancelled", "This answer was stopped before its end: ask again.")


def stream_key(*, membership: Membership, request_id: UUID) -> str:
    """A stream is its asker's own, for as long as they may read what they could when they asked: nobody else can make
    this key, nor can they themselves after their role has changed."""
    owner = f"{membership.pk}:{acl_signature(membership)}"
    return f"{tenant_prefix(membership.tenant_id)}stream:{owner}:{request_id}"


def _stopped_key(log: str) -> str:
    return f"{log}:stopped"


class EventLog:
    """Writes the events of one answer to a Redis stream; without Redis nobody can come back, and that is all.

    The first one and the last one are there when ``add`` returns, those between within a tenth of a second, together. What
    comes after the last one is not written.

    Attributes:
        is_stopped: its asker wants no more of it, as each write is told.
    """

    def __init__(self, *, membership: Membership, request_id: UUID) -> None:
        self._key = stream_key(membership=membership, request_id=request_id)
        self._lines: list[str] = []
        self._writing = asyncio.Lock()
        self._begun = self._is_due = self._broken = self._is_over = False
        self.is_stopped = False

    async def add(self, event: Event) -> None:
        if self._broken or self._is_over:
            return
        self._is_over = event["type"] in LAST
        self._lines.append(dump_json(event))
        if not self._begun or self._is_over:
            self._begun = True
            await self._write()
        elif not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(TOGETHER_SECONDS, self._write_soon)

    def _write_soon(self) -> None:
        self._is_due = False
        in_background(self._write())

    async def _write(self) -> None:
        async with self._writing:
            lines, self._lines = self._lines, []
            if lines and not self._broken:
                await self._send(lines)

    async def _send(self, lines: list[str]) -> None:
        try:
            pipeline = redis_client().pipeline(transaction=False)
            pipeline.xadd(self._key, {"events": "\n".join(lines)}, maxlen=5000)
            pipeline.expire(self._key, KEPT_SECONDS)
            pipeline.exists(_stopped_key(self._key))
            self.is_stopped = bool((await pipeline.execute())[-1])
        except (RedisError, OSError, TimeoutError) as error:
            self._broken = True
            logger.warning("answer's events not kept", error=type(error).__name__)


class Readers:
    """Who reads an answer in flight beside the one that asked, and whether it is to be stopped; known to all processes."""

    def __init__(self, *, membership: Membership, request_id: UUID) -> None:
        self._log = stream_key(membership=membership, request_id=request_id)
        self._reading, self._stopped = f"{self._log}:reading", _stopped_key(self._log)

    async def note(self) -> None:
        """Somebody reads at this moment."""
        await redis_client().set(self._reading, 1, ex=READER_SECONDS)

    async def stop(self) -> bool:
        """Asks for the end of the answer; whether there is one to end."""
        client = redis_client()
        if not await client.exists(self._log):
            return False
        await client.set(self._stopped, 1, ex=KEPT_SECONDS)
        return True

    async def look(self) -> tuple[bool, bool]:
        """Whether somebody reads, and whether it is to be stopped."""
        reading, stopped = await redis_client().mget(self._reading, self._stopped)
        return reading is not None, stopped is not None


async def follow_events(*, membership: Membership, request_id: UUID) -> AsyncGenerator[Event, None]:
    """Replays the events of an answer in flight, then follows it to its end.

    Raises:
        KeyError: nothing is known of it (any more).
    """
    key = stream_key(membership=membership, request_id=request_id)
    client = redis_client()
    if not await client.exists(key):
        raise KeyError(str(request_id))
    readers = Readers(membership=membership, request_id=request_id)
    last, silent, noted = "0-0", 0.0, 0.0
    while silent < FOLLOW_SECONDS:
        batches: Any = None
        with contextlib.suppress(RedisTimeoutError):  # slow for once: what it holds is there the next time
            if time.monotonic() - noted > READER_SECONDS / 3:
                await readers.note()
                noted = time.monotonic()
            # Shorter than the client's own socket timeout, or that would end the wait with an error.
            batches = await client.xread({key: last}, count=200, block=200)
        if not batches:
            silent += 0.2
            continue
        silent = 0.0
        for entry, fields in batches[0][1]:
            last = entry
            for line in fields[b"events"].split(b"\n"):
                event: Event = json.loads(line)
                yield event
                if event["type"] in LAST:
                    return
