"""An invitation, opened by whoever got it; and what its sender does with it."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.authentication import SESSION_TENANT, client_address, own_memberships, record_sign_in
from tenants.invitations import (
    accept_as,
    accept_as_new,
    access_invitation,
    find_invitation,
    join_link,
    resend_invitation,
    revoke_invitation,
)
from tenants.limits import throttle
from tenants.mail import mail_is_set_up, site_of
from tenants.models import Ability, Membership, User
from tenants.pages import member_page, render_page
from tenants.views.members import answer_with_members, show_links
from tenants.views.session import change_tenant

NEW_ACCOUNTS = (20, 600)  # tries from one address, seconds


@never_cache
@require_http_methods(["GET", "POST"])
def join(request: HttpRequest) -> HttpResponse:
    """Accept an invitation: with one click when signed in, else with a new account or after signing in."""
    raw = request.POST.get("invitation", "") or request.GET.get("invitation", "")
    user = request.user if isinstance(request.user, User) and not request.user.is_service else None
    context: dict[str, Any] = {"raw": raw, "visitor": user, "here_again": _path(raw)}
    try:
        context["invitation"] = find_invitation(raw)
        if request.method == "POST":
            return _accept(request, raw=raw, user=user)
    except Problem as problem:
        context["username"] = request.POST.get("username", "")[:150]
        return render_page(request, "tenants/join.html", context, problem=problem)
    if user is not None:
        tenant = context["invitation"].tenant_id
        context["is_member"] = any(m.tenant_id == tenant for m in own_memberships(user=user))
    return render_page(request, "tenants/join.html", context)


def _path(raw: str) -> str:
    return f"{reverse('join')}?{urlencode({'invitation': raw})}"


def _accept(request: HttpRequest, *, raw: str, user: User | None) -> HttpResponse:
    address = client_address(request)
    if user is not None:
        membership = accept_as(raw=raw, user=user, address=address)
        change_tenant(request, membership, left="")
        return _welcome(request, membership)
    throttle(what="join", key=address or "", most=NEW_ACCOUNTS[0], seconds=NEW_ACCOUNTS[1])
    username = request.POST.get("username", "").strip()
    password = request.POST.get("password", "")[:500]
    missing = {"username": not username or "\0" in username, "password": not password or "\0" in password}
    if any(missing.values()):
        words = {"username": _("Choose a user name."), "password": _("Choose a password.")}
        errors = [FieldProblem(field, words[field]) for field, is_missing in missing.items() if is_missing]
        raise Problem(400, "invalid", _("Some values are missing."), errors=errors)
    membership = accept_as_new(raw=raw, username=username, password=password, address=address)
    login(request, membership.user)
    request.session[SESSION_TENANT] = str(membership.tenant_id)
    record_sign_in(membership=membership, method="session", address=address)
    return _welcome(request, membership)


def _welcome(request: HttpRequest, membership: Membership) -> HttpResponse:
    messages.success(request, _("Welcome to %(tenant)s.") % {"tenant": membership.tenant.name})
    return redirect("ask")


@require_POST
@member_page
def resend(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Sends an invitation again, with a new link."""
    principal.require(Ability.MANAGE.value)
    invitation = access_invitation(principal.membership, id)
    site = site_of(request)
    invited = resend_invitation(principal=principal, invitation=invitation, site=site)
    if not mail_is_set_up():
        links = {email: join_link(site=site, token=token) for email, token in invited.tokens.items()}
        return show_links(request, principal, links)
    messages.success(request, _("Sent to %(email)s again.") % {"email": invitation.email})
    return answer_with_members(request, principal)


@require_POST
@member_page
def revoke(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Withdraws an invitation."""
    principal.require(Ability.MANAGE.value)
    invitation = access_invitation(principal.membership, id)
    revoke_invitation(principal=principal, invitation=invitation)
    messages.success(request, _("The invitation of %(email)s is withdrawn.") % {"email": invitation.email})
    return answer_with_members(request, principal)
