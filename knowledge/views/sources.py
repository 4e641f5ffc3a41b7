"""Sources: where documents come from, when they are fetched, and how the last runs went."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from knowledge.access import access_source
from knowledge.exclusions import excluded_items, take_again
from knowledge.ingestion.sources.connect import KINDS
from knowledge.ingestion.sources.kinds import shown_fields
from knowledge.models import Document, Job, Source
from knowledge.schedules import describe, next_runs
from knowledge.sources import delete_source, set_source_enabled, start_sync, try_source
from knowledge.views.shown_jobs import ShownJob, show_jobs
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import is_part, member_page, render_part, shell_context
from tenants.paging import NEWEST, read_page

MANAGE = Ability.MANAGE.value
LIST = "knowledge/manage/sources.html"
ONE = "knowledge/manage/source.html"
RUNS = 20
EXCLUDED = 200
BY_HAND = Document.TaggedBy.HAND


@dataclass(frozen=True)
class ShownSource:
    """A source as a row shows it.

    Attributes:
        own_tags: documents that keep tags which were set by hand.
        schedule: in plain words.
        next_run: in the schedule's zone; ``None`` where none is planned.
        last: its latest run.
    """

    source: Source
    kind: str
    schedule: str
    next_run: datetime | None
    last: ShownJob | None
    documents: int
    failed: int
    own_tags: int

    @property
    def running(self) -> bool:
        return self.last is not None and not self.last.job.is_finished


def show_sources(sources: QuerySet[Any], principal: Principal) -> list[ShownSource]:
    """Rows; the number of queries does not depend on how many."""
    latest = Job.objects.filter(source=OuterRef("pk")).order_by("-created_at").values("pk")[:1]
    known = sources.select_related("collection").defer("state")
    rows = list(known.annotate(last_job=Subquery(latest)))
    jobs = Job.objects.filter(pk__in=[row.last_job for row in rows if row.last_job])
    last = {row.job.source_id: row for row in show_jobs(list(jobs), principal)}
    visible = Document.objects.visible_to(principal.membership).filter(source__in=[row.pk for row in rows])
    counts = {
        row["source_id"]: row
        for row in visible.order_by()
        .values("source_id")
        .annotate(
            documents=Count("pk"),
            failed=Count("pk", filter=~Q(error="")),
            own_tags=Count("pk", filter=Q(tagged_by=BY_HAND)),
        )
    }
    return [
        ShownSource(
            source=row,
            kind=str(KINDS[row.kind].title if row.kind in KINDS else row.get_kind_display()),
            schedule=describe(row.schedule, time_zone=row.time_zone),
            next_run=_next_run(row),
            last=last.get(row.pk),
            documents=counts.get(row.pk, {}).get("documents", 0),
            failed=counts.get(row.pk, {}).get("failed", 0),
            own_tags=counts.get(row.pk, {}).get("own_tags", 0),
        )
        for row in rows
    ]


def _next_run(source: Source) -> datetime | None:
    if not source.enabled:
        return None
    try:
        return next(iter(next_runs(source.schedule, time_zone=source.time_zone)), None)
    except Problem:  # written past the form, by a migration or by hand
        return None


@require_GET
@member_page
def sources_page(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Every source with its schedule and its last run."""
    principal.require(MANAGE)
    return _render_list(request, principal)


def _render_list(request: HttpRequest, principal: Principal) -> HttpResponse:
    rows = show_sources(Source.objects.all(), principal)
    context: dict[str, Any] = {
        "here": "sources",
        "rows": rows,
        "running": any(row.running for row in rows),
    }
    if not is_part(request):
        context |= shell_context(principal)
    return render_part(request, LIST, "rows", context)


