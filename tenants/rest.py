"""What all REST views share: problems, pages, and a view whose handlers are coroutines."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
from asgiref.sync import markcoroutinefunction
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import OperationalError
from django.db.models import QuerySet
from django.db.utils import DataError, IntegrityError
from django.http import Http404, HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from redis.exceptions import RedisError
from rest_framework import exceptions, serializers
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ragsite.core.hops import run_db
from ragsite.core.observability import REQUESTS
from ragsite.core.problems import FieldProblem, Problem, not_found
from tenants.access import Principal, principal_of, unauthenticated
from tenants.people import invalid
from tenants.rates import Grant, take_request

logger = structlog.get_logger(__name__)
PROBLEM_JSON = "application/problem+json"


def _flatten(detail: Any, path: str = "") -> list[FieldProblem]:
    if isinstance(detail, dict):
        return [
            problem
            for name, inner in detail.items()
            for problem in _flatten(
                inner, path if name == "non_field_errors" else f"{path}.{name}".strip(".")
            )
        ]
    if isinstance(detail, list) and any(isinstance(inner, dict | list) for inner in detail):
        return [p for i, inner in enumerate(detail) for p in _flatten(inner, f"{path}.{i}".strip("."))]
    messages = detail if isinstance(detail, list) else [detail]
    # A message may quote what was sent, half a surrogate pair for instance, which could not be written as UTF-8.
    return [FieldProblem(path, str(m).encode("utf-8", "replace").decode()) for m in messages]


def problem_of(error: Exception) -> Problem | None:
    """The problem that an expected exception stands for; ``None`` for what is our own fault."""
    match error:
        case Problem():
            return error
        case exceptions.ValidationError():
            return Problem(
                400, "invalid", "Some values cannot be used; see errors.", errors=_flatten(error.detail)
            )
        case DjangoValidationError():
            return invalid(error)
        case exceptions.ParseError():
            return Problem(400, "malformed", f"The body cannot be read: {error.detail}")
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return unauthenticated()
        case exceptions.PermissionDenied() | DjangoPermissionDenied():
            return Problem(403, "forbidden", str(getattr(error, "detail", "")) or "You may not do this.")
        case exceptions.NotFound() | Http404():
            return not_found()
        case exceptions.UnsupportedMediaType():
            return Problem(415, "unsupported-media-type", str(error.detail))
        case exceptions.MethodNotAllowed():
            return Problem(405, "method-not-allowed", str(error.detail))
        case exceptions.NotAcceptable():
            return Problem(406, "not-acceptable", str(error.detail))
        case exceptions.APIException():
            return Problem(error.status_code, "error", str(error.detail))
        case OperationalError():
            return Problem(
                503,
                "database-unavailable",
                "The database does not answer. Nothing is lost; try again in 30 seconds.",
                headers={"Retry-After": "30"},
            )
        case RedisError():
            return Problem(
                503,
                "cache-unavailable",
                "The cache does not answer. Nothing is lost; try again in 30 seconds.",
                headers={"Retry-After": "30"},
            )
        case DataError():
            return Problem(400, "invalid", "A value is too long or out of range.")
        case IntegrityError():
            return Problem(409, "conflict", "This conflicts with what exists already.")
    return None


def handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: everything expected becomes ``application/problem+json``."""
    problem = problem_of(error)
    if problem is None:
        return None
    if problem.status >= 500:
        logger.error("problem", code=problem.code, error=type(error).__name__)
    return Response(
        problem.document(),
        status=problem.status,
        headers=dict(problem.headers),
        content_type=PROBLEM_JSON,
    )


class CursorPages(CursorPagination):
    """``results``, ``next``, ``previous``; ``page_size`` 1–200, 50 unless told."""

    page_size = 50
    max_page_size = 200
    page_size_query_param = "page_size"
    ordering = ("-created_at", "-id")

    def decode_cursor(self, request: Request) -> Any:
        raw = request.query_params.get(self.cursor_query_param)
        if raw is not None:
            try:  # a broken cursor is the client's error, said in our words
                base64.b64decode(raw.encode("ascii"), validate=True).decode("utf-8")
            except ValueError:
                raise Problem(
                    400, "invalid-cursor", "The cursor is not one of ours: follow “next” and “previous”."
                ) from None
        try:
            return super().decode_cursor(request)
        except exceptions.NotFound:
            raise Problem(
                400, "invalid-cursor", "The cursor is not one of ours: follow “next” and “previous”."
            ) from None


