"""Signing in and out, and choosing a tenant."""

import time

from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import NoReverseMatch, Resolver404, resolve, reverse
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
from tenants.models import Ability, Membership, User
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
        joining = next_path.startswith(f"{reverse('join')}?")
        if not memberships and not user.is_superuser and not joining:
            raise Problem(
                403,
                "no-tenant",
                _("You are not an active member of any tenant. Ask an admin of yours to let you in."),
            )
    except Problem as problem:
        return render_sign_in(request, problem=problem, username=username, next_path=next_path)
    if len(memberships) > 1 and not joining:
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
    if (
        membership is None
    ):  # an operator, who belongs to no tenant, works in the admin; or somebody who is about to join
        with enter(None):
            record_event(
                action="session.sign_in", actor=user, method="session", address=client_address(request)
            )
        return redirect(
            next_path if next_path.startswith(("/admin/", f"{reverse('join')}?")) else "admin:index"
        )
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
    return redirect(own_path(request.POST.get("next", "")) or "sign-in")


@require_POST
@member_page
def switch_tenant(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Goes on in another of one's tenants."""
    if principal.method != "session":
        raise Problem(403, "forbidden", _("A key or token is for one tenant: sign in to change to another."))
    slug = request.POST.get("tenant", "")
    chosen = [m for m in own_memberships(user=principal.membership.user) if m.tenant.slug == slug]
    if not chosen:
        raise not_found()
    change_tenant(request, chosen[0], left=principal.membership.tenant.slug)
    return redirect(_same_kind(request.POST.get("next", ""), chosen[0]) or "ask")


def change_tenant(request: HttpRequest, membership: Membership, *, left: str) -> None:
    """Goes on in the tenant of ``membership``, whose log says where its member came from."""
    request.session[SESSION_TENANT] = str(membership.tenant_id)
    request.session.cycle_key()
    with scope(tenant_id=membership.tenant_id, tags=()):
        record_event(
            action="session.switch_tenant",
            membership=membership,
            method="session",
            detail={"from": left},
            address=client_address(request),
        )


# Pages that every tenant has, and what they ask for.
_KINDS: dict[str, tuple[Ability, ...]] = {
    "documents": (),
    "history": (),
    "account": (),
    "upload": (Ability.UPLOAD,),
    "usage": (Ability.SEE_COSTS, Ability.MANAGE),
} | dict.fromkeys(
    [
        *("collections", "sources", "jobs", "document-requests"),
        *("members", "roles", "keys", "audit", "settings"),
    ],
    (Ability.MANAGE,),
)


def _same_kind(path: str, membership: Membership) -> str:
    """The page of the same kind in another tenant, if its member may open it there."""
    # What shows one thing lies below the list of its kind, and the other tenant has the list.
    kind = own_path(path).partition("?")[0].split("/")[1:2]
    try:
        name = resolve(f"/{kind[0]}/" if kind else "").url_name or ""
        needed = _KINDS[name]
        may = not needed or any(membership.role.may(ability) for ability in needed)
        return reverse(name) if may else ""
    except (Resolver404, NoReverseMatch, KeyError):
        return ""
