"""A stand-in for Anthropic's Messages API, a process of its own: how fast it answers and how often it fails is set.

``python -m ragsite.bench._provider --port 0`` prints the port that it listens on. Beside ``POST /v1/messages`` (whole and
streamed, with citations of content blocks and usage) it has ``GET /stats``, what it has counted, and ``PUT /behaviour``,
which changes its behaviour and forgets what was counted.

An answer is made of the documents' own first sentences, each a block with its citation; without documents it is what
comes after “Question:”, or the last words of what was sent. Tokens are counted as four characters each.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from ragsite.bench._wire import HEAD_END, header_of

CHARS_PER_TOKEN = 4
# Shorter prompts are not cached, whatever they are marked with (Anthropic's own minimum for its large models).
FEWEST_CACHED_TOKENS = 1024
DELTA_CHARS = 12
FAILURES = {
    "429": (429, "rate_limit_error"),
    "500": (500, "api_error"),
    "529": (529, "overloaded_error"),
}
KINDS = (*FAILURES, "hang", "broken")
_NOTE = "\n\n(The documents do not hold:"
_ASKED = "Question: "
_SENTENCE = re.compile(r"[^.!?\n]{20,}[.!?]?")


@dataclass(frozen=True)
class Behaviour:
    """How it answers.

    Attributes:
        first_token: seconds until the first token.
        tokens_per_second: of the rest; 0: all at once.
        answer_tokens: about how long an answer is.
        failures: the share of calls that fail, by kind: a status, ``hang`` (nothing ever comes) or ``broken`` (the
            connection is lost in the middle of the answer).
        seed: of the dice that decide which.
    """

    first_token: float = 0.0
    tokens_per_second: float = 0.0
    answer_tokens: int = 120
    failures: dict[str, float] = field(default_factory=dict)
    seed: int = 1


@dataclass
class Call:
    """One call: what was asked, and the seconds from the whole request to the last byte of the answer."""

    question: str
    model: str
    text: str = ""
    seconds: float = 0.0
    failure: str = ""


@dataclass
class Counts:
    """Everything since the last ``PUT /behaviour``; tokens are of calls that were answered to their end."""

    calls: list[Call] = field(default_factory=list)
    tokens: dict[str, Counter[str]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    left: int = 0
    open: int = 0
    most_open: int = 0

    def count(self, model: str, usage: dict[str, int]) -> None:
        self.tokens.setdefault(model, Counter()).update(usage)


class Provider:
    def __init__(self, behaviour: Behaviour) -> None:
        self.behave(behaviour)

    def behave(self, behaviour: Behaviour) -> None:
        unknown = set(behaviour.failures) - set(KINDS)
        if unknown or sum(behaviour.failures.values()) > 1:
            raise ValueError(f"failures are shares of calls by {', '.join(KINDS)}, together at most 1")
        self.behaviour, self.counts = behaviour, Counts()
        self._dice = random.Random(behaviour.seed)  # noqa: S311

    def draw_failure(self) -> str:
        draw = self._dice.random()
        for kind, share in self.behaviour.failures.items():
            draw -= share
            if draw < 0:
                return kind
        return ""

    def stats(self, *, with_calls: bool) -> dict[str, Any]:
        counts = self.counts
        found = {
            "calls": len(counts.calls),
            "answered": sum(not call.failure for call in counts.calls),
            "failures": dict(counts.failures),
            "left": counts.left,
            "most_open": counts.most_open,
            "tokens": {model: dict(usage) for model, usage in counts.tokens.items()},
            "seconds": sum(call.seconds for call in counts.calls),
        }
        return found | ({"log": [asdict(call) for call in counts.calls]} if with_calls else {})


def count_tokens(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)


@dataclass(frozen=True)
class Block:
    """A part of an answer; ``cites`` is the document's place and that of its content block, ``quote`` its text."""

    text: str
    cites: tuple[int, int] | None = None
    quote: str = ""
    title: str = ""


