"""The pages of engineers: asking, a conversation, a document."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import F, Func
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from knowledge.access import access_answer, access_conversation, access_document
from knowledge.answering.answer import collect_answer, new_question_id
from knowledge.answering.journey import Question
from knowledge.answering.record import present_answers
from knowledge.answering.services import gateway
from knowledge.api.shapes import QuestionForm
from knowledge.config import answer_config
from knowledge.models import Answer, Chunk, Collection, Conversation, Document
from knowledge.rendering import (
    WINDOW_CHARACTERS,
    CitationLink,
    Window,
    excerpt_of,
    heading_levels,
    render_answer,
    render_document,
    section_of,
)
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Ability, Membership
from tenants.rest import problem_of
from tenants.views import member_page, render_page, render_problem, shell_context, to_sign_in

RECENT = 20
EXAMPLES = 3
ASK = Ability.ASK.value


@dataclass(frozen=True)
class ShownSource:
    """A source as a card shows it."""

    data: dict[str, Any]
    href: str
    section: str
    excerpt: str
    age: str
    cited: bool


@dataclass(frozen=True)
class ShownAnswer:
    """An answer as a page shows it; ``data`` is the API's answer object."""

    data: dict[str, Any]
    html: SafeString
    sources: list[ShownSource]
    time: str
    stopped: bool


