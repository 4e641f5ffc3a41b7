"""RFC 9457 problem details: the one shape in which the API says that something is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from django.http import JsonResponse

from ragsite.core.observability import current_request_id


@dataclass(frozen=True)
class FieldProblem:
    """One wrong field of a request: ``field`` is a dotted path, ``detail`` a sentence."""

    field: str
    detail: str


@dataclass(eq=False)  # not frozen: contextlib sets an exception's __traceback__
class Problem(Exception):
    """An expected failure that the client is told about.

    ``code`` becomes ``type`` (``/problems/<code>``); ``headers`` go onto the response (``Retry-After`` …);
    ``extra`` are additional members of the document.
    """

    status: int
    code: str
    detail: str
    errors: Sequence[FieldProblem] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "request_id": current_request_id(),
        }
        if self.errors:
            body["errors"] = [{"field": e.field, "detail": e.detail} for e in self.errors]
        return body | dict(self.extra)

    @property
    def openai_status(self) -> int:
        return 400 if self.status == 422 else self.status

    def openai_document(self) -> dict[str, Any]:
        """The same in the shape of OpenAI's API, whose clients branch on ``type`` and ``code``."""
        told = (
            "; ".join(f"{e.field}: {e.detail}" if e.field else e.detail for e in self.errors) or self.detail
        )
        kind, code = "invalid_request_error", self.code.replace("-", "_")
        match self.status:
            case 401:
                code = "invalid_api_key"
            case 402:
                kind = code = "insufficient_quota"
            case 429:
                violated = self.extra.get("violated-policies", ())
                kind = "tokens" if any(name.endswith("-tokens") for name in violated) else "requests"
                code = "rate_limit_exceeded"
            case status if status >= 500:
                kind = "server_error"
        param = self.errors[0].field or None if self.errors else None
        return {"error": {"message": told, "type": kind, "param": param, "code": code}}


def not_found() -> Problem:
    """The same words for what does not exist and for what one may not know of."""
    return Problem(404, "not-found", "There is nothing here, or you may not see it.")


def openai_response(problem: Problem) -> JsonResponse:
    """Renders a problem as OpenAI's API does."""
    return JsonResponse(
        problem.openai_document(), status=problem.openai_status, headers=dict(problem.headers)
    )


def problem_response(problem: Problem) -> JsonResponse:
    """Renders a problem as ``application/problem+json``."""
    return JsonResponse(
        problem.document(),
        status=problem.status,
        content_type="application/problem+json",
        headers=dict(problem.headers),
    )
