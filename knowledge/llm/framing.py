"""Bodies in chunks and server-sent events, taken apart in bulk; pure."""

import json
from typing import Any

CHUNK_END = b"\r\n"


class FramingError(ValueError):
    """What came is not what the protocol has."""


class ChunkReader:
    """Takes a chunked body apart (RFC 9112, 7.1). Trailers are not told."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self.is_over = False

    def feed(self, data: bytes) -> bytes:
        """What the chunks that are whole by now hold.

        Raises:
            FramingError: a chunk without a size.
        """
        self._waiting += data
        parts, at = [], 0
        while not self.is_over:
            line = self._waiting.find(CHUNK_END, at)
            if line < 0:
                break
            try:
                size = int(self._waiting[at:line].split(b";")[0], 16)
            except ValueError:
                raise FramingError("a chunk without a size") from None
            begin, end = line + 2, line + 2 + size
            if len(self._waiting) < end + 2:
                break
            parts.append(bytes(self._waiting[begin:end]))
            at = end + 2
            self.is_over = size == 0
        del self._waiting[:at]
        return b"".join(parts)


class EventReader:
    """Takes a stream of server-sent events apart whose data are JSON objects with their ``type``."""

    def __init__(self) -> None:
        self._waiting = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events that are whole by now.

        Raises:
            FramingError: data that are no JSON object with a type.
        """
        *lines, self._waiting = (self._waiting + data).split(b"\n")
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:])
            elif self._data and line in (b"", b"\r"):
                events.append(_read(b"\n".join(self._data)))
                self._data = []
        return events


def _read(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        raise FramingError("data that are not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise FramingError("data without a type")
    return found
