"""Members: who is here, who is invited, in which role."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_POST

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal, access_member, access_role
from tenants.invitations import VALID_FOR, invite, join_link, read_addresses
from tenants.listing import Asked, list_members
from tenants.mail import mail_is_set_up, site_of
from tenants.models import Ability, Membership, Role
from tenants.pages import is_part, member_page, render_page, render_part, shell_context
from tenants.people import change_member, remove_member

TEMPLATE = "tenants/members.html"


def _asked(request: HttpRequest) -> Asked:
    def text(name: str) -> str:
        return request.GET.get(name, "").replace("\0", "").strip()[:254]

    return Asked(text=text("q"), role=text("role"), status=text("status"), after=text("after"))


def _context(request: HttpRequest, principal: Principal, **more: Any) -> dict[str, Any]:
    asked = _asked(request)
    listed = list_members(asked)
    kept = {"q": asked.text, "role": asked.role, "status": asked.status}
    query = urlencode({name: value for name, value in kept.items() if value})
    return shell_context(principal) | {
        "here": "members",
        "asked": asked,
        "listed": listed,
        "roles": list(Role.objects.all()),
        "total": Membership.objects.count(),
        "mail": mail_is_set_up(),
        "days": VALID_FOR.days,
        "query": f"?{query}" if query else "",
        "older": urlencode({**{n: v for n, v in kept.items() if v}, "after": listed.after}),
        **more,
    }


@require_http_methods(["GET", "POST"])
@member_page
def members(request: HttpRequest, principal: Principal) -> HttpResponse:
    """The list; a POST invites people by e-mail."""
    principal.require(Ability.MANAGE.value)
    if request.method == "GET":
        return render_part(request, TEMPLATE, "list", _context(request, principal))
    typed = {"emails": request.POST.get("emails", "")[:20_000], "chosen": request.POST.get("role", "")}
    try:
        emails = read_addresses(typed["emails"].replace("\0", ""))
        site = site_of(request)
        invited = invite(
            principal=principal, emails=emails, role=_role(principal, typed["chosen"]), site=site
        )
    except Problem as problem:
        context = _context(request, principal, typed=typed, inviting=True)
        return render_page(request, TEMPLATE, context, problem=problem)
    if invited.members:
        names = ", ".join(invited.members)
        messages.warning(request, _("Not invited, a member already: %(addresses)s.") % {"addresses": names})
    if invited.tokens:
        links = {email: join_link(site=site, token=token) for email, token in invited.tokens.items()}
        return show_links(request, principal, links)
    if count := len(invited.invitations):
        sent = ngettext(
            "%(count)s invitation is on its way.", "%(count)s invitations are on their way.", count
        )
        messages.success(request, sent % {"count": count})
    return redirect("members")


def _role(principal: Principal, pk: str) -> Role:
    try:
        return access_role(principal.membership, UUID(pk))
    except (ValueError, Problem):
        words = _("Choose a role.")
        raise Problem(400, "invalid", words, errors=[FieldProblem("role", words)]) from None


def show_links(request: HttpRequest, principal: Principal, links: dict[str, str]) -> HttpResponse:
    """The list with links to pass on, where no e-mail is set up. They are shown this once."""
    return render_page(request, TEMPLATE, _context(request, principal, links=links))


def answer_with_members(
    request: HttpRequest, principal: Principal, *, problem: Problem | None = None
) -> HttpResponse:
    """After an action: the list as it is now, narrowed as it was."""
    if problem is None and not is_part(request):
        query = request.GET.urlencode()
        return redirect(reverse("members") + (f"?{query}" if query else ""))
    if problem is not None and is_part(request):
        messages.error(request, problem.detail)
    context = _context(request, principal)
    return render_part(request, TEMPLATE, "list", context, problem=problem)


@require_POST
@member_page
def member_change(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Another role, suspended, or let back in."""
    principal.require(Ability.MANAGE.value)
    member = access_member(principal.membership, id)
    # A row has one form: the button says whether it is about the status, else it is about the role.
    status = request.POST.get("status", "")
    role = None if status or "role" not in request.POST else _role(principal, request.POST["role"])
    if (role is None and not status) or status not in ("", *Membership.Status.values):
        raise Problem(400, "invalid", _("Choose a role or a status."))
    name = member.user.username
    try:
        change_member(membership=member, role=role, status=status or None, principal=principal)
    except Problem as problem:
        return answer_with_members(request, principal, problem=problem)
    if role is not None:
        said = _("%(name)s is %(role)s now.") % {"name": name, "role": role.name}
    elif status == Membership.Status.SUSPENDED:
        said = _(
            "%(name)s is suspended: no sign-in and no key of theirs works until they are let in again."
        ) % {"name": name}
    else:
        said = _("%(name)s is let in again.") % {"name": name}
    messages.success(request, said)
    return answer_with_members(request, principal)


@require_POST
@member_page
def member_remove(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Ends a membership."""
    principal.require(Ability.MANAGE.value)
    member = access_member(principal.membership, id)
    name = member.user.username
    try:
        remove_member(membership=member, principal=principal)
    except Problem as problem:
        return answer_with_members(request, principal, problem=problem)
    messages.success(request, _("%(name)s is removed.") % {"name": name})
    return answer_with_members(request, principal)
