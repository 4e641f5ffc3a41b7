"""The upload page: a form that needs no JavaScript, and where one's own uploads stand."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from knowledge.access import access_collections
from knowledge.api.documents import read_upload
from knowledge.documents import UPLOADS, add_document, known_tags
from knowledge.ingestion.parse import SUPPORTED_EXTENSIONS
from knowledge.models import Collection, Document, Job
from ragsite.core.config import config
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import member_page, render_page, shell_context

SHOWN_JOBS = 10


@require_http_methods(["GET", "POST"])
@member_page
def upload_page(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Takes one document in; a job indexes it, and the page tells how far that is."""
    principal.require(Ability.UPLOAD.value)
    problem = None
    if request.method == "POST":
        try:
            _take(request, principal)
            return redirect("upload")
        except Problem as error:
            problem = error
    return _render(request, principal, problem)


def _take(request: HttpRequest, principal: Principal) -> None:
    file = request.FILES.get("file")
    if file is None:
        raise Problem(400, "invalid", "Choose a file.", errors=[FieldProblem("file", "Choose a file.")])
    names = [name for name in request.POST.getlist("collection") if name]
    collections = access_collections(principal.membership, names)
    add_document(
        upload=read_upload(file),
        collection=collections[0] if collections else None,
        tags=request.POST.getlist("tags"),
        principal=principal,
    )


def _render(request: HttpRequest, principal: Principal, problem: Problem | None) -> HttpResponse:
    membership = principal.membership
    readable = membership.role.readable_tags
    jobs = (
        Job.objects.filter(user=membership.user, kind=Job.Kind.DOCUMENT, document__isnull=False)
        .select_related("document")
        .defer("document__text")
    )
    context: dict[str, Any] = {
        "collections": Collection.objects.exclude(slug=UPLOADS),
        "tags": known_tags() if readable is None else list(readable),
        "jobs": jobs.filter(document__in=Document.objects.visible_to(membership))[:SHOWN_JOBS],
        "endings": ",".join(sorted(SUPPORTED_EXTENSIONS)),
        "megabytes": config().max_upload_bytes // 2**20,
        "reasons": [error.detail for error in problem.errors] if problem else [],
    }
    return render_page(request, "knowledge/upload.html", shell_context(principal) | context, problem=problem)
