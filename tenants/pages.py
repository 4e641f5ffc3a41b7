"""What every page of ours shares: the frame, problems shown as pages, and who may see it."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.authentication import known_memberships
from tenants.models import Membership, User
from tenants.rest import problem_of

P = ParamSpec("P")


def own_path(path: str) -> str:
    """``path`` if it is one of ours, else empty: a sign-in must not send people elsewhere."""
    if path.startswith("/") and url_has_allowed_host_and_scheme(path, allowed_hosts=None):
        return path
    return ""


def render_page(
    request: HttpRequest, template: str, context: dict[str, Any], *, problem: Problem | None = None
) -> HttpResponse:
    """A page, which may speak of a problem: then it carries its status and headers."""
    response = render(
        request, template, context | {"problem": problem}, status=problem.status if problem else 200
    )
    for name, value in (problem.headers if problem else {}).items():
        response.headers[name] = value
    return response


def render_part(
    request: HttpRequest, template: str, part: str, context: dict[str, Any], *, problem: Problem | None = None
) -> HttpResponse:
    """A page or, where htmx asks, its partial named ``part``, and beside it what there is to say (``messages``)."""
    if not is_part(request):
        return render_page(request, template, context, problem=problem)
    response = render_page(request, f"{template}#{part}", context, problem=problem)
    if len(messages.get_messages(request)):
        response.write(render_to_string("_messages.html", {"beside": True}, request=request))
    return response


def is_part(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of a page."""
    htmx: Any = getattr(request, "htmx", None)
    return bool(htmx) and not htmx.boosted


def render_problem(request: HttpRequest, problem: Problem) -> HttpResponse:
    """A page for a problem alone; where htmx asks, a message, and the page stays as it is."""
    if is_part(request):
        messages.error(request, " ".join(error.detail for error in problem.errors) or problem.detail)
        response = render_page(request, "_messages.html", {"beside": True}, problem=problem)
        response.headers["HX-Reswap"] = "none"
        return response
    return render_page(request, "error.html", {}, problem=problem)


def shell_context(principal: Principal) -> dict[str, Any]:
    """What the frame of a page shows: who is signed in, where, and where else they could go."""
    return {
        "principal": principal,
        "tenants": [member.tenant for member in known_memberships(principal)],
    }


def render_sign_in(
    request: HttpRequest,
    *,
    problem: Problem | None = None,
    username: str = "",
    next_path: str = "",
    memberships: list[Membership] | None = None,
) -> HttpResponse:
    """The sign-in page, asking for name and password, or which of ``memberships`` to enter."""
    context = {"username": username, "next": next_path, "memberships": memberships}
    return render_page(request, "tenants/sign_in.html", context, problem=problem)


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """Where those go who are not signed in; a session that holds no longer is ended, and its owner told so."""
    if request.user.is_authenticated and not (isinstance(request.user, User) and request.user.is_superuser):
        logout(request)
        return render_sign_in(
            request,
            problem=Problem(
                401,
                "signed-out",
                _("You have been signed out: you are not an active member of this tenant any more."),
            ),
            next_path=own_path(request.get_full_path()) if request.method == "GET" else "",
        )
    query = {"next": request.get_full_path()} if request.method == "GET" and request.path != "/" else {}
    return redirect(reverse("sign-in") + (f"?{urlencode(query)}" if query else ""))


def member_page(
    view: Callable[Concatenate[HttpRequest, Principal, P], HttpResponseBase],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """A page for members: hands the principal on, and shows problems as pages."""

    @wraps(view)
    def page(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        principal: Principal | None = request.principal  # type: ignore[attr-defined]
        if principal is None:
            response = to_sign_in(request)
            if is_part(request):
                return HttpResponse(status=401, headers={"HX-Redirect": reverse("sign-in")})
            return response
        try:
            with timezone.override(principal.membership.tenant.time_zone):
                return view(request, principal, *args, **kwargs)
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                raise
            return render_problem(request, problem)

    return never_cache(page)
