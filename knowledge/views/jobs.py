"""Jobs: what is being indexed, for whom, how far, and what went wrong."""

from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from knowledge.access import access_document, access_job
from knowledge.ingestion.jobs import cancel_job, retry_job
from knowledge.models import Document, Job
from knowledge.views.forms import go_back, sentences
from knowledge.views.shown_jobs import ShownJob, show_jobs
from knowledge.views.uploads import upload_row
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Ability
from tenants.pages import is_part, member_page, render_part, shell_context
from tenants.paging import NEWEST, cursor_of, read_cursor, read_page
from tenants.scope import atomic

UPLOAD, MANAGE = Ability.UPLOAD.value, Ability.MANAGE.value
TEMPLATE = "knowledge/manage/jobs.html"
ONE = "knowledge/manage/job.html"
PAGE = 50
MOST_LIVE = 200
STATES = {
    "running": (gettext_lazy("Running or waiting"), Q(state__in=[Job.State.PENDING, Job.State.PROGRESS])),
    "failed": (
        gettext_lazy("Failed, or with errors"),
        Q(state=Job.State.FAILURE) | Q(failed__gt=0),
    ),
    "done": (gettext_lazy("Done"), Q(state=Job.State.SUCCESS)),
    "cancelled": (gettext_lazy("Cancelled"), Q(state=Job.State.CANCELLED)),
}
KINDS = {
    Job.Kind.DOCUMENT: gettext_lazy("Documents"),
    Job.Kind.SYNC: gettext_lazy("Sources"),
    Job.Kind.REINDEX: gettext_lazy("Indexed again"),
    Job.Kind.QUESTIONS: gettext_lazy("Questions"),
}


@require_GET
@member_page
def jobs_page(request: HttpRequest, principal: Principal) -> HttpResponse:
    """One's own jobs, everyone's for those who manage; latest first."""
    principal.require(UPLOAD)
    state, kind = request.GET.get("state", ""), request.GET.get("kind", "")
    chosen = {"state": state if state in STATES else "", "kind": kind if kind in Job.Kind.values else ""}
    query = urlencode({name: value for name, value in chosen.items() if value})
    jobs = _narrowed(principal, chosen)
    cursor, live = request.GET.get("cursor", ""), request.GET.get("live", "")
    following = ""
    if live:
        # The first page once more, and what has come since: down to the job that it ended with.
        moment, pk = read_cursor(live, NEWEST)
        rows = list(_down_to(jobs, moment, pk).order_by(*NEWEST.names)[:MOST_LIVE])
    else:
        page = read_page(jobs, order=NEWEST, cursor=cursor, size=PAGE)
        rows, following = page.rows, page.next
    shown = show_jobs(rows, principal)
    context: dict[str, Any] = {
        "here": "jobs",
        "jobs": shown,
        "next": "&".join(filter(None, [urlencode({"cursor": following}), query])) if following else "",
        "later": bool(cursor),
        "chosen": chosen,
        "narrows": bool(query),
        "states": [(name, words) for name, (words, _condition) in STATES.items()],
        "kinds": KINDS.items(),
        "live": _live_path(shown, query, live),
        "running": any(not row.job.is_finished for row in shown),
        "everyone": principal.may(MANAGE),
    }
    part = "more" if cursor else "latest" if live else "list"
    if not is_part(request):
        context |= shell_context(principal)
    response = render_part(request, TEMPLATE, part, context)
    if is_part(request) and part == "list":
        response.headers["HX-Push-Url"] = reverse("jobs") + (f"?{query}" if query else "")
    return response


def _narrowed(principal: Principal, chosen: dict[str, str]) -> QuerySet[Any]:
    jobs: QuerySet[Any] = Job.objects.visible_to(principal)
    if chosen["state"]:
        jobs = jobs.filter(STATES[chosen["state"]][1])
    if chosen["kind"]:
        jobs = jobs.filter(kind=chosen["kind"])
    return jobs


def _down_to(jobs: QuerySet[Any], moment: datetime, pk: UUID) -> QuerySet[Any]:
    return jobs.filter(Q(created_at__gt=moment) | Q(created_at=moment, id__gte=pk))


def _live_path(shown: list[ShownJob], query: str, live: str) -> str:
    """What the first page of the list asks to be as it is now."""
    last = live or (cursor_of(shown[-1].job, NEWEST) if shown else "")
    query = "&".join(filter(None, [urlencode({"live": last}) if last else "", query]))
    return f"{reverse('jobs')}?{query}"


@require_GET
@member_page
def job_page(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """One job, with each document's own error."""
    principal.require(UPLOAD)
    return _render_job(request, principal, access_job(principal, id))


def _render_job(request: HttpRequest, principal: Principal, job: Job) -> HttpResponse:
    shown = show_jobs([job], principal)[0]
    context: dict[str, Any] = {"here": "jobs", "row": shown, "errors": _errors(job, principal)}
    if not is_part(request):
        context |= shell_context(principal)
    return render_part(request, ONE, "job", context)


def _errors(job: Job, principal: Principal) -> list[dict[str, Any]]:
    """Each document's own failure; with its page where the member reads it and it is there."""
    paths = [error["document"] for error in job.errors]
    documents = Document.objects.visible_to(principal.membership).filter(uri__in=paths)
    if job.source_id:
        documents = documents.filter(source_id=job.source_id)
    elif job.document_id:
        documents = documents.filter(pk=job.document_id)
    else:
        documents = documents.none()
    known = dict(documents.values_list("uri", "pk")) if paths else {}
    return [error | {"pk": known.get(error["document"])} for error in job.errors]


@require_POST
@member_page
def job_cancel(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Ends a waiting job at once, asks a running one to end; what it has done so far stays."""
    principal.require(UPLOAD)
    job = access_job(principal, id)
    try:
        with atomic():
            job = cancel_job(job=job)
            record_by(principal, "task.cancel", job)
    except Problem as problem:
        messages.error(request, sentences(problem))
    else:
        ended = job.is_finished
        messages.success(request, _("Cancelled.") if ended else _("It stops after the passage it is at."))
    return _after(request, principal, job)


@require_POST
@member_page
def job_retry(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """The same work as a new job."""
    principal.require(UPLOAD)
    job = access_job(principal, id)
    if job.kind != Job.Kind.DOCUMENT:
        principal.require(MANAGE)
    if job.document_id:
        access_document(principal.membership, job.document_id)
    try:
        with atomic():
            again = retry_job(job=job, user=principal.membership.user)
            record_by(principal, "task.retry", again, {"job": str(job.pk)})
    except Problem as problem:
        messages.error(request, sentences(problem))
        return _after(request, principal, job)
    if not is_part(request):
        messages.success(request, _("Begun again."))
    return _after(request, principal, again)


def _after(request: HttpRequest, principal: Principal, job: Job) -> HttpResponse:
    """Where the button stood: in a list of jobs or uploads, or on a job's page, which goes on with the new job."""
    place = request.POST.get("place", "")
    if is_part(request):
        if place == "upload":
            response = HttpResponse(upload_row(request, principal, job))
            response.headers["HX-Trigger"] = "uploaded"
            return response
        if place == "list":
            return HttpResponse(status=204, headers={"HX-Trigger": "jobs-changed"})
        response = _render_job(request, principal, job)
        response.headers["HX-Push-Url"] = reverse("job-page", args=[job.pk])
        return response
    return redirect("job-page", job.pk) if place == "job" else go_back(request, reverse("jobs"))
