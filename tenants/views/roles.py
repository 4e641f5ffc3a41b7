"""Roles: what each reads and may do, side by side."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal, access_role
from tenants.matrix import EVERYTHING, Wish, list_roles, read_tag, save_matrix, stamp_of, tags_of, ticks_of
from tenants.models import Ability, Role
from tenants.pages import is_part, member_page, render_part, shell_context
from tenants.people import delete_role, save_role

TEMPLATE = "tenants/roles.html"


def _context(
    request: HttpRequest, principal: Principal, *, wishes: dict[str, Wish] | None = None
) -> dict[str, Any]:
    """The matrix as it is stored, or as a form that was refused had it."""
    roles = list_roles()
    ticks = {
        role.pk: wishes[str(role.pk)].ticked if wishes and str(role.pk) in wishes else ticks_of(role)
        for role in roles
    }
    chosen = next(
        (role for role in roles if str(role.pk) == request.GET.get("role")), roles[0] if roles else None
    )

    def row(value: str, name: str, what: str) -> dict[str, Any]:
        cells = [
            {
                "role": role,
                "on": value in ticks[role.pk],
                "chosen": role is chosen,
                "moot": role.reads_everything and value != EVERYTHING and not value.startswith("may:"),
            }
            for role in roles
        ]
        return {"value": value, "name": name, "what": what, "cells": cells}

    return shell_context(principal) | {
        "here": "roles",
        "roles": roles,
        "chosen": chosen,
        "columns": [{"role": role, "stamp": stamp_of(role), "chosen": role is chosen} for role in roles],
        "abilities": [row(f"may:{one.value}", one.label, one.label) for one in Ability],
        "everything": row(EVERYTHING, _("Everything, untagged documents too"), _("everything")),
        "tags": [row(tag, tag, tag) for tag in tags_of(roles)],
    }


def _wishes(request: HttpRequest) -> dict[str, Wish]:
    """What the form's columns hold; a new tag goes to the roles that were ticked for it.

    Raises:
        Problem: 400 for a new tag that is not well formed, or that nobody would read.
    """
    wishes, column = {}, 0
    while pk := request.POST.get(f"role{column}"):
        ticked = frozenset(request.POST.getlist(f"t{column}"))
        if _is_uuid(pk):
            wishes[pk] = Wish(ticked=ticked, stamp=request.POST.get(f"stamp{column}", ""))
        column += 1
    typed = request.POST.get("new_tag", "").strip()
    if not typed:
        return wishes
    tag, readers = read_tag(typed), set(request.POST.getlist("new_tag_for")) & set(wishes)
    if not readers:
        words = _("Tick at least one role that reads %(tag)s.") % {"tag": tag}
        raise Problem(400, "invalid", words, errors=[FieldProblem("new_tag", words)])
    return wishes | {pk: Wish(ticked=wishes[pk].ticked | {tag}, stamp=wishes[pk].stamp) for pk in readers}


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


@require_http_methods(["GET", "POST"])
@member_page
def roles(request: HttpRequest, principal: Principal) -> HttpResponse:
    """The matrix; a POST saves it, or makes a role (``form`` says which)."""
    principal.require(Ability.MANAGE.value)
    if request.method == "GET":
        return render_part(request, TEMPLATE, "all", _context(request, principal))
    wishes: dict[str, Wish] = {}
    try:
        if request.POST.get("form") == "create":
            _create(request, principal)
        else:
            wishes = _wishes(request)
            _save(request, principal, wishes)
    except Problem as problem:
        if is_part(request):  # said as a message: what was ticked stays on the page
            raise
        more = {"typed": request.POST, "creating": request.POST.get("form") == "create"}
        context = _context(request, principal, wishes=wishes) | more
        return render_part(request, TEMPLATE, "all", context, problem=problem)
    return _answer(request, principal)


def _answer(request: HttpRequest, principal: Principal) -> HttpResponse:
    if not is_part(request):
        return redirect("roles")
    return render_part(request, TEMPLATE, "all", _context(request, principal))


def _save(request: HttpRequest, principal: Principal, wishes: dict[str, Wish]) -> None:
    changed = save_matrix(principal=principal, wishes=wishes)
    if changed:
        told = "; ".join(str(one) for one in changed)
        messages.success(
            request, _("Saved: %(changes)s. It holds from the next request on.") % {"changes": told}
        )
    else:
        messages.info(request, _("Nothing was different."))


def _create(request: HttpRequest, principal: Principal) -> None:
    name, like = _name(request), request.POST.get("like", "")
    changes: dict[str, Any] = {"name": name}
    if like:
        model = access_role(principal.membership, like) if _is_uuid(like) else None
        if model is None:
            raise Problem(400, "invalid", _("Choose a role to begin with."))
        changes |= {
            "tags": list(model.tags),
            "abilities": list(model.abilities),
            "reads_everything": model.reads_everything,
        }
    save_role(role=Role(), changes=changes, principal=principal)
    messages.success(request, _("The role %(name)s is made.") % {"name": name})


def _name(request: HttpRequest) -> str:
    name = " ".join(request.POST.get("name", "").replace("\0", "").split())
    if not name or len(name) > 60:
        words = _("Give a name of 1 to 60 characters.")
        raise Problem(400, "invalid", words, errors=[FieldProblem("name", words)])
    return name


@require_POST
@member_page
def role_rename(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Gives a role another name."""
    principal.require(Ability.MANAGE.value)
    role = access_role(principal.membership, id)
    name = _name(request)
    if name != role.name:
        before = role.name
        save_role(role=role, changes={"name": name}, principal=principal)
        messages.success(request, _("%(before)s is called %(name)s now.") % {"before": before, "name": name})
    return _answer(request, principal)


@require_POST
@member_page
def role_delete(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Removes a role that no member has."""
    principal.require(Ability.MANAGE.value)
    role = access_role(principal.membership, id)
    delete_role(role=role, principal=principal)
    messages.success(request, _("The role %(name)s is deleted.") % {"name": role.name})
    return _answer(request, principal)
