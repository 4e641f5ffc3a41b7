"""Sources: where documents come from, when they are fetched, and how the last runs went."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

from django.contrib import messages
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from knowledge.access import access_collections, access_source
from knowledge.api.shapes import SourceForm
from knowledge.documents import check_tags, known_tags
from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.folder import resolve_folder
from knowledge.models import Collection, Document, Job, Source
from knowledge.schedules import HOURS, MINUTES, Preset, describe, next_runs, read_preset, weekday_name, wrong
from knowledge.sources import delete_source, save_source, set_source_enabled, start_sync
from knowledge.views.forms import check_form, chosen_tags, offer_tags
from knowledge.views.shown_jobs import ShownJob, show_jobs
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import is_part, member_page, render_page, render_part, shell_context
from tenants.paging import NEWEST, read_page

MANAGE = Ability.MANAGE.value
LIST = "knowledge/manage/sources.html"
ONE = "knowledge/manage/source.html"
FORM = "knowledge/manage/source_form.html"
FIELDS = "name,path,collection,tags,schedule,time_zone"
RUNS = 20
KINDS = {Source.Kind.FOLDER: gettext_lazy("Folder of the server")}
WEEK = (1, 2, 3, 4, 5, 6, 0)


@dataclass(frozen=True)
class ShownSource:
    """A source as a row shows it.

    Attributes:
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

    @property
    def running(self) -> bool:
        return self.last is not None and not self.last.job.is_finished