def describe_age(updated: str | datetime) -> str:
    """How long ago a document changed, in days or coarser."""
    then = parse_datetime(updated) if isinstance(updated, str) else updated
    if then is None:
        return ""
    days = (timezone.now().date() - then.date()).days
    if days < 1:
        return _("today")
    if days < 60:
        return ngettext("%(n)d day ago", "%(n)d days ago", days) % {"n": days}
    if days < 730:
        return ngettext("%(n)d month ago", "%(n)d months ago", days // 30) % {"n": days // 30}
    return ngettext("%(n)d year ago", "%(n)d years ago", days // 365) % {"n": days // 365}


def show_answer(data: dict[str, Any], *, stopped: bool = False) -> ShownAnswer:
    """An answer object, ready for its template."""
    cited = {citation["source"] for citation in data["citations"]}
    sources = []
    for source in data["sources"]:
        place = {"start": source["start"], "end": source["end"]}
        query = urlencode(place | {"answer": data["request_id"], "n": source["n"]})
        sources.append(
            ShownSource(
                data=source,
                href=f"{reverse('document-page', args=[source['document_id']])}?{query}#passage",
                section=section_of(source),
                excerpt=excerpt_of(source),
                age=describe_age(source["updated_at"]),
                cited=source["n"] in cited,
            )
        )
    links = {
        s.data["n"]: CitationLink(
            s.href, _("Source %(n)d: %(title)s") % {"n": s.data["n"], "title": s.data["title"]}
        )
        for s in sources
    }
    ms = data["latency_ms"]
    return ShownAnswer(
        data=data,
        html=render_answer(data["answer"], data["citations"], links=links),
        sources=sources,
        time=f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms",
        stopped=stopped,
    )


def _show_answers(answers: list[Answer], membership: Membership) -> list[ShownAnswer]:
    return [
        show_answer(data, stopped=row.status in ("cancelled", "error"))
        for row, data in zip(answers, present_answers(answers, membership=membership), strict=True)
    ]


def _readable_tags(membership: Membership) -> list[str]:
    """The tags that narrow anything for this member."""
    found = (
        Document.objects.visible_to(membership)
        .annotate(tag=Func(F("tags"), function="unnest"))
        .values_list("tag", flat=True)
        .order_by("tag")
        .distinct()
    )
    readable = membership.role.readable_tags
    return [tag for tag in found if readable is None or tag in readable]


def _examples(membership: Membership) -> list[str]:
    """Questions that this member's own documents answer: one for each of a few collections, by its kind."""
    kind = Collection.ContentClass
    wording = {
        kind.TROUBLESHOOTING: _("What are the first steps in “%(title)s”?"),
        kind.REFERENCE: _("Which rules does “%(title)s” set?"),
        kind.DOCUMENTATION: _("What was decided in “%(title)s”, and why?"),
        kind.CONFIGURATION: _("Which interfaces does “%(title)s” configure?"),
        kind.STATE: _("What needs attention in “%(title)s”?"),
    }
    largest = (
        Document.objects.visible_to(membership)
        .filter(status=Document.Status.INDEXED, chunk_count__gt=0)
        .order_by("collection_id", "-chunk_count", "id")
        .distinct("collection_id")
        .values_list("collection__content_class", "title")
    )
    by_kind = dict(sorted(largest, reverse=True))
    order = [kind.TROUBLESHOOTING, kind.REFERENCE, kind.DOCUMENTATION, kind.CONFIGURATION, kind.STATE]
    return [wording[k] % {"title": by_kind[k]} for k in order if k in by_kind][:EXAMPLES]


def _render_ask(
    request: HttpRequest,
    principal: Principal,
    *,
    conversation: Conversation | None = None,
    form: dict[str, Any] | None = None,
    problem: Problem | None = None,
) -> HttpResponse:
    membership = principal.membership
    answers: list[ShownAnswer] = []
    if conversation is not None:
        rows = list(Answer.objects.filter(conversation=conversation).order_by("created_at", "id")[:200])
        answers = _show_answers(rows, membership)
    collections = (
        Document.objects.visible_to(membership)
        .values_list("collection__slug", "collection__name")
        .order_by("collection__name")
        .distinct()
    )
    context = {
        "conversation": conversation,
        "own": conversation is None or conversation.user_id == membership.user_id,
        "answers": answers,
        "recent": Conversation.objects.shared_or_own(membership)[:RECENT],
        "collections": list(collections),
        "tags": _readable_tags(membership),
        "examples": [] if conversation else _examples(membership),
        "form": form or {},
        "may_ask": principal.may(ASK),
    }
    return render_page(request, "knowledge/ask.html", shell_context(principal) | context, problem=problem)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
async def ask(request: HttpRequest) -> HttpResponse:
    """The Ask page; a POST is a browser without JavaScript that asks."""
    principal: Principal | None = request.principal  # type: ignore[attr-defined]
    if principal is None:
        return await run_db(to_sign_in, request)
    try:
        if request.method == "POST":
            return await _ask_form(request, principal)
        return await run_db(_render_ask, request, principal)
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            raise
        return await run_db(render_problem, request, problem)


async def _ask_form(request: HttpRequest, principal: Principal) -> HttpResponse:
    typed = {
        "question": request.POST.get("question", ""),
        "collections": request.POST.getlist("collections"),
        "tags": request.POST.getlist("tags"),
        "conversation": request.POST.get("conversation") or None,
    }
    try:
        form = QuestionForm(data=typed)
        form.is_valid(raise_exception=True)
        question = Question(
            request_id=new_question_id(request),
            text=form.validated_data["question"],
            endpoint="page",
            collections=tuple(form.validated_data.get("collections", ())),
            tags=tuple(form.validated_data.get("tags", ())),
            conversation=form.validated_data.get("conversation"),
        )
        answer = await collect_answer(
            question=question, principal=principal, config=answer_config(), gateway=gateway()
        )
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            raise
        # What was typed is in the page again, beside what is wrong with it.
        return await run_db(_render_again, request, principal, typed, problem)
    return redirect(_place(answer["conversation"], answer["request_id"]))


def _place(conversation: UUID | str, answer: UUID | str) -> str:
    return f"{reverse('conversation-page', args=[conversation])}#answer-{answer}"


def _render_again(
    request: HttpRequest, principal: Principal, typed: dict[str, Any], problem: Problem
) -> HttpResponse:
    conversation = None
    if typed["conversation"]:
        conversation = access_conversation(principal.membership, _uuid(typed["conversation"]))
    return _render_ask(request, principal, conversation=conversation, form=typed, problem=problem)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return UUID(int=0)  # nobody's


@require_GET
@member_page
def conversation_page(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """A conversation with its answers, and the box for the next question."""
    principal.require(ASK)
    return _render_ask(request, principal, conversation=access_conversation(principal.membership, id))


@require_GET
@member_page
def answer_fragment(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """One answer, as it takes the place of what was streamed."""
    principal.require(ASK)
    answer = access_answer(principal.membership, id)
    shown = _show_answers([answer], principal.membership)[0]
    return render(request, "knowledge/_answer.html", {"answer": shown})


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
    window = Window.around(text, at if at is not None else passage[0] if passage else 0)
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
        "back": _place(answer.conversation_id, answer.pk) if answer and answer.conversation_id else "",
        "before": max(0, window.start - WINDOW_CHARACTERS * 3 // 4) if window.start else None,
        "after": window.end + WINDOW_CHARACTERS // 4 if window.end < len(text) else None,
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
        return access_answer(membership, _uuid(request.GET.get("answer", "")))
    except Problem:
        return None


def _cited_text(request: HttpRequest, answer: Answer | None, document: Document) -> str:
    n = _number(request, "n")
    for source in answer.sources if answer else ():
        if source["n"] == n and source["document_id"] == str(document.pk):
            return str(source["text"])
    return ""
