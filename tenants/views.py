"""Signing in and out, choosing a tenant, and what every page of ours shares."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from ragsite.core.problems import Problem, not_found
from tenants.access import Principal
from tenants.audit import record_event
from tenants.authentication import (
    SESSION_TENANT,
    check_credentials,
    client_address,
    own_memberships,
    record_sign_in,
)
from tenants.models import Membership, User
from tenants.rest import problem_of
from tenants.scope import enter, scope

P = ParamSpec("P")

# Between the right password and the choice of a tenant nobody is signed in: this names who may choose.
PENDING = "ragsite_pending"
PENDING_SECONDS = 300


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


def render_problem(request: HttpRequest, problem: Problem) -> HttpResponse:
    """A page for a problem alone."""
    return render_page(request, "error.html", {}, problem=problem)


def shell_context(principal: Principal) -> dict[str, Any]:
    """What the frame of a page shows: who is signed in, where, and where else they could go."""
    return {
        "principal": principal,
        "tenants": [m.tenant for m in own_memberships(user=principal.membership.user)],
    }


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """Where those go who are not signed in; a session that holds no longer is ended, and its owner told so."""
    if request.user.is_authenticated and not (isinstance(request.user, User) and request.user.is_superuser):
        logout(request)
        return _render_form(
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
    view: Callable[Concatenate[HttpRequest, Principal, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """A page for members: hands the principal on, and shows problems as pages."""

    @wraps(view)
    def page(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        principal: Principal | None = request.principal  # type: ignore[attr-defined]
        if principal is None:
            return to_sign_in(request)
        try:
            return view(request, principal, *args, **kwargs)
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                raise
            return render_problem(request, problem)

    return never_cache(page)


def _render_form(
    request: HttpRequest,
    *,
    problem: Problem | None = None,
    username: str = "",
    next_path: str = "",
    memberships: list[Membership] | None = None,
) -> HttpResponse:
    context = {"username": username, "next": next_path, "memberships": memberships}
    return render_page(request, "tenants/sign_in.html", context, problem=problem)


@never_cache
@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """User name and password; those who are in several tenants choose one of them next."""
    next_path = own_path(request.POST.get("next", "") or request.GET.get("next", ""))
    if request.method == "GET":
        if request.principal is not None:  # type: ignore[attr-defined]
            return redirect(next_path or "ask")
        return _render_form(request, next_path=next_path)
    if "tenant" in request.POST:
        return _choose_tenant(request, next_path=next_path)
    username = request.POST.get("username", "").strip()[:150]
    password = request.POST.get("password", "")[:500]
    try:
        if not username or not password or "\0" in username + password:
            raise Problem(400, "invalid", _("Give your user name and your password."))
        user, memberships = check_credentials(request=request, username=username, password=password)
        if not memberships and not user.is_superuser:
            raise Problem(
                403,
                "no-tenant",
                _("You are not an active member of any tenant. Ask an admin of yours to let you in."),
            )
    except Problem as problem:
        return _render_form(request, problem=problem, username=username, next_path=next_path)
    if len(memberships) > 1:
        request.session.cycle_key()
        request.session[PENDING] = {
            "user": user.pk,
            "hash": user.get_session_auth_hash(),
            "until": time.time() + PENDING_SECONDS,
        }
        return _render_form(request, memberships=memberships, next_path=next_path)
    return _enter(request, user, memberships[0] if memberships else None, next_path=next_path)


def _choose_tenant(request: HttpRequest, *, next_path: str) -> HttpResponse:
    user = _pending_user(request)
    if user is None:
        late = Problem(400, "too-late", _("This took too long. Sign in again."))
        return _render_form(request, problem=late, next_path=next_path)
    memberships = own_memberships(user=user)
    chosen = [m for m in memberships if m.tenant.slug == request.POST["tenant"]]
    if not chosen:
        return _render_form(request, problem=not_found(), memberships=memberships, next_path=next_path)
    return _enter(request, user, chosen[0], next_path=next_path)


def _pending_user(request: HttpRequest) -> User | None:
    pending = request.session.get(PENDING)
    if not pending or pending["until"] < time.time():
        return None
    user = User.objects.filter(pk=pending["user"], is_active=True, is_service=False).first()
    return user if user is not None and user.get_session_auth_hash() == pending["hash"] else None


def _enter(
    request: HttpRequest, user: User, membership: Membership | None, *, next_path: str
) -> HttpResponse:
    login(request, user)
    request.session.pop(PENDING, None)
    if membership is None:  # an operator, who belongs to no tenant, works in the admin
        with enter(None):
            record_event(
                action="session.sign_in", actor=user, method="session", address=client_address(request)
            )
        return redirect(next_path if next_path.startswith("/admin/") else "admin:index")
    request.session[SESSION_TENANT] = str(membership.tenant_id)
    record_sign_in(membership=membership, method="session", address=client_address(request))
    return redirect(next_path or "ask")


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """Ends the session."""
    principal: Principal | None = request.principal  # type: ignore[attr-defined]
    if principal is not None:
        record_event(
            action="session.sign_out",
            membership=principal.membership,
            method=principal.method,
            address=principal.address,
        )
    logout(request)
    return redirect("sign-in")


@require_POST
@member_page
def switch_tenant(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Goes on in another of one's tenants."""
    slug = request.POST.get("tenant", "")
    chosen = [m for m in own_memberships(user=principal.membership.user) if m.tenant.slug == slug]
    if not chosen:
        raise not_found()
    membership = chosen[0]
    request.session[SESSION_TENANT] = str(membership.tenant_id)
    request.session.cycle_key()
    with scope(tenant_id=membership.tenant.pk, tags=()):
        record_event(
            action="session.switch_tenant",
            membership=membership,
            method=principal.method,
            detail={"from": principal.membership.tenant.slug},
            address=principal.address,
        )
    return redirect("ask")
