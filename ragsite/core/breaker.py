"""Breakers: what fails again and again is left alone for a while, by all processes at once.

A breaker is closed (calls pass), open (calls are refused for ``open_seconds``) or half open: one call at a time, in all
processes together, tries whether it works again, and so many successes in a row close it. The state is a hash in Redis,
changed by two Lua scripts and by Redis's own clock. Without Redis each process goes on by the same rules for itself.

Why it is ours: ``docs/decisions/0008-the-model-gateway.md``.
"""

import contextlib
import json
import time
import uuid
from typing import Any

from redis.exceptions import RedisError

from ragsite.core.breaker_rules import (
    CHANGES_KEPT,
    BreakerOpen,
    BreakerPolicy,
    LocalBreaker,
    Outcome,
    Permit,
    note_change,
)
from ragsite.core.config import PROVIDERS
from ragsite.core.redis import KEY_PREFIX, cache_breaker, redis_client, redis_connection

CHANGES_KEY = f"{KEY_PREFIX}:{{breaker}}:changes"
_KEPT_MS = 24 * 3600 * 1000
MODEL = BreakerPolicy(failures=5, open_seconds=60)
# Looked at with every connection that is taken, so not in Redis each time.
DATABASE = BreakerPolicy(failures=3, open_seconds=30, probe_seconds=15, calm_seconds=1)

# Both return {what, new state or '', number}; what: 0 refused (milliseconds to wait), 1 an ordinary call (failures so far),
# 2 a probe.
_NOTE = """
local function note(state)
  redis.call('HSET', KEYS[1], 'state', state, 'since', now, 'failures', 0, 'successes', 0, 'probe', '')
  redis.call('LPUSH', KEYS[2], cjson.encode({name = ARGV[1], state = state, at = now / 1000, reason = ARGV[6]}))
  redis.call('LTRIM', KEYS[2], 0, tonumber(ARGV[7]) - 1)
  redis.call('PEXPIRE', KEYS[1], ARGV[8])
  return state
end
"""
_CLOCK = "local clock = redis.call('TIME')\nlocal now = clock[1] * 1000 + math.floor(clock[2] / 1000)\n"
_ADMIT = (
    _CLOCK
    + _NOTE
    + """
local row = redis.call('HMGET', KEYS[1], 'state', 'since', 'probe', 'until', 'failures')
local state, changed = row[1] or 'closed', ''
if state == 'closed' then return {1, '', tonumber(row[5] or '0')} end
if state == 'open' then
  local left = tonumber(row[2]) + tonumber(ARGV[3]) - now
  if left > 0 then return {0, '', left} end
  changed = note('half_open')
elseif row[3] ~= '' and tonumber(row[4]) > now then
  return {0, '', tonumber(row[4]) - now}
end
redis.call('HSET', KEYS[1], 'probe', ARGV[2], 'until', now + tonumber(ARGV[4]))
return {2, changed, 0}
"""
)
_REPORT = (
    _CLOCK
    + _NOTE
    + """
local row = redis.call('HMGET', KEYS[1], 'state', 'probe', 'failures')
local state, outcome, token = row[1] or 'closed', ARGV[5], ARGV[2]
if state == 'closed' and token == '' then
  if outcome == 'success' and row[3] and row[3] ~= '0' then redis.call('HSET', KEYS[1], 'failures', 0) end
  if outcome == 'failure' then
    if redis.call('HINCRBY', KEYS[1], 'failures', 1) >= tonumber(ARGV[3]) then return {0, note('open'), 0} end
    redis.call('PEXPIRE', KEYS[1], ARGV[8])
  end
elseif state == 'half_open' and token ~= '' and token == row[2] then
  redis.call('HSET', KEYS[1], 'probe', '')
  if outcome == 'failure' then return {0, note('open'), 0} end
  if outcome == 'success' and redis.call('HINCRBY', KEYS[1], 'successes', 1) >= tonumber(ARGV[4]) then
    return {0, note('closed'), 0}
  end
end
return {0, '', 0}
"""
)


