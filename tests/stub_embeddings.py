"""A local server that speaks OpenAI's embeddings protocol, with scripted behaviour; no model behind it."""

import base64
import json
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What to do with one request.

    Args:
        status: other than 200 answers an error with `code` and `headers`.
        encoding: ``asked`` is what the request asks for, ``float`` is floats in any case, as some servers send.
        hang: no answer until the server ends.
        cut: the connection is closed in mid-body.
        missing: this many vectors fewer than texts.
        dimensions: of the vectors, where the request does not say.
        body: sent as it is.
    """

    status: int = 200
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    encoding: str = "asked"
    hang: bool = False
    cut: bool = False
    missing: int = 0
    dimensions: int = 8
    body: bytes | None = None
    zeros: bool = False


def vector_of(text: str, dimensions: int) -> list[float]:
    """Not of length 1, and different for texts of different beginnings."""
    codes = [ord(letter) for letter in text[:dimensions].ljust(dimensions)]
    return [float(code) for code in codes]


class StubEmbeddings:
    """`with StubEmbeddings() as stub:` serves at `stub.url`; `stub.requests` are the bodies that came."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._replies: deque[Reply] = deque()
        self._ended = threading.Event()
        self.default = Reply()

    def script(self, *replies: Reply) -> None:
        self._replies.extend(replies)

    def __enter__(self) -> "StubEmbeddings":
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.path == "/v1/embeddings", self.path
                stub.requests.append(body)
                stub.keys.append(self.headers["authorization"])
                stub._answer(self, body, stub._replies.popleft() if stub._replies else stub.default)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        return self

    def __exit__(self, *args: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], reply: Reply) -> None:
        if reply.hang:
            self._ended.wait(20)
            return
        if not all(text for text in body["input"]) or len(body["input"]) > 2048:
            reply = Reply(status=400, code="invalid_request")
        data = self._body(body, reply) if reply.body is None else reply.body
        handler.send_response(reply.status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2] if reply.cut else data)
        if reply.cut:
            handler.close_connection = True

    def _body(self, body: dict[str, Any], reply: Reply) -> bytes:
        if reply.status != 200:
            error = {"message": "scripted", "type": "error", "code": reply.code or None, "param": None}
            return json.dumps({"error": error}).encode()
        size = body.get("dimensions", reply.dimensions)
        rows = []
        for index, text in enumerate(body["input"][: len(body["input"]) - reply.missing]):
            vector: Any = [0.0] * size if reply.zeros else vector_of(text, size)
            if body.get("encoding_format") == "base64" and reply.encoding == "asked":
                vector = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
            rows.append({"object": "embedding", "index": index, "embedding": vector})
        tokens = sum(len(text.split()) for text in body["input"])
        # In any order: the index says which is whose.
        answer = {"object": "list", "data": rows[::-1], "model": body["model"]}
        return json.dumps(answer | {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}).encode()
