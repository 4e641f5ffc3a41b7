"""The dead letters in the admin: what failed for good, and trying it again."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from knowledge.ingestion.dead_letters import retry_letters
from knowledge.models import DeadLetter
from tenants.admin_base import ReadOnlyTenantAdmin
from tenants.admin_lists import DayFilter, at, related
from tenants.scope import atomic


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyTenantAdmin):
    list_display = ("uri_or_job", "source", "reason", "attempts", at("failed_at"), "trace_id")
    list_display_links = ("uri_or_job",)
    list_filter = (related("source"), ("failed_at", DayFilter))
    search_fields = ("uri", "reason")
    search_help_text = _("Path or reason, in the newest 10,000 letters")
    search_whole = False
    search_ids = ("pk", "job_id", "document_id", "source_id")
    ordering = ("-failed_at", "-id")
    list_select_related = ("source", "job")
    actions = ("retry",)
    export_fields = ("uri", "source", "reason", "attempts", "created_at", "failed_at", "trace_id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("document__text")

    @admin.display(description=_("what"))
    def uri_or_job(self, letter: DeadLetter) -> str:
        return letter.uri or (str(letter.job) if letter.job else str(_("a job of long ago")))

    @admin.action(description=_("Retry"), permissions=["view"])
    def retry(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        letters = list(
            queryset.select_related("source", "job__collection", "document").defer("document__text")
        )
        with atomic():
            jobs = retry_letters(letters=letters, user=self.principal(request).membership.user)
            for job in jobs:
                self.record(request, "retry", job, {"name": str(job), "letters": len(letters)})
        done = ngettext("%(n)d job started.", "%(n)d jobs started.", len(jobs)) % {"n": len(jobs)}
        self.message_user(request, done, messages.SUCCESS)
