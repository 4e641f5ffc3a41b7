"""What asks: so many connections at once, in a process of its own, which costs little beside what it measures.

``python -m ragsite.bench._generator ORDER RESULT`` reads an ``Order`` as JSON and writes a list of ``Record``. A connection
asks its next question when the last one is answered; with a ``rate`` questions come when they come, and wait for a free
connection: their time begins when they came.
"""

import asyncio
import bisect
import itertools
import json
import random
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from knowledge.llm.framing import ChunkReader
from ragsite.bench._wire import HEAD_END, header_of

AFTER_ERROR_SECONDS = 0.05
PATIENCE_SECONDS = 600.0
_CACHE = re.compile(rb'"cache":\s?"(\w+)"')
_HIT = re.compile(rb'"cache_hit":\s?true')
_PROVIDER = re.compile(rb'"provider":\s?"(\w*)"')


@dataclass(frozen=True)
class Order:
    """What is asked of whom.

    Attributes:
        tokens: of the members; connections take them in turn.
        seconds: how long questions begin; 0: until ``script`` is through.
        script: questions in their order; without it ``repeats`` of them are drawn from ``known`` by Zipf's law, the rest are
            taken from ``new``, each once.
        streams: the share of questions that are asked as streams.
        options: fields of the body beside the question.
        ramp: seconds over which the connections begin.
        think: seconds between an answer and the next question, more or less by a half.
        rate: questions a second, at random times; 0: as fast as they are answered.
        details: what is kept of an answer: ``""``, ``answers`` (its sources and citations) or ``streams`` (its text, and
            when each part of it came).
    """

    port: int
    tokens: list[str]
    connections: int
    seconds: float = 0.0
    path: str = "/api/v1/query"
    stream_path: str = "/api/v1/query/stream"
    script: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    repeats: float = 0.0
    zipf: float = 1.0
    streams: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    ramp: float = 0.0
    think: float = 0.0
    rate: float = 0.0
    seed: int = 1
    details: str = ""


@dataclass
class Record:
    """One question: how it was answered, and seconds since it was asked; ``begun`` is on the machine's monotonic clock.

    ``status`` 0: the connection was lost. ``cache`` is empty for an error. ``is_weak``: the documents held too little, and
    no model was asked.
    """

    question: str
    is_stream: bool
    begun: float
    status: int = 0
    cache: str = ""
    is_weak: bool = False
    seconds: float = 0.0
    first: float = 0.0
    problem: str = ""
    answer: dict[str, Any] | None = None
    text: str = ""
    parts: list[float] = field(default_factory=list)