def write_answer(body: dict[str, Any], *, tokens: int) -> list[Block]:
    """What is answered, in blocks: a sentence of each document in turn, until it is long enough."""
    content = body["messages"][-1]["content"]
    parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    documents = [part for part in parts if part["type"] == "document"]
    if not documents:
        text = parts[-1]["text"]
        words = text[: tokens * CHARS_PER_TOKEN] if _ASKED in text else read_question(body)
        return [Block(words.strip() or "Nothing.")]
    blocks: list[Block] = []
    left = tokens * CHARS_PER_TOKEN
    pieces = [
        (place, at, document.get("title", ""), part["text"])
        for place, document in enumerate(documents)
        for at, part in enumerate(document["source"]["content"])
    ]
    pieces.sort(key=lambda piece: (piece[1], piece[0]))
    for place, at, title, text in pieces * 50:
        for match in _SENTENCE.finditer(text):
            sentence = " ".join(match.group().split())
            if left <= 0:
                return blocks
            blocks += [Block(" ")] if blocks else []
            blocks.append(Block(sentence, (place, at), text, title))
            left -= len(sentence) + 1
    return blocks or [Block("The documents hold no sentence.")]


def read_question(body: dict[str, Any]) -> str:
    """The question that a call is about: the last text that was sent, without what ragsite adds to it."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    text = text.partition(_NOTE)[0]
    return str(text.rpartition(_ASKED)[2] if _ASKED in text else text).strip()


def count_usage(body: dict[str, Any], text: str, cached: set[tuple[str, str]]) -> dict[str, int]:
    """Tokens as Anthropic reports them; a long enough marked system prompt is written to the cache once and then read."""
    system = body.get("system") or ""
    fixed = system if isinstance(system, str) else "".join(block["text"] for block in system)
    marked = not isinstance(system, str) and any("cache_control" in block for block in system)
    size, written, read = count_tokens(fixed), 0, 0
    key = str(body["model"]), fixed
    if marked and size >= FEWEST_CACHED_TOKENS:
        written, read, size = (0, size, 0) if key in cached else (size, 0, 0)
        cached.add(key)
    return {
        "input_tokens": size + count_tokens(json.dumps(body["messages"], ensure_ascii=False)),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": count_tokens(text),
    }


class Connection(asyncio.Protocol):
    """One client; requests come one after another, as HTTP/1.1 without pipelining has it."""

    def __init__(self, provider: Provider, cached: set[tuple[str, str]]) -> None:
        self._provider, self._cached = provider, cached
        self._waiting = bytearray()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._closes = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        end = self._waiting.find(HEAD_END)
        if end < 0:
            return
        head = bytes(self._waiting[:end])
        size = int(header_of(head, b"content-length") or 0)
        whole = end + len(HEAD_END) + size
        if len(self._waiting) < whole:
            return
        body = bytes(self._waiting[end + len(HEAD_END) : whole])
        del self._waiting[:whole]
        method, target = head.split(b" ", 2)[:2]
        self._closes = header_of(head, b"connection").lower() == b"close"
        self._task = asyncio.ensure_future(self._answer(method.decode(), target.decode(), body))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _send(self, status: int, found: Any) -> None:
        data = json.dumps(found).encode()
        head = f"HTTP/1.1 {status} Stand-in\r\ncontent-type: application/json\r\nrequest-id: req_standin\r\n"
        self._write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        if self._closes and self._transport is not None:
            self._transport.close()

    async def _answer(self, method: str, target: str, body: bytes) -> None:
        provider = self._provider
        path, _, options = target.partition("?")
        try:
            if (method, path) == ("GET", "/stats"):
                self._send(200, provider.stats(with_calls="calls" in options))
            elif (method, path) == ("PUT", "/behaviour"):
                provider.behave(replace(Behaviour(), **json.loads(body)))
                self._send(200, asdict(provider.behaviour))
            elif (method, path) == ("POST", "/v1/messages"):
                await self._count(json.loads(body))
            else:
                self._send(404, _error("not_found_error", "no such address"))
        except (ValueError, KeyError, TypeError) as error:
            self._send(400, _error("invalid_request_error", f"{type(error).__name__}: {error}"))

    async def _count(self, body: dict[str, Any]) -> None:
        counts, begun = self._provider.counts, time.monotonic()
        call = Call(read_question(body), str(body["model"]))
        counts.calls.append(call)
        counts.open += 1
        counts.most_open = max(counts.most_open, counts.open)
        try:
            await self._message(body, call)
        except asyncio.CancelledError:
            counts.left += 1
            call.failure = call.failure or "left"
            raise
        finally:
            counts.open -= 1
            call.seconds = time.monotonic() - begun

    async def _message(self, body: dict[str, Any], call: Call) -> None:
        provider, counts = self._provider, self._provider.counts
        behaviour = provider.behaviour
        call.failure = failure = provider.draw_failure()
        if failure:
            counts.failures[failure] += 1
        if failure == "hang":
            await asyncio.sleep(3600)
        if failure in FAILURES:
            status, kind = FAILURES[failure]
            self._send(status, _error(kind, "as often as was asked for"))
            return
        blocks = write_answer(body, tokens=behaviour.answer_tokens)
        text = call.text = "".join(block.text for block in blocks)
        usage = count_usage(body, text, self._cached)
        begun = time.monotonic() + behaviour.first_token
        await asyncio.sleep(behaviour.first_token)
        if body.get("stream"):
            await self._stream(call, blocks, usage, begun=begun, rate=behaviour.tokens_per_second)
        elif failure:
            self._break_off()
        else:
            if behaviour.tokens_per_second:
                await asyncio.sleep(usage["output_tokens"] / behaviour.tokens_per_second)
            content = [{"type": "text", "text": block.text, "citations": None} for block in blocks]
            self._send(200, {**_head(call.model, usage), "content": content, "stop_reason": "end_turn"})
        if not failure:
            counts.count(call.model, usage)

    async def _stream(
        self, call: Call, blocks: list[Block], usage: dict[str, int], *, begun: float, rate: float
    ) -> None:
        self._write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nrequest-id: req_standin\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        start = _event("message_start", {"message": _head(call.model, usage | {"output_tokens": 1})})
        events = [(0, start), *_events(blocks, per_token=rate > 0)]
        if call.failure:
            events = events[: len(events) // 2]
        due: list[bytes] = []
        for tokens, event in events:
            # One write for what is due together; a token waits for its time.
            if rate and tokens and (wait := begun + tokens / rate - time.monotonic()) > 0:
                self._write(b"".join(due))
                due = []
                await asyncio.sleep(wait)
            due.append(event)
        self._write(b"".join(due))
        if call.failure:
            self._break_off()
            return
        ending = {"delta": {"stop_reason": "end_turn", "stop_sequence": None}}
        told = {"output_tokens": usage["output_tokens"]}
        last = _event("message_delta", {**ending, "usage": told}) + _event("message_stop", {})
        self._write(last + b"0\r\n\r\n")

    def _break_off(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _events(blocks: list[Block], *, per_token: bool) -> list[tuple[int, bytes]]:
    """The events of an answer, each with the number of the token that it carries; 0: none of its own."""
    events: list[tuple[int, bytes]] = []
    token, size = 0, CHARS_PER_TOKEN if per_token else DELTA_CHARS
    for index, block in enumerate(blocks):
        opened: dict[str, Any] = {"type": "text", "text": ""}
        if block.cites:
            opened["citations"] = []
        events.append((0, _event("content_block_start", {"index": index, "content_block": opened})))
        for at in range(0, len(block.text), size):
            token += 1
            delta: dict[str, Any] = {"type": "text_delta", "text": block.text[at : at + size]}
            events.append((token, _event("content_block_delta", {"index": index, "delta": delta})))
        if block.cites:
            place, part = block.cites
            citation = {
                "type": "content_block_location",
                "cited_text": block.quote,
                "document_index": place,
                "document_title": block.title,
                "start_block_index": part,
                "end_block_index": part + 1,
                "file_id": None,
            }
            delta = {"type": "citations_delta", "citation": citation}
            events.append((0, _event("content_block_delta", {"index": index, "delta": delta})))
        events.append((0, _event("content_block_stop", {"index": index})))
    return events


def _head(model: str, usage: dict[str, int]) -> dict[str, Any]:
    return {
        "id": "msg_standin",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _event(name: str, data: dict[str, Any]) -> bytes:
    text = f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_standin"}


async def serve(port: int, behaviour: Behaviour) -> None:
    provider, cached = Provider(behaviour), set[tuple[str, str]]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(provider, cached), "127.0.0.1", port, backlog=2048)
    sys.stdout.write(f"listening on {server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description="A stand-in for Anthropic's Messages API.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--behaviour", type=json.loads, default={}, help="JSON; see the class Behaviour")
    options = parser.parse_args()
    uvloop.run(serve(options.port, Behaviour(**options.behaviour)))


if __name__ == "__main__":
    main()
