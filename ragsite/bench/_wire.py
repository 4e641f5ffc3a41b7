"""HTTP/1.1 as far as the benchmarks need it: small, so that what measures costs little beside what is measured."""

import asyncio
import json
from typing import Any

from knowledge.llm.framing import ChunkReader

HEAD_END = b"\r\n\r\n"


def header_of(head: bytes, name: bytes) -> bytes:
    """The value of a header; empty where it is missing. ``name`` is in small letters."""
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


async def call(
    port: int, method: str, path: str, *, body: Any = None, token: str = "", seconds: float = 30
) -> tuple[int, Any]:
    """One request on a connection of its own: the status, and the JSON of the answer (its text where it is none)."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: close",
        f"Content-Length: {len(data)}",
    ]
    lines += ["Content-Type: application/json"] if data else []
    lines += [f"Authorization: Bearer {token}"] if token else []
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write("\r\n".join(lines).encode() + HEAD_END + data)
            answer = await reader.read()
        finally:
            writer.close()
    head, _, rest = answer.partition(HEAD_END)
    if not head.startswith(b"HTTP/1.1 "):
        raise ConnectionError("no answer")
    text = ChunkReader().feed(rest) if header_of(head, b"transfer-encoding") else rest
    try:
        found = json.loads(text or b"null")
    except ValueError:
        found = text.decode(errors="replace")
    return int(head[9:12]), found


def ask(port: int, method: str, path: str, *, body: Any = None, token: str = "", seconds: float = 30) -> Any:
    """``call`` from code that is no coroutine; the answer alone.

    Raises:
        ConnectionError: nobody answers, or with a status that is no success.
    """
    status, found = asyncio.run(call(port, method, path, body=body, token=token, seconds=seconds))
    if status >= 300:
        raise ConnectionError(f"{method} {path} → {status}: {str(found)[:300]}")
    return found
