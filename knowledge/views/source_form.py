"""The form of a source: the fields of its kind, and what it says of them while it is filled in."""

from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from knowledge.access import access_collections, access_source
from knowledge.api.shapes import SourceForm
from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.connect import KINDS
from knowledge.ingestion.sources.kinds import SourceKind, shown_fields, typed_fields
from knowledge.models import Collection, Source
from knowledge.schedules import HOURS, MINUTES, Preset, describe, next_runs, read_preset, weekday_name, wrong
from knowledge.sources import check_source, fill_source, save_source, start_sync
from knowledge.tags import check_tags, known_tags
from knowledge.views.forms import check_form, chosen_tags, offer_tags
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import member_page, render_page, shell_context

MANAGE = Ability.MANAGE.value
FORM = "knowledge/manage/source_form.html"
FIELDS = ("name", "path", "collection", "tags", "schedule", "time_zone", "callback_url")
WEEK = (1, 2, 3, 4, 5, 6, 0)


@require_http_methods(["GET", "POST"])
@member_page
def source_new(request: HttpRequest, principal: Principal) -> HttpResponse:
    """A form for a new source, of the kind that the address names."""
    principal.require(MANAGE)
    source = Source(time_zone=principal.membership.tenant.time_zone)
    asked = (request.POST if request.method == "POST" else request.GET).get("kind", "")
    source.kind = asked if asked in KINDS else Source.Kind.FOLDER
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
        "options": source.options,
        "collection": source.collection.slug if source.collection_id else "",
        "tags": source.tags,
        "time_zone": source.time_zone,
        "callback_url": source.callback_url,
    }


def _typed(request: HttpRequest, kind: SourceKind) -> dict[str, Any]:
    posted = request.POST
    return {
        "name": posted.get("name", "").strip(),
        "path": posted.get("path", "").strip(),
        "options": typed_fields(kind.options, "options", posted),
        "collection": posted.get("collection", ""),
        "tags": chosen_tags(request),
        "time_zone": posted.get("time_zone", "").strip(),
        "callback_url": posted.get("callback_url", "").strip(),
    }


def _changes(
    request: HttpRequest, principal: Principal, kind: SourceKind, typed: dict[str, Any]
) -> dict[str, Any]:
    """What the form asks to be changed, as ``save_source`` takes it."""
    preset = read_preset(request.POST, weekdays=request.POST.getlist("weekly_on"))
    given = {name: value for name, value in typed.items() if name != "name" or value}
    changes = check_form(SourceForm, given | {"schedule": preset.crontab()})
    changes["collection"] = access_collections(principal, [changes["collection"]])[0]
    changes["tags"] = check_tags(tags=changes["tags"], principal=None)
    credentials = typed_fields(kind.credentials, "credentials", request.POST)
    if credentials or request.POST.get("remove_credentials"):
        changes["credentials"] = credentials
    return changes


def _save(request: HttpRequest, principal: Principal, source: Source) -> HttpResponse:
    posted, kind = request.POST, KINDS[source.kind]
    typed, creating = _typed(request, kind), source._state.adding
    try:
        changes = _changes(request, principal, kind, typed)
        if posted.get("test"):  # without JavaScript; with it the answer comes from source_check
            tried = _try_connection(source, changes, principal)
            return _render_form(request, principal, source, typed, _typed_schedule(posted), tried=tried)
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


def _try_connection(source: Source, changes: dict[str, Any], principal: Principal) -> str:
    """What is there, as the form stands; nothing is stored.

    Raises:
        Problem: 400 with what is wrong.
    """
    fill_source(source=source, changes=changes, principal=principal)
    try:
        return check_source(source=source)
    except SourceError as error:
        raise wrong("connection", str(error)) from None


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
    tried: str = "",
) -> HttpResponse:
    kind = KINDS[source.kind]
    options = shown_fields(kind.options, "options", form["options"])
    credentials = shown_fields(kind.credentials, "credentials", {})
    names = [*FIELDS, "connection", *(field.name for field in (*options, *credentials))]
    context: dict[str, Any] = {
        "here": "sources",
        "source": None if source._state.adding else source,
        "kind": kind,
        "kinds": list(KINDS.values()),
        "options": options,
        "credentials": credentials,
        "has_credentials": bool(source.credentials) and not source._state.adding,
        "tried": tried,
        "form": form,
        "tags": offer_tags(known_tags(), form["tags"]),
        "collections": list(Collection.objects.all()),
        "schedule": schedule,
        "minutes": [str(n) for n in MINUTES],
        "hours": [str(n) for n in HOURS],
        "weekdays": [(str(day), weekday_name(day)) for day in WEEK],
        "zones": sorted(available_timezones()),
        "fields": ",".join(names),
    }
    return render_page(request, FORM, shell_context(principal) | context, problem=problem)


@require_POST
@member_page
def source_check(request: HttpRequest, principal: Principal) -> HttpResponse:
    """What the form says beside a field while it is filled in: whether the place is there, when it would run."""
    principal.require(MANAGE)
    posted = request.POST
    context: dict[str, Any] = {}
    asked = posted.get("kind", "")
    kind = KINDS.get(asked or Source.Kind.FOLDER, KINDS[Source.Kind.FOLDER])
    try:
        match request.GET.get("check"):
            case "path":
                context["place"] = _look_at_place(kind, posted.get("path", "").strip())
            case "connection":
                context["place"] = _try_typed(request, principal, kind)
            case _:
                zone = posted.get("time_zone", "").strip()
                preset = read_preset(posted, weekdays=posted.getlist("weekly_on"))
                context["runs"] = next_runs(preset.crontab(), time_zone=zone, count=3)
                context["words"] = describe(preset.crontab(), time_zone=zone)
    except Problem as problem:
        if problem.status == 404:
            raise
        context["reasons"] = [error.detail for error in problem.errors] or [problem.detail]
    return render_page(request, "knowledge/manage/_source_check.html", context)


def _look_at_place(kind: SourceKind, path: str) -> str:
    try:
        place = kind.read_place(path, kind.options.model_construct())
        if kind.kind == Source.Kind.FOLDER:  # of this machine: nothing is asked over a network
            return check_source(source=Source(kind=kind.kind, path=place))
    except SourceError as error:
        raise wrong("path", str(error)) from None
    return ""


def _try_typed(request: HttpRequest, principal: Principal, kind: SourceKind) -> str:
    pk = request.POST.get("source", "")
    source = access_source(principal.membership, pk) if pk else Source(kind=kind.kind)
    kind = KINDS[source.kind]
    return _try_connection(source, _changes(request, principal, kind, _typed(request, kind)), principal)
