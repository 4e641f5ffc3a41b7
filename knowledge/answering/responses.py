"""What a model has said to a prompt before. The very same prompt, passages and all, need not be paid for again: mostly it is
asked anew because other documents have changed.

A prompt holds passages, so its key holds the tenant and what the asker may read, as every other does.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog
from redis.exceptions import RedisError

from knowledge.answering.layers import acl_signature, counts_key, digest_of, tenant_prefix
from knowledge.llm.base import BlockEnd, Cited, Finished, ModelConfig, Prompt, TextDelta, Usage
from ragsite.core.observability import CACHE_HITS, CACHE_MISSES
from ragsite.core.redis import redis_client
from tenants.models import Membership

logger = structlog.get_logger(__name__)

Said: TypeAlias = TextDelta | Cited | BlockEnd

# KEYS: the response, the tenant's counts.
_READ = """
local found = redis.call('GET', KEYS[1])
redis.call('HINCRBY', KEYS[2], found and 'response:hits' or 'response:misses', 1)
return found
"""


@dataclass(frozen=True)
class Response:
    """An answer as a model gave it, whole."""

    said: tuple[Said, ...]
    provider: str
    model: str

    async def stream(self) -> AsyncGenerator[Said | Finished, None]:
        """As the gateway would stream it; it has used nothing."""
        for each in self.said:
            yield each
        yield Finished(
            model=self.model, stop_reason="end_turn", usage=Usage(), provider=self.provider, fallback=False
        )


def response_key(*, membership: Membership, prompt: Prompt, models: Sequence[ModelConfig]) -> str:
    """Of everything that is sent, and to whom."""
    text = json.dumps([prompt, *models], default=vars)
    return f"{tenant_prefix(membership.tenant_id)}response:{acl_signature(membership)}:{digest_of(text)}"


async def read_response(*, key: str, membership: Membership) -> Response | None:
    """What was said to it; without Redis nothing was."""
    try:
        found: Any = await redis_client().eval(_READ, 2, key, counts_key(membership.tenant_id))
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("responses not read", error=type(error).__name__)
        return None
    (CACHE_HITS if found else CACHE_MISSES).labels("response").inc()
    if not found:
        return None
    value = json.loads(found)
    said = tuple(_read_said(each) for each in value["said"])
    return Response(said=said, provider=value["provider"], model=value["model"])


def hear(said: list[Said], each: Said) -> None:
    """Adds what a model says next; deltas that follow each other become one, or a long answer would be thousands of them."""
    last = said[-1] if said else None
    if isinstance(each, TextDelta) and isinstance(last, TextDelta):
        said[-1] = TextDelta(last.text + each.text)
    else:
        said.append(each)


def _read_said(each: list[Any]) -> Said:
    match each:
        case [str(text)]:
            return TextDelta(text)
        case [int(source), str(quote)]:
            return Cited(source=source, quote=quote)
        case _:
            return BlockEnd()


def _write_said(each: Said) -> list[Any]:
    match each:
        case TextDelta(text=text):
            return [text]
        case Cited(source=source, quote=quote):
            return [source, quote]
        case BlockEnd():
            return []


async def write_response(*, key: str, response: Response, seconds: int) -> None:
    if seconds <= 0:
        return
    said = [_write_said(each) for each in response.said]
    value = json.dumps({"said": said, "provider": response.provider, "model": response.model})
    try:
        await redis_client().set(key, value, ex=seconds)
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("response not kept", error=type(error).__name__)