class Breaker:
    """A breaker with one state for all processes. Ask ``admit`` before a call, and tell ``report`` how it went."""

    def __init__(self, name: str, policy: BreakerPolicy) -> None:
        self.name, self._policy = name, policy
        self.key = f"{KEY_PREFIX}:{{breaker}}:{name}"
        self._keys = (self.key, CHANGES_KEY)
        self.local = LocalBreaker(name, policy)
        self._calm_until = 0.0

    async def admit(self) -> Permit:
        """The leave to call.

        Raises:
            BreakerOpen: it is open, or another call, maybe of another process, is the probe.
        """
        if self._is_calm():
            return Permit(is_calm=True)
        token = uuid.uuid4().hex
        try:
            found = await redis_client().eval(_ADMIT, 2, *self._keys, *self._admit_arguments(token))
        except (RedisError, OSError, TimeoutError):
            return self.local.admit(token)
        return self._permit(found, token)

    async def report(self, permit: Permit, outcome: Outcome, *, reason: str = "") -> None:
        """How the call went; ``unknown`` where it tells nothing (its caller left, the request itself was wrong).

        Args:
            reason: of a failure, in words that hold no secret.
        """
        if self._has_nothing_to_tell(permit, outcome):
            return
        if not permit.is_local:
            try:
                found = await redis_client().eval(
                    _REPORT, 2, *self._keys, *self._report_arguments(permit, outcome, reason)
                )
                self._note(found, reason)
                return
            except (RedisError, OSError, TimeoutError):
                pass
        self.local.report(permit, outcome, reason)

    def admit_now(self) -> Permit:
        """``admit`` for code that is not a coroutine."""
        if self._is_calm():
            return Permit(is_calm=True)
        token = uuid.uuid4().hex
        try:
            found = redis_connection().eval(_ADMIT, 2, *self._keys, *self._admit_arguments(token))
        except (RedisError, OSError, TimeoutError):
            return self.local.admit(token)
        return self._permit(found, token)

    def report_now(self, permit: Permit, outcome: Outcome, *, reason: str = "") -> None:
        """``report`` for code that is not a coroutine."""
        if self._has_nothing_to_tell(permit, outcome):
            return
        if not permit.is_local:
            try:
                found = redis_connection().eval(
                    _REPORT, 2, *self._keys, *self._report_arguments(permit, outcome, reason)
                )
                self._note(found, reason)
                return
            except (RedisError, OSError, TimeoutError):
                pass
        self.local.report(permit, outcome, reason)

    def _admit_arguments(self, token: str) -> list[Any]:
        open_ms, probe_ms = self._policy.open_seconds * 1000, self._policy.probe_seconds * 1000
        return [self.name, token, int(open_ms), int(probe_ms), "", "", CHANGES_KEPT, _KEPT_MS]

    def _report_arguments(self, permit: Permit, outcome: Outcome, reason: str) -> list[Any]:
        policy = self._policy
        return [
            self.name,
            permit.token,
            policy.failures,
            policy.successes,
            outcome,
            reason[:200],
            CHANGES_KEPT,
            _KEPT_MS,
        ]

    def _permit(self, found: Any, token: str) -> Permit:
        what, number = int(found[0]), int(found[2])
        self._note(found, "")
        if what == 0:
            raise BreakerOpen(self.name, retry_after=number / 1000)
        if what == 1 and number == 0:
            self._calm_until = time.monotonic() + self._policy.calm_seconds
        return Permit(token=token if what == 2 else "")

    def _is_calm(self) -> bool:
        return time.monotonic() < self._calm_until

    def _has_nothing_to_tell(self, permit: Permit, outcome: Outcome) -> bool:
        if outcome == "failure":
            self._calm_until = 0.0
        return permit.is_calm and outcome != "failure"

    def _note(self, found: Any, reason: str) -> None:
        state = found[1].decode()
        if state:  # in one process alone: the one whose call changed it
            note_change(self.name, state, reason=reason)


_breakers: dict[str, Breaker] = {}


def model_breaker(provider: str) -> Breaker:
    """The breaker of a provider of language models."""
    return _breaker(f"model:{provider}", MODEL)


def database_breaker() -> Breaker:
    return _breaker("database", DATABASE)


def _breaker(name: str, policy: BreakerPolicy) -> Breaker:
    return _breakers.setdefault(name, Breaker(name, policy))


def every_breaker() -> list[Breaker]:
    """Those with one state for all processes; the cache's is beside them."""
    return [database_breaker(), *(model_breaker(name) for name in PROVIDERS)]


def reset_local() -> None:
    """Forgets what this process alone knows."""
    for each in (cache_breaker, *(breaker.local for breaker in _breakers.values())):
        each.reset()
        each.changes.clear()
    for breaker in _breakers.values():
        breaker._calm_until = 0.0


def read_states() -> list[dict[str, Any]]:
    """``{name, state, since, failures}`` of every breaker; ``since`` in seconds of the epoch, or ``None``.

    Without Redis it is this process's own state that is told.
    """
    rows = []
    for breaker in every_breaker():
        row: dict[str, Any] = {
            "name": breaker.name,
            "state": breaker.local.state,
            "since": None,
            "failures": 0,
        }
        with contextlib.suppress(RedisError, OSError):
            state, since, failures = redis_connection().hmget(breaker.key, "state", "since", "failures")
            row["state"] = _text(state) or "closed"
            row["since"] = int(since) / 1000 if since else None
            row["failures"] = int(failures or 0)
        rows.append(row)
    return [*rows, {"name": "cache", "state": cache_breaker.state, "since": None, "failures": 0}]


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else (raw or "")


def read_changes() -> list[dict[str, Any]]:
    """The latest ``{name, state, at, reason}``, newest first; those of this process alone are told as ``alone``."""
    rows: list[dict[str, Any]] = []
    for local in (cache_breaker, *(breaker.local for breaker in every_breaker())):
        rows += [{**change, "alone": True} for change in local.changes]
    with contextlib.suppress(RedisError, OSError):
        rows += [json.loads(raw) for raw in redis_connection().lrange(CHANGES_KEY, 0, CHANGES_KEPT - 1)]
    return sorted(rows, key=lambda row: -float(row["at"]))[:CHANGES_KEPT]
