"""Static files, served by the application itself: WhiteNoise without leaving the event loop, hashed names in production."""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedFiles(CompressedManifestStaticFilesStorage):
    """Our modules import each other by their hashed names too, so that a browser never mixes two releases."""

    # Django's own switch would look at everybody's scripts, some of which speak of imports in comments alone.
    patterns = (
        *CompressedManifestStaticFilesStorage.patterns,
        ("js/*.js", CompressedManifestStaticFilesStorage._js_module_import_aggregation_patterns[1]),
    )


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise's own middleware is synchronous: it would move every request into a thread and back."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        super().__init__(get_response)
        self._asynchronous = iscoroutinefunction(get_response)
        if self._asynchronous:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        return self._acall(request) if self._asynchronous else super().__call__(request)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(self.static_prefix):
            found: HttpResponse | None = await sync_to_async(self._read, thread_sensitive=False)(request)
            if found is not None:
                return found
        response: HttpResponseBase = await self.get_response(request)
        return response

    def _read(self, request: HttpRequest) -> HttpResponse | None:
        path = request.path_info
        file: Any = self.find_file(path) if self.autorefresh else self.files.get(path)
        if file is None:
            return None
        served = self.serve(file, request)
        response = HttpResponse(b"".join(served), status=served.status_code)
        del response.headers["Content-Type"]
        for name, value in served.headers.items():
            response.headers[name] = value
        served.close()
        return response