def show_sources(sources: QuerySet[Any], principal: Principal) -> list[ShownSource]:
    """Rows; the number of queries does not depend on how many."""
    latest = Job.objects.filter(source=OuterRef("pk")).order_by("-created_at").values("pk")[:1]
    rows = list(sources.select_related("collection").annotate(last_job=Subquery(latest)))
    jobs = Job.objects.filter(pk__in=[row.last_job for row in rows if row.last_job])
    last = {row.job.source_id: row for row in show_jobs(list(jobs), principal)}
    visible = Document.objects.visible_to(principal.membership).filter(source__in=[row.pk for row in rows])
    counts = {
        row["source_id"]: row
        for row in visible.order_by()
        .values("source_id")
        .annotate(documents=Count("pk"), failed=Count("pk", filter=~Q(error="")))
    }
    return [
        ShownSource(
            source=row,
            kind=str(KINDS.get(row.kind, row.kind)),
            schedule=describe(row.schedule, time_zone=row.time_zone),
            next_run=_next_run(row),
            last=last.get(row.pk),
            documents=counts.get(row.pk, {}).get("documents", 0),
            failed=counts.get(row.pk, {}).get("failed", 0),
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
    context: dict[str, Any] = {
        "here": "sources",
        "row": shown,
        "runs": show_jobs(page.rows, principal),
        "next": page.next,
        "later": bool(cursor),
    }
    if not is_part(request):
        context |= shell_context(principal)
    return render_part(request, ONE, "more" if cursor else "source", context)


@require_http_methods(["GET", "POST"])
@member_page
def source_new(request: HttpRequest, principal: Principal) -> HttpResponse:
    """A form for a new source."""
    principal.require(MANAGE)
    source = Source(time_zone=principal.membership.tenant.time_zone)
    if request.method == "GET":
        return _render_form(request, principal, source, _stored(source), _schedule_form(Preset()))
    return _save(request, principal, source)


@require_http_methods(["GET", "POST"])
@member_page
def source_edit(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """A form for what a source is."""
    principal.require(MANAGE)
    source = access_source(principal.membership, id)
    if request.method == "GET":
        schedule = _schedule_form(Preset.of(source.schedule))
        return _render_form(request, principal, source, _stored(source), schedule)
    return _save(request, principal, source)


def _stored(source: Source) -> dict[str, Any]:
    return {
        "name": source.name,
        "path": source.path,
        "collection": source.collection.slug if source.collection_id else "",
        "tags": source.tags,
        "time_zone": source.time_zone,
    }


def _save(request: HttpRequest, principal: Principal, source: Source) -> HttpResponse:
    posted = request.POST
    typed: dict[str, Any] = {
        "name": posted.get("name", "").strip(),
        "path": posted.get("path", "").strip(),
        "collection": posted.get("collection", ""),
        "tags": chosen_tags(request),
        "time_zone": posted.get("time_zone", "").strip(),
    }
    creating = source._state.adding
    try:
        preset = read_preset(posted, weekdays=posted.getlist("weekly_on"))
        given = {name: value for name, value in typed.items() if name != "name" or value}
        changes = check_form(SourceForm, given | {"schedule": preset.crontab()})
        changes["collection"] = access_collections(principal.membership, [changes["collection"]])[0]
        changes["tags"] = check_tags(tags=changes["tags"], principal=None)
        saved = save_source(source=source, changes=changes, principal=principal)
    except Problem as problem:
        if problem.status == 404:
            raise
        return _render_form(request, principal, source, typed, _typed_schedule(posted), problem=problem)
    if creating and posted.get("sync"):
        start_sync(source=saved, principal=principal)
        messages.success(
            request, _("Source %(name)s created; its documents are fetched.") % {"name": saved.name}
        )
    else:
        words = _("Source %(name)s created.") if creating else _("Source %(name)s saved.")
        messages.success(request, words % {"name": saved.name})
    return redirect("source-page", saved.pk)


def _schedule_form(preset: Preset) -> dict[str, Any]:
    """A schedule as the fields of the form have it."""
    at = f"{preset.at:%H:%M}"
    return {
        "schedule_kind": preset.kind,
        "minutes": str(preset.every if preset.kind == "minutes" else 15),
        "hours": str(preset.every if preset.kind == "hours" else 1),
        "daily_at": at,
        "weekly_at": at,
        "weekly_on": [str(day) for day in preset.days],
        "cron": preset.line or preset.crontab(),
    }


def _typed_schedule(posted: Any) -> dict[str, Any]:
    """What was typed, so that it stands in the form again beside what is wrong with it."""
    typed = _schedule_form(Preset())
    return (
        typed
        | {name: posted[name] for name in typed if name in posted}
        | {"weekly_on": posted.getlist("weekly_on")}
    )


def _render_form(
    request: HttpRequest,
    principal: Principal,
    source: Source,
    form: dict[str, Any],
    schedule: dict[str, Any],
    *,
    problem: Problem | None = None,
) -> HttpResponse:
    context: dict[str, Any] = {
        "here": "sources",
        "source": None if source._state.adding else source,
        "form": form,
        "tags": offer_tags(known_tags(), form["tags"]),
        "collections": list(Collection.objects.all()),
        "schedule": schedule,
        "minutes": [str(n) for n in MINUTES],
        "hours": [str(n) for n in HOURS],
        "weekdays": [(str(day), weekday_name(day)) for day in WEEK],
        "zones": sorted(available_timezones()),
        "fields": FIELDS,
    }
    return render_page(request, FORM, shell_context(principal) | context, problem=problem)


@require_POST
@member_page
def source_check(request: HttpRequest, principal: Principal) -> HttpResponse:
    """What the form says beside a field while it is filled in: whether the folder is there, when it would run."""
    principal.require(MANAGE)
    posted = request.POST
    context: dict[str, Any] = {}
    try:
        if request.GET.get("check") == "path":
            context["folder"] = _look_at_folder(posted.get("path", "").strip())
        else:
            zone = posted.get("time_zone", "").strip()
            preset = read_preset(posted, weekdays=posted.getlist("weekly_on"))
            context["runs"] = next_runs(preset.crontab(), time_zone=zone, count=3)
            context["words"] = describe(preset.crontab(), time_zone=zone)
    except Problem as problem:
        context["reasons"] = [error.detail for error in problem.errors] or [problem.detail]
    return render_page(request, "knowledge/manage/_source_check.html", context)


def _look_at_folder(path: str) -> str:
    try:
        folder = resolve_folder(path)
    except SourceError as error:
        raise wrong("path", str(error)) from None
    return _("This folder is there.") if any(folder.iterdir()) else _("This folder is there, and empty.")


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
