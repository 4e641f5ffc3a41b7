"""The webhook of a source: its address, its secret, and whom its ends are told to."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from knowledge.access import access_source
from knowledge.api.hooks import hook_url
from knowledge.models import Source
from knowledge.webhooks.secrets import delete_secret, live_secrets, old_secret_until, rotate_secret
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import member_page, render_page, shell_context

MANAGE = Ability.MANAGE.value
TEMPLATE = "knowledge/manage/source_hook.html"


def _render(
    request: HttpRequest,
    principal: Principal,
    source: Source,
    *,
    secret: str = "",
    problem: Problem | None = None,
) -> HttpResponse:
    context: dict[str, Any] = {
        "here": "sources",
        "source": source,
        "hook_url": hook_url(source.pk, request),
        "live": bool(live_secrets(source)),
        "old_until": old_secret_until(source),
        "pushed": source.kind == Source.Kind.PUSH,
        "secret": secret,
    }
    return render_page(request, TEMPLATE, shell_context(principal) | context, problem=problem)


@require_http_methods(["GET", "POST"])
@member_page
def source_hook(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """How to send to a source; a POST makes a secret, or a new one, and shows it this once."""
    principal.require(MANAGE)
    source = access_source(principal.membership, id)
    if request.method == "GET":
        return _render(request, principal, source)
    try:
        secret = rotate_secret(source=source, principal=principal)
    except Problem as problem:
        return _render(request, principal, source, problem=problem)
    # No redirect: the secret would have to be kept somewhere on the way.
    return _render(request, principal, source, secret=secret)


@require_POST
@member_page
def source_hook_delete(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Ends its secrets at once."""
    principal.require(MANAGE)
    source = access_source(principal.membership, id)
    delete_secret(source=source, principal=principal)
    messages.success(request, _("The webhook of %(name)s is closed.") % {"name": source.name})
    return redirect("source-hook", source.pk)
