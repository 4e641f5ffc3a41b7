"""Brute-force protection of the sign-in and its kin, counted in Redis."""

import hashlib

import structlog
from django.core.cache import cache
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from ragsite.core.problems import Problem

logger = structlog.get_logger(__name__)

FAILURES_PER_ADDRESS = (20, 60)  # failures, seconds
FAILURES_PER_ACCOUNT = (10, 300)

# The first failure starts the window; all of them end together.
_COUNT = """
local n = redis.call('INCR', KEYS[1])
if n == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return n
"""

_TAKE_BACK = """
if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then redis.call('DECR', KEYS[1]) end
"""


def _keys(account: str, address: str | None) -> list[tuple[str, tuple[int, int]]]:
    digest = hashlib.sha256(account.lower().encode()).hexdigest()[:32]
    keys = [(f"{cache.key_prefix}:signin:account:{digest}", FAILURES_PER_ACCOUNT)]
    if address:
        keys.append((f"{cache.key_prefix}:signin:address:{address}", FAILURES_PER_ADDRESS))
    return keys


def begin_attempt(*, account: str, address: str | None) -> None:
    """Counts an attempt before the password is looked at, so that parallel guesses do not slip past the count.

    Fails open when Redis is away: signing in must go on without a cache, and passwords are hashed slowly anyway.

    Raises:
        Problem: 429 while an account or an address has failed too often.
    """
    try:
        redis = get_redis_connection("default")
        for key, (most, seconds) in _keys(account, address):
            if int(redis.eval(_COUNT, 1, key, seconds)) > most:
                wait = max(1, int(redis.ttl(key)))
                words = f"Too many failed sign-ins. Wait {wait} seconds and try again."
                raise _too_many(words, what="sign-in", most=most, seconds=seconds, wait=wait)
    except RedisError as error:
        logger.warning("sign-in limit skipped", error=type(error).__name__)


def end_attempt(*, account: str, address: str | None) -> None:
    """A successful sign-in clears the account's count, and takes only itself off the address's: it may be trying others."""
    try:
        redis = get_redis_connection("default")
        of_account, *of_address = [key for key, _ in _keys(account, address)]
        redis.delete(of_account)
        for key in of_address:
            redis.eval(_TAKE_BACK, 1, key)
    except RedisError as error:
        logger.warning("sign-in failures not forgotten", error=type(error).__name__)


def throttle(*, what: str, key: str, most: int, seconds: int) -> None:
    """Counts a use of ``what`` by ``key`` (an address, an account): at most ``most`` within ``seconds``.

    Fails open when Redis is away, like the sign-in.

    Raises:
        Problem: 429 with the seconds to wait.
    """
    digest = hashlib.sha256(key.lower().encode("utf-8", "replace")).hexdigest()[:32]
    name = f"{cache.key_prefix}:throttle:{what}:{digest}"
    try:
        redis = get_redis_connection("default")
        if int(redis.eval(_COUNT, 1, name, seconds)) <= most:
            return
        wait = max(1, int(redis.ttl(name)))
    except RedisError as error:
        logger.warning("limit skipped", what=what, error=type(error).__name__)
        return
    words = f"Too many attempts. Wait {wait} seconds and try again."
    raise _too_many(words, what=what, most=most, seconds=seconds, wait=wait)


def _too_many(words: str, *, what: str, most: int, seconds: int, wait: int) -> Problem:
    """With the headers of draft-ietf-httpapi-ratelimit-headers-10, as ``tenants.rates`` has them."""
    headers = {
        "Retry-After": str(wait),
        "RateLimit-Policy": f'"{what}";q={most};w={seconds}',
        "RateLimit": f'"{what}";r=0;t={wait}',
    }
    return Problem(429, "too-many-attempts", words, headers=headers)
