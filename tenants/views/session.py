"""Signing in and out, and choosing a tenant."""

import time

from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
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
from tenants.pages import member_page, own_path, render_sign_in
from tenants.scope import enter, scope

# Between the right password and the choice of a tenant nobody is signed in: this names who may choose.
PENDING = "ragsite_pending"
PENDING_SECONDS = 300


@never_cache
@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """User name and password; those who are in several tenants choose one of them next."""
    next_path = own_path(request.POST.get("next", "") or request.GET.get("next", ""))
    if request.method == "GET":
        if request.principal is not None:  # type: ignore[attr-defined]
            return redirect(next_path or "ask")
        return render_sign_in(request, next_path=next_path)
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
        return render_sign_in(request, problem=problem, username=username, next_path=next_path)
    if len(memberships) > 1:
        request.session.cycle_key()
        request.session[PENDING] = {
            "user": user.pk,
            "hash": user.get_session_auth_hash(),
            "until": time.time() + PENDING_SECONDS,
        }
        return render_sign_in(request, memberships=memberships, next_path=next_path)
    return _enter(request, user, memberships[0] if memberships else None, next_path=next_path)


def _choose_tenant(request: HttpRequest, *, next_path: str) -> HttpResponse:
    user = _pending_user(request)
    if user is None:
        late = Problem(400, "too-late", _("This took too long. Sign in again."))
        return render_sign_in(request, problem=late, next_path=next_path)
    memberships = own_memberships(user=user)
    chosen = [m for m in memberships if m.tenant.slug == request.POST["tenant"]]
    if not chosen:
        return render_sign_in(request, problem=not_found(), memberships=memberships, next_path=next_path)
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
