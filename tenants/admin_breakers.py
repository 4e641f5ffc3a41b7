"""The breakers in the admin: their states, and what changed when and why. For superusers: they belong to no tenant."""

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ragsite.core.breaker import read_changes, read_states
from tenants.admin_operator import on_platform

STATES = {
    "closed": gettext_lazy("closed: calls pass"),
    "half_open": gettext_lazy("half open: one call at a time tries"),
    "open": gettext_lazy("open: left alone"),
}


def breakers_page(request: HttpRequest) -> HttpResponse:
    """Those that all processes share; the cache's, and what happened without Redis, as this process saw it."""
    if not on_platform(request):
        raise PermissionDenied
    context = {
        **admin.site.each_context(request),
        "title": _("Breakers"),
        "breakers": [_shown(row, "since") for row in read_states()],
        "changes": [_shown(row, "at") for row in read_changes()],
    }
    return TemplateResponse(request, "admin/breakers.html", context)


def _shown(row: dict[str, Any], when: str) -> dict[str, Any]:
    at = row[when]
    return row | {"words": STATES[row["state"]], when: datetime.fromtimestamp(at, UTC) if at else None}