class Load:
    """Draws the questions and keeps the records."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.records: list[Record] = []
        self._dice = random.Random(order.seed)  # noqa: S311
        self._new = iter(order.new)
        self._script = iter(order.script)
        self._weights = list(itertools.accumulate(1 / n**order.zipf for n in range(1, len(order.known) + 1)))
        self._ends = time.monotonic() + order.seconds if order.seconds else float("inf")
        self._idle: deque[Connection] = deque()
        self._come: deque[tuple[float, str]] = deque()
        self._at_work = 0
        self._is_through = False
        self.over = asyncio.Event()

    def draw(self) -> str | None:
        """The next question; none when it is enough."""
        if time.monotonic() >= self._ends:
            return None
        if self.order.script:
            return next(self._script, None)
        if self._weights and self._dice.random() < self.order.repeats:
            at = bisect.bisect(self._weights, self._dice.random() * self._weights[-1])
            return self.order.known[min(at, len(self.order.known) - 1)]
        return next(self._new, None)

    def is_stream(self) -> bool:
        return self.order.streams > 0 and self._dice.random() < self.order.streams

    def offer(self, connection: "Connection") -> None:
        """A connection is free."""
        if self._come:
            came, question = self._come.popleft()
            connection.ask(question, came)
        elif self.order.rate:
            self._idle.append(connection)
            self._look()
        elif (question_now := self.draw()) is not None:
            connection.ask(question_now, time.monotonic())
        else:
            self._is_through = True
            self._look()

    def begin(self, record: Record) -> None:
        self._at_work += 1
        self.records.append(record)

    def end(self, connection: "Connection", record: Record) -> None:
        failed = not 200 <= record.status < 300
        wait = self.order.think and self.order.think * self._dice.uniform(0.5, 1.5)
        wait += AFTER_ERROR_SECONDS if failed else 0

        def go_on() -> None:
            self._at_work -= 1
            self.offer(connection)

        asyncio.get_running_loop().call_later(wait, go_on)

    def _look(self) -> None:
        if self._is_through and not self._at_work and not self._come:
            self.over.set()

    async def come(self) -> None:
        """Questions at their own times, with a rate."""
        at = time.monotonic()
        while (question := self.draw()) is not None:
            at += self._dice.expovariate(self.order.rate)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            if self._idle:
                self._idle.popleft().ask(question, at)
            else:
                self._come.append((at, question))
        self._is_through = True
        self._look()


class Connection(asyncio.Protocol):
    """One client's connection, made again when it was lost."""

    def __init__(self, load: Load, token: str) -> None:
        self._load, self._order = load, load.order
        host = f"Host: 127.0.0.1:{self._order.port}\r\nAuthorization: Bearer {token}\r\n"
        kind = "Content-Type: application/json\r\nContent-Length: "
        self._heads = [
            f"POST {path} HTTP/1.1\r\n{host}{kind}".encode()
            for path in (self._order.path, self._order.stream_path)
        ]
        self._transport: asyncio.Transport | None = None
        self._record: Record | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._reset()

    def _reset(self) -> None:
        self._waiting = bytearray()
        self._chunks: ChunkReader | None = None
        self._left = -1
        self._body = bytearray()
        self._line = b""

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, "127.0.0.1", self._order.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._record is not None:
            self._finish()

    def ask(self, question: str, came: float) -> None:
        record = self._record = Record(question, self._load.is_stream(), came)
        self._load.begin(record)
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(PATIENCE_SECONDS, self._give_up)
        body = json.dumps({"question": question, **self._order.options}).encode()
        request = self._heads[record.is_stream] + f"{len(body)}".encode() + HEAD_END + body
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(request)
        else:
            self._opening = loop.create_task(self._open_and_write(request))

    async def _open_and_write(self, request: bytes) -> None:
        try:
            await self.open()
        except OSError:
            self._finish()
            return
        assert self._transport is not None
        self._transport.write(request)

    def _give_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        record = self._record
        if record is None:
            return
        if not record.status:
            self._waiting += data
            end = self._waiting.find(HEAD_END)
            if end < 0:
                return
            head = bytes(self._waiting[:end])
            data = bytes(self._waiting[end + len(HEAD_END) :])
            record.status = int(head[9:12])
            if header_of(head, b"transfer-encoding"):
                self._chunks = ChunkReader()
            else:
                self._left = int(header_of(head, b"content-length") or 0)
        if self._chunks is not None:
            data = self._chunks.feed(data)
        if data and not record.first:
            record.first = time.monotonic() - record.begun
        if self._order.details == "streams" and record.is_stream:
            self._take_lines(record, data)
        else:
            self._body += data
        if self._chunks.is_over if self._chunks is not None else len(self._body) >= self._left:
            self._close(record)

    def _take_lines(self, record: Record, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        now = time.monotonic() - record.begun
        for line in lines:
            if line.startswith(b'{"type":"answer_chunk"'):
                record.text += json.loads(line)["data"]
                record.parts.append(now)
            elif line.startswith(b'{"type":"restart"'):
                record.text, record.problem = "", "restart"
            else:
                self._body += line + b"\n"

    def _close(self, record: Record) -> None:
        body = bytes(self._body)
        if 200 <= record.status < 300:
            last = body[body.rstrip(b"\n").rfind(b"\n") + 1 :] if record.is_stream else body
            if found := _CACHE.search(last):
                record.cache = found.group(1).decode()
                provider = _PROVIDER.search(last)
                record.is_weak = record.cache == "miss" and bool(provider and not provider.group(1))
            else:
                record.cache = "exact" if _HIT.search(last) else "miss"
            if record.is_stream and b'"type":"done"' not in last:
                record.cache, record.problem = "", last[:300].decode(errors="replace") or "no end"
            elif self._order.details == "answers" and not record.is_stream:
                record.answer = _digest(body)
        else:
            record.problem = body[:300].decode(errors="replace")
        self._finish()

    def _finish(self) -> None:
        record, self._record = self._record, None
        if record is None:
            return
        if self._patience is not None:
            self._patience.cancel()
        record.seconds = time.monotonic() - record.begun
        self._reset()
        self._load.end(self, record)


def _digest(body: bytes) -> dict[str, Any]:
    """What is worth knowing of an answer object, without its texts."""
    found = json.loads(body)
    covered = {at for each in found["citations"] for at in range(each["start"], each["end"])}
    seen = [at for at, letter in enumerate(found["answer"]) if not letter.isspace()]
    return {
        "answered": found["answered"],
        "citations": len(found["citations"]),
        "covered": sum(at in covered for at in seen) / max(1, len(seen)),
        "sources": [source["uri"] for source in found["sources"]],
        "model": found["model"],
        "cost_usd": found["usage"]["cost_usd"],
    }


async def run(order: Order) -> list[Record]:
    load = Load(order)
    tokens: Iterator[str] = itertools.cycle(order.tokens or [""])
    connections = [Connection(load, next(tokens)) for _ in range(order.connections)]
    pause = order.ramp / max(1, len(connections))
    coming = asyncio.ensure_future(load.come()) if order.rate else None
    for connection in connections:
        load.offer(connection)
        await asyncio.sleep(pause)
    await load.over.wait()
    if coming is not None:
        await coming
    return load.records


def main() -> None:
    import uvloop

    order, result = (Path(word) for word in sys.argv[1:3])
    records = uvloop.run(run(Order(**json.loads(order.read_text()))))
    cpu = time.process_time()
    result.write_text(json.dumps({"cpu": cpu, "records": [asdict(record) for record in records]}))


if __name__ == "__main__":
    main()
