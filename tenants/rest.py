"""What all REST views share: problems, pages, and a view whose handlers are coroutines."""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

import structlog
from asgiref.sync import markcoroutinefunction
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import OperationalError
from django.db.models import QuerySet
from django.db.utils import DataError, IntegrityError
from django.http import Http404, HttpResponseBase, QueryDict
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from redis.exceptions import RedisError
from rest_framework import exceptions, serializers
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ragsite.core.background import in_background, to_its_end
from ragsite.core.hops import run_db
from ragsite.core.observability import REQUESTS
from ragsite.core.problems import FieldProblem, Problem, not_found
from tenants.access import Principal, principal_of, unauthenticated
from tenants.idempotency import (
    HEADER,
    Claim,
    Kept,
    claim_request,
    fingerprint_of,
    free_key,
    keep_answer,
    read_key,
)
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


def note_problem(error: Exception) -> Problem | None:
    """``problem_of``, with a line in the log for what is not the client's doing."""
    problem = problem_of(error)
    if problem is not None and problem.status >= 500:
        logger.error("problem", code=problem.code, error=type(error).__name__)
    return problem


def without_nulls(data: Any) -> Any:
    """A body in which what is null is not there: where nothing stands yet, clients say so of what they leave out."""
    if not isinstance(data, dict) or isinstance(data, QueryDict):
        return data
    return {name: value for name, value in data.items() if value is not None}


def forbid_keeping(response: Any) -> Any:
    """A cache on the way must not show one asker what another was told; with ``X-API-Key`` it would not know them apart."""
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: everything expected becomes ``application/problem+json``."""
    problem = note_problem(error)
    if problem is None:
        return None
    # Whatever the view would have answered in: that may be YAML, or a page.
    context["request"].accepted_renderer = JSONRenderer()
    context["request"].accepted_media_type = "application/json"
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


class _Replayed(Exception):
    """The request was answered before, by this."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept


class TenantView(APIView):
    """A view for members of a tenant; ``abilities`` names what each method asks for.

    ``idempotent``: its POST heeds ``Idempotency-Key``. A handler that sets ``reference`` has the answer read anew by
    ``replay`` when the request is sent again, in the place of what was answered: what a member may read can have changed.
    """

    abilities: dict[str, str] = {}
    parser_classes = (BodyParser,)
    idempotent = True
    reference: UUID | None = None
    _claim: Claim | None = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not isinstance(self, AsyncTenantView):
            self.claim(request)

    def claim(self, request: Request) -> None:
        """After authorisation: whoever lost the right to do it does not get its answer either."""
        header = request.headers.get(HEADER)
        if request.method != "POST" or not self.idempotent or header is None:
            return
        found = claim_request(
            membership=self.principal.membership,
            key=read_key(header),
            fingerprint=fingerprint_of(method="POST", path=request.path, data=request.data),
            is_whole=self.is_whole,
        )
        if isinstance(found, Kept):
            raise _Replayed(found)
        self._claim = found

    def settle_claim(self, response: Any) -> None:
        """What was done is kept, what was not leaves the key free."""
        claim, self._claim = self._claim, None
        if claim is None:
            return
        if response is None or response.status_code >= 400:
            free_key(claim)
            return
        data = getattr(response, "data", None)
        body = None if self.reference or data is None else dump_json(data)
        keep_answer(claim, status=response.status_code, body=body, reference=self.reference)

    def leave_claim(self) -> None:
        """Whoever asked has gone: what becomes of an answer that has begun is seen by its ``reference``."""
        claim, self._claim = self._claim, None
        if claim is not None and self.reference:
            keep_answer(claim, status=200, body=None, reference=self.reference)
        elif claim is not None:
            free_key(claim)

    def is_whole(self, reference: UUID) -> bool | None:
        """Whether what a request has left has come to its end; if not, its key is free. ``None``: there is nothing (yet)."""
        return True

    def show_kept(self, kept: Kept) -> Any:
        response = self.replay(kept.reference) if kept.reference else Response(kept.data, status=kept.status)
        self.headers |= {"Idempotency-Replayed": "true", "Cache-Control": "no-store"}
        return response

    def replay(self, reference: UUID) -> Any:
        """What a request is answered again that has left a ``reference``; a coroutine where handlers are."""
        raise NotImplementedError

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, _Replayed):
            try:
                shown: Response = self.show_kept(exc.kept)
                return shown
            except Exception as error:
                exc = error
        try:
            return super().handle_exception(exc)
        except Exception:
            self.settle_claim(None)
            raise

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self, AsyncTenantView):
            self.settle_claim(response)
        return forbid_keeping(super().finalize_response(request, response, *args, **kwargs))

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
        data = self.request.data
        given = without_nulls(data) if self.request.method == "POST" else data
        form = serializer(data=given, partial=partial, context={"request": self.request})
        form.is_valid(raise_exception=True)
        validated: dict[str, Any] = form.validated_data
        return validated


class AsyncTenantView(TenantView):
    """A ``TenantView`` whose handlers are coroutines. Django runs it in the event loop; what DRF does with the database
    (nothing, since the middleware has authenticated already) and with the body stays where it is.

    ``ends_with_asker``: its work ends when the connection does. Other work under an ``Idempotency-Key`` goes on to its end,
    so that what it made is found when the request is sent again.
    """

    ends_with_asker = False
    _has_left = False

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
        work = self._respond(request, *args, **kwargs)
        goes_on = HEADER in request.headers and not self.ends_with_asker
        response = await (to_its_end(work) if goes_on else work)
        self.response = self.finalize_response(request, response, *args, **kwargs)
        if isinstance(self.response, Response):
            # Here: Django would do it in a thread.
            self.response.render()
            self.response.render = None  # type: ignore[method-assign,assignment]
        return self.response

    async def _respond(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        response: Any
        try:
            try:
                self.initial(request, *args, **kwargs)
                if HEADER in request.headers:
                    await to_its_end(self._claim_for_asker(request))
                name = (request.method or "").lower()
                handler = (
                    getattr(self, name, self.http_method_not_allowed)
                    if name in self.http_method_names
                    else self.http_method_not_allowed
                )
                response = handler(request, *args, **kwargs)
                if hasattr(response, "__await__"):
                    response = await response
            except (
                Exception
            ) as error:  # DRF's own contract: handle_exception raises again what it does not know
                response = await self._answer_error(error)
        except asyncio.CancelledError:
            self._has_left = True
            if self._claim is not None:
                in_background(run_db(self.leave_claim))
            raise
        if self._claim is not None:
            await to_its_end(run_db(self.settle_claim, response))
        return response

    async def _claim_for_asker(self, request: Request) -> None:
        await run_db(self.claim, request)
        if self._has_left:
            await run_db(self.leave_claim)

    async def _answer_error(self, error: Exception) -> Any:
        if isinstance(error, _Replayed) and error.kept.reference:
            try:
                return await self.show_kept(error.kept)
            except Exception as found:
                error = found
        return await run_db(self.handle_exception, error)


def dump_json(value: Any) -> str:
    """Compact JSON as DRF would write it (UUIDs, decimals and times as strings)."""
    from rest_framework.utils.encoders import JSONEncoder

    return json.dumps(value, cls=JSONEncoder, ensure_ascii=False, separators=(",", ":"))
