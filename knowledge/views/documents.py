"""The list of documents."""

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_GET

from knowledge.duplicates import with_duplicates
from knowledge.views.forms import offer_tags
from knowledge.views.listing import DocumentFilter, filter_choices
from knowledge.views.uploads import upload_context
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import is_part, member_page, render_part, shell_context
from tenants.paging import read_page

ASK, UPLOAD, MANAGE = Ability.ASK.value, Ability.UPLOAD.value, Ability.MANAGE.value
PAGE = 50
TEMPLATE = "knowledge/manage/documents.html"


@require_GET
@member_page
def documents_page(request: HttpRequest, principal: Principal) -> HttpResponse:
    """The documents that the member reads."""
    principal.require(ASK)
    return render_documents(request, principal)


def render_documents(
    request: HttpRequest,
    principal: Principal,
    *,
    problem: Problem | None = None,
    uploading: bool = False,
    reasons: list[str] | None = None,
) -> HttpResponse:
    """The page, its list, or the rows that follow.

    Args:
        uploading: whether the form for uploads is open.
        reasons: what is wrong with an upload.
    """
    narrowed = DocumentFilter.read(request.GET)
    cursor = request.GET.get("cursor", "")
    rows = with_duplicates(narrowed.documents(principal), principal.membership)
    page = read_page(rows, order=narrowed.order, cursor=cursor, size=PAGE)
    context: dict[str, Any] = {
        "here": "documents",
        "filter": narrowed,
        "documents": page.rows,
        "next": urlencode({"cursor": page.next}) + (f"&{narrowed.query}" if narrowed.query else "")
        if page.next
        else "",
        "later": bool(cursor),
        "may_upload": principal.may(UPLOAD),
        "may_manage": principal.may(MANAGE),
        "uploading": uploading,
        "reasons": reasons or [],
    }
    part = "rows" if cursor else "list"
    if not (is_part(request) and part == "rows"):
        context |= {"choices": filter_choices(principal)}
        context["bulk_tags"] = offer_tags(context["choices"]["tags"], ())
    if not is_part(request):
        context |= shell_context(principal)
        if principal.may(UPLOAD):
            context |= upload_context(principal, collections=context["choices"]["collections"])
    response = render_part(request, TEMPLATE, part, context, problem=problem)
    if is_part(request) and part == "list":
        response.headers["HX-Push-Url"] = _list_path(narrowed)
    return response


def _list_path(narrowed: DocumentFilter) -> str:
    return reverse("documents") + (f"?{narrowed.query}" if narrowed.query else "")


def show_list(request: HttpRequest, principal: Principal) -> HttpResponse:
    """After an action: the list as it was narrowed, whole or as its part."""
    if is_part(request):
        return render_documents(request, principal)
    return redirect(_list_path(DocumentFilter.read(request.GET)))
