"""What members found missing in the documents, and what they are told."""

from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from feedback.admin.filters import REQUEST_NAMES, RequestStatusFilter
from feedback.models import DocumentRequest
from feedback.requests import answer_request
from tenants.access import Principal
from tenants.admin_base import TenantModelAdmin
from tenants.admin_lists import DayFilter, MemberFilter, at
from tenants.models import Ability

STATUS_COLOURS = {"open": "warning", "done": "success", "declined": "default"}


@admin.register(DocumentRequest)
class DocumentRequestAdmin(TenantModelAdmin):
    abilities = (Ability.MANAGE, Ability.REVIEW)
    may_change = True
    list_display = ("shown_question", "user", "shown_status", "handled_by", at("created_at"))
    list_filter = (RequestStatusFilter, ("created_at", DayFilter), MemberFilter)
    search_fields = ("question", "note", "reply")
    search_help_text = _("Words of question, note or reply, in the newest 10,000 requests")
    search_whole = False
    search_ids = ("pk", "answer_id")
    list_select_related = ("user", "handled_by")
    fields = ("question", "note", "user", "created_at", "status", "reply", "handled_by", "handled_at")
    readonly_fields = ("question", "note", "user", "created_at", "handled_by", "handled_at")
    export_fields = (
        "created_at",
        "question",
        "note",
        "user",
        "status",
        "reply",
        "handled_by",
        "handled_at",
        "answer_id",
    )

    @display(description=_("question"))
    def shown_question(self, row: DocumentRequest) -> str:
        return row.question[:120]

    @display(description=_("status"), label=STATUS_COLOURS)
    def shown_status(self, row: DocumentRequest) -> tuple[str, Any]:
        return row.status, REQUEST_NAMES[DocumentRequest.Status(row.status)]

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal) -> None:
        stored = DocumentRequest.objects.get(pk=obj.pk)
        answer_request(principal=principal, request=stored, changes=changes)