class BodyParser(JSONParser):
    """JSON; a body that is nested too deeply is the client's error, not ours."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse(*args, **kwargs)
        except RecursionError:
            raise exceptions.ParseError("it is nested too deeply.") from None


def list_schema(
    shape: type[serializers.BaseSerializer[Any]],
    *,
    parameters: Sequence[OpenApiParameter] = (),
    **options: Any,
) -> Callable[[Any], Any]:
    """``extend_schema`` for a handler that answers with ``TenantView.page``; ``options`` are passed on."""
    pages = inline_serializer(
        name=shape.__name__.removesuffix("Shape") + "Page",
        fields={
            "results": shape(many=True),
            "next": serializers.URLField(allow_null=True),
            "previous": serializers.URLField(allow_null=True),
        },
    )
    paging = (
        OpenApiParameter("cursor", str, description="Of “next” and “previous”."),
        OpenApiParameter("page_size", int, description=f"1–{CursorPages.max_page_size}."),
    )
    decorate: Callable[[Any], Any] = extend_schema(
        responses=pages, parameters=[*parameters, *paging], **options
    )
    return decorate


class Serialized(Protocol):
    """What ``TenantView.page`` asks of a serializer of rows."""

    @property
    def data(self) -> Any: ...


class TenantView(APIView):
    """A view for members of a tenant; ``abilities`` names what each method asks for."""

    abilities: dict[str, str] = {}
    parser_classes = (BodyParser,)

    @property
    def principal(self) -> Principal:
        return principal_of(self.request)

    def page(
        self, queryset: QuerySet[Any], serializer: Callable[..., Serialized], **context: Any
    ) -> Response:
        """One cursor page of ``queryset``, in its own order."""
        paginator = CursorPages()
        ordering = queryset.query.order_by or queryset.model._meta.ordering
        paginator.ordering = (*ordering,) if "id" in str(ordering) else (*ordering, "-id")
        rows: list[Any] | None = paginator.paginate_queryset(queryset, self.request, view=self)
        data = serializer(rows, many=True, context={"request": self.request, **context}).data
        return paginator.get_paginated_response(data)

    def parse(
        self, serializer: type[serializers.Serializer[Any]], *, partial: bool = False
    ) -> dict[str, Any]:
        """The body, validated.

        Raises:
            ValidationError: which becomes the 400 problem.
        """
        form = serializer(data=self.request.data, partial=partial, context={"request": self.request})
        form.is_valid(raise_exception=True)
        data: dict[str, Any] = form.validated_data
        return data


class AsyncTenantView(TenantView):
    """A ``TenantView`` whose handlers are coroutines. Django runs it in the event loop; what DRF does with the database
    (nothing, since the middleware has authenticated already) and with the body stays where it is."""

    async def limited(self, endpoint: str, *, tokens: int = 0) -> Grant:
        """Takes the request from the caller's rate limits, which the response tells of.

        Raises:
            Problem: 429.
        """
        try:
            grant = await take_request(self.principal, tokens=tokens)
        except Problem:
            REQUESTS.labels(endpoint, "limited").inc()
            raise
        self.headers |= dict(grant.headers)
        return grant

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        view = super().as_view(**initkwargs)
        markcoroutinefunction(view)
        return view

    async def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        self.args, self.kwargs = args, kwargs
        request = self.initialize_request(request, *args, **kwargs)
        self.request = request
        self.headers = self.default_response_headers
        response: Any
        try:
            self.initial(request, *args, **kwargs)
            name = (request.method or "").lower()
            handler = (
                getattr(self, name, self.http_method_not_allowed)
                if name in self.http_method_names
                else self.http_method_not_allowed
            )
            response = handler(request, *args, **kwargs)
            if hasattr(response, "__await__"):
                response = await response
        except Exception as error:  # DRF's own contract: handle_exception raises again what it does not know
            response = await run_db(self.handle_exception, error)
        self.response = self.finalize_response(request, response, *args, **kwargs)
        return self.response


def dump_json(value: Any) -> str:
    """Compact JSON as DRF would write it (UUIDs, decimals and times as strings)."""
    from rest_framework.utils.encoders import JSONEncoder

    return json.dumps(value, cls=JSONEncoder, ensure_ascii=False, separators=(",", ":"))
