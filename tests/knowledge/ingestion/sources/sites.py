"""A local web server with pages by path, and a resolver that says what a test wants it to say."""

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(frozen=True)
class Page:
    """What a path answers.

    Attributes:
        drip: seconds between two bytes of the body.
        etag: answered with 304 to who has it.
    """

    body: bytes | str = b""
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    drip: float = 0
    etag: str = ""

    @property
    def data(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else self.body


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


Answer = Page | Callable[[Asked], Page]


@dataclass
class Site:
    """``site.pages["/a"] = Page("…")``; ``site.asked`` is what was asked, in order."""

    pages: dict[str, Answer] = field(default_factory=dict)
    fallback: Answer = Page("gone", status=404)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    port: int = 0

    def paths(self) -> list[str]:
        return [one.path for one in self.asked]

    def html(
        self, path: str, title: str, text: str = "", links: tuple[str, ...] = (), **options: Any
    ) -> None:
        """A page with a title, a paragraph and links."""
        anchors = " ".join(f'<a href="{link}">to {link}</a>' for link in links)
        self.pages[path] = Page(
            f"<html><head><title>{title}</title></head><body><main><h1>{title}</h1><p>{text}</p>"
            f"<p>{anchors}</p></main></body></html>",
            **options,
        )


def redirect(to: str, status: int = 301) -> Page:
    return Page(status=status, headers=(("Location", to),))


def bomb(size: int) -> Page:
    """``size`` zeros, packed a thousandfold."""
    return Page(gzip.compress(bytes(size)), headers=(("Content-Encoding", "gzip"),))


@contextmanager
def serve_site(
    *, host: str = "127.0.0.1", port: int = 0, certificate: ssl.SSLContext | None = None
) -> Iterator[Site]:
    """A site on a port of its own."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: with two, each answer waits 40 ms for an acknowledgement

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            site.asked.append(asked)
            found = site.pages.get(self.path, site.fallback)
            page = found(asked) if callable(found) else found
            if page.etag and asked.headers.get("if-none-match") == page.etag:
                page = Page(status=304, etag=page.etag)
            self.send_response(page.status)
            names = {name.lower() for name, _ in page.headers}
            if "content-type" not in names and page.status != 304:
                self.send_header("Content-Type", page.kind)
            if page.etag:
                self.send_header("ETag", page.etag)
            for name, value in page.headers:
                self.send_header(name, value)
            if "content-length" not in names:
                self.send_header("Content-Length", str(len(page.data)))
            self.end_headers()
            if page.drip:
                self.wfile.flush()
                for at in range(len(page.data)):
                    self.wfile.write(page.data[at : at + 1])
                    self.wfile.flush()
                    time.sleep(page.drip)
            elif self.command != "HEAD":
                self.wfile.write(page.data)

        do_GET = do_POST = do_HEAD = _answer

        def log_message(self, *_: Any) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, ssl.SSLError):
                self.close_connection = True

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    if certificate:
        server.socket = certificate.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    site.port = server.server_address[1]
    site.url = f"{'https' if certificate else 'http'}://{host}:{site.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


class Resolver:
    """Answers the names that a test teaches it, each time with the next of their answers; the last one stays."""

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self._real = socket.getaddrinfo

    def teach(self, name: str, *answers: str | list[str]) -> None:
        self.names[name] = [[answer] if isinstance(answer, str) else answer for answer in answers]

    def __call__(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host not in self.names:
            return self._real(host, port, *args, **options)
        self.asked.append(host)
        answers = self.names[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [row for address in found for row in self._real(address, port, type=socket.SOCK_STREAM)]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    found = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", found)
    return found
