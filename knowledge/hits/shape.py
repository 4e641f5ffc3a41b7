"""The response to a hit: what Django sent when it showed the same answer, with what is each request's own put in."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

from tenants.rest import dump_json

Headers = list[tuple[bytes, bytes]]

# Each request's own, in the body and among the headers.
OWN = ("request_id", "conversation", "latency_ms", "timings", "timestamp")
_OWN_HEADERS = frozenset({b"x-request-id", b"content-length", b"ratelimit", b"ratelimit-policy"})
# What a hit says in the place of what its answer's own making cost.
_OF_A_HIT = {
    "cache": "exact",
    "cache_hit": True,
    "usage": {"input_tokens": 0, "output_tokens": 0, "cost_usd": "0"},
}
_DONE = b'{"type":"done","data":'  # how a stream's last event begins
# A response that carries one of these is for one client alone.
_PRIVATE_HEADERS = frozenset({b"set-cookie", b"idempotency-replayed"})


@dataclass(frozen=True)
class ResponseShape:
    """``parts`` are the body's pieces between the fields ``order``, which are each request's own."""

    headers: tuple[tuple[bytes, bytes], ...]
    parts: tuple[bytes, ...]
    order: tuple[str, ...]

    def fill(
        self, *, own: dict[str, bytes], request_id: bytes, limits: tuple[tuple[str, str], ...]
    ) -> tuple[Headers, bytes]:
        """Headers and body of a response.

        Args:
            own: the fields of ``OWN``, as JSON.
            limits: the headers of the rate limits.
        """
        pieces = [self.parts[0]]
        for name, part in zip(self.order, self.parts[1:], strict=True):
            pieces += (own[name], part)
        body = b"".join(pieces)
        headers = [*self.headers, (b"X-Request-ID", request_id), (b"Content-Length", b"%d" % len(body))]
        headers += [(name.encode(), value.encode()) for name, value in limits]
        return headers, body


def shape_of(*, headers: Headers, body: bytes) -> ResponseShape | None:
    """The shape of a hit on the answer that Django's response shows, of a miss or of a hit.

    Returns:
        ``None`` for a response from which it could not itself be made again, byte for byte.
    """
    return _shape(headers=headers, before=b"", shown=body, after=b"", is_replay=False)


def stream_shape_of(*, headers: Headers, body: bytes) -> ResponseShape | None:
    """The shape of a hit's stream, of one that Django has replayed from the cache: events come as they came, and the last
    of them, ``done``, has what is each request's own.

    Returns:
        ``None`` for any other stream.
    """
    begin, end = body.rfind(_DONE) + len(_DONE), body.rfind(b"}")
    if not len(_DONE) <= begin < end:
        return None
    return _shape(
        headers=headers, before=body[:begin], shown=body[begin:end], after=body[end:], is_replay=True
    )


def _shape(
    *, headers: Headers, before: bytes, shown: bytes, after: bytes, is_replay: bool
) -> ResponseShape | None:
    """Of a body that shows the answer as the JSON object ``shown``; ``is_replay``: it must be shown as that of a hit."""
    if {name.lower() for name, _ in headers} & _PRIVATE_HEADERS:
        return None
    try:
        document: Any = json.loads(shown)
        own = {name: dump_json(document[name]).encode() for name in OWN}
    except (ValueError, KeyError, TypeError):
        return None
    of_a_hit = document | _OF_A_HIT
    if is_replay and document != of_a_hit:
        return None
    kept = tuple(each for each in headers if each[0].lower() not in _OWN_HEADERS)
    _, again = _cut(document, headers=kept, before=before, after=after).fill(
        own=own, request_id=b"", limits=()
    )
    is_same = again == before + shown + after
    return _cut(of_a_hit, headers=kept, before=before, after=after) if is_same else None


def _cut(
    document: dict[str, Any],
    *,
    headers: tuple[tuple[bytes, bytes], ...],
    before: bytes,
    after: bytes,
) -> ResponseShape:
    order = tuple(name for name in document if name in OWN)
    marks = {name: uuid.uuid4().hex for name in order}
    parts: list[bytes] = []
    rest = dump_json(document | marks).encode()
    for name in order:
        part, _, rest = rest.partition(f'"{marks[name]}"'.encode())
        parts.append(part)
    whole = (*parts, rest + after)
    return ResponseShape(headers=headers, parts=(before + whole[0], *whole[1:]), order=order)
