"""The views of no app: errors, and in dev the style guide."""

import sys
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from ragsite.core.problems import Problem, not_found, openai_response, problem_response
from tenants.rest import problem_of

CSRF = Problem(403, "csrf", "The form has expired or came from elsewhere: reload the page and try again.")


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith(("/api/", "/v1/")) or request.path == "/mcp"


def _told(request: HttpRequest, problem: Problem) -> HttpResponse:
    """To a program, in the shape that its protocol has for errors."""
    return openai_response(problem) if request.path.startswith("/v1/") else problem_response(problem)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_api(request):
        return _told(request, not_found())
    return render(request, "error.html", {"problem": not_found()}, status=404)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    problem = Problem(403, "forbidden", "You may not do this.")
    if _is_api(request):
        return _told(request, problem)
    return render(request, "error.html", {"problem": problem}, status=403)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    problem = Problem(400, "malformed", "The request cannot be read.")
    if _is_api(request):
        return _told(request, problem)
    return render(request, "error.html", {"problem": problem}, status=400)


def too_large(request: HttpRequest, problem: Problem) -> HttpResponse:
    if _is_api(request) or request.headers.get("Accept") == "application/json":
        return _told(request, problem)
    return render(request, "error.html", {"problem": problem}, status=problem.status)


INTERNAL = Problem(
    500,
    "internal",
    "Something went wrong on our side; nothing of yours is lost. Tell your operator the request id.",
)


def server_error(request: HttpRequest) -> HttpResponse:
    # Django calls this while it handles the exception: what a middleware met, a database that is away for instance,
    # is told as a view would have told it.
    error = sys.exc_info()[1]
    problem = (problem_of(error) if isinstance(error, Exception) else None) or INTERNAL
    if _is_api(request):
        return _told(request, problem)
    response = render(request, "error.html", {"problem": problem}, status=problem.status)
    for name, value in problem.headers.items():
        response.headers[name] = value
    return response


def csrf_failure(request: HttpRequest, reason: str = "", **_: Any) -> HttpResponse:
    if _is_api(request):
        return _told(request, CSRF)
    return render(request, "error.html", {"problem": CSRF}, status=403)


def styleguide(request: HttpRequest) -> HttpResponse:
    """Every part of the design on one page; ``?dir=rtl`` shows it right to left."""
    return render(request, "styleguide.html", {"direction": request.GET.get("dir")})
