"""A local server that speaks Anthropic's Messages protocol, and OpenAI's and Azure's chat completions, with scripted
behaviour; no model behind it.

    with StubProvider() as stub:
        stub.script(Reply(status=529), Reply(blocks=(Block("Ninety seconds.", cites=((0, 0, 1),)),)))
        provider = AnthropicProvider(api_key="any", base_url=stub.url)

Each request takes the next scripted Reply, or a default one: an answer that cites the first documents, block
by block. Requests are checked as the real API checks them. To run it alone:
`python -m tests.stub_provider --port 8099`.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Literal

from tests import stub_batches, stub_chat
from tests.stub_validation import Invalid, find_documents, validate_request

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Block:
    """A text block of the answer; `cites` are (document index, first content block, end content block).

    A quote given as `forged` is sent in the place of the cited text, which the real API never does.
    """

    text: str
    cites: tuple[tuple[int, int, int], ...] = ()
    forged: str | None = None


@dataclass(frozen=True)
class Reply:
    """What to do with one request.

    Args:
        blocks: the answer; None echoes the documents.
        status: other than 200 answers an error of that status; `headers` go with it.
        wait_seconds: before the first byte.
        after_deltas: do `cut` after this many deltas have been sent.
        cut: hang (until the client leaves), reset the connection, end the body where no answer ends, or send an
            error event.
        delta_seconds: between two deltas.
    """

    blocks: tuple[Block, ...] | None = None
    status: int = 200
    error_type: str | None = None
    error_code: str | None = None
    message: str = "scripted"
    headers: tuple[tuple[str, str], ...] = ()
    stop_reason: str = "end_turn"
    wait_seconds: float = 0
    after_deltas: int | None = None
    cut: Literal["hang", "reset", "end", "error"] = "hang"
    delta_seconds: float = 0
    thinking: bool = False
    citations_first: bool = False
    body: bytes | None = None


@dataclass
class Request:
    headers: dict[str, str]
    body: dict[str, Any]
    target: str = "/v1/messages"
    method: str = "POST"
    at: float = field(default_factory=time.monotonic)


@dataclass
class Billed:
    """What one call costs its caller: a provider's own count. Until ``is_whole``, output has not been counted to its end."""

    input_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    output_tokens: int = 1
    is_whole: bool = False

    def end(self, output_tokens: int) -> None:
        self.output_tokens, self.is_whole = output_tokens, True

    @property
    def tokens(self) -> tuple[int, int, int, int]:
        return self.input_tokens, self.cache_write_tokens, self.cache_read_tokens, self.output_tokens


