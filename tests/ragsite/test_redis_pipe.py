"""The pipe to Redis: replies in their order however they are cut up, a server that hangs or goes, and the way back."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import ResponseError

from ragsite.core import redis_pipe
from ragsite.core.config import config
from ragsite.core.redis_pipe import PipeDown, RedisPipe, pack


async def opened(url: str, *, seconds: float = 0.5) -> RedisPipe:
    pipe = RedisPipe(url=url, seconds=seconds)
    pipe.wake()
    async with asyncio.timeout(5):
        while not pipe.is_up:
            await asyncio.sleep(0.01)
    return pipe


@asynccontextmanager
async def fake_server(answer: Any) -> AsyncIterator[str]:
    """A server that greets as Redis does, then leaves the writer to ``answer(command, writer)``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                parts = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    parts.append((await reader.readexactly(size + 2))[:-2])
                if parts[0] == b"PING":
                    writer.write(b"+PONG\r\n")
                else:
                    await answer(parts, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_the_real_server_answers_in_order() -> None:
    pipe = await opened(config().redis_url)
    try:
        calls = [pipe.call(pack(b"ECHO", b"%d" % n)) for n in range(500)]
        assert await asyncio.gather(*calls) == [b"%d" % n for n in range(500)]
        assert await pipe.call(pack(b"DEL", b"pipe")) == 0
        assert await pipe.call(pack(b"GET", b"pipe")) is None
        assert await pipe.call(pack(b"RPUSH", b"pipe", b"", b"\r\n$", b"x" * 100_000)) == 3
        assert await pipe.call(pack(b"LRANGE", b"pipe", b"0", b"-1")) == [b"", b"\r\n$", b"x" * 100_000]
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await pipe.call(pack(b"GET", b"pipe"))
        assert await pipe.call(pack(b"ECHO", b"after")) == b"after"
    finally:
        pipe.close()


async def test_replies_cut_anywhere() -> None:
    async def answer(parts: list[bytes], writer: asyncio.StreamWriter) -> None:
        for byte in b"*3\r\n$2\r\nab\r\n:-7\r\n*1\r\n$-1\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with fake_server(answer) as url:
        pipe = await opened(url)
        assert await asyncio.gather(pipe.call(pack(b"A")), pipe.call(pack(b"B"))) == [[b"ab", -7, [None]]] * 2
        pipe.close()


async def test_a_server_that_hangs_fails_every_call_in_time() -> None:
    async def answer(parts: list[bytes], writer: asyncio.StreamWriter) -> None:
        if parts[0] != b"HANG":
            writer.write(b"+OK\r\n")

    async with fake_server(answer) as url:
        pipe = await opened(url, seconds=0.2)
        assert await pipe.call(pack(b"A")) == b"OK"
        begun = asyncio.get_running_loop().time()
        results = await asyncio.gather(*(pipe.call(pack(b"HANG")) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [PipeDown] * 3
        assert 0.15 < asyncio.get_running_loop().time() - begun < 1
        assert not pipe.is_up
        with pytest.raises(PipeDown):
            pipe.call(pack(b"A"))
        pipe.close()


async def test_a_busy_process_does_not_take_its_own_time_for_the_servers() -> None:
    pipe = await opened(config().redis_url, seconds=0.1)
    for _ in range(3):
        call = pipe.call(pack(b"ECHO", b"here"))
        await asyncio.sleep(0)
        time.sleep(0.4)  # the reply comes meanwhile; nobody reads it
        assert await call == b"here"
    assert pipe.is_up and pipe.generation == 1
    pipe.close()


async def test_a_lost_connection_is_made_anew_under_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_pipe, "RETRY_SECONDS", 0.1)

    async def answer(parts: list[bytes], writer: asyncio.StreamWriter) -> None:
        if parts[0] == b"LEAVE":
            writer.close()
        else:
            writer.write(b"+OK\r\n")

    async with fake_server(answer) as url:
        pipe = await opened(url)
        first = pipe.generation
        with pytest.raises(PipeDown):
            await pipe.call(pack(b"LEAVE"))
        pipe.wake()
        assert not pipe.is_up, "not at once: a server that is away is not asked with every request"
        await asyncio.sleep(0.15)
        pipe.wake()
        async with asyncio.timeout(5):
            while not pipe.is_up:
                await asyncio.sleep(0.01)
        assert pipe.generation == first + 1
        assert await pipe.call(pack(b"A")) == b"OK"
        pipe.close()


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+OK\r\n", b"$x\r\n"])
async def test_what_is_not_redis_ends_the_connection(nonsense: bytes) -> None:
    async def answer(parts: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(nonsense)

    async with fake_server(answer) as url:
        pipe = await opened(url)
        with contextlib.suppress(PipeDown):
            await pipe.call(pack(b"A"))
        await asyncio.sleep(0.05)
        assert not pipe.is_up


async def test_nobody_there() -> None:
    pipe = RedisPipe(url="unix:///tmp/there-is-no-redis-here.sock", seconds=0.2)
    pipe.wake()
    await asyncio.sleep(0.1)
    assert not pipe.is_up and pipe.generation == 0
