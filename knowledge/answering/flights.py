"""Who makes an answer that is asked for several times at once: one leader among all processes, and what it says so far.

A flight is one question of equal askers. Its leader holds a lease in Redis and writes its events to a stream there; each
process that follows reads the stream once, for all of its followers. Those in the leader's own process hear it directly.
See docs/decisions/0009-one-leader-for-a-question.md.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

import structlog
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from knowledge.answering.events import READER_SECONDS, TOGETHER_SECONDS, Event
from ragsite.core.background import in_background
from ragsite.core.redis import redis_client
from tenants.rest import dump_json

logger = structlog.get_logger(__name__)

# A leader of which nothing has been heard for so long is taken for dead; while it lives it is heard every second.
LEASE_SECONDS = 5.0
BEAT_SECONDS = 1.0
LOOK_SECONDS = 0.5
# Who was on the way already when a flight ended, however slow, hears it too.
ENDED_SECONDS = 10
KEPT_SECONDS = 120
TRIES = 3
END = "end"
_SLOW = (RedisTimeoutError, TimeoutError)

# KEYS: the flight, its sign of readers, the tenant's counts. ARGV: a token, the lease (ms), how long a reader counts (ms),
# for how long the asker has been here (ms). Returns the leader's token: the one given, if the asker is to lead.
_BOARD = """
local told = redis.call('GET', KEYS[1])
if told then
  local leader, ended = string.match(told, '^(%x+):?(%d*)$')
  local time = redis.call('TIME')
  local asked = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[4])
  if leader == ARGV[1] or ended == '' or asked < tonumber(ended) then
    redis.call('SET', KEYS[2], 1, 'PX', ARGV[3])
    return leader
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HINCRBY', KEYS[3], 'coalesced:misses', 1)
return ARGV[1]
"""

# KEYS: the flight, its leader's events, its sign of readers. ARGV: the leader's token, the lease (ms), how long events are
# kept (ms), 'gone', 'ended' or nothing, the events, one a line, and the number of the last of them. Events that are there
# already are no error: the call before had arrived, its answer had not; who reads knows by the number. Returns 1 with
# readers and 0 without; -1 when another leads, -2 when all of it is to be sent again, since Redis had forgotten the flight.
_SAY = """
local told = redis.call('GET', KEYS[1])
if not told then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return -2
end
if told ~= ARGV[1] then return -1 end
if ARGV[5] ~= '' then redis.pcall('XADD', KEYS[2], ARGV[6] .. '-0', 'events', ARGV[5]) end
redis.call('PEXPIRE', KEYS[2], ARGV[4] == '' and ARGV[3] or 2 * ENDED)
if ARGV[4] == 'gone' then
  redis.call('DEL', KEYS[1])
elseif ARGV[4] == 'ended' then
  local time = redis.call('TIME')
  redis.call('SET', KEYS[1], ARGV[1] .. ':' .. (time[1] * 1000 + math.floor(time[2] / 1000)), 'PX', ENDED)
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('EXISTS', KEYS[3])
""".replace("ENDED", str(ENDED_SECONDS * 1000))


@dataclass(frozen=True)
class End:
    """How a leader's time has ended: it is ``done``, it met a ``problem`` that all would meet, or it is ``gone``."""

    kind: Literal["done", "problem", "gone"]
    data: dict[str, Any] = field(default_factory=dict)


GONE = End("gone")


class Term:
    """One leader's time: what it has said so far, for those in this process who follow."""

    def __init__(self, flight: str) -> None:
        self.flight = flight
        self.events: list[Event] = []
        self.end: End | None = None
        self.listeners = 0
        self._news = asyncio.Event()

    def add(self, event: Event) -> None:
        self.events.append(event)
        self._wake()

    def close(self, end: End) -> None:
        """Nobody joins it from now on."""
        if self.end is None:
            self.end = end
            terms = _terms_of_loop()
            if terms.get(self.flight) is self:
                del terms[self.flight]
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def read(self, *, until: float) -> AsyncGenerator[Event, None]:
        """Its events from the beginning to its end.

        Raises:
            TimeoutError: it has not ended by ``until``, by the loop's clock.
        """
        self.listeners += 1
        try:
            at = 0
            while True:
                while at < len(self.events):
                    at += 1
                    yield self.events[at - 1]
                if self.end is not None:
                    return
                news = self._news
                async with asyncio.timeout_at(until):
                    await news.wait()
        finally:
            self.listeners -= 1


# A term's readers are woken in the loop that they wait in.
_terms: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Term]] = WeakKeyDictionary()


def _terms_of_loop() -> dict[str, Term]:
    return _terms.setdefault(asyncio.get_running_loop(), {})


