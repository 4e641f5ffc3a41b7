"""How often a member, an API key and a tenant may ask: token buckets in Redis, all of them decided in one call.

A bucket holds a minute's worth and is refilled evenly. Model tokens are taken by an estimate before the call and settled
after it; a bucket may go below nothing then, and is waited for. Without Redis everything passes, and is counted.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from django.core.cache import cache
from redis.exceptions import RedisError

from ragsite.core.config import config
from ragsite.core.observability import LIMITED, LIMITS_SKIPPED
from ragsite.core.problems import Problem
from ragsite.core.redis import redis_client
from tenants.access import Principal

logger = structlog.get_logger(__name__)

WINDOW_SECONDS = 60

_LEVELS = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local function levels(key, most_requests, most_tokens)
  local seen = redis.call('HMGET', key, 'at', 'requests', 'tokens')
  local past = math.max(0, now - (tonumber(seen[1]) or now))
  return math.min(most_requests, (tonumber(seen[2]) or most_requests) + past * most_requests / 60),
    math.min(most_tokens, (tonumber(seen[3]) or most_tokens) + past * most_tokens / 60)
end
local function keep(key, requests, tokens, most_requests, most_tokens)
  redis.call('HSET', key, 'requests', string.format('%.6f', requests), 'tokens', string.format('%.6f', tokens),
    'at', string.format('%.6f', now))
  local empty = 0
  if most_tokens > 0 then empty = math.max(0, -tokens) * 60 / most_tokens end
  redis.call('EXPIRE', key, math.ceil(120 + empty))
end
"""
# For other scripts too: ``take`` decides over buckets, ``keys``, by their two ``quotas`` each. There must be ``wanted``
# tokens, which stay there unless ``uses``: what needs no model gives them back at once.
TAKE_FUNCTION = (
    _LEVELS
    + """
local function take(keys, quotas, wanted, uses)
  local found, allowed, told = {}, true, {}
  for i, key in ipairs(keys) do
    local most_requests, most_tokens = tonumber(quotas[2 * i - 1]), tonumber(quotas[2 * i])
    local requests, tokens = levels(key, most_requests, most_tokens)
    local need = math.min(wanted, most_tokens)
    local wait_requests, wait_tokens = 0, 0
    if most_requests > 0 and requests < 1 then wait_requests = (1 - requests) * 60 / most_requests end
    if most_tokens > 0 and tokens < math.max(need, 1) then
      wait_tokens = (math.max(need, 1) - tokens) * 60 / most_tokens
    end
    if wait_requests > 0 or wait_tokens > 0 then allowed = false end
    found[i] = {requests, tokens, wait_requests, wait_tokens, need, most_requests, most_tokens}
  end
  for i, key in ipairs(keys) do
    local f = found[i]
    if allowed then
      f[1], f[2] = f[1] - 1, f[2] - f[5]
      keep(key, f[1], uses and f[2] or f[2] + f[5], f[6], f[7])
    end
    for j = 1, 4 do told[#told + 1] = string.format('%.6f', f[j]) end
  end
  return told, allowed
end
"""
)
# KEYS: a bucket each. ARGV: the tokens wanted, then for each bucket what its two quotas hold (0: no limit). Returns for
# each bucket what is left of both and the seconds until there is enough, all as strings; takes from all, or from none.
_TAKE = (
    TAKE_FUNCTION
    + """
local quotas = {}
for i = 2, #ARGV do quotas[i - 1] = ARGV[i] end
return (take(KEYS, quotas, tonumber(ARGV[1]), true))
"""
)
# ARGV: the tokens that were used and those that were wanted, then the quotas as above.
_SETTLE = (
    _LEVELS
    + """
for i, key in ipairs(KEYS) do
  local most_requests, most_tokens = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local back = math.min(tonumber(ARGV[2]), most_tokens) - tonumber(ARGV[1])
  if most_tokens > 0 and (back < 0 or redis.call('EXISTS', key) == 1) then
    local requests, tokens = levels(key, most_requests, most_tokens)
    keep(key, requests, math.min(most_tokens, tokens + back), most_requests, most_tokens)
  end
end
"""
)

_scripts_of: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, Any]] = WeakKeyDictionary()


def _scripts() -> tuple[Any, Any]:
    """The two scripts, sent by their digest; a server that does not know them (any more) is given them again."""
    loop = asyncio.get_running_loop()
    if loop not in _scripts_of:
        client = redis_client()
        _scripts_of[loop] = client.register_script(_TAKE), client.register_script(_SETTLE)
    return _scripts_of[loop]


@dataclass(frozen=True)
class Bucket:
    """``requests`` and ``tokens`` a minute; 0: no limit."""

    subject: str
    key: str
    requests: int
    tokens: int


@dataclass(frozen=True)
class Grant:
    """A request that may go on. ``headers`` are for its response; ``tokens`` are settled when it is over; ``left`` is the
    smallest part that any quota has left."""

    buckets: tuple[Bucket, ...] = ()
    tokens: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    left: float = 1.0


NO_GRANT = Grant()