@require_GET
@member_page
def source_page(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """One source and its runs."""
    principal.require(MANAGE)
    return _render_one(request, principal, access_source(principal.membership, id))


def _render_one(request: HttpRequest, principal: Principal, source: Source) -> HttpResponse:
    shown = show_sources(Source.objects.filter(pk=source.pk), principal)[0]
    runs = Job.objects.filter(source=source)
    cursor = request.GET.get("cursor", "")
    page = read_page(runs, order=NEWEST, cursor=cursor, size=RUNS)
    kind = KINDS.get(source.kind)
    shown_options = shown_fields(kind.options, "options", source.options) if kind else []
    context: dict[str, Any] = {
        "here": "sources",
        "row": shown,
        "place": kind.place if kind else "",
        "options": [each for each in shown_options if each.value],
        "takes_credentials": bool(kind and kind.credentials.model_fields),
        "said": Source.objects.filter(pk=source.pk).values_list("state__said", flat=True).get() or [],
        "runs": show_jobs(page.rows, principal),
        "next": page.next,
        "later": bool(cursor),
        "changes": [] if cursor else _last_changes(source),
        "excluded": [] if cursor else excluded_items(source)[:EXCLUDED],
    }
    if not is_part(request):
        context |= shell_context(principal)
    return render_part(request, ONE, "more" if cursor else "source", context)


CHANGES = {
    "added": gettext_lazy("Added"),
    "changed": gettext_lazy("Changed"),
    "moved": gettext_lazy("Moved"),
    "deleted": gettext_lazy("Deleted"),
    "failed": gettext_lazy("Failed"),
    "expired": gettext_lazy("Left out: too old"),
    "skipped": gettext_lazy("Skipped: holds no text"),
    "excluded": gettext_lazy("Left out: deleted here"),
}


def _last_changes(source: Source) -> list[dict[str, Any]]:
    """What the last sync that ended has changed, by kind; the paths that it kept of each."""
    ended = Job.objects.filter(source=source, kind=Job.Kind.SYNC, finished_at__isnull=False)
    result = ended.order_by("-finished_at").values_list("result", flat=True).first() or {}
    totals, changes = result.get("totals", {}), result.get("changes", {})
    return [
        {
            "name": name,
            "total": totals[kind],
            "listed": changes.get(kind, []),
            "more": totals[kind] - len(changes.get(kind, [])),
        }
        for kind, name in CHANGES.items()
        if totals.get(kind)
    ]


@require_POST
@member_page
def source_try(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Tries whether it can be reached, with the credentials that are stored."""
    principal.require(MANAGE)
    source = access_source(principal.membership, id)
    ok, words = try_source(source=source, principal=principal)
    (messages.success if ok else messages.error)(request, words)
    return _after(request, principal, source)


@require_POST
@member_page
def source_sync(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Fetches what is new now."""
    principal.require(MANAGE)
    source = access_source(principal.membership, id)
    start_sync(source=source, principal=principal)
    messages.success(request, _("%(name)s is being synchronised.") % {"name": source.name})
    return _after(request, principal, source)


@require_POST
@member_page
def source_take_again(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Lets it have a document again that was deleted here."""
    principal.require(MANAGE)
    source = access_source(principal.membership, id)
    uri = request.POST.get("uri", "").replace("\0", "")
    if take_again(source=source, uri=uri, principal=principal):
        messages.success(request, _("%(path)s comes with the next synchronisation.") % {"path": uri})
    return _after(request, principal, source)


@require_POST
@member_page
def source_pause(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Stops the schedule, or starts it again; its documents stay as they are."""
    principal.require(MANAGE)
    source = access_source(principal.membership, id)
    enabled = request.POST.get("enabled") == "on"
    if enabled != source.enabled:
        set_source_enabled(source=source, enabled=enabled, principal=principal)
    words = _("%(name)s follows its schedule again.") if enabled else _("%(name)s is paused.")
    messages.success(request, words % {"name": source.name})
    return _after(request, principal, source)


def _after(request: HttpRequest, principal: Principal, source: Source) -> HttpResponse:
    if request.POST.get("place") == "source":
        return (
            _render_one(request, principal, source)
            if is_part(request)
            else redirect("source-page", source.pk)
        )
    return _render_list(request, principal) if is_part(request) else redirect("sources")


@require_POST
@member_page
def source_delete(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Removes it with its documents, for good."""
    principal.require(MANAGE)
    source = access_source(principal.membership, id)
    name = source.name
    delete_source(source=source, principal=principal)
    messages.success(request, _("Source %(name)s and its documents are deleted.") % {"name": name})
    return redirect("sources")
