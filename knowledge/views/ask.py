"""Asking, and going on in a conversation."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import F, Func, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from knowledge.access import access_answer, access_conversation
from knowledge.answering.collect import collect_answer
from knowledge.answering.journey import Question, new_question_id
from knowledge.answering.record import present_answers
from knowledge.answering.services import gateway
from knowledge.answering.spending import usual_tokens
from knowledge.api.question_shapes import QuestionForm
from knowledge.config import answer_config
from knowledge.models import Answer, Conversation, Document
from knowledge.suggestions import example_questions, frequent_questions
from knowledge.views.conversations import side_context
from knowledge.views.shown import ShownAnswer, place_of, show_answers, uuid_in, write_out
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.models import Ability, Membership
from tenants.pages import member_page, render_page, render_problem, shell_context, to_sign_in
from tenants.rates import take_request
from tenants.rest import problem_of

# A page stays small, however long the conversation; the rest is one link away.
SHOWN = 6
LONGEST = 200
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


@dataclass(frozen=True)
class Thread:
    """The part of a conversation that its page shows; ``earlier`` is where the answers before it are."""

    answers: list[ShownAnswer]
    earlier: str = ""


def _read_thread(conversation: Conversation, membership: Membership, *, start: str = "") -> Thread:
    """The latest answers; from the answer ``start`` on, where those leave it out."""
    rows = Answer.objects.filter(conversation=conversation).order_by("-created_at", "-id")
    shown = list(rows[:SHOWN])
    if start and uuid_in(start) not in {row.pk for row in shown}:
        first = rows.filter(pk=uuid_in(start)).first()
        shown = shown if first is None else list(rows.exclude(_is_before(first))[:LONGEST])
    if not shown:
        return Thread([])
    shown.reverse()
    before = list(rows.filter(_is_before(shown[0])).values_list("pk", flat=True)[:SHOWN])
    earlier = f"?{urlencode({'from': str(before[-1])})}#answer-{shown[0].pk}" if before else ""
    return Thread(show_answers(shown, membership), earlier)


def _is_before(answer: Answer) -> Q:
    return Q(created_at__lt=answer.created_at) | Q(created_at=answer.created_at, pk__lt=answer.pk)


def _render_ask(
    request: HttpRequest,
    principal: Principal,
    *,
    conversation: Conversation | None = None,
    form: dict[str, Any] | None = None,
    problem: Problem | None = None,
) -> HttpResponse:
    membership = principal.membership
    start = request.GET.get("from", "")
    thread = _read_thread(conversation, membership, start=start) if conversation else Thread([])
    collections = (
        Document.objects.visible_to(membership)
        .values_list("collection__slug", "collection__name")
        .order_by("collection__name")
        .distinct()
    )
    frequent = [] if conversation else frequent_questions(membership=membership)
    context = {
        "conversation": conversation,
        "own": conversation is None or conversation.user_id == membership.user_id,
        "thread": thread,
        "collections": list(collections),
        "tags": _readable_tags(membership),
        "frequent": frequent,
        "examples": [] if conversation or frequent else example_questions(membership),
        "form": form or _edited(request, thread),
        "may_ask": principal.may(ASK),
    }
    context |= side_context(membership, current=conversation.pk if conversation else None)
    return render_page(request, "knowledge/ask.html", shell_context(principal) | context, problem=problem)


def _edited(request: HttpRequest, thread: Thread) -> dict[str, Any]:
    """A question of this conversation that is to be asked in other words."""
    wanted = request.GET.get("edit", "")
    return next(
        ({"question": one.data["question"]} for one in thread.answers if one.data["request_id"] == wanted), {}
    )


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
        config = answer_config()
        grant = await take_request(principal, tokens=usual_tokens(config))
        question = Question(
            request_id=new_question_id(request),
            text=form.validated_data["question"],
            endpoint="page",
            collections=tuple(form.validated_data.get("collections", ())),
            tags=tuple(form.validated_data.get("tags", ())),
            conversation=form.validated_data.get("conversation"),
            use_cache="fresh" not in request.POST,
            grant=grant,
        )
        answer = await collect_answer(
            question=question, principal=principal, config=config, gateway=gateway()
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
    """One answer, as it takes the place of what was streamed; with ``stale`` the reader is told that it is."""
    principal.require(ASK)
    answer = access_answer(principal.membership, id)
    shown = show_answers([answer], principal.membership)[0]
    context = {"answer": shown, "own": shown.own, "stale": "stale" in request.GET}
    return render(request, "knowledge/_answer.html", context)


@require_GET
@member_page
def answer_text(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """An answer with its sources as plain text, for the clipboard."""
    principal.require(ASK)
    answer = access_answer(principal.membership, id)
    data = present_answers([answer], membership=principal.membership)[0]
    text = write_out(data, site=request.build_absolute_uri("/").rstrip("/"))
    return HttpResponse(text, content_type="text/plain; charset=utf-8")