def buckets_of(principal: Principal) -> tuple[Bucket, ...]:
    """What limits a request: the member, the key where one was used, the tenant."""
    settings, tenant = config(), principal.membership.tenant
    # One slot of a cluster: the script needs all of them.
    prefix = f"{cache.key_prefix}:{{{tenant.pk}}}:limit"

    def bucket(subject: str, key: object) -> Bucket:
        requests, tokens = getattr(tenant, f"{subject}_requests"), getattr(tenant, f"{subject}_tokens")
        return Bucket(
            subject=subject,
            key=f"{prefix}:{subject}:{key}",
            requests=getattr(settings, f"limit_{subject}_requests") if requests is None else requests,
            tokens=getattr(settings, f"limit_{subject}_tokens") if tokens is None else tokens,
        )

    found = [bucket("user", principal.membership.pk)]
    if principal.method == "api_key":
        found.append(bucket("key", principal.credential))
    return *found, bucket("tenant", "all")


async def take_request(principal: Principal, *, tokens: int = 0) -> Grant:
    """Takes one request, and by estimate ``tokens``, from every bucket, or from none.

    Raises:
        Problem: 429 where one has not enough; it says for how long.
    """
    buckets = buckets_of(principal)
    quotas = [quota for bucket in buckets for quota in (bucket.requests, bucket.tokens)]
    try:
        take, _ = _scripts()
        told = await take(keys=[bucket.key for bucket in buckets], args=[tokens, *quotas])
    except (RedisError, OSError, TimeoutError) as error:
        LIMITS_SKIPPED.inc()
        logger.warning("rate limit skipped", error=type(error).__name__)
        return NO_GRANT
    states = _states(buckets, told)
    headers = _headers(states)
    waits = {name: wait for state in states for name, wait in state.waits.items()}
    if waits:
        raise _too_many(waits, headers)
    left = min((level / most for state in states for _, most, level, _, _ in state.quotas), default=1.0)
    return Grant(buckets, tokens, headers, left)


async def take_when_there(principal: Principal, *, tokens: int) -> Grant:
    """Takes a request for work that nobody waits for, as soon as all quotas hold it."""
    while True:
        try:
            return await take_request(principal, tokens=tokens)
        except Problem as problem:
            await asyncio.sleep(float(problem.headers["Retry-After"]))


def seconds_to_leave_half(grant: Grant) -> float:
    """How long such work is to pause after a request, so that half of each quota is left to those who do wait."""
    return max(0.0, 0.5 - grant.left) * WINDOW_SECONDS


async def settle_request(grant: Grant, *, used: int) -> None:
    """Gives back what was taken too much of, or takes what was used beyond the estimate."""
    if not grant.buckets or used == grant.tokens:
        return
    quotas = [quota for bucket in grant.buckets for quota in (bucket.requests, bucket.tokens)]
    try:
        _, settle = _scripts()
        await settle(keys=[bucket.key for bucket in grant.buckets], args=[used, grant.tokens, *quotas])
    except (RedisError, OSError, TimeoutError) as error:  # within a minute the bucket is full again by itself
        logger.warning("rate limit not settled", error=type(error).__name__)


@dataclass(frozen=True)
class _State:
    bucket: Bucket
    requests: float
    tokens: float
    wait_requests: float
    wait_tokens: float

    @property
    def quotas(self) -> list[tuple[str, int, float, float, str]]:
        """Name, quota, what is left, seconds to wait, unit."""
        name = self.bucket.subject
        both = [
            (name, self.bucket.requests, self.requests, self.wait_requests, ""),
            (f"{name}-tokens", self.bucket.tokens, self.tokens, self.wait_tokens, ';qu="tokens"'),
        ]
        return [each for each in both if each[1]]

    @property
    def waits(self) -> dict[str, float]:
        return {name: wait for name, _, _, wait, _ in self.quotas if wait > 0}


def _states(buckets: tuple[Bucket, ...], told: Sequence[Any]) -> list[_State]:
    levels = [float(value) for value in told]
    return [_State(bucket, *levels[4 * i : 4 * i + 4]) for i, bucket in enumerate(buckets)]


def limit_headers(buckets: tuple[Bucket, ...], told: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    """The headers of a request that was let through, from what ``take`` told."""
    return _headers(_states(buckets, told))


def _headers(states: list[_State]) -> tuple[tuple[str, str], ...]:
    """``RateLimit-Policy`` and ``RateLimit`` of draft-ietf-httpapi-ratelimit-headers-10: lists of structured fields.

    ``q`` is the quota, ``w`` its window; ``r`` is what is left, ``t`` the seconds until the whole quota is there again.
    """
    quotas = [each for state in states for each in state.quotas]
    if not quotas:
        return ()
    policies = [f'"{name}";q={most};w={WINDOW_SECONDS}{unit}' for name, most, _, _, unit in quotas]
    left = [
        f'"{name}";r={max(0, math.floor(level))};t={math.ceil((most - level) * WINDOW_SECONDS / most)}'
        for name, most, level, _, _ in quotas
    ]
    return ("RateLimit-Policy", ", ".join(policies)), ("RateLimit", ", ".join(left))


def _too_many(waits: dict[str, float], headers: tuple[tuple[str, str], ...]) -> Problem:
    seconds = max(1, math.ceil(max(waits.values())))
    for name in waits:
        subject, _, what = name.partition("-")
        LIMITED.labels(subject, what or "requests").inc()
    whose = {"user": "you", "key": "this API key", "tenant": "your tenant"}
    named = " and ".join(dict.fromkeys(whose[name.partition("-")[0]] for name in waits))
    return Problem(
        429,
        "rate-limited",
        f"Too many questions in a minute for {named}: try again in {seconds} seconds.",
        headers={"Retry-After": str(seconds), **dict(headers)},
        extra={"violated-policies": list(waits)},
    )
