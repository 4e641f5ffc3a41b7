"""Wall 3: the exact-answer cache. No key without tenant and authorisation, no value without its corpus version.

An answer is read in one round trip. A process keeps a copy of what it has read, and shows it only when Redis still holds
the same one: what is forgotten there, cleared or made again misses here at once.
"""

import json
import time
import unicodedata
import uuid
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from knowledge.answering.copies import copies
from knowledge.answering.layers import acl_signature, counts_key, digest_of, tenant_prefix
from knowledge.answering.lifetime import FRESH_PART
from knowledge.answering.prompt import PROMPT_VERSION
from knowledge.config import AnswerConfig
from knowledge.retrieval.base import Filters
from ragsite.core.observability import CACHE_HITS, CACHE_MISSES
from ragsite.core.redis import redis_client
from tenants.models import Membership

logger = structlog.get_logger(__name__)


def normalise_question(question: str) -> str:
    """Equal for questions that differ in case, spacing, Unicode form or closing punctuation alone."""
    folded = unicodedata.normalize("NFKC", question).casefold()
    return " ".join(folded.split()).rstrip(" ?!.")


def answer_key(
    *, membership: Membership, question: str, k: int, filters: Filters, config: AnswerConfig
) -> str:
    """The key of an answer to a question that stands alone."""
    parts = [
        normalise_question(question),
        k,
        *filters.as_key(),
        config.fingerprint(),
        PROMPT_VERSION,
    ]
    place = f"{tenant_prefix(membership.tenant_id)}exact:{acl_signature(membership)}"
    return f"{place}:{digest_of(json.dumps(parts))}"


# KEYS: the answer, the tenant's counts. ARGV: the corpus version, the stamp of the copy in this process, 1 where it counts
# as a hit or a miss. Returns nothing for a miss, else the answer's stamp, and its version and itself unless the copy is of
# the same stamp. One that was made at another version is counted when it is known whether it may be shown.
_READ = """
local found = redis.call('HMGET', KEYS[1], 'version', 'stamp')
if not found[1] then
  if ARGV[3] == '1' then redis.call('HINCRBY', KEYS[2], 'exact:misses', 1) end
  return {}
end
if found[1] == ARGV[1] and ARGV[3] == '1' then redis.call('HINCRBY', KEYS[2], 'exact:hits', 1) end
if found[2] == ARGV[2] then
  redis.call('HINCRBY', KEYS[2], 'process:hits', 1)
  return {found[2]}
end
redis.call('HINCRBY', KEYS[2], 'process:misses', 1)
return {found[2], found[1], redis.call('HGET', KEYS[1], 'body')}
"""


@dataclass(frozen=True)
class CachedAnswer:
    """An answer as it was given, the corpus version at which its passages were looked up, and from when on (seconds since
    1970) it is to be made again: it is shown as stale then. ``stamp`` tells it from what was under its key before."""

    corpus_version: int
    payload: dict[str, Any]
    old_at: float = float("inf")
    stamp: bytes = b""

    @property
    def is_stale(self) -> bool:
        return time.time() >= self.old_at


async def read_answer(
    *, key: str, tenant_id: UUID, corpus_version: int, is_counted: bool = True
) -> CachedAnswer | None:
    """What is cached, be it of another corpus version (``recall.py`` decides). Without Redis it is a miss.

    Args:
        is_counted: as a hit or a miss; not where it is read for another layer.
    """
    found: CachedAnswer | None = None
    stamp, copy = copies.get(key) or (b"", None)
    try:
        told: Any = await redis_client().eval(
            _READ, 2, key, counts_key(tenant_id), str(corpus_version), stamp, int(is_counted)
        )
        if len(told) == 1:
            found = copy
        elif told:
            stamp, version, body = told
            value = json.loads(body)
            found = CachedAnswer(
                corpus_version=int(version),
                payload=value["payload"],
                old_at=value["old_at"],
                stamp=stamp,
            )
            copies.put(key, stamp=stamp, value=found, size=len(body))
        if told:
            (CACHE_HITS if len(told) == 1 else CACHE_MISSES).labels("process").inc()
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("answer cache not read", error=type(error).__name__)
    if is_counted and (found is None or found.corpus_version == corpus_version):
        (CACHE_HITS if found else CACHE_MISSES).labels("exact").inc()
    return found


async def write_answer(*, key: str, answer: CachedAnswer, seconds: int) -> CachedAnswer | None:
    """Keeps an answer for ``seconds``, as a stale one in the last part of them; a failure costs nothing but the next hit.

    Returns:
        What is cached now.
    """
    if seconds <= 0:
        return None
    kept = replace(answer, old_at=time.time() + seconds * FRESH_PART, stamp=uuid.uuid4().hex.encode())
    fields: Any = {
        "version": answer.corpus_version,
        "stamp": kept.stamp,
        "body": json.dumps({"payload": answer.payload, "old_at": kept.old_at}, default=str),
    }
    try:
        pipeline = redis_client().pipeline()
        pipeline.hset(key, mapping=fields)
        pipeline.expire(key, seconds)
        await pipeline.execute()
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("answer not cached", error=type(error).__name__)
        return None
    return kept
