"""Asking, and going on in a conversation."""

from typing import Any
from uuid import UUID

from django.db.models import F, Func
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from knowledge.access import access_answer, access_conversation
from knowledge.answering.answer import collect_answer, new_question_id
from knowledge.answering.journey import Question
from knowledge.answering.services import gateway
from knowledge.api.shapes import QuestionForm
from knowledge.config import answer_config
from knowledge.models import Answer, Collection, Conversation, Document
from knowledge.views.shown import ShownAnswer, place_of, show_answers, uuid_in
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.models import Ability, Membership
from tenants.pages import member_page, render_page, render_problem, shell_context, to_sign_in
from tenants.rest import problem_of

RECENT = 20
EXAMPLES = 3
ASK = Ability.ASK.value


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
        answers = show_answers(rows, membership)
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
    return redirect(place_of(answer["conversation"], answer["request_id"]))


def _render_again(
    request: HttpRequest, principal: Principal, typed: dict[str, Any], problem: Problem
) -> HttpResponse:
    conversation = None
    if typed["conversation"]:
        conversation = access_conversation(principal.membership, uuid_in(typed["conversation"]))
    return _render_ask(request, principal, conversation=conversation, form=typed, problem=problem)


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
    shown = show_answers([answer], principal.membership)[0]
    return render(request, "knowledge/_answer.html", {"answer": shown})
