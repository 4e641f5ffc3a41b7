"""API keys: made, shown once, revoked."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal, access_api_key, access_role
from tenants.keys import create_api_key, create_service_account, revoke_api_key
from tenants.models import Ability, ApiKey, Membership, Role
from tenants.pages import is_part, member_page, render_page, render_part, shell_context
from tenants.paging import NEWEST, read_page
from tenants.scope import atomic

TEMPLATE = "tenants/keys.html"
PAGE = 25
DAYS = (7, 30, 90, 365)
SUGGESTED = 200  # members to choose from; more are typed


def _context(request: HttpRequest, principal: Principal, **more: Any) -> dict[str, Any]:
    every = request.GET.get("show") == "all"
    keys = ApiKey.objects.select_related("membership__user", "membership__role", "created_by")
    if not every:
        keys = keys.filter(revoked_at=None).filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
    people = Membership.objects.filter(status=Membership.Status.ACTIVE).order_by("user__username")
    return shell_context(principal) | {
        "here": "keys",
        "page": read_page(keys, order=NEWEST, cursor=request.GET.get("after", ""), size=PAGE),
        "every": every,
        "now": timezone.now(),
        "abilities": list(Ability),
        "roles": list(Role.objects.all()),
        "people": list(people.values_list("user__username", flat=True)[:SUGGESTED]),
        "days": DAYS,
        "typed": {"for": "member", "member": principal.membership.user.username, "days": "90"},
        **more,
    }


@require_http_methods(["GET", "POST"])
@member_page
def keys(request: HttpRequest, principal: Principal) -> HttpResponse:
    """The list; a POST makes a key and shows it this once."""
    principal.require(Ability.MANAGE.value)
    if request.method == "GET":
        return render_part(request, TEMPLATE, "list", _context(request, principal))
    typed: dict[str, Any] = {name: request.POST.get(name, "").replace("\0", "").strip() for name in _FIELDS}
    typed["scopes"] = request.POST.getlist("scopes")
    try:
        with atomic():
            key, secret = _create(principal, typed)
    except Problem as problem:
        context = _context(request, principal, typed=typed, creating=True)
        return render_page(request, TEMPLATE, context, problem=problem)
    # No redirect: the secret would have to be kept somewhere on the way.
    return render_page(request, TEMPLATE, _context(request, principal, made=key, secret=secret))


_FIELDS = ("name", "for", "member", "account", "role", "days")


def _create(principal: Principal, typed: dict[str, Any]) -> tuple[ApiKey, str]:
    name = typed["name"]
    if not name or len(name) > 100:
        raise _wrong("name", _("Give a name of 1 to 100 characters."))
    unknown = set(typed["scopes"]) - set(Ability.values)
    if unknown:
        raise _wrong("scopes", _("Choose from the abilities listed."))
    expires = None
    if typed["days"]:
        if typed["days"] not in [str(days) for days in DAYS]:
            raise _wrong("days", _("Choose how long the key lives."))
        expires = timezone.now() + timedelta(days=int(typed["days"]))
    member = _account(principal, typed) if typed["for"] == "account" else _member(typed["member"])
    return create_api_key(
        principal=principal, member=member, name=name, scopes=typed["scopes"], expires_at=expires
    )


def _account(principal: Principal, typed: dict[str, Any]) -> Membership:
    try:
        role = access_role(principal.membership, UUID(typed["role"]))
    except (ValueError, Problem):
        raise _wrong("role", _("Choose a role.")) from None
    try:
        return create_service_account(principal=principal, name=typed["account"], role=role)
    except Problem as problem:
        said = " ".join(error.detail for error in problem.errors) or problem.detail
        raise _wrong("account", said, status=problem.status) from None


def _member(username: str) -> Membership:
    rows = Membership.objects.select_related("user", "role", "tenant")
    member: Membership | None = rows.filter(user__username=username).first()
    if member is None:
        raise _wrong("member", _("There is no member of this name."))
    return member


def _wrong(field: str, words: str, *, status: int = 400) -> Problem:
    return Problem(status, "invalid", words, errors=[FieldProblem(field, words)])


@require_POST
@member_page
def key_revoke(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Ends a key; its next request is refused."""
    principal.require(Ability.MANAGE.value)
    key = access_api_key(principal.membership, id)
    revoke_api_key(principal=principal, key=key)
    messages.success(request, _("The key %(name)s is revoked.") % {"name": key.name})
    if not is_part(request):
        return redirect("keys")
    return render_part(request, TEMPLATE, "list", _context(request, principal))
