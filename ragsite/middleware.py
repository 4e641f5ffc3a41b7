"""The request id, on every response and in every log line; and the answer to a body that is too large."""

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponseBase

from ragsite.bodies import TOO_LARGE
from ragsite.core.observability import new_request_id, request_context
from ragsite.views import too_large


class RequestIdMiddleware:
    """Outermost, so that errors of all that follows carry the id as well."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self._asynchronous = iscoroutinefunction(get_response)
        if self._asynchronous:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._asynchronous:
            return self._acall(request)
        request_id = new_request_id()
        request.request_id = request_id  # type: ignore[attr-defined]
        with request_context(request_id):
            response = self.get_response(request)
        response.headers["X-Request-ID"] = request_id
        return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        request_id = new_request_id()
        request.request_id = request_id  # type: ignore[attr-defined]
        with request_context(request_id):
            response: HttpResponseBase = await self.get_response(request)  # type: ignore[misc]
        response.headers["X-Request-ID"] = request_id
        return response


class TooLargeMiddleware:
    """Tells what ``ragsite.bodies`` has found, in the forms and with the headers of every other error."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> None:
        if not iscoroutinefunction(get_response):
            raise MiddlewareNotUsed("bodies are looked at under ASGI alone")
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        problem = request.scope.get(TOO_LARGE)  # type: ignore[attr-defined]
        if problem is None:
            return await self.get_response(request)
        return await sync_to_async(too_large, thread_sensitive=True)(request, problem)
