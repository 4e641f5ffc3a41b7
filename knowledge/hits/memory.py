"""What a process remembers of requests that Django has answered: who sent them, and what was shown."""

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from knowledge.hits.shape import ResponseShape
from tenants.gate import MEMORY_SECONDS
from tenants.rates import Bucket

Value = TypeVar("Value")

# Before its time is over one request goes through Django and renews it, while the others still hit.
RENEW_SECONDS = MEMORY_SECONDS * 0.75
MOST_MEMBERS, MOST_ANSWERS = 10_000, 1_000


@dataclass(frozen=True)
class KnownMember:
    """Who a credential stands for.

    Attributes:
        place: what they share answers with: tenant, rights and configuration.
        gates: the stamps before the database was asked.
        expires: when the credential ends by itself, in seconds since 1970.
        buckets: of the rate limits.
        command: their pieces of the call to Redis.
        record: their part of the record of a hit, JSON.
    """

    place: str
    gates: tuple[bytes, bytes]
    expires: float
    buckets: tuple[Bucket, ...]
    command: tuple[bytes, bytes, bytes]
    record: bytes


@dataclass(frozen=True)
class KnownAnswer:
    """A cached answer as it was shown.

    Attributes:
        gates: the stamps before the database was asked.
        old_at: when it is to be made again, in seconds since 1970.
        answer_id: the stored row of when it was shown; that of a hit differs in asker, time and id alone.
        command: its pieces of the call to Redis.
    """

    gates: tuple[bytes, bytes]
    old_at: float
    answer_id: bytes
    command: tuple[bytes, bytes]
    shape: ResponseShape


class Memory(Generic[Value]):
    """At most ``most`` values, each for a minute; the one that was looked at longest ago goes first."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[object, tuple[Value, float]] = OrderedDict()
        self._renewed: set[object] = set()

    def get(self, key: object) -> Value | None:
        """The value; ``None`` as well for the one request that is to renew it."""
        found = self._kept.get(key)
        if found is None:
            return None
        value, since = found
        age = time.monotonic() - since
        if age > MEMORY_SECONDS:
            self.forget(key)
            return None
        if age > RENEW_SECONDS and key not in self._renewed:
            self._renewed.add(key)
            return None
        self._kept.move_to_end(key)
        return value

    def put(self, key: object, value: Value, *, since: float) -> None:
        """``since`` (``time.monotonic()``) is from before the database was asked."""
        self.forget(key)
        self._kept[key] = (value, since)
        while len(self._kept) > self._most:
            self.forget(next(iter(self._kept)))

    def forget(self, key: object) -> None:
        self._kept.pop(key, None)
        self._renewed.discard(key)

    def clear(self) -> None:
        self._kept.clear()
        self._renewed.clear()
