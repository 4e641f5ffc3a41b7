"""How the bytes of many streams at once are read: seldom and much, in the place of often and little.

A provider sends a chunk a token. Each that is read by itself wakes a task and goes through the client's layers, about
0.1 ms of work, which a thousand streams at 20 tokens a second do not leave. So while many streams are open, each is read
at most once in a while, at the longest every 100 ms, and the chunks that have come meanwhile go up as one. A few streams
are read as they come.
"""

import asyncio
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore2
import httpx2

from knowledge.llm.framing import ChunkReader, FramingError

MOST_SECONDS = 0.1
SECONDS_PER_STREAM = 0.0002
HEAD_END = b"\r\n\r\n"
# As many as there may be questions under way; the client's own limit would have some wait for the end of others.
LIMITS = httpx2.Limits(max_connections=5000, max_keepalive_connections=200)


class Crowd:
    """The streams of a client that are open."""

    def __init__(self) -> None:
        self.open = 0

    @property
    def pause(self) -> float:
        """Seconds between two reads of one stream."""
        return min(MOST_SECONDS, self.open * SECONDS_PER_STREAM)


class GatheringStream(httpcore2.AsyncNetworkStream):
    """A connection whose chunked answers are read as told above; everything else goes through as it is."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream, crowd: Crowd) -> None:
        self._inner, self._crowd = inner, crowd
        self._chunks: ChunkReader | None = None
        self._is_head = True
        self._read_at = 0.0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            if self._chunks is not None:
                wait = self._read_at + self._crowd.pause - time.monotonic()
                if wait > 0.001:
                    await asyncio.sleep(wait)
            data = await self._inner.read(max_bytes, timeout)
            self._read_at = time.monotonic()
            if not data or (found := self._gather(data)):
                return found if data else data

    def _gather(self, data: bytes) -> bytes:
        head = b""
        if self._chunks is None:
            end = data.find(HEAD_END) if self._is_head else -1
            self._is_head = False
            if end < 0 or b"transfer-encoding: chunked" not in data[:end].lower():
                return data
            head, data = data[: end + len(HEAD_END)], data[end + len(HEAD_END) :]
            self._chunks = ChunkReader()
            self._crowd.open += 1
        try:
            payload = self._chunks.feed(data)
        except FramingError as error:
            raise httpcore2.RemoteProtocolError(str(error)) from None
        parts = head + (b"%x\r\n%s\r\n" % (len(payload), payload) if payload else b"")
        if self._chunks.is_over:
            self._end()
            parts += b"0\r\n\r\n"
        return parts

    def _end(self) -> None:
        if self._chunks is not None:
            self._chunks = None
            self._crowd.open -= 1

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # A request: what is read next begins with the head of its answer.
        self._end()
        self._is_head = True
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        self._end()
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        inner = await self._inner.start_tls(ssl_context, server_hostname, timeout)
        return GatheringStream(inner, self._crowd)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class GatheringBackend(httpcore2.AsyncNetworkBackend):
    """Makes such connections."""

    def __init__(self) -> None:
        self._inner, self._crowd = httpcore2.AnyIOBackend(), Crowd()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        inner = await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return GatheringStream(inner, self._crowd)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return await self._inner.connect_unix_socket(path, timeout, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def gather_streams(client: httpx2.AsyncClient) -> None:
    """Has a client read so, through proxies of the environment as well."""
    backend = GatheringBackend()
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx2.AsyncHTTPTransport):
            # There is no other way to give a transport a backend and keep what the environment says of proxies.
            transport._pool._network_backend = backend
