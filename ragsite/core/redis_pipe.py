"""One connection to Redis for what is asked thousands of times a second: commands are written without waiting for the
replies of those before them, all of one turn of the event loop at once.

The ordinary client takes a connection out of a pool, sends, and waits, for each command; that costs three times as much as
everything else that a cache hit does. What does not answer in time ends the connection, and with it every call under way.
"""

import asyncio
import ssl
from collections import deque
from typing import Any

import structlog
from redis.asyncio.connection import SSLConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

logger = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
CONNECT_SECONDS = 2.0
_WATCH_SECONDS = 0.05
_CRLF = b"\r\n"


class PipeDown(RedisConnectionError):
    """There is no connection, or it has ended."""


def pack(*parts: bytes) -> bytes:
    """A command as it goes over the wire."""
    return b"*%d\r\n" % len(parts) + pack_parts(*parts)


def pack_parts(*parts: bytes) -> bytes:
    """Some parts of a command, which begins with ``*<their number>`` and a line's end."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class RedisPipe(asyncio.Protocol):
    """To be used in one event loop.

    Attributes:
        generation: another number with each connection. What was learned over one may have been forgotten by the server
            that answers on the next.
    """

    def __init__(self, *, url: str, seconds: float) -> None:
        self.generation = 0
        self._url, self._seconds = url, seconds
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_ready = False
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._read = b""
        self._connecting: asyncio.Task[None] | None = None
        self._not_before = 0.0

    @property
    def is_up(self) -> bool:
        return self._is_ready

    def wake(self) -> None:
        """Connects in the background, where there is no connection and none was tried in the last second."""
        if self._transport is None and self._connecting is None and self._loop.time() >= self._not_before:
            self._connecting = self._loop.create_task(self._connect())

    def call(self, command: bytes) -> "asyncio.Future[Any]":
        """The reply to come of a packed command: bytes, an integer, ``None`` or a list of these.

        Raises:
            PipeDown: there is no connection; the future raises it when the connection ends, ``ResponseError`` for an error.
        """
        if not self._is_ready:
            raise PipeDown("no connection")
        return self._send(command)

    def _send(self, command: bytes) -> "asyncio.Future[Any]":
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(command)
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        self._end(PipeDown("closed"))

    def _flush(self) -> None:
        commands, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(commands))

    async def _connect(self) -> None:
        try:
            # Nobody waits for it, and this process may be busy.
            async with asyncio.timeout(max(self._seconds, CONNECT_SECONDS)):
                self._transport = await self._open()
                for command in self._greeting():
                    await self._send(command)
            if self._transport is None:
                return
            self.generation += 1
            self._is_ready = True
            self._watch()
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            logger.warning("no connection for cache hits", error=type(error).__name__)
            self._end(PipeDown("not connected"))
        finally:
            self._connecting = None

    async def _open(self) -> asyncio.Transport:
        known = parse_url(self._url)
        if "path" in known:
            transport, _ = await self._loop.create_unix_connection(lambda: self, known["path"])
            return transport
        tls: ssl.SSLContext | None = None
        if known.get("connection_class") is SSLConnection:
            options: Any = {name: value for name, value in known.items() if name.startswith("ssl_")}
            tls = SSLConnection(**options).ssl_context.get()
        host, port = known.get("host", "localhost"), known.get("port", 6379)
        transport, _ = await self._loop.create_connection(lambda: self, host, port, ssl=tls)
        return transport

    def _greeting(self) -> list[bytes]:
        known = parse_url(self._url)
        commands = []
        if known.get("password"):
            names = [known["username"]] if known.get("username") else []
            commands.append(pack(b"AUTH", *(part.encode() for part in [*names, known["password"]])))
        if known.get("db"):
            commands.append(pack(b"SELECT", str(known["db"]).encode()))
        return [*commands, pack(b"PING")]

    def _watch(self, waited: "asyncio.Future[Any] | None" = None, looks: int = 0) -> None:
        """One timer for all calls: they are answered in their order, so the first is the one that waits longest.

        Looks are counted, not seconds: when this process was busy for a second, the reply is here and has only to be read.
        """
        if self._transport is None:
            return
        first = self._waiting[0] if self._waiting else None
        looks = looks + 1 if first is waited and first is not None else 0
        if looks * _WATCH_SECONDS > self._seconds:
            self._end(PipeDown("no answer in time"))
            return
        self._loop.call_later(_WATCH_SECONDS, self._watch, first, looks)

    def _end(self, error: Exception) -> None:
        transport, self._transport, self._is_ready = self._transport, None, False
        self._not_before = self._loop.time() + RETRY_SECONDS
        if transport is not None:
            transport.abort()
        self._read, self._out = b"", []
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        read, at = self._read + data if self._read else data, 0
        try:
            while at < len(read):
                reply, at = _take_reply(read, at)
                future = self._waiting.popleft()
                if future.done():  # its caller has gone
                    continue
                if isinstance(reply, ResponseError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except _Incomplete:
            pass
        except (IndexError, ValueError):  # a reply that nobody asked for, or that is none
            self._end(PipeDown("not Redis"))
            return
        self._read = read[at:]

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._end(PipeDown("connection lost"))


class _Incomplete(Exception):
    """The rest of a reply has not come yet."""


def _take_reply(read: bytes, at: int) -> tuple[Any, int]:
    """The reply that begins at ``at`` (RESP2), and where the next one does.

    Raises:
        _Incomplete: it ends beyond what was read.
        ValueError: it is none.
    """
    end = read.find(_CRLF, at)
    if end < 0:
        raise _Incomplete
    kind, line, after = read[at], read[at + 1 : end], end + 2
    match kind:
        case 36:  # $
            size = int(line)
            if size < 0:
                return None, after
            if len(read) < after + size + 2:
                raise _Incomplete
            return read[after : after + size], after + size + 2
        case 58:  # :
            return int(line), after
        case 43:  # +
            return line, after
        case 45:  # -
            return ResponseError(line.decode("utf-8", "replace")), after
        case 42:  # *
            found: list[Any] = []
            for _ in range(int(line)):
                value, after = _take_reply(read, after)
                found.append(value)
            return found, after
    raise ValueError("no reply of Redis")
