"""The events of a question's journey, and where they are kept while somebody may come back for them."""

import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from knowledge.answering.cache import acl_signature, redis_client, tenant_prefix
from tenants.models import Membership
from tenants.rest import dump_json

logger = structlog.get_logger(__name__)

Event = dict[str, Any]
KEPT_SECONDS = 600
FOLLOW_SECONDS = 90
LAST = ("done", "error")


def stream_key(*, membership: Membership, request_id: UUID) -> str:
    """A stream is its asker's own, for as long as they may read what they could when they asked: nobody else can make
    this key, nor can they themselves after their role has changed."""
    owner = f"{membership.pk}:{acl_signature(membership)}"
    return f"{tenant_prefix(membership.tenant_id)}stream:{owner}:{request_id}"


class EventLog:
    """Writes the events of one answer to a Redis stream; without Redis nobody can come back, and that is all."""

    def __init__(self, *, membership: Membership, request_id: UUID) -> None:
        self._key = stream_key(membership=membership, request_id=request_id)
        self._broken = False

    async def add(self, event: Event) -> None:
        if self._broken:
            return
        try:
            pipeline = redis_client().pipeline(transaction=False)
            pipeline.xadd(self._key, {"event": dump_json(event)}, maxlen=5000)
            pipeline.expire(self._key, KEPT_SECONDS)
            await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._broken = True
            logger.warning("answer's events not kept", error=type(error).__name__)


async def follow_events(*, membership: Membership, request_id: UUID) -> AsyncGenerator[Event, None]:
    """Replays the events of an answer in flight, then follows it to its end.

    Raises:
        KeyError: nothing is known of it (any more).
    """
    key = stream_key(membership=membership, request_id=request_id)
    client = redis_client()
    if not await client.exists(key):
        raise KeyError(str(request_id))
    last, silent = "0-0", 0.0
    while silent < FOLLOW_SECONDS:
        # Shorter than the client's own socket timeout, or that would end the wait with an error.
        batches: Any = await client.xread({key: last}, count=200, block=200)
        if not batches:
            silent += 0.2
            continue
        silent = 0.0
        for entry, fields in batches[0][1]:
            last = entry
            event: Event = json.loads(fields[b"event"])
            yield event
            if event["type"] in LAST:
                return
