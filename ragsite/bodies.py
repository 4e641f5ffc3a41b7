"""How large a body may be, before it is read: Django writes all of it into a file, and asks who sends it after that."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError
from django.http import HttpResponse
from django.urls import Resolver404, resolve

from knowledge.api.hooks import most_hook_bytes
from knowledge.webhooks.receive import find_source
from ragsite.core.config import config
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem
from tenants.authentication import resolve_principal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

TOO_LARGE = "ragsite.too_large"  # the problem, in the scope of a request whose body is left out
FILES_OF_A_FORM = 4  # of the largest size; the page sends one at a time where it has JavaScript
# What comes after a refusal is thrown away for so long: who still sends sees no answer before a connection breaks.
LINGER_SECONDS, LINGER_BYTES = 5.0, 64 * 2**20


@dataclass(frozen=True)
class Bound:
    """What one route takes.

    Attributes:
        most: bytes.
        words: what is said of more.
        admits: whether whoever sends a large body is let; asked before it is read.
    """

    most: int
    words: str
    admits: Callable[[Scope], bool] = lambda scope: True


def bound_of(scope: Scope) -> Bound:
    """What the route of a request takes."""
    usual, file = settings.DATA_UPLOAD_MAX_MEMORY_SIZE, config().max_upload_bytes
    try:
        name = resolve(scope["path"].removeprefix(scope.get("root_path", ""))).view_name
    except Resolver404:
        name = ""
    match name, scope["method"]:
        case ("document-list" | "document-replace", "POST") | ("document", "PUT"):
            return Bound(
                file + usual, f"A file may have {file >> 20} MB at most: split it.", _comes_from_a_member
            )
        case "upload", "POST":
            files = FILES_OF_A_FORM * file
            words = f"The files of one form may have {files >> 20} MB together: send fewer at once."
            return Bound(files + usual, words, _comes_from_a_member)
        case "hook", "POST":
            most = most_hook_bytes()
            return Bound(
                most, f"The body is larger than the {most >> 20} MB that are taken in.", _is_of_a_source
            )
    return Bound(
        usual, f"The body is larger than the {usual >> 20} MB that are taken in here: send less at once."
    )


def _comes_from_a_member(scope: Scope) -> bool:
    request = ASGIRequest(scope, BytesIO())
    SessionMiddleware(_no_response).process_request(request)
    AuthenticationMiddleware(_no_response).process_request(request)
    try:
        return resolve_principal(request) is not None
    except (Problem, DatabaseError):
        return False  # Django finds the same, and tells it in its words


def _is_of_a_source(scope: Scope) -> bool:
    try:
        return find_source(resolve(scope["path"]).kwargs["id"]) is not None
    except DatabaseError:
        return False


def _no_response(request: Any) -> HttpResponse:
    return HttpResponse()


class BodyLimit:
    """An ASGI application around Django's, which never sees a body that is too large, or a large one of a stranger."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = _announced(scope)
        if size is not None and size <= settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            await self._application(scope, receive, send)
            return
        bound = bound_of(scope)
        if size is not None and size > bound.most:
            await self._answer_without({**scope, TOO_LARGE: _problem(bound)}, receive, send)
        elif not await run_db(bound.admits, scope):
            await self._answer_without(scope, receive, send)
        else:
            body = _Counted(receive, bound.most)
            await self._application(scope, body, send)
            if body.is_too_large:
                await self._answer_without({**scope, TOO_LARGE: _problem(bound)}, receive, send)

    async def _answer_without(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Has Django answer as if the body were empty, and ends the connection, since the body is still on its way."""
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name not in (b"content-length", b"transfer-encoding")
        ]
        bare = {**scope, "headers": [*headers, (b"content-length", b"0")]}
        await self._application(bare, _empty_body(), _closing(receive, send))


def _announced(scope: Scope) -> int | None:
    """The size of a request's body by its head; ``None`` where that does not say."""
    size: int | None = 0
    for name, value in scope.get("headers", ()):
        if name == b"content-length":
            size = int(value) if value.isdigit() else None
        elif name == b"transfer-encoding":
            return None
    return size


def _problem(bound: Bound) -> Problem:
    return Problem(413, "too-large", bound.words)


class _Counted:
    """Hands a body on as it comes. Django is told that the client has gone as soon as there is too much of it."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left = receive, most
        self.is_too_large = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.is_too_large = True
            return {"type": "http.disconnect"}
        return message


def _empty_body() -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        return await asyncio.Future()  # Django waits for the client to go, as long as it answers

    return receive


def _closing(receive: Receive, send: Send) -> Send:
    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        elif not message.get("more_body", False):
            await send({**message, "more_body": True})
            await _throw_away(receive)
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return send_and_close


async def _throw_away(receive: Receive) -> None:
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                if not message.get("more_body", False):  # also where the client has gone
                    return
                left -= len(message["body"])
    except TimeoutError:
        return
