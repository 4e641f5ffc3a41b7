"""The tenant's own settings."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import member_page, render_page, shell_context
from tenants.people import change_tenant, time_zones

TEMPLATE = "tenants/settings.html"


@require_http_methods(["GET", "POST"])
@member_page
def settings(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Name and time zone."""
    principal.require(Ability.MANAGE.value)
    tenant = principal.membership.tenant
    context: dict[str, Any] = shell_context(principal) | {
        "here": "settings",
        "tenant": tenant,
        "typed": {"name": tenant.name, "time_zone": tenant.time_zone},
        "zones": time_zones(),
    }
    if request.method == "GET":
        return render_page(request, TEMPLATE, context)
    typed = {
        name: " ".join(request.POST.get(name, "").replace("\0", "").split()) for name in context["typed"]
    }
    try:
        change_tenant(tenant=tenant, changes=typed, principal=principal)
    except Problem as problem:
        tenant.refresh_from_db()
        return render_page(request, TEMPLATE, context | {"typed": typed}, problem=problem)
    messages.success(request, _("The settings are saved."))
    return redirect("settings")
