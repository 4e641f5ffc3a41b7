"""The callable in front of Django's: answers a hit by itself, and hands everything else on as it came."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from knowledge.hits.lookup import Hit, Lookup, Refused, answer_command, look_at_gates, member_command
from knowledge.hits.memory import MOST_ANSWERS, MOST_MEMBERS, KnownAnswer, KnownMember, Memory
from knowledge.hits.records import member_record
from knowledge.hits.shape import Headers, shape_of, stream_shape_of
from knowledge.hits.ticket import Ticket, current_ticket
from knowledge.hits.writer import RecordWriter
from ragsite.core.config import config
from ragsite.core.observability import CACHE_HITS, REQUEST_LATENCY, REQUESTS, STAGE_LATENCY
from ragsite.core.redis_pipe import RedisPipe
from tenants.authentication import tenant_of_credential
from tenants.rates import limit_headers

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

# Each with the name of its endpoint.
PATHS = {"/api/v1/query": "query", "/api/v1/query/stream": "stream"}
MOST_BODY = 16 * 1024
WAIT_SECONDS = 1.0
FULL_TRIES, FULL_SECONDS = 20, 0.1
# What any of these asks for is Django's business.
_OTHER_HEADERS = frozenset({b"cookie", b"idempotency-key", b"content-encoding", b"expect"})
_JSON = frozenset({b"", b"*/*", b"application/json", b"application/json, text/plain, */*"})
_ACCEPTED = {"query": _JSON, "stream": _JSON | {b"application/x-ndjson", b"text/event-stream"}}
# The response may depend on these; the rest of the headers changes nothing about it.
_FRONT = (b"host", b"accept", b"x-forwarded-proto")
_ONCE = frozenset({b"authorization", b"x-api-key", b"content-type", b"content-length", *_FRONT})

# What holds these words may be no question that is remembered; nobody is to wait for it.
_UNSHARED = (b'"cache"', b'"conversation"')

_REQUESTS = {name: REQUESTS.labels(name, "cached") for name in PATHS.values()}
_LATENCY = {name: REQUEST_LATENCY.labels(name) for name in PATHS.values()}
_STAGE = STAGE_LATENCY.labels("cache")
_HITS = (CACHE_HITS.labels("exact"), CACHE_HITS.labels("process"))


@dataclass(frozen=True)
class Asked:
    """A request that may be a hit.

    Attributes:
        endpoint: its name.
        credential: the hash of what it brings.
        raw: the credential itself, unverified.
        front: what its response depends on beside question and asker.
    """

    endpoint: str
    credential: bytes
    raw: str
    front: tuple[bytes, ...]


class FastHits:
    """An ASGI application around Django's.

    Args:
        application: Django's.
        enabled: whether hits are answered here; records that are there already are written down in any case.
    """

    def __init__(self, application: Application, *, enabled: bool) -> None:
        self._application = application
        self._enabled = enabled
        self._members: Memory[KnownMember] = Memory(most=MOST_MEMBERS)
        self._answers: Memory[KnownAnswer] = Memory(most=MOST_ANSWERS)
        self._under_way: dict[object, asyncio.Future[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._generation = 0
        self._pipe: RedisPipe
        self._lookup: Lookup
        self._writer: RecordWriter

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        begun = time.perf_counter()
        if self._loop is None:
            self._start()
        endpoint = PATHS.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if endpoint is None or not self._enabled:
            await self._application(scope, receive, send)
            return
        asked = read_request(scope, endpoint)
        if asked is None or not self._is_connected():
            await self._application(scope, receive, send)
            return
        messages, body = await _read_body(receive)
        if body is not None:
            response = await self._find(asked, body, scope, begun)
            if response is not None:
                await _send_response(send, *response)
                _count(endpoint, begun)
                return
        receive = _replay(messages, receive)
        ticket = None if body is None else await self._open_ticket(asked)
        if ticket is None:
            await self._application(scope, receive, send)
            return
        token = current_ticket.set(ticket)
        try:
            remember = partial(self._remember, ticket, asked, body or b"")
            with self._one_under_way(asked, body or b""):
                await self._application(scope, receive, _listen(send, ticket, remember))
        finally:
            current_ticket.reset(token)

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipe = RedisPipe(url=config().redis_url, seconds=config().redis_timeout_seconds)
        self._lookup = Lookup(self._pipe)
        self._writer = RecordWriter()
        self._writer.start()

    def _is_connected(self) -> bool:
        """What was learned over another connection is forgotten: a server that comes back may have lost the last stamps."""
        self._pipe.wake()
        if self._pipe.generation != self._generation:
            self._generation = self._pipe.generation
            self._members.clear()
            self._answers.clear()
        return self._pipe.is_up

    async def _find(
        self, asked: Asked, body: bytes, scope: MutableMapping[str, Any], begun: float
    ) -> tuple[Headers, bytes] | None:
        member = self._members.get(asked.credential)
        if member is None:
            return None
        key = (member.place, asked.front, body)
        answer = self._answers.get(key)
        if answer is None and (under_way := self._under_way.get(key)):
            await asyncio.wait({under_way}, timeout=WAIT_SECONDS)
            answer = self._answers.get(key)
        now = time.time()
        if answer is None or answer.gates != member.gates or now >= member.expires or now >= answer.old_at:
            return None
        client = scope.get("client")
        address = client[0] if client else ""
        for _ in range(FULL_TRIES):
            hit = await self._lookup.find(member=member, answer=answer, address=address, begun=begun)
            if hit is not Refused.FULL:
                break
            # Answering by Django would take the time that writing the records down needs.
            await asyncio.sleep(FULL_SECONDS)
        match hit:
            case Hit():
                return _respond(hit, member, answer)
            case Refused.GATE:
                self._members.forget(asked.credential)
                self._answers.forget(key)
            case Refused.ANSWER:
                self._answers.forget(key)
        return None

    @contextmanager
    def _one_under_way(self, asked: Asked, body: bytes) -> Iterator[None]:
        """While Django answers what many may ask, the others wait a moment for what is to be remembered of it."""
        member = self._members.get(asked.credential)
        key = (member.place, asked.front, body) if member else None
        is_shared = asked.endpoint == "query" and not any(word in body for word in _UNSHARED)
        if key is None or key in self._under_way or not is_shared:  # a stream begins at once
            yield
            return
        done = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._under_way[key]
            done.set_result(None)

    async def _open_ticket(self, asked: Asked) -> Ticket | None:
        tenant_id = tenant_of_credential(asked.raw)
        if tenant_id is None:
            return None
        since, generation = time.monotonic(), self._generation
        gates = await look_at_gates(self._pipe, tenant_id=str(tenant_id))
        return Ticket(str(tenant_id), gates, since, generation) if gates else None

    def _remember(self, ticket: Ticket, asked: Asked, body: bytes) -> None:
        """What Django has found out, unless it may be another thing next time."""
        journey, answer = ticket.journey, ticket.answer
        if journey is None or answer is None or ticket.status != 200 or ticket.generation != self._generation:
            return
        principal, grant = journey.principal, journey.question.grant
        if str(principal.membership.tenant_id) != ticket.tenant_id or not grant.buckets or journey.warnings:
            return
        buckets = tuple(bucket for bucket in grant.buckets if bucket.requests or bucket.tokens)
        place = f"{journey.key.rpartition(':')[0]}:{journey.fingerprint}"
        member = KnownMember(
            place=place,
            gates=ticket.gates,
            expires=principal.expires,
            buckets=buckets,
            command=member_command(
                tenant_id=principal.membership.tenant_id,
                gates=ticket.gates,
                buckets=buckets,
                tokens=grant.tokens,
            ),
            record=member_record(principal),
        )
        self._members.put(asked.credential, member, since=ticket.since)
        found = journey.found
        question = journey.question
        if found is None or journey.renewing or question.conversation or not question.use_cache:
            return
        shape_by = stream_shape_of if asked.endpoint == "stream" else shape_of
        shape = shape_by(headers=ticket.headers, body=ticket.body)
        if shape is None:
            return
        known = KnownAnswer(
            gates=ticket.gates,
            old_at=found.old_at,
            answer_id=str(answer.pk).encode(),
            command=answer_command(key=journey.key, corpus_version=found.corpus_version, stamp=found.stamp),
            shape=shape,
        )
        self._answers.put((place, asked.front, body), known, since=ticket.since)


def read_request(scope: MutableMapping[str, Any], endpoint: str) -> Asked | None:
    """What matters of a request that may be a hit; ``None`` for one that Django is to look at in any case."""
    if scope.get("query_string") or scope.get("root_path"):
        return None
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _ONCE:
            if name in found:
                return None
            found[name] = value
        elif name in _OTHER_HEADERS:
            return None
    if (
        found.get(b"content-type") != b"application/json"
        or found.get(b"accept", b"") not in _ACCEPTED[endpoint]
    ):
        return None
    length = found.get(b"content-length", b"")
    if not length.isdigit() or int(length) > MOST_BODY:
        return None
    header, key = found.get(b"authorization", b""), found.get(b"x-api-key", b"")
    if bool(header) == bool(key):
        return None
    kind, _, raw = header.partition(b" ")
    if header and kind.lower() != b"bearer":
        return None
    return Asked(
        endpoint=endpoint,
        credential=hashlib.sha256(header + b"\n" + key).digest(),
        raw=(raw or key).decode("latin-1").strip(),
        front=(endpoint.encode(), scope["scheme"].encode(), *(found.get(name, b"") for name in _FRONT)),
    )


async def _read_body(receive: Receive) -> tuple[list[Message], bytes | None]:
    """The messages that were read, and the body in them; ``None`` when it is too large, or did not come."""
    messages: list[Message] = []
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            return messages, None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY:
            return messages, None
        if not message.get("more_body", False):
            return messages, b"".join(parts)


def _replay(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def replay() -> Message:
        message = next(waiting, None)
        return await receive() if message is None else message

    return replay


def _listen(send: Send, ticket: Ticket, remember: Callable[[], None]) -> Send:
    """Remembers the response before its end is sent: the client's next request may follow at once."""

    async def listen(message: Message) -> None:
        if message["type"] == "http.response.start":
            ticket.status, ticket.headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            ticket.take(message.get("body", b""))
            if not message.get("more_body", False):
                remember()
        await send(message)

    return listen


def _respond(hit: Hit, member: KnownMember, answer: KnownAnswer) -> tuple[Headers, bytes]:
    milliseconds = repr(hit.milliseconds).encode()
    quoted = b'"%b"' % hit.request_id
    own = {
        "request_id": quoted,
        "conversation": quoted,
        "latency_ms": milliseconds,
        "timings": b'{"cache":%b}' % milliseconds,
        "timestamp": b'"%b"' % hit.at,
    }
    return answer.shape.fill(
        own=own, request_id=hit.request_id, limits=limit_headers(member.buckets, hit.levels)
    )


async def _send_response(send: Send, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _count(endpoint: str, begun: float) -> None:
    seconds = time.perf_counter() - begun
    _REQUESTS[endpoint].inc()
    _LATENCY[endpoint].observe(seconds)
    _STAGE.observe(seconds)
    for hits in _HITS:
        hits.inc()
