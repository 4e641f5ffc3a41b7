"""What a question has been looked up with before: its vector and its passages, in one round trip.

Vectors are kept by text and model; passages by the whole of what they depend on: the tenant and what the asker may read, the
corpus version, the question, its filters, the configuration. Both are kept a tenant apart from the others.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np
import structlog
from redis.exceptions import RedisError

from knowledge.answering.layers import acl_signature, counts_key, digest_of, tenant_prefix
from knowledge.config import RetrievalConfig
from knowledge.embedding.base import Vectors
from knowledge.retrieval.base import Filters, FoundPassage
from ragsite.core.config import config as settings
from ragsite.core.observability import CACHE_HITS, CACHE_MISSES
from ragsite.core.redis import redis_client
from tenants.models import Membership

logger = structlog.get_logger(__name__)

VECTOR_SECONDS = 24 * 3600
PASSAGES_SECONDS = 30 * 60

# KEYS: the passages, the vector, the tenant's counts. ARGV: 1 where the process has the vector.
_READ = """
local function look(layer, key)
  local found = redis.call('GET', key)
  redis.call('HINCRBY', KEYS[3], layer .. (found and ':hits' or ':misses'), 1)
  return found
end
local passages = look('passages', KEYS[1])
if passages then return {passages, false} end
if ARGV[1] == '1' then
  redis.call('HINCRBY', KEYS[3], 'embedding:hits', 1)
  return {false, false}
end
return {false, look('embedding', KEYS[2])}
"""


@dataclass(frozen=True)
class Lookup:
    """What a question is looked up with. ``model`` is the name of the embedder, ``version`` the corpus version that was in
    force before: what is found may be newer, never older."""

    membership: Membership
    text: str
    k: int
    filters: Filters
    config: RetrievalConfig
    model: str
    version: int

    @cached_property
    def passages_key(self) -> str:
        parts = [
            self.text,
            self.k,
            *self.filters.as_key(),
            vars(self.config),
            settings().reranker_model,
            self.model,
            self.version,
        ]
        return f"{self._prefix}passages:{acl_signature(self.membership)}:{digest_of(json.dumps(parts))}"

    @property
    def vector_key(self) -> str:
        return f"{self._prefix}embedding:{digest_of(self.model)[:16]}:{digest_of(self.text)}"

    @property
    def _prefix(self) -> str:
        return tenant_prefix(self.membership.tenant_id)


async def read_lookup(
    lookup: Lookup, *, has_vector: bool
) -> tuple[list[FoundPassage] | None, Vectors | None]:
    """The passages, or else the vector unless the process has it, if they are kept. Without Redis nothing is."""
    keys = (lookup.passages_key, lookup.vector_key, counts_key(lookup.membership.tenant_id))
    try:
        passages, vector = await redis_client().eval(_READ, 3, *keys, int(has_vector))
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("lookups not read", error=type(error).__name__)
        return None, None
    (CACHE_HITS if passages else CACHE_MISSES).labels("passages").inc()
    if passages:
        return [_read_passage(each) for each in json.loads(passages)], None
    (CACHE_HITS if has_vector or vector else CACHE_MISSES).labels("embedding").inc()
    return None, np.frombuffer(vector, dtype=np.float32) if vector else None


def _read_passage(fields: dict[str, Any]) -> FoundPassage:
    for name in ("document_id", "chunk_id"):
        fields[name] = UUID(fields[name])
    return FoundPassage(**fields)


async def write_lookup(lookup: Lookup, *, passages: list[FoundPassage], vector: Vectors | None) -> None:
    """Keeps what was found, and the vector where it had to be made."""
    try:
        pipeline = redis_client().pipeline(transaction=False)
        body = json.dumps([vars(each) for each in passages], default=str)
        pipeline.set(lookup.passages_key, body, ex=PASSAGES_SECONDS)
        if vector is not None:
            pipeline.set(lookup.vector_key, vector.astype(np.float32).tobytes(), ex=VECTOR_SECONDS)
        await pipeline.execute()
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("lookups not kept", error=type(error).__name__)
