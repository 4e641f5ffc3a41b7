"""What happened in a tenant and what it spent, in the admin; nothing here is ever changed."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from tenants.admin_base import ReadOnlyTenantAdmin
from tenants.admin_lists import DayFilter, MemberFilter, at, value_filter
from tenants.admin_operator import on_platform
from tenants.audit import record_platform_event
from tenants.audit_log import tell_events
from tenants.models import AuditEvent, UsageRecord
from tenants.templatetags.people import money


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyTenantAdmin):
    """The log of the tenant in force; of the platform, where a superuser has chosen none."""

    list_display = (at("at"), "action", "actor_name", "role_name", "target_type", "target_id", "address")
    list_filter = (("at", DayFilter), value_filter("action", _("action")))
    export_fields = (
        "at",
        "action",
        "actor_name",
        "role_name",
        "method",
        "target_type",
        "target_id",
        "detail",
        "address",
        "request_id",
    )
    search_fields = ("actor_name", "target_id", "request_id")
    search_help_text = _("Actor, target or request id, in the newest 10,000 events")
    search_whole = False
    ordering = ("-at", "-id")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return on_platform(request) or super().has_module_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.filter(tenant__isnull=True) if on_platform(request) else rows

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        found: Any = super().get_object(request, object_id, from_field)
        return found and self._told(request, [found])[0]

    def export_rows(self, request: HttpRequest, rows: QuerySet[Any]) -> Iterator[list[Any]]:
        told = self._told(request, list(rows))
        return super().export_rows(request, told)  # type: ignore[arg-type]

    def _told(self, request: HttpRequest, events: list[AuditEvent]) -> list[AuditEvent]:
        """As the reader may see them."""
        if on_platform(request):
            return events
        return tell_events(events, reader=self.principal(request).membership)

    def record(self, request: HttpRequest, action: str, obj: Any, detail: dict[str, Any]) -> None:
        if on_platform(request):
            record_platform_event(action=f"platform.{action}", actor=request.user, detail=detail)  # type: ignore[arg-type]
        else:
            super().record(request, action, obj, detail)


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyTenantAdmin):
    """The calls behind the costs."""

    list_display = (
        at("created_at"),
        "user",
        "endpoint",
        "provider",
        "model",
        "kind",
        "status",
        "input_tokens",
        "output_tokens",
        "shown_cost",
        "shown_time",
    )
    list_filter = (
        ("created_at", DayFilter),
        MemberFilter,
        value_filter("model", _("model")),
        value_filter("endpoint", _("endpoint")),
        value_filter("status", _("status")),
    )
    search_fields = ("model",)
    search_help_text = _("A request id, or a part of a model's name in the newest 10,000 calls")
    search_whole = False
    search_ids = ("pk", "request_id")
    ordering = ("-created_at",)
    list_select_related = ("user",)
    fields = (
        "created_at",
        "user",
        "trace",
        "request_id",
        "endpoint",
        "provider",
        "model",
        "kind",
        "status",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "estimated",
        "cost_usd",
        "latency_ms",
    )
    export_fields = (
        "request_id",
        "created_at",
        "user",
        "endpoint",
        "provider",
        "model",
        "kind",
        "status",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "estimated",
        "cost_usd",
        "latency_ms",
    )

    @admin.display(description=_("cost"))
    def shown_cost(self, call: UsageRecord) -> str:
        return money(call.cost_usd)

    @admin.display(description=_("time"))
    def shown_time(self, call: UsageRecord) -> str:
        return f"{call.latency_ms:.0f}\u00a0ms"

    @admin.display(description=_("answer"))
    def trace(self, call: UsageRecord) -> SafeString:
        path = reverse("admin:knowledge_answer_change", args=[call.request_id])
        return format_html('<a class="admin-link" href="{}">{}</a>', path, _("how it came about"))
