"""What a process may remember of the database, and until when: a gate for each tenant, and one for all of them.

A gate is a hash in Redis: ``stamp``, and a field for each writer that is committing. Whoever changes what authorisation or
answers rest on (``tenants.postgresql.gated`` sees every statement) gives the gate a new stamp and shuts it right before the
commit, and opens it under another stamp right after. What was read after a look at the stamps holds while the gate is open
and has them still; it is remembered for ``MEMORY_SECONDS`` at most.

A writer that dies between the two leaves the gate shut for that long. One that does not reach Redis goes on, and tries
until whatever was remembered before is forgotten. See docs/decisions/0011-hits-before-django.md.
"""

import re
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from django.core.cache import cache
from redis.exceptions import RedisError

from ragsite.core.redis import redis_connection
from tenants.scope import current_scope, require_tenant_id

logger = structlog.get_logger(__name__)

MEMORY_SECONDS = 60
EVERYONE = "all"
_TRY_AGAIN_SECONDS = 1.0

# KEYS: gates. ARGV: the writer, a new stamp, and for how long the gate stays shut if nobody opens it.
_SHUT = """
for _, key in ipairs(KEYS) do
  redis.call('HSET', key, 'stamp', ARGV[2], ARGV[1], redis.call('TIME')[1] + ARGV[3])
  redis.call('EXPIRE', key, 86400)
end
"""
_OPEN = """
for _, key in ipairs(KEYS) do
  redis.call('HSET', key, 'stamp', ARGV[2])
  redis.call('HDEL', key, ARGV[1])
  redis.call('EXPIRE', key, 86400)
end
"""
# KEYS: gates. ARGV: a stamp for one that has none. Returns their stamps between spaces, or nothing when one is shut.
LOOK = """
local now, stamps, shut = tonumber(redis.call('TIME')[1]), {}, false
for i, key in ipairs(KEYS) do
  local found = redis.call('HGETALL', key)
  stamps[i] = ARGV[1]
  for j = 1, #found, 2 do
    if found[j] == 'stamp' then stamps[i] = found[j + 1]
    elseif tonumber(found[j + 1]) >= now then shut = true
    else redis.call('HDEL', key, found[j]) end
  end
  if #found == 0 then
    redis.call('HSET', key, 'stamp', ARGV[1])
    redis.call('EXPIRE', key, 86400)
  end
end
return shut and '' or table.concat(stamps, ' ')
"""


@dataclass(frozen=True)
class Watch:
    """Which writes of a table are changes. Updates of ``harmless`` columns alone are none.

    ``global_``: its rows belong to no tenant.
    """

    inserts: bool = True
    harmless: frozenset[str] = frozenset()
    global_: bool = False


_watched: dict[str, Watch] = {
    "tenants_tenant": Watch(),
    "tenants_user": Watch(inserts=False, harmless=frozenset({"last_login"}), global_=True),
    "tenants_role": Watch(),
    "tenants_membership": Watch(),
    "tenants_apikey": Watch(inserts=False, harmless=frozenset({"last_used_at"})),
    "tenants_tokenfamily": Watch(inserts=False, harmless=frozenset({"current", "rotated_at"})),
    "tenants_budget": Watch(),
}
_lock = threading.Lock()
_opener: threading.Thread | None = None
_to_open: list[
    tuple[float, list[str], str]
] = []  # until when (time.monotonic()) it is tried, the gates, the writer
_WRITE = re.compile(
    r"\s*(?:WITH\b.*?\b)??(INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE)\s+(?:TABLE\s+)?(?:ONLY\s+)?"
    r'"?(\w+)"?',
    re.IGNORECASE | re.DOTALL,
)
_ASSIGNED = re.compile(r'"?(\w+)"? = ')


def watch_tables(tables: dict[str, Watch]) -> None:
    """Adds what another app's answers rest on."""
    _watched.update(tables)


def watched_tables() -> frozenset[str]:
    return frozenset(_watched)


def gate_key(name: str) -> str:
    """Of a tenant, by its id, or of ``EVERYONE``."""
    return f"{cache.key_prefix}:gate:{name}"


def gate_of(sql: str, *, keeps_to_scope: bool) -> str | None:
    """Whose gate a statement shuts when it is committed: a tenant's id, ``EVERYONE`` or nobody's.

    Args:
        keeps_to_scope: it can touch rows of the tenant in force alone.
    """
    match = _WRITE.match(sql)
    if match is None:
        return None
    kind, table = match[1][:6].upper(), match[2]
    if kind == "TRUNCA":
        return EVERYONE
    watch = _watched.get(table)
    if watch is None or (kind == "INSERT" and not watch.inserts):
        return None
    if kind == "UPDATE" and watch.harmless:
        assigned = sql[match.end() :].partition(" WHERE ")[0]
        if set(_ASSIGNED.findall(assigned)) <= watch.harmless:
            return None
    scope = current_scope()
    if watch.global_ or not keeps_to_scope or scope is None or scope.tenant_id is None:
        return EVERYONE
    return str(scope.tenant_id)


@contextmanager
def shut(gates: Iterable[str]) -> Iterator[None]:
    """Around a commit: what was remembered before it holds no longer, and nothing is remembered meanwhile."""
    names, writer = sorted(gates), uuid.uuid4().hex
    keys = [gate_key(name) for name in names]
    reached = _write(_SHUT, keys, writer)
    try:
        yield
    finally:
        if not _write(_OPEN, keys, writer) or not reached:
            logger.warning("gate not reached", gates=names)
            _open_later(keys, writer)


def mark_gate(connection: Any) -> None:
    """Of the tenant in force, for a change in this transaction that no watched table tells of."""
    connection.gates.add(str(require_tenant_id()))


def _write(script: str, keys: list[str], writer: str) -> bool:
    client: Any = redis_connection()
    try:
        client.eval(script, len(keys), *keys, writer, uuid.uuid4().hex, MEMORY_SECONDS)
    except (RedisError, OSError, TimeoutError):
        return False
    return True


def _open_later(keys: list[str], writer: str) -> None:
    """In a thread that the process waits for before it ends: a command that revoked something is soon over."""
    global _opener
    with _lock:
        _to_open.append((time.monotonic() + MEMORY_SECONDS, keys, writer))
        if _opener is None:
            _opener = threading.Thread(target=_open_all, name="gates")
            _opener.start()


def _open_all() -> None:
    global _opener
    while True:
        with _lock:
            _to_open[:] = [each for each in _to_open if time.monotonic() < each[0]]
            waiting = list(_to_open)
            if not waiting:
                _opener = None
                return
        for each in waiting:
            if not _write(_OPEN, each[1], each[2]):
                break
            with _lock:
                _to_open.remove(each)
        else:
            continue
        time.sleep(_TRY_AGAIN_SECONDS)
