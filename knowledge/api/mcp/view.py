"""The Model Context Protocol at ``/mcp``: streamable HTTP without sessions, each message answered as JSON.

A view like any other, so that sign-in, scope, host check, request id and limits are those of the REST API.
"""

import asyncio
import importlib

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from knowledge.api.streaming import AnyFormat
from ragsite.core.problems import Problem
from tenants.models import Ability
from tenants.rest import AsyncTenantView


@extend_schema(exclude=True)  # its tools describe themselves
class McpView(AsyncTenantView):
    abilities = {"POST": Ability.ASK.value}
    content_negotiation_class = AnyFormat
    idempotent = False  # the protocol knows no key; its tools change nothing

    async def post(self, request: Request) -> HttpResponse:
        check_origin(request._request)
        # The SDK is 20 MB and half a second: only processes that are asked for it load it, and the loop does not wait.
        server = await asyncio.to_thread(importlib.import_module, "knowledge.api.mcp.server")
        response: HttpResponse = await server.answer_message(
            request=request._request, principal=self.principal, limited=self.limited
        )
        return response


def check_origin(request: HttpRequest) -> None:
    """A page of another site must not speak to us from a member's browser (DNS rebinding); the host is Django's to check.

    Raises:
        Problem: 403.
    """
    origin = request.headers.get("Origin")
    own = f"{request.scheme}://{request.get_host()}"
    if origin is not None and origin != own and origin not in settings.CSRF_TRUSTED_ORIGINS:
        raise Problem(
            403,
            "foreign-origin",
            "Requests from this origin are refused: add it to RAGSITE_CSRF_TRUSTED_ORIGINS.",
        )
