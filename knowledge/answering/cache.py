"""Wall 3: the exact-answer cache. No key without tenant and authorisation, no value without its corpus version."""

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from django.core.cache import cache as django_cache
from redis.exceptions import RedisError

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


def acl_signature(membership: Membership) -> str:
    """What the member may read, and the epoch of the tenant's authorisation; equal signatures see equal documents."""
    tags = membership.role.readable_tags
    text = json.dumps(["*" if tags is None else list(tags), membership.tenant.auth_epoch])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def answer_key(
    *, membership: Membership, question: str, k: int, filters: Filters, config: AnswerConfig
) -> str:
    """The key of an answer to a question that stands alone."""
    parts = [
        normalise_question(question),
        k,
        sorted(str(pk) for pk in filters.collection_ids),
        sorted(filters.tags),
        config.fingerprint(),
        PROMPT_VERSION,
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return f"{tenant_prefix(membership.tenant_id)}answer:{acl_signature(membership)}:{digest}"


def tenant_prefix(tenant_id: UUID) -> str:
    """What every cached thing of a tenant begins with."""
    return f"{django_cache.key_prefix}:{tenant_id}:"


@dataclass(frozen=True)
class CachedAnswer:
    """An answer as it was given, and the corpus version at which its passages were looked up."""

    corpus_version: int
    payload: dict[str, Any]


async def read_answer(*, key: str, tenant_id: UUID, corpus_version: int) -> CachedAnswer | None:
    """The cached answer, if nothing in the corpus has changed since. Without Redis it is a miss."""
    found: CachedAnswer | None = None
    try:
        client = redis_client()
        raw = await client.get(key)
        if raw is not None:
            value = json.loads(raw)
            if value["corpus_version"] == corpus_version:
                found = CachedAnswer(corpus_version=corpus_version, payload=value["payload"])
        await client.hincrby(f"{tenant_prefix(tenant_id)}stats", "hits" if found else "misses", 1)
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("answer cache not read", error=type(error).__name__)
    (CACHE_HITS if found else CACHE_MISSES).labels("exact").inc()
    return found


async def write_answer(*, key: str, answer: CachedAnswer, seconds: int) -> None:
    """Keeps an answer; a failure costs nothing but the next hit."""
    if seconds <= 0:
        return
    value = json.dumps({"corpus_version": answer.corpus_version, "payload": answer.payload}, default=str)
    try:
        await redis_client().set(key, value, ex=seconds)
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("answer not cached", error=type(error).__name__)


def cache_stats(*, tenant_id: UUID) -> dict[str, Any]:
    """Hits, misses, hit rate, entries and bytes of the tenant's exact answers.

    Raises:
        RedisError: the cache does not answer.
    """
    from django_redis import get_redis_connection

    client = get_redis_connection("default")
    counts = {k.decode(): int(v) for k, v in client.hgetall(f"{tenant_prefix(tenant_id)}stats").items()}
    hits, misses = counts.get("hits", 0), counts.get("misses", 0)
    entries = size = 0
    for key in client.scan_iter(match=f"{tenant_prefix(tenant_id)}answer:*", count=1000):
        entries += 1
        size += int(client.memory_usage(key) or 0)
    return {
        "layers": {
            "exact": {
                "hits": hits,
                "misses": misses,
                "hit_rate": round(hits / (hits + misses), 4) if hits + misses else 0.0,
                "entries": entries,
                "bytes": size,
            }
        }
    }


def clear_cache(*, tenant_id: UUID) -> int:
    """Forgets the tenant's cached answers; returns how many.

    Raises:
        RedisError: the cache does not answer.
    """
    from django_redis import get_redis_connection

    client = get_redis_connection("default")
    removed = 0
    for key in client.scan_iter(match=f"{tenant_prefix(tenant_id)}answer:*", count=1000):
        removed += int(client.unlink(key))
    return removed
