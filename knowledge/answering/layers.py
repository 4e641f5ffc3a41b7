"""What the caches of a tenant hold, and how often they were of use."""

import hashlib
import json
from collections import Counter, defaultdict
from typing import Any
from uuid import UUID

import structlog
from django.core.cache import cache as django_cache
from redis.exceptions import RedisError

from knowledge.answering.copies import copies
from ragsite.core.observability import CACHE_HITS, CACHE_MISSES
from ragsite.core.redis import redis_client, redis_connection
from tenants.models import Membership

logger = structlog.get_logger(__name__)

# Of each the keys begin with the tenant's prefix and the layer's name.
LAYERS = ("exact", "semantic", "passages", "embedding", "response")
REMEMBERED_SECONDS = 60
MOST_MEASURED = 1000
UUID_CHARS = 36


def tenant_prefix(tenant_id: UUID) -> str:
    """What every cached thing of a tenant begins with."""
    return f"{django_cache.key_prefix}:{tenant_id}:"


def counts_key(tenant_id: UUID) -> str:
    """Of the hash of the tenant's hits and misses, ``{layer}:hits`` and ``{layer}:misses``."""
    return f"{tenant_prefix(tenant_id)}stats"


def digest_of(text: str) -> str:
    """SHA-256 of a text in hexadecimal digits, for a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def acl_signature(membership: Membership) -> str:
    """What the member may read, and the epoch of the tenant's authorisation; equal signatures see equal documents."""
    tags = membership.role.readable_tags
    text = json.dumps(["*" if tags is None else list(tags), membership.tenant.auth_epoch])
    return digest_of(text)[:24]


async def count_lookup(*, tenant_id: UUID, layer: str, is_hit: bool) -> None:
    """A hit or a miss that no script has counted; without Redis the process counts it alone."""
    (CACHE_HITS if is_hit else CACHE_MISSES).labels(layer).inc()
    try:
        counting: Any = redis_client().hincrby(
            counts_key(tenant_id), f"{layer}:{'hits' if is_hit else 'misses'}", 1
        )
        await counting
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("cache not counted", error=type(error).__name__)


def cache_stats(*, tenant_id: UUID) -> dict[str, Any]:
    """Hits, misses, hit rate, entries and bytes of each of the tenant's layers; ``process`` are the copies of the answering
    process, its hits and misses those of all processes; ``coalesced``, which holds nothing, are answers
    passed on as they were made.

    Raises:
        RedisError: the cache does not answer.
    """
    client: Any = redis_connection()
    prefix = tenant_prefix(tenant_id)
    counts = {k.decode(): int(v) for k, v in client.hgetall(counts_key(tenant_id)).items()}
    sizes = {"process": copies.size_of(prefix), "coalesced": (0, 0)}
    for layer in LAYERS:
        keys = list(client.scan_iter(match=f"{prefix}{layer}:*", count=1000))
        sizes[layer] = len(keys), sum(int(client.memory_usage(key) or 0) for key in keys)
    return {"layers": {layer: _figures(counts, layer) | _size(*size) for layer, size in sizes.items()}}


def read_bytes_of_all() -> dict[str, int]:
    """The bytes of each layer, of all tenants together, looked up once a minute; ``process`` are this process's copies.

    Of many entries of a layer a thousand are measured, and the others taken to be like them.

    Raises:
        RedisError: the cache does not answer.
    """
    client, key = redis_connection(), f"{django_cache.key_prefix}:bytes-of-all"
    told: Any = client.get(key)
    sizes: dict[str, int] = json.loads(told) if told else _measure_layers()
    if not told:
        client.set(key, json.dumps(sizes), ex=REMEMBERED_SECONDS)
    return sizes | {"process": copies.size_of("")[1]}


def _measure_layers() -> dict[str, int]:
    client: Any = redis_connection()
    prefix = f"{django_cache.key_prefix}:"
    counts, measured = Counter[str](), defaultdict[str, list[Any]](list)
    for key in client.scan_iter(match=f"{prefix}*", count=1000):
        tenant, _, rest = key.decode("utf-8", "replace").removeprefix(prefix).partition(":")
        layer, _, name = rest.partition(":")
        if name and layer in LAYERS and len(tenant) == UUID_CHARS:
            counts[layer] += 1
            if counts[layer] <= MOST_MEASURED:
                measured[layer].append(key)
    sizes = dict.fromkeys(LAYERS, 0)
    for layer, keys in measured.items():
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.memory_usage(key)
        there = sum(int(size or 0) for size in pipeline.execute())
        sizes[layer] = there * counts[layer] // len(keys)
    return sizes


def _figures(counts: dict[str, int], layer: str) -> dict[str, Any]:
    hits, misses = counts.get(f"{layer}:hits", 0), counts.get(f"{layer}:misses", 0)
    rate = round(hits / (hits + misses), 4) if hits + misses else 0.0
    return {"hits": hits, "misses": misses, "hit_rate": rate}


def _size(entries: int, size: int) -> dict[str, int]:
    return {"entries": entries, "bytes": size}


def clear_cache(*, tenant_id: UUID) -> int:
    """Forgets what is cached of the tenant, in every layer; returns how many entries.

    Raises:
        RedisError: the cache does not answer.
    """
    client: Any = redis_connection()
    removed = 0
    for layer in LAYERS:
        for key in client.scan_iter(match=f"{tenant_prefix(tenant_id)}{layer}:*", count=1000):
            removed += int(client.unlink(key))
    return removed
