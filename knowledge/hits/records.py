"""Hits on their way into the database: a stream in Redis, which one process at a time writes down in its order.

At least once, and idempotent: a row's id is the request's. What is in the database leaves the stream after the commit, so a
process that dies in between leaves its batch to the next. A hit's row is that of the same answer when Django made or showed
it, with another asker, time and id, so a record names that row instead of carrying the text.
"""

import json
import time
from collections import defaultdict
from functools import cache
from typing import Any
from uuid import UUID

import structlog
from django.core.cache import cache as django_cache
from django.db import connections
from django.db.utils import DataError, IntegrityError
from redis.exceptions import RedisError

from knowledge.models import Answer, Conversation
from ragsite.core.addresses import read_peer
from ragsite.core.redis import redis_connection
from tenants.access import Principal
from tenants.models import AuditEvent
from tenants.scope import alias, atomic, scope

logger = structlog.get_logger(__name__)

BATCH = 500
LEASE_MS = 3000  # longer than a batch takes; another process goes on then
WAIT_SECONDS = 2.0
_LOOK_SECONDS = 0.03

# KEYS: the lease. ARGV: whose it is, milliseconds. Takes it, or holds it for longer; returns whether it is theirs.
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# One parameter, a JSON array: taking records apart is PostgreSQL's work, this process answers questions meanwhile.
_RECORDED = """
SELECT asked.id, asked.answer_id, asked.at, asked.milliseconds, who.*,
    CASE WHEN pg_input_is_valid(asked.address, 'inet') THEN asked.address::inet END AS address
FROM jsonb_to_recordset(%s::jsonb)
        AS asked (id uuid, answer_id uuid, at timestamptz, milliseconds float8, address text, who jsonb),
    jsonb_to_record(asked.who)
        AS who (user_id bigint, username text, role_name text, method text, credential text)
"""


def stream_key() -> str:
    return f"{django_cache.key_prefix}:hits"


def ids_key() -> str:
    """The ids of what is in the stream."""
    return f"{django_cache.key_prefix}:hits:ids"


def _lease_key() -> str:
    return f"{django_cache.key_prefix}:hits:writer"


def member_record(principal: Principal) -> bytes:
    """A member's part of a record."""
    membership = principal.membership
    who = {
        "user_id": membership.user_id,
        "username": membership.user.username,
        "role_name": membership.role.name,
        "method": principal.method,
        "credential": principal.credential,
    }
    return json.dumps(who).encode()


def record_of(
    *, member: bytes, answer_id: bytes, request_id: bytes, at: bytes, milliseconds: float, address: str
) -> bytes:
    """A record; ``at`` is ISO 8601, ``address`` the client's. One that is no IP address is left out."""
    return b'{"who":%b,"answer_id":"%b","id":"%b","at":"%b","milliseconds":%b,"address":%b}' % (
        member,
        answer_id,
        request_id,
        at,
        repr(milliseconds).encode(),
        json.dumps(read_peer(address)).encode(),
    )


def hold_lease(holder: str) -> bool:
    """Whether this process is the one that writes records down, for the next seconds."""
    client: Any = redis_connection()
    return bool(client.eval(_HOLD, 1, _lease_key(), holder, LEASE_MS))


def drop_lease(holder: str) -> None:
    client: Any = redis_connection()
    if client.get(_lease_key()) == holder.encode():
        client.delete(_lease_key())


def has_records() -> bool:
    client: Any = redis_connection()
    return bool(client.xlen(stream_key()))


def write_records(*, most: int = BATCH) -> int:
    """Writes the oldest records down, and takes them out of the stream; returns how many they were.

    A record whose values the database refuses is logged and dropped. After any other failure all of them are there still.

    Raises:
        DatabaseError, RedisError: the one or the other does not do its work.
    """
    client: Any = redis_connection()
    entries = client.xrange(stream_key(), count=most)
    by_tenant: dict[bytes, list[bytes]] = defaultdict(list)
    for _, fields in entries:
        by_tenant[fields[b"tenant"]].append(fields[b"hit"])
    for tenant_id, records in by_tenant.items():
        with scope(tenant_id=UUID(tenant_id.decode()), tags=()):
            _store(records)
    if entries:
        pipeline = client.pipeline()
        pipeline.xdel(stream_key(), *(entry_id for entry_id, _ in entries))
        pipeline.srem(ids_key(), *(fields[b"id"] for _, fields in entries))
        pipeline.execute()
    return len(entries)


