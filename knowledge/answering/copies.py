"""What a process has read from the cache last, so that it need not be sent and taken apart again."""

import threading
import time
from collections import OrderedDict
from typing import Any


class Copies:
    """The values that this process has read last: at most ``most`` of them, each for ``seconds``."""

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, bytes, Any, int]] = OrderedDict()

    def get(self, key: str) -> tuple[bytes, Any] | None:
        """The stamp of a copy, and the copy."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] < time.monotonic():
                self._kept.pop(key, None)
                return None
            self._kept.move_to_end(key)
            return found[1], found[2]

    def put(self, key: str, *, stamp: bytes, value: Any, size: int) -> None:
        with self._lock:
            self._kept[key] = (time.monotonic() + self._seconds, stamp, value, size)
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def size_of(self, prefix: str) -> tuple[int, int]:
        """How many copies there are whose keys begin so, and their bytes."""
        with self._lock:
            now = time.monotonic()
            sizes = [each[3] for key, each in self._kept.items() if key.startswith(prefix) and each[0] >= now]
        return len(sizes), sum(sizes)


copies = Copies(most=1000, seconds=60)
