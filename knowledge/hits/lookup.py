"""One call to Redis for a hit: does what is remembered hold, may the member ask, and the record that they did."""

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from uuid import UUID, uuid4

from redis.exceptions import RedisError, ResponseError

from knowledge.answering.layers import counts_key
from knowledge.hits.memory import KnownAnswer, KnownMember
from knowledge.hits.records import ids_key, record_of, stream_key
from ragsite.core.redis_pipe import RedisPipe, pack, pack_parts
from tenants.gate import EVERYONE, LOOK, gate_key
from tenants.rates import TAKE_FUNCTION, Bucket

# With so many records that are not in the database yet, Django answers, which writes its own at once.
MOST_RECORDS = 200_000

# KEYS: both gates, the tenant's counts, the stream of records and the set of their ids, the answer, then a bucket each.
# ARGV: both stamps, the answer's corpus version and stamp, how many records there may be, the tokens wanted, the tenant,
# the buckets' quotas, and last the record and its id. Returns what is left in the buckets, between spaces, or a word of
# why Django is to answer: then nothing was taken.
_HIT = (
    TAKE_FUNCTION
    + """
for i = 1, 2 do
  if redis.call('HGET', KEYS[i], 'stamp') ~= ARGV[i] or redis.call('HLEN', KEYS[i]) ~= 1 then return 'gate' end
end
local found = redis.call('HMGET', KEYS[6], 'version', 'stamp')
if found[1] ~= ARGV[3] or found[2] ~= ARGV[4] then return 'answer' end
if redis.call('XLEN', KEYS[4]) >= tonumber(ARGV[5]) then return 'full' end
local keys, quotas = {}, {}
for i = 7, #KEYS do keys[i - 6] = KEYS[i] end
for i = 8, #ARGV - 2 do quotas[i - 7] = ARGV[i] end
local told, allowed = take(keys, quotas, tonumber(ARGV[6]), false)
if not allowed then return 'limit' end
redis.call('HINCRBY', KEYS[3], 'exact:hits', 1)
redis.call('HINCRBY', KEYS[3], 'process:hits', 1)
redis.call('XADD', KEYS[4], '*', 'tenant', ARGV[7], 'id', ARGV[#ARGV], 'hit', ARGV[#ARGV - 1])
redis.call('SADD', KEYS[5], ARGV[#ARGV])
return table.concat(told, ' ')
"""
)
_HIT_DIGEST = hashlib.sha1(_HIT.encode(), usedforsecurity=False).hexdigest().encode()
_LOAD = pack(b"SCRIPT", b"LOAD", _HIT.encode())


@dataclass(frozen=True)
class Hit:
    """``at`` is ISO 8601; ``levels`` is what is left of the rate limits, as ``tenants.rates.limit_headers`` takes it."""

    request_id: bytes
    at: bytes
    milliseconds: float
    levels: list[bytes]


class Refused(Enum):
    """Why Django is to answer."""

    GATE = "gate"
    ANSWER = "answer"
    FULL = "full"
    LIMIT = "limit"
    AWAY = "away"


def gate_keys(tenant_id: str) -> tuple[bytes, bytes]:
    return gate_key(EVERYONE).encode(), gate_key(tenant_id).encode()


async def look_at_gates(pipe: RedisPipe, *, tenant_id: str) -> tuple[bytes, bytes] | None:
    """The stamps of both gates; ``None`` when one is shut, or Redis does not say."""
    try:
        told = await pipe.call(
            pack(b"EVAL", LOOK.encode(), b"2", *gate_keys(tenant_id), uuid4().hex.encode())
        )
    except RedisError:
        return None
    everyone, _, tenant = told.partition(b" ")
    return (everyone, tenant) if tenant else None


class Lookup:
    """Asks Redis about hits over one pipe."""

    def __init__(self, pipe: RedisPipe) -> None:
        self._pipe = pipe
        # How long the last one took to answer. The record is written before this one's answer is there, and says the same.
        self._last_seconds = 0.0

    async def find(
        self, *, member: KnownMember, answer: KnownAnswer, address: str, begun: float
    ) -> "Hit | Refused":
        """Takes the request from the limits, counts and records it.

        Args:
            address: the client's, or nothing.
            begun: ``time.perf_counter()`` of when the request came.
        """
        request_id, at = str(uuid4()).encode(), datetime.now(UTC).isoformat().encode()
        sent = time.perf_counter()
        milliseconds = round((sent - begun + self._last_seconds) * 1000, 2)
        record = record_of(
            member=member.record,
            answer_id=answer.answer_id,
            request_id=request_id,
            at=at,
            milliseconds=milliseconds,
            address=address,
        )
        try:
            told = await self._call(_command(member, answer, record, request_id))
        except RedisError:
            return Refused.AWAY
        self._last_seconds = time.perf_counter() - sent
        if told.isalpha():
            return Refused(told.decode())
        return Hit(request_id, at, milliseconds, told.split())

    async def _call(self, command: bytes) -> bytes:
        """By the script's digest; a server that does not know it (any more) is given it."""
        try:
            told: bytes = await self._pipe.call(command)
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            await self._pipe.call(_LOAD)
            told = await self._pipe.call(command)
        return told


def member_command(
    *, tenant_id: UUID, gates: tuple[bytes, bytes], buckets: tuple[Bucket, ...], tokens: int
) -> tuple[bytes, bytes, bytes]:
    """The pieces of the call that are a member's: before the answer's key, between that and its version, and before the
    record."""
    keys = [
        *gate_keys(str(tenant_id)),
        *(key.encode() for key in (counts_key(tenant_id), stream_key(), ids_key())),
    ]
    quotas = [b"%d" % quota for bucket in buckets for quota in (bucket.requests, bucket.tokens)]
    number = len(keys) + 1 + len(buckets)
    parts = 3 + number + 7 + len(quotas) + 2
    return (
        b"*%d\r\n" % parts + pack_parts(b"EVALSHA", _HIT_DIGEST, b"%d" % number, *keys),
        pack_parts(*(bucket.key.encode() for bucket in buckets), *gates),
        pack_parts(b"%d" % MOST_RECORDS, b"%d" % tokens, str(tenant_id).encode(), *quotas),
    )


def answer_command(*, key: str, corpus_version: int, stamp: bytes) -> tuple[bytes, bytes]:
    """The pieces that are an answer's: its key, and what it must still be."""
    return pack_parts(key.encode()), pack_parts(b"%d" % corpus_version, stamp)


def _command(member: KnownMember, answer: KnownAnswer, record: bytes, request_id: bytes) -> bytes:
    (begin, middle, end), (key, proof) = member.command, answer.command
    return b"".join((begin, key, middle, proof, end, pack_parts(record, request_id)))
