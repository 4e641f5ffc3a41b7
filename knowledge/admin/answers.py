"""Answers in the admin: the list, and the trace of one. Nothing here is ever changed."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from knowledge.admin.trace import trace_answer
from knowledge.models import Answer
from tenants.admin_base import ReadOnlyTenantAdmin
from tenants.admin_lists import DayFilter, MemberFilter, at, value_filter
from tenants.admin_site import may_in_tenant
from tenants.models import Ability
from tenants.templatetags.people import money

STATUS_COLOURS = {
    "success": "success",
    "cached": "info",
    "unanswered": "warning",
    "fallback": "warning",
    "cancelled": "default",
    "error": "danger",
}
# What makes a row of the list kilobytes long.
WIDE = ("standalone_question", "text", "sources", "citations", "document_ids", "depends_on", "timings")


def sees_costs(request: HttpRequest) -> bool:
    """Whoever reviews and does not manage sees answers, not what they cost."""
    return may_in_tenant(request, Ability.MANAGE, Ability.SEE_COSTS)


@admin.register(Answer)
class AnswerAdmin(ReadOnlyTenantAdmin):
    abilities = (Ability.MANAGE, Ability.REVIEW)
    change_form_template = "knowledge/admin/answer.html"
    list_display = (
        "shown_question",
        "shown_status",
        "user",
        "role_name",
        "model",
        "shown_cost",
        "shown_time",
        at("created_at"),
    )
    list_filter = (
        ("created_at", DayFilter),
        value_filter("status", _("status")),
        value_filter("model", _("model")),
        MemberFilter,
    )
    search_fields = ("question",)
    search_help_text = _("Words of the newest 10,000 questions, or an id")
    search_whole = False
    search_ids = ("pk", "conversation_id")
    list_select_related = ("user",)
    fields = ("question",)
    # Neither answers nor passages: a file goes where no role is asked.
    export_fields = (
        "id",
        "created_at",
        "user",
        "role_name",
        "question",
        "status",
        "answered",
        "grounded",
        "confidence",
        "cache",
        "provider",
        "model",
        "endpoint",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "latency_ms",
        "conversation_id",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        named = request.resolver_match.kwargs if request.resolver_match else {}
        return rows if "object_id" in named else rows.defer(*WIDE)

    def get_list_display(self, request: HttpRequest) -> Any:
        columns = super().get_list_display(request)
        return columns if sees_costs(request) else [name for name in columns if name != "shown_cost"]

    def get_export_fields(self, request: HttpRequest) -> list[str]:
        columns = super().get_export_fields(request)
        return columns if sees_costs(request) else [name for name in columns if name != "cost_usd"]

    @display(description=_("question"))
    def shown_question(self, answer: Answer) -> str:
        return answer.question[:120]

    @display(description=_("status"), label=STATUS_COLOURS)
    def shown_status(self, answer: Answer) -> tuple[str, str]:
        return answer.status, answer.status

    @display(description=_("cost"))
    def shown_cost(self, answer: Answer) -> str:
        return money(answer.cost_usd)

    @display(description=_("time"))
    def shown_time(self, answer: Answer) -> str:
        ms = answer.latency_ms
        return f"{ms / 1000:.1f}\u00a0s" if ms >= 1000 else f"{ms:.0f}\u00a0ms"

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        if obj is not None:
            context["trace"] = trace_answer(obj, self.principal(request))
            context["sees_costs"] = sees_costs(request)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)  # type: ignore[no-any-return]
