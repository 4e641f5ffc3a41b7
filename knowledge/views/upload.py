"""Taking files in: a form that needs no JavaScript, and the same one file at a time for the script that does more."""

from typing import Any

from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods

from knowledge.access import access_collections
from knowledge.api.documents import read_upload
from knowledge.documents import (
    add_document,
    clean_name,
    clean_path,
    default_collection,
    find_upload,
    replace_content,
)
from knowledge.models import Job
from knowledge.views.documents import render_documents
from knowledge.views.forms import chosen_tags, sentences
from knowledge.views.uploads import read_progress, upload_row
from ragsite.core.problems import FieldProblem, Problem, problem_response
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import is_part, member_page, render_part
from tenants.rest import problem_of

UPLOAD = Ability.UPLOAD.value


@require_http_methods(["GET", "POST"])
@member_page
def upload_page(request: HttpRequest, principal: Principal) -> HttpResponse:
    """The documents with the form for uploads open; a POST takes files in, and jobs index them."""
    principal.require(UPLOAD)
    if request.method == "GET":
        return render_documents(request, principal, uploading=True)
    if request.headers.get("Accept") == "application/json":
        return _take_one(request, principal)
    return _take_all(request, principal)


def _take_one(request: HttpRequest, principal: Principal) -> HttpResponse:
    """One file of a batch: the row that follows its job, or the problem."""
    try:
        files = request.FILES.getlist("file")
        if len(files) != 1:
            raise _no_file()
        job = _take(request, principal, files[0])
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            raise
        return problem_response(problem)
    row = upload_row(request, principal, job)
    return JsonResponse({"job": str(job.pk), "row": row}, status=201)


def _take_all(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Every file of a plain form; what cannot be taken is said beside its name."""
    files = request.FILES.getlist("file")
    if not files:
        problem = _no_file()
        return render_documents(
            request, principal, problem=problem, uploading=True, reasons=[sentences(problem)]
        )
    taken, refused, last = 0, [], None
    for file in files:
        try:
            _take(request, principal, file)
            taken += 1
        except Problem as problem:
            if problem.status == 404:
                raise  # the collection, which is every file's
            said = sentences(problem)
            refused.append(said if len(files) == 1 or str(file.name) in said else f"{file.name}: {said}")
            last = problem
    if taken:
        words = ngettext("%(n)d file taken in.", "%(n)d files taken in.", taken)
        messages.success(request, words % {"n": taken})
    if last is None:
        return redirect("upload")
    return render_documents(request, principal, problem=last, uploading=True, reasons=refused)


def _take(request: HttpRequest, principal: Principal, file: "UploadedFile[Any]") -> Job:
    names = [name for name in request.POST.getlist("collection") if name]
    collections = access_collections(principal, names[:1])
    collection = collections[0] if collections else default_collection()
    path, upload = request.POST.get("path", ""), read_upload(file)
    if request.POST.get("replace"):
        present = find_upload(
            membership=principal.membership,
            collection=collection,
            path=clean_path(path, filename=clean_name(upload.filename)),
        )
        if present is not None:
            return replace_content(document=present, upload=upload, principal=principal)
    _document, job = add_document(
        upload=upload,
        collection=collection,
        tags=chosen_tags(request),
        uri=path,
        principal=principal,
    )
    return job


def _no_file() -> Problem:
    words = _("Choose a file.")
    return Problem(400, "invalid", words, errors=[FieldProblem("file", words)])


@require_GET
@member_page
def upload_progress(request: HttpRequest, principal: Principal) -> HttpResponse:
    """How far a batch is: one answer for all of its files."""
    principal.require(UPLOAD)
    if not is_part(request):
        return redirect("upload")
    progress: dict[str, Any] = read_progress(
        principal, since=request.GET.get("since", ""), after=request.GET.get("after", "")
    )
    ended = bool(request.GET.get("busy")) and not progress["busy"]
    if ended and progress["words"]:
        messages.info(request, _("Uploads: %(words)s.") % {"words": progress["words"]})
    response = render_part(request, "knowledge/manage/_upload.html", "progress", {"progress": progress})
    if ended:
        response.headers["HX-Trigger"] = "documents-changed"
    return response