class Lead:
    """The leader's place: what it says goes to its own process at once, and to Redis as soon as that takes it.

    Where Redis does not, it leads its own process alone.
    """

    def __init__(self, term: Term, *, token: str) -> None:
        self.term = term
        self._token = token
        self._lines: list[str] = []
        self._sent = 0
        self._is_lost = False  # another leads, as far as other processes know
        self._has_failed = False
        self._speaking = asyncio.Lock()
        self._news = asyncio.Event()
        in_background(self._beat())

    @property
    def is_over(self) -> bool:
        return self.term.end is not None

    def say(self, event: Event) -> None:
        self._lines.append(dump_json(event))
        self.term.add(event)
        self._news.set()

    async def close(self, end: End) -> None:
        """Its last word. Once only."""
        self._lines.append(dump_json({"type": END, "kind": end.kind, "data": end.data}))
        self.term.close(end)
        self._news.set()
        for _ in range(TRIES):
            with contextlib.suppress(*_SLOW):
                await self._speak("gone" if end.kind == "gone" else "ended")
                return

    async def is_followed(self) -> bool:
        if self.term.listeners:
            return True
        with contextlib.suppress(RedisError, OSError):
            return not self._is_lost and bool(await redis_client().exists(_readers_key(self.term.flight)))
        return False

    async def _beat(self) -> None:
        while not self.is_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._news.wait()
            self._news.clear()
            with contextlib.suppress(*_SLOW):  # for once: again with the next beat
                await self._speak()
            await asyncio.sleep(TOGETHER_SECONDS)

    async def _speak(self, ending: str = "") -> None:
        async with self._speaking:
            told = -2
            while told == -2 and not self._is_lost and (ending or not self.is_over):
                lines, last = self._lines[self._sent :], len(self._lines)
                try:
                    told = await redis_client().eval(
                        _SAY,
                        3,
                        self.term.flight,
                        _events_key(self.term.flight, self._token),
                        _readers_key(self.term.flight),
                        self._token,
                        int(LEASE_SECONDS * 1000),
                        KEPT_SECONDS * 1000,
                        ending,
                        "\n".join(lines),
                        last,
                    )
                except _SLOW:
                    raise
                except (RedisError, OSError) as error:
                    if not self._has_failed:
                        logger.warning("answer not shared", error=type(error).__name__)
                    self._has_failed = True
                    return
                self._is_lost = told == -1
                self._sent = 0 if told == -2 else last


async def board(*, flight: str, counts: str, arrived_ms: float) -> Lead | Term:
    """A place in a flight: to lead it, or the term of who leads.

    Args:
        counts: the key of the tenant's counts.
        arrived_ms: for how long the asker has been here; a flight that ended meanwhile is theirs too.
    """
    terms = _terms_of_loop()
    if flight in terms:
        return terms[flight]
    # Others of this process follow it from now on, whoever it is that leads.
    term = terms[flight] = Term(flight)
    token = uuid.uuid4().hex
    try:
        leader = await _claim(flight, token=token, counts=counts, arrived_ms=arrived_ms)
    except BaseException:  # cancelled; what may have been claimed is given up
        term.close(GONE)
        in_background(Lead(term, token=token).close(GONE))
        raise
    if leader == token:
        return Lead(term, token=token)
    in_background(_listen(term, token=leader))
    return term


async def _claim(flight: str, *, token: str, counts: str, arrived_ms: float) -> str:
    """The leader's token; one's own where Redis does not say."""
    for _ in range(TRIES):
        try:
            told: Any = await redis_client().eval(
                _BOARD,
                3,
                flight,
                _readers_key(flight),
                counts,
                token,
                int(LEASE_SECONDS * 1000),
                READER_SECONDS * 1000,
                int(arrived_ms),
            )
            return str(told.decode())
        except _SLOW:
            continue  # slow for once; the same token asked again changes nothing
        except (RedisError, OSError):
            break
    logger.warning("question not shared")
    return token


async def _listen(term: Term, *, token: str) -> None:
    """Passes on what a leader in another process says, for as long as anybody here follows."""
    ear = _Ear(term, token=token)
    heard = looked = time.monotonic()
    try:
        while term.end is None:
            try:
                await ear.hear(wait_ms=200)
                heard = now = time.monotonic()
                if now - looked > LOOK_SECONDS:
                    looked = now
                    if term.listeners == 0:
                        return
                    if not await ear.look() and term.end is None:
                        await ear.hear(wait_ms=None)  # its last words, if it had any
                        return
            except _SLOW:
                pass
            except (RedisError, OSError):
                await asyncio.sleep(LOOK_SECONDS)
            if time.monotonic() - heard > LEASE_SECONDS:
                return
    finally:
        term.close(GONE)


class _Ear:
    """What is read in Redis of a leader in another process."""

    def __init__(self, term: Term, *, token: str) -> None:
        self._term, self._token = term, token
        self._last = b"0-0"
        self._heard = 0

    async def hear(self, *, wait_ms: int | None) -> None:
        key = _events_key(self._term.flight, self._token)
        # A wait shorter than the client's own socket timeout, or that would end it with an error.
        batches: Any = await redis_client().xread({key: self._last}, count=500, block=wait_ms)
        for entry, fields in batches[0][1] if batches else ():
            self._last, last = entry, int(entry.partition(b"-")[0])
            lines = fields[b"events"].split(b"\n")
            for line in lines[max(0, len(lines) - (last - self._heard)) :]:
                event = json.loads(line)
                if event["type"] == END:
                    self._term.close(End(event["kind"], event["data"]))
                    return
                self._term.add(event)
            self._heard = last

    async def look(self) -> bool:
        """Gives the sign that somebody reads; whether it still leads."""
        pipeline = redis_client().pipeline(transaction=False)
        pipeline.set(_readers_key(self._term.flight), 1, ex=READER_SECONDS)
        pipeline.get(self._term.flight)
        _, leader = await pipeline.execute()
        return bool(leader == self._token.encode())


def _readers_key(flight: str) -> str:
    return f"{flight}:reading"


def _events_key(flight: str, token: str) -> str:
    return f"{flight}:{token}"
