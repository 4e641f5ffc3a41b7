"""Django under ASGI without leaving the event loop for its middleware.

Django moves each step of each middleware into a thread and back, some fifteen times a request, and makes the thread for it.
The steps look at headers and cookies; those that may read or write the database, or a large body, still go to a thread.
"""

from typing import Any

import csp.middleware
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.core.handlers.asgi import ASGIHandler
from django.middleware import clickjacking, common, csrf, security


class InLoop:
    """Before one of Django's: its ``process_request`` and ``process_response`` run where they are called."""

    get_response: Any

    async def __acall__(self, request: Any) -> Any:
        begin = getattr(self, "process_request", None)
        response = (begin(request) if begin else None) or await self.get_response(request)
        end = getattr(self, "process_response", None)
        if end is None:
            return response
        if self.may_wait(request):
            return await sync_to_async(end, thread_sensitive=True)(request, response)
        return end(request, response)

    def may_wait(self, request: Any) -> bool:
        """Whether ``process_response`` may have to wait for something."""
        return False


class SecurityMiddleware(InLoop, security.SecurityMiddleware):
    pass


class SessionMiddleware(InLoop, sessions.SessionMiddleware):
    def may_wait(self, request: Any) -> bool:
        return bool(request.session.modified)


class CommonMiddleware(InLoop, common.CommonMiddleware):
    pass


class CsrfViewMiddleware(InLoop, csrf.CsrfViewMiddleware):
    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        if iscoroutinefunction(get_response):
            self.process_view = self._process_view  # type: ignore[method-assign,assignment]

    async def _process_view(self, request: Any, callback: Any, args: Any, kwargs: Any) -> Any:
        process = super().process_view
        if getattr(callback, "csrf_exempt", False) or request.method in ("GET", "HEAD", "OPTIONS", "TRACE"):
            return process(request, callback, args, kwargs)
        # It looks for its token in the form, which may hold a file.
        return await sync_to_async(process, thread_sensitive=True)(request, callback, args, kwargs)


class AuthenticationMiddleware(InLoop, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(InLoop, messages.MessageMiddleware):
    def may_wait(self, request: Any) -> bool:
        return bool(request._messages.used or request._messages.added_new)


class XFrameOptionsMiddleware(InLoop, clickjacking.XFrameOptionsMiddleware):
    pass


class CSPMiddleware(InLoop, csp.middleware.CSPMiddleware):
    pass


class Handler(ASGIHandler):
    """Django's own, with the middleware of the settings and these in the place of what they stand for."""

    def load_middleware(self, is_async: bool = False) -> None:
        ours = {_path(kind.__bases__[1]): _path(kind) for kind in InLoop.__subclasses__()}
        named = settings.MIDDLEWARE  # by Django's names, which its checks look for
        settings.MIDDLEWARE = [ours.get(path, path) for path in named]
        try:
            super().load_middleware(is_async)
        finally:
            settings.MIDDLEWARE = named

    def create_request(self, scope: Any, body_file: Any) -> Any:
        """A body of no announced size (chunked) has been read: its size is known, without which DRF takes it for none."""
        request, error = super().create_request(scope, body_file)
        if request is not None and "CONTENT_LENGTH" not in request.META:
            request.META["CONTENT_LENGTH"] = str(body_file.seek(0, 2))
            body_file.seek(0)
        return request, error


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"