def _store(records: list[bytes]) -> None:
    """Of one tenant. A batch that is refused is halved, until the record is alone that is."""
    try:
        with atomic(), connections[alias()].cursor() as cursor:
            cursor.execute(_statement(), [f"[{b','.join(records).decode()}]"])
    except (DataError, IntegrityError) as error:
        if len(records) == 1:
            logger.error("hit dropped: refused", record=records[0].decode(), error=type(error).__name__)
            return
        middle = len(records) // 2
        _store(records[:middle])
        _store(records[middle:])


@cache
def _statement() -> str:
    own = {
        "id": "hit.id",
        "conversation_id": "hit.id",
        "user_id": "hit.user_id",
        "role_name": "hit.role_name",
        "cache": "'exact'",
        "status": "'cached'",
        "stop_reason": "''",
        "input_tokens": "0",
        "output_tokens": "0",
        "cost_usd": "0",
        "latency_ms": "hit.milliseconds",
        "timings": "jsonb_build_object('cache', hit.milliseconds)",
        "created_at": "hit.at",
    }
    columns = [str(field.column) for field in Answer._meta.concrete_fields]
    answer = {column: own.get(column, f"answer.{column}") for column in columns}
    conversation = {
        "id": "hit.id",
        "tenant_id": "answer.tenant_id",
        "user_id": "hit.user_id",
        "title": "left(answer.question, 200)",
        "pinned": "false",
        "created_at": "hit.at",
        "updated_at": "hit.at",
    }
    event = {
        # Of the request's id, so that the event of a hit is there once as well.
        "id": "md5('question.ask ' || hit.id)::uuid",
        "tenant_id": "answer.tenant_id",
        "at": "hit.at",
        "action": "'question.ask'",
        "actor_id": "hit.user_id",
        "actor_name": "hit.username",
        "role_name": "hit.role_name",
        "method": "hit.method",
        "target_type": "'answer'",
        "target_id": "hit.id::text",
        "detail": "jsonb_build_object('documents', to_jsonb(answer.document_ids), 'answered', answer.answered,"
        " 'cache', 'exact', 'credential', hit.credential)",
        "address": "hit.address",
        "request_id": "hit.id::text",
    }
    return (
        f"WITH hit AS MATERIALIZED ({_RECORDED}), conversation AS ({_insert(Conversation, conversation)}),"
        f" event AS ({_insert(AuditEvent, event)}) {_insert(Answer, answer)}"
    )


def _insert(model: Any, values: dict[str, str]) -> str:
    assert {field.column for field in model._meta.concrete_fields} == set(values), model
    return (
        f"INSERT INTO {model._meta.db_table} ({', '.join(values)}) SELECT {', '.join(values.values())}"  # noqa: S608
        f" FROM hit JOIN {Answer._meta.db_table} AS answer ON answer.id = hit.answer_id"
        # Written before, it stays as it is, without its conversation too, where that was deleted meanwhile.
        f" WHERE NOT EXISTS (SELECT FROM {Answer._meta.db_table} AS there WHERE there.id = hit.id)"
        " ON CONFLICT (id) DO NOTHING"
    )


def wait_for_record(pk: UUID | str) -> bool:
    """Waits until a hit's record has been written down, for two seconds at most.

    Returns:
        Whether there was one: only then is it worth another look into the database.
    """
    client: Any = redis_connection()
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        if not client.sismember(ids_key(), str(pk)):
            return False
        while time.monotonic() < deadline and client.sismember(ids_key(), str(pk)):
            time.sleep(_LOOK_SECONDS)
    except (RedisError, OSError, TimeoutError):
        return False
    return True
