"""A document's text, at the passage that was cited."""

from bisect import bisect_right
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from knowledge.access import access_answer, access_document
from knowledge.models import Answer, Chunk, Document
from knowledge.rendering import extent_of, heading_levels, render_document
from knowledge.views.shown import describe_age, place_of, source_href, uuid_in
from knowledge.windows import Window
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Ability, Membership
from tenants.pages import member_page, shell_context

ASK = Ability.ASK.value


@require_GET
@member_page
def document_page(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """A document's extracted text, with the passage that was cited marked."""
    principal.require(ASK)
    membership = principal.membership
    document = access_document(membership, id)
    text = document.text
    passage = _passage(request, text)
    answer = _answer_of(request, membership)
    cited = _cited_text(request, answer, document)
    moved = False
    if cited and passage and text[slice(*passage)] != cited:
        # The document was indexed anew since: the passage is looked for by its words.
        found = text.find(cited)
        passage = (found, found + len(cited)) if found >= 0 else None
        moved = passage is None
    at = _number(request, "at")
    extent = extent_of(document.media_type)
    window = Window.around(text, at if at is not None else passage[0] if passage else 0, extent=extent)
    paths = Chunk.objects.visible_to(membership).filter(document=document)
    headings = (
        {}
        if document.media_type == "text/markdown"
        else heading_levels(paths.values_list("heading_path", flat=True))
    )
    record_by(principal, "document.read", document, {"title": document.title})
    context = {
        "document": document,
        "shown_tags": document.tags,
        "age": describe_age(document.updated_at),
        "body": render_document(
            text,
            media_type=document.media_type,
            window=window,
            passage=passage,
            pages=document.pages,
            headings=headings,
        ),
        "passage": passage,
        "passage_moved": moved,
        "page_count": len(document.pages),
        "page": bisect_right(document.pages, passage[0]) if passage and document.pages else None,
        "others": _other_passages(answer, document, n=_number(request, "n")),
        "back": place_of(answer.conversation_id, answer.pk, earlier=True)
        if answer and answer.conversation_id
        else "",
        "before": window.before(text, extent=extent),
        "after": window.after(text, extent=extent),
    }
    return render(request, "knowledge/document.html", shell_context(principal) | context)


def _number(request: HttpRequest, name: str) -> int | None:
    raw = request.GET.get(name, "")
    return int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 12 else None


def _passage(request: HttpRequest, text: str) -> tuple[int, int] | None:
    start, end = _number(request, "start"), _number(request, "end")
    if start is None or end is None or not start < end <= len(text):
        return None
    return start, end


def _answer_of(request: HttpRequest, membership: Membership) -> Answer | None:
    """The answer that the reader comes from, if it is one of theirs."""
    try:
        return access_answer(membership, uuid_in(request.GET.get("answer", "")))
    except Problem:
        return None


def _other_passages(answer: Answer | None, document: Document, *, n: int | None) -> list[dict[str, Any]]:
    """The other passages of this document that the answer was given."""
    if answer is None:
        return []
    return [
        {"n": source["n"], "page": source["page"], "href": source_href(source, answer=str(answer.pk))}
        for source in answer.sources
        if source["document_id"] == str(document.pk) and source["n"] != n
    ]


def _cited_text(request: HttpRequest, answer: Answer | None, document: Document) -> str:
    n = _number(request, "n")
    for source in answer.sources if answer else ():
        if source["n"] == n and source["document_id"] == str(document.pk):
            return str(source["text"])
    return ""