class StubProvider:
    """The server in a thread of its own, on an ephemeral port unless one is given."""

    def __init__(self, *, port: int = 0, host: str = "127.0.0.1") -> None:
        self._host, self._port = host, port
        self._scripts: deque[Reply] = deque()
        self._cached: set[str] = set()
        self._ids = itertools.count(1)
        self._ready = threading.Event()
        self._left = threading.Semaphore(0)
        self.requests: list[Request] = []
        self.batches = stub_batches.Batches()
        self.billed: list[Billed] = []
        self.disconnects = 0
        self.open_connections = self.connections = 0

    def __enter__(self) -> "StubProvider":
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("The stub provider did not start.")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    def script(self, *replies: Reply) -> None:
        """Queues what to do with the next requests, one each."""
        self._scripts.extend(replies)

    def wait_for_disconnect(self, seconds: float = 5) -> bool:
        """Whether a client left in the middle of an answer within this time."""
        return self._left.acquire(timeout=seconds)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connected, self._host, self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            await self._stop.wait()
        finally:
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        self.connections += 1
        try:
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                answer = asyncio.ensure_future(self._answer(request, writer))
                gone = asyncio.ensure_future(_wait_until_gone(reader))
                await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    self.disconnects += 1
                    self._left.release()
                    answer.cancel()
                    return
                gone.cancel()
                if not answer.result():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.disconnects += 1
            self._left.release()
        finally:
            self.open_connections -= 1
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; returns whether the connection stays open."""
        reply = self._scripts.popleft() if self._scripts else Reply()
        await asyncio.sleep(reply.wait_seconds)
        if reply.body is not None:
            await _send(writer, reply.status, reply.body, dict(reply.headers))
            return True
        if stub_batches.is_batches(request.target):
            status, body = self.batches.answer(request, self._message)
            await _send(writer, status, body)
            return True
        if stub_chat.is_chat(request.target):
            return await self._answer_chat(request, reply, writer)
        try:
            validate_request(headers=request.headers, body=request.body)
        except Invalid as error:
            await self._send_error(writer, Reply(status=error.status, message=str(error)))
            return True
        if reply.status != 200:
            await self._send_error(writer, reply)
            return True
        blocks = _echo(request.body) if reply.blocks is None else reply.blocks
        if request.body.get("stream"):
            return await self._stream(request.body, reply, blocks, writer)
        await _send(writer, 200, json.dumps(self._message(request.body, reply, blocks)).encode())
        return True

    def _bill_chat(self, body: dict[str, Any], text: str, *, cached: int) -> Billed:
        usage = stub_chat.chat_usage(body, text, cached=cached)
        read = usage["prompt_tokens_details"]["cached_tokens"]
        self.billed.append(Billed(usage["prompt_tokens"] - read, 0, read))
        return self.billed[-1]

    async def _answer_chat(self, request: Request, reply: Reply, writer: asyncio.StreamWriter) -> bool:
        target, body = request.target, request.body
        wrong: tuple[int, str] | None = None
        try:
            stub_chat.validate_chat(target=target, headers=request.headers, body=body)
        except Invalid as error:
            wrong = error.status, str(error)
        if wrong or reply.status != 200:
            status, message = wrong or (reply.status, reply.message)
            code = None if wrong else reply.error_code
            refused = stub_chat.chat_error(status=status, message=message, code=code, target=target)
            await _send(writer, status, json.dumps(refused).encode(), dict(reply.headers))
            return True
        text = stub_chat.echo_chat(body) if reply.blocks is None else stub_chat.chat_text(reply.blocks)
        number = next(self._ids)
        if not body.get("stream"):
            whole = stub_chat.chat_message(
                body=body, target=target, text=text, stop=reply.stop_reason, number=number
            )
            self._bill_chat(body, text, cached=0).end(whole["usage"]["completion_tokens"])
            await _send(writer, 200, json.dumps(whole).encode())
            return True
        # The beginning of a prompt that came before is read from the cache, without being asked for.
        fixed = str(body["messages"][0]["content"])
        cached = count_tokens(fixed) if fixed in self._cached else 0
        self._cached.add(fixed)
        _write_head(
            writer, 200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
        )
        sent, billed = 0, self._bill_chat(body, text, cached=cached)
        for is_text, data in stub_chat.chat_chunks(
            body=body, target=target, text=text, stop=reply.stop_reason, number=number, cached=cached
        ):
            if reply.after_deltas is not None and is_text and sent >= reply.after_deltas:
                return await self._cut(reply, writer, chat=True)
            if sent and not is_text:
                billed.end(count_tokens(text) + 1)
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
            if is_text:
                sent += 1
                await asyncio.sleep(reply.delta_seconds)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _send_error(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        await _send(writer, reply.status, json.dumps(_error(reply)).encode(), dict(reply.headers))

    def _usage(self, body: dict[str, Any]) -> dict[str, int]:
        """Tokens as a count of words; a marked system prompt is written to the cache once and then read."""
        system = body.get("system") or ""
        cached = written = 0
        fixed = system if isinstance(system, str) else "".join(b["text"] for b in system)
        marked = not isinstance(system, str) and any("cache_control" in b for b in system)
        if marked and fixed in self._cached:
            cached = count_tokens(fixed)
        elif marked:
            written = count_tokens(fixed)
            self._cached.add(fixed)
        total = count_tokens(json.dumps(body["messages"])) + (0 if marked else count_tokens(fixed))
        self.billed.append(Billed(total, written, cached))
        return {
            "input_tokens": total,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": cached,
            "output_tokens": 1,
        }

    def _head(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": f"msg_stub{next(self._ids):05}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(body),
        }

    def _message(self, body: dict[str, Any], reply: Reply, blocks: tuple[Block, ...]) -> dict[str, Any]:
        head = self._head(body)
        head["usage"]["output_tokens"] = sum(count_tokens(b.text) for b in blocks) + 1
        self.billed[-1].end(head["usage"]["output_tokens"])
        head["content"] = [{"type": "text", "text": b.text, "citations": None} for b in blocks]
        return {**head, "stop_reason": reply.stop_reason}

    async def _stream(
        self, body: dict[str, Any], reply: Reply, blocks: tuple[Block, ...], writer: asyncio.StreamWriter
    ) -> bool:
        _write_head(
            writer, 200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
        )
        sent = 0
        head = self._head(body)
        billed = self.billed[-1]
        await _event(writer, "message_start", {"message": head})
        await _event(writer, "ping", {})
        shift = 0
        if reply.thinking:
            shift = 1
            thought = {"type": "thinking", "thinking": "", "signature": ""}
            await _event(writer, "content_block_start", {"index": 0, "content_block": thought})
            signed = {"type": "signature_delta", "signature": "c3R1Yg=="}
            await _event(writer, "content_block_delta", {"index": 0, "delta": signed})
            await _event(writer, "content_block_stop", {"index": 0})
        for index, block in enumerate(blocks, start=shift):
            start: dict[str, Any] = {"type": "text", "text": ""}
            if block.cites:
                start["citations"] = []
            await _event(writer, "content_block_start", {"index": index, "content_block": start})
            texts: list[dict[str, Any]] = [
                {"type": "text_delta", "text": block.text[at : at + 12]}
                for at in range(0, len(block.text), 12)
            ]
            cites = [{"type": "citations_delta", "citation": _citation(body, c, block)} for c in block.cites]
            for delta in [*cites, *texts] if reply.citations_first else [*texts, *cites]:
                if reply.after_deltas is not None and sent >= reply.after_deltas:
                    return await self._cut(reply, writer)
                await _event(writer, "content_block_delta", {"index": index, "delta": delta})
                sent += 1
                await asyncio.sleep(reply.delta_seconds)
            await _event(writer, "content_block_stop", {"index": index})
        if reply.after_deltas is not None:
            return await self._cut(reply, writer)
        tokens = sum(count_tokens(block.text) for block in blocks) + 1
        billed.end(tokens)
        ending = {"stop_reason": reply.stop_reason, "stop_sequence": None}
        await _event(writer, "message_delta", {"delta": ending, "usage": {"output_tokens": tokens}})
        await _event(writer, "message_stop", {})
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _cut(self, reply: Reply, writer: asyncio.StreamWriter, *, chat: bool = False) -> bool:
        if reply.cut == "hang":
            await asyncio.sleep(3600)
        elif reply.cut == "error" and chat:
            data = stub_chat.stream_error(reply.message)
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
            await writer.drain()
        elif reply.cut == "error":
            failure = Reply(
                status=529, error_type=reply.error_type or "overloaded_error", message=reply.message
            )
            await _event(writer, "error", _error(failure))
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        elif reply.cut == "reset":
            # A linger time of zero makes the close an abort: the client sees a reset.
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        else:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return True


def count_tokens(text: str) -> int:
    """A stand-in for the tokenizer: words."""
    return len(text.split())


def _error(reply: Reply) -> dict[str, Any]:
    error: dict[str, Any] = {
        "type": reply.error_type or ERROR_TYPES.get(reply.status, "api_error"),
        "message": reply.message,
    }
    if reply.error_code:
        error["details"] = {"error_code": reply.error_code}
    return {"type": "error", "error": error, "request_id": "req_stub"}


def _cited_text(document: dict[str, Any], start: int, end: int) -> str:
    return "".join(block["text"] for block in document["source"]["content"][start:end])


def _citation(body: dict[str, Any], cite: tuple[int, int, int], block: Block) -> dict[str, Any]:
    index, start, end = cite
    document = find_documents(body)[index]
    return {
        "type": "content_block_location",
        "cited_text": _cited_text(document, start, end) if block.forged is None else block.forged,
        "document_index": index,
        "document_title": document.get("title"),
        "start_block_index": start,
        "end_block_index": end,
        "file_id": None,
    }


def _echo(body: dict[str, Any]) -> tuple[Block, ...]:
    documents = find_documents(body)
    if not documents:
        question = body["messages"][-1]["content"]
        return (Block(question if isinstance(question, str) else question[-1]["text"]),)
    blocks = []
    for index, document in enumerate(documents[:2]):
        for at in range(min(2, len(document["source"]["content"]))):
            text = " ".join(_cited_text(document, at, at + 1).split())
            blocks += [Block(text, cites=((index, at, at + 1),)), Block("\n\n")]
    return tuple(blocks[:-1])


async def _wait_until_gone(reader: asyncio.StreamReader) -> None:
    while not reader.at_eof() and reader.exception() is None:
        await asyncio.sleep(0.005)


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    headers = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        if name:
            headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = head[0].split(" ")
    known = target == "/v1/messages" or stub_chat.is_chat(target)
    if not stub_batches.is_batches(target) and (method != "POST" or not known):
        raise ConnectionError(f"unexpected request: {head[0]}")
    return Request(headers=headers, body=json.loads(body or b"{}"), target=target, method=method)


def _write_head(writer: asyncio.StreamWriter, status: int, headers: dict[str, str]) -> None:
    lines = [f"HTTP/1.1 {status} Stub", "request-id: req_stub", *(f"{k}: {v}" for k, v in headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())


async def _send(
    writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None
) -> None:
    fixed = {"content-type": "application/json", "content-length": str(len(body))}
    _write_head(writer, status, {**fixed, **(headers or {})})
    writer.write(body)
    await writer.drain()


async def _event(writer: asyncio.StreamWriter, name: str, data: dict[str, Any]) -> None:
    payload = data if name == "error" else {"type": name, **data}
    text = f"event: {name}\ndata: {json.dumps(payload)}\n\n".encode()
    writer.write(b"%x\r\n%s\r\n" % (len(text), text))
    await writer.drain()


def main() -> None:
    parser = argparse.ArgumentParser(description="A local stand-in for Anthropic, OpenAI and Azure OpenAI.")
    parser.add_argument("--port", type=int, default=8099)
    with StubProvider(port=parser.parse_args().port) as stub:
        print(f"ANTHROPIC_BASE_URL={stub.url} OPENAI_BASE_URL={stub.url}/v1", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
