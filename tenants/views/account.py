"""One's own account: e-mail, password, memberships, sign-ins elsewhere."""

from typing import Any

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.authentication import known_memberships
from tenants.mail import mail_is_set_up
from tenants.pages import member_page, render_page, shell_context
from tenants.passwords import change_email, change_password, end_other_sign_ins, tell_of_new_password

TEMPLATE = "tenants/account.html"


def _context(principal: Principal, **more: Any) -> dict[str, Any]:
    user = principal.membership.user
    return shell_context(principal) | {
        "here": "account",
        "memberships": known_memberships(principal),
        "email": user.email,
        "mail": mail_is_set_up(),
        "form": "",
        **more,
    }


def _require_session(principal: Principal) -> None:
    """A key or token acts for its owner in the tenant, not on their account."""
    if principal.method != "session":
        raise Problem(403, "forbidden", _("Sign in on the page to change your account."))


@require_http_methods(["GET", "POST"])
@member_page
def account(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Shows the account, and changes its e-mail address, password or sign-ins: ``form`` says which."""
    if request.method == "GET":
        return render_page(request, TEMPLATE, _context(principal))
    _require_session(principal)
    change = {"email": _change_email, "password": _change_password, "sign-ins": _end_sign_ins}
    form = request.POST.get("form", "")
    try:
        if form not in change:
            raise Problem(400, "invalid", _("The form is not complete: reload the page."))
        change[form](request, principal)
    except Problem as problem:
        # What was refused must not be shown as if it were so.
        principal.membership.user.refresh_from_db()
        more = {"form": form} | ({"email": request.POST.get("email", "")[:254]} if form == "email" else {})
        return render_page(request, TEMPLATE, _context(principal, **more), problem=problem)
    return redirect("account")


def _change_email(request: HttpRequest, principal: Principal) -> None:
    change_email(
        user=principal.membership.user,
        email=request.POST.get("email", "").strip(),
        password=_secret(request, "password"),
        address=principal.address,
    )
    messages.success(request, _("Your e-mail address is saved."))


def _change_password(request: HttpRequest, principal: Principal) -> None:
    user = principal.membership.user
    change_password(
        user=user, old=_secret(request, "old"), new=_secret(request, "new"), address=principal.address
    )
    update_session_auth_hash(request, user)
    tell_of_new_password(user)
    messages.success(request, _("Your password is new. Every other sign-in has ended."))


def _end_sign_ins(request: HttpRequest, principal: Principal) -> None:
    user = principal.membership.user
    end_other_sign_ins(user=user, password=_secret(request, "current"), address=principal.address)
    update_session_auth_hash(request, user)
    messages.success(request, _("Every other sign-in has ended. This one goes on."))


def _secret(request: HttpRequest, name: str) -> str:
    return request.POST.get(name, "")[:500].replace("\0", "")
