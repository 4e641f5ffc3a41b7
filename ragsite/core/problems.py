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


def not_found() -> Problem:
    """The same words for what does not exist and for what one may not know of."""
    return Problem(404, "not-found", "There is nothing here, or you may not see it.")


def problem_response(problem: Problem) -> JsonResponse:
    """Renders a problem as ``application/problem+json``."""
    return JsonResponse(
        problem.document(),
        status=problem.status,
        content_type="application/problem+json",
        headers=dict(problem.headers),
    )
