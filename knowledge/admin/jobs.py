"""Indexing jobs in the admin: cancelled and retried here, started elsewhere."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.decorators import display

from knowledge.ingestion.jobs import cancel_job, retry_job
from knowledge.models import Job
from tenants.admin_base import ReadOnlyTenantAdmin
from tenants.admin_lists import DayFilter, at, choice

STATE_COLOURS = {"SUCCESS": "success", "FAILURE": "danger", "PROGRESS": "info", "PENDING": "warning"}


@admin.register(Job)
class JobAdmin(ReadOnlyTenantAdmin):
    list_display = (
        at("created_at"),
        "kind",
        "shown_state",
        "step",
        "progress",
        "changed",
        "failed",
        "user",
        at("finished_at"),
    )
    list_filter = (choice("state"), choice("kind"), ("created_at", DayFilter))
    search_fields = ("step", "error")
    search_help_text = _("An id, or a part of step or error in the newest 10,000 jobs")
    search_whole = False
    search_ids = ("pk", "document_id", "source_id")
    ordering = ("-created_at", "-id")
    list_select_related = ("user",)
    exclude = ("run",)
    actions = ("cancel", "retry")
    export_fields = (
        "created_at",
        "kind",
        "state",
        "step",
        "progress",
        "seen",
        "changed",
        "unchanged",
        "deleted",
        "failed",
        "error",
        "user",
        "started_at",
        "finished_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("document__text")

    @display(description=_("state"), label=STATE_COLOURS)
    def shown_state(self, job: Job) -> tuple[str, str]:
        return job.state, job.get_state_display()

    @admin.action(description=_("Cancel"), permissions=["view"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        def act(job: Job) -> None:
            cancel_job(job=job)
            self.record(request, "cancel", job, {"name": str(job)})

        self.attempt_each(
            request,
            queryset,
            act,
            done=lambda n: ngettext("%(n)d job cancelled.", "%(n)d jobs cancelled.", n) % {"n": n},
        )

    @admin.action(description=_("Retry"), permissions=["view"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        def act(job: Job) -> None:
            retry_job(job=job, user=self.principal(request).membership.user)
            self.record(request, "retry", job, {"name": str(job)})

        self.attempt_each(
            request,
            queryset,
            act,
            done=lambda n: ngettext("%(n)d job started again.", "%(n)d jobs started again.", n) % {"n": n},
        )
