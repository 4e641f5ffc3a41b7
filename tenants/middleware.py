"""Puts the caller's scope in force for the whole request."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from ragsite.core.hops import run_db
from ragsite.core.problems import Problem
from tenants.admin_operator import enter_as_operator
from tenants.authentication import resolve_principal
from tenants.scope import enter


class ScopeMiddleware:
    """Sets ``request.principal`` and enters its scope.

    A credential that does not hold is not an error here: pages that need nobody signed in still work. It is kept in
    ``request.authentication_problem`` and raised where a principal is asked for.

    A streaming body runs after this has returned: whoever streams captures the scope (``tenants.scope``).
    """

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
        with self._resolve(request):
            return self.get_response(request)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        # The scope is resolved in a thread but entered here: a context variable's token must not change contexts.
        with await run_db(self._resolve, request):
            response: HttpResponseBase = await self.get_response(request)  # type: ignore[misc]
        return response

    def _resolve(self, request: Any) -> AbstractContextManager[Any]:
        request.principal = None
        request.authentication_problem = None
        if request.path.startswith(("/static/", "/livez")):
            return nullcontext()
        try:
            request.principal = resolve_principal(request)
        except Problem as problem:
            request.authentication_problem = problem
            return enter(None)
        if request.path.startswith("/admin/") and request.user.is_authenticated and request.user.is_superuser:
            return enter_as_operator(request)
        return enter(request.principal.scope() if request.principal else None)
