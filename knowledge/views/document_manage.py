"""One document, for those who look after it: what it is, its passages, its jobs; and what can be done with it."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from knowledge.access import access_collections, access_document
from knowledge.api.documents import read_upload
from knowledge.api.shapes import DocumentChangeForm
from knowledge.documents import (
    change_document,
    delete_document,
    replace_content,
    restore_document,
    start_reindex,
)
from knowledge.duplicates import find_same_content
from knowledge.models import Chunk, Collection, Document, Job
from knowledge.views.forms import check_form, chosen_tags, go_back, offer_tags, sentences
from knowledge.views.listing import offered_tags
from knowledge.views.shown_jobs import show_jobs
from ragsite.core.config import config
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import is_part, member_page, render_part, shell_context
from tenants.paging import Order, read_page

UPLOAD, MANAGE = Ability.UPLOAD.value, Ability.MANAGE.value
TEMPLATE = "knowledge/manage/document.html"
CHUNKS = 20
SHOWN_JOBS = 10
IN_ORDER = Order("ordinal", read=int)
# What a passage shows; never its vector, which is a hundred times as large.
CHUNK = ("tenant_id", "ordinal", "start", "end", "page", "heading_path", "text", "tokens")


@require_http_methods(["GET", "POST"])
@member_page
def document_manage(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Everything about one document; a POST changes its title, tags and collection."""
    principal.require(UPLOAD)
    document = access_document(principal.membership, id)
    if request.method == "GET":
        return (
            _render_jobs(request, principal, document)
            if _asks_for_jobs(request)
            else _render(request, principal, document)
        )
    typed = {
        "title": request.POST.get("title", "").strip(),
        "tags": chosen_tags(request),
        "collection": request.POST.get("collection", ""),
        "follow": request.POST.get("follow") == "on",
    }
    try:
        _change(principal, document, typed)
    except Problem as problem:
        if problem.status == 404:
            raise
        stored = access_document(principal.membership, id)
        return _render(request, principal, stored, problem=problem, form=typed)
    messages.success(request, _("Saved. It holds from the next question on."))
    if is_part(request):
        return _render(request, principal, access_document(principal.membership, id))
    return redirect("document-manage", id)


def _change(principal: Principal, document: Document, typed: dict[str, Any]) -> None:
    values = check_form(DocumentChangeForm, typed)
    collection = access_collections(principal, [values["collection"]])[0]
    changes: dict[str, Any] = {}
    # A title that a person gives goes before the file's own from then on: only one that is new is given.
    if values["title"] != document.title:
        changes["title"] = values["title"]
    if typed["follow"]:
        changes["own_tags"] = False
    elif set(values["tags"]) != set(document.tags):
        changes["tags"] = values["tags"]
    if collection.pk != document.collection_id:
        changes["collection"] = collection
    if changes:
        change_document(document=document, principal=principal, **changes)


def _render(
    request: HttpRequest,
    principal: Principal,
    document: Document,
    *,
    problem: Problem | None = None,
    form: dict[str, Any] | None = None,
) -> HttpResponse:
    membership = principal.membership
    form = form or {
        "title": document.title,
        "tags": document.tags,
        "collection": document.collection.slug,
    }
    context: dict[str, Any] = {
        "here": "documents",
        "document": document,
        "form": form,
        "tags": offer_tags(offered_tags(membership), form["tags"]),
        "collections": list(Collection.objects.all()),
        "may_manage": principal.may(MANAGE),
        "megabytes": config().max_upload_bytes // 2**20,
        "problem": problem,
        "same_content": find_same_content(document=document, membership=membership),
    } | _jobs(principal, document)
    if not is_part(request):
        context |= shell_context(principal) | _chunks(request, principal, document)
    return render_part(request, TEMPLATE, "facts", context, problem=problem)


def _jobs(principal: Principal, document: Document) -> dict[str, Any]:
    jobs = Job.objects.visible_to(principal).filter(document=document)
    shown = show_jobs(list(jobs.order_by("-created_at", "-id")[:SHOWN_JOBS]), principal)
    return {"jobs": shown, "busy": any(not row.job.is_finished for row in shown)}


def _asks_for_jobs(request: HttpRequest) -> bool:
    return is_part(request) and request.GET.get("part") == "jobs"


def _render_jobs(request: HttpRequest, principal: Principal, document: Document) -> HttpResponse:
    """The jobs as they are now; when the last has ended, the passages are told to look again."""
    context = {"document": document, "beside": True} | _jobs(principal, document)
    response = render_part(request, TEMPLATE, "jobs", context)
    if not context["busy"]:
        response.headers["HX-Trigger"] = "document-indexed"
    return response


def _chunks(request: HttpRequest, principal: Principal, document: Document) -> dict[str, Any]:
    rows = Chunk.objects.visible_to(principal.membership).filter(document=document).only(*CHUNK)
    page = read_page(rows, order=IN_ORDER, cursor=request.GET.get("chunks", ""), size=CHUNKS)
    for chunk in page.rows:
        path = chunk.heading_path
        chunk.place = " › ".join(path[1:] if path[:1] == [document.title] else path)
    return {"document": document, "chunks": page.rows, "next": page.next}


@require_GET
@member_page
def document_chunks(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """The passages that follow; a page of their own without a script."""
    principal.require(UPLOAD)
    document = access_document(principal.membership, id)
    if not is_part(request):
        return redirect(f"{reverse('document-manage', args=[id])}?{request.GET.urlencode()}#passages")
    part = "chunks" if request.GET.get("chunks") else "passages"
    return render_part(request, TEMPLATE, part, _chunks(request, principal, document))


@require_POST
@member_page
def document_replace(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """New content; the old one answers until the new one is indexed."""
    principal.require(UPLOAD)
    document = access_document(principal.membership, id)
    try:
        file = request.FILES.get("file")
        if file is None:
            words = _("Choose a file.")
            raise Problem(400, "invalid", words, errors=[FieldProblem("file", words)])
        replace_content(document=document, upload=read_upload(file), principal=principal)
    except Problem as problem:
        stored = access_document(principal.membership, id)
        return _render(request, principal, stored, problem=problem)
    messages.success(request, _("The new version is being indexed; until then the old one answers."))
    if is_part(request):
        return _render(request, principal, access_document(principal.membership, id))
    return redirect("document-manage", id)


@require_POST
@member_page
def document_delete(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Takes it out of every answer at once; it can be restored for 30 days."""
    principal.require(UPLOAD)
    document = access_document(principal.membership, id)
    delete_document(document=document, principal=principal)
    messages.success(
        request,
        _("“%(title)s” deleted.") % {"title": document.title},
        extra_tags=reverse("document-undelete", args=[id]),
    )
    return redirect("documents")


@require_POST
@member_page
def document_restore(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Brings it back."""
    principal.require(UPLOAD)
    document = access_document(principal.membership, id, deleted=True)
    try:
        restore_document(document=document, principal=principal)
    except Problem as problem:
        messages.error(request, sentences(problem))
    else:
        messages.success(request, _("“%(title)s” is back.") % {"title": document.title})
    return go_back(request, reverse("documents"))


@require_POST
@member_page
def document_reindex(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Indexes it again from what is stored of it."""
    principal.require(MANAGE)
    document = access_document(principal.membership, id)
    start_reindex(document=document, principal=principal)
    messages.success(request, _("It is indexed again; until then the old passages answer."))
    if is_part(request):
        return _render(request, principal, document)
    return redirect("document-manage", id)
