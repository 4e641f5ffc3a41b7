"""Rating an answer and asking for a document, on the page where one stands."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST
from rest_framework.exceptions import ValidationError

from feedback.api.requests import DocumentRequestChangeForm, DocumentRequestForm
from feedback.api.views import RatingForm
from feedback.models import DocumentRequest, Feedback
from feedback.ratings import give_rating, withdraw_rating
from feedback.requests import answer_request, request_document, requests_visible_to
from feedback.templatetags.ratings import STATES, rating_context
from knowledge.access import access_answer
from knowledge.models import Answer
from knowledge.views.shown import place_of, uuid_in
from ragsite.core.problems import Problem
from tenants.access import Principal, access_one
from tenants.models import Ability
from tenants.pages import is_part, member_page, render_part, shell_context
from tenants.rest import problem_of

ASK, MANAGE = Ability.ASK.value, Ability.MANAGE.value
PAGE = 50


def _back_to(answer: Answer) -> HttpResponse:
    conversation = answer.conversation_id
    return redirect(place_of(conversation, answer.pk, earlier=True) if conversation else "ask")


def _read_form(form: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """What a form of the API makes of a page's.

    Raises:
        Problem: 400 that names each wrong field.
    """
    read = form(data=values, partial=True)
    try:
        read.is_valid(raise_exception=True)
    except ValidationError as error:
        raise problem_of(error) or error from None
    data: dict[str, Any] = read.validated_data
    return data


@require_POST
@member_page
def rate(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Thumbs, or the form under them; htmx gets the part of the page that shows them."""
    principal.require(ASK)
    answer = access_answer(principal.membership, id)
    if "withdraw" in request.POST:
        if own := Feedback.objects.visible_to(principal.membership).filter(answer=answer).first():
            withdraw_rating(principal=principal, feedback=own)
        rating = None
    else:
        rating = give_rating(principal=principal, answer=answer, values=_rating_values(request))
    if not is_part(request):
        return _back_to(answer)
    asks_why = rating is not None and "more" not in request.POST
    context = rating_context(request, str(id), rating, asks_why=asks_why, said=True)
    return render(request, "feedback/_rating.html", context)


def _rating_values(request: HttpRequest) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    if request.POST.get("helpful") in ("true", "false"):
        sent["helpful"] = request.POST["helpful"] == "true"
    if "more" in request.POST:  # the whole form: what is not in it was taken out
        sent["reasons"] = request.POST.getlist("reasons")
        sent["rating"] = request.POST.get("rating") or None
        sent["comment"] = request.POST.get("comment", "")
        sent["correction"] = request.POST.get("correction", "")
    if not sent:
        raise Problem(400, "invalid", _("Say whether it was helpful."))
    return _read_form(RatingForm, sent)


@require_POST
@member_page
def request_for_answer(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Asks for the document that would have answered a question."""
    principal.require(ASK)
    answer = access_answer(principal.membership, id)
    form = _read_form(DocumentRequestForm, {"request_id": str(id), "note": request.POST.get("note", "")})
    row = request_document(principal=principal, answer=answer, note=form["note"])
    if not is_part(request):
        return _back_to(answer)
    return render(request, "feedback/_request.html", {"pk": str(id), "row": row, "said": True})


@require_http_methods(["GET", "POST"])
@member_page
def document_requests(request: HttpRequest, principal: Principal) -> HttpResponse:
    """What members asked for: one's own, or everyone's for those who manage; a POST asks for another."""
    principal.require(ASK)
    problem = None
    if request.method == "POST":
        typed = {name: request.POST.get(name, "") for name in ("question", "note")}
        try:
            form = _read_form(DocumentRequestForm, typed)
            request_document(principal=principal, question=form["question"], note=form["note"])
        except Problem as error:
            problem = error
        else:
            messages.success(request, _("Thank you. Those who look after the documents see your request."))
            return redirect("document-requests")
    return _render_requests(request, principal, problem)


def _render_requests(request: HttpRequest, principal: Principal, problem: Problem | None) -> HttpResponse:
    manages = principal.may(MANAGE)
    status = request.GET.get("status", "open" if manages else "")
    rows = requests_visible_to(principal)
    if status in STATES:
        rows = rows.filter(status=status)
    behind = request.GET.get("behind", "")
    if behind:
        rows = rows.filter(_is_behind(behind))
    found = list(rows.order_by("-created_at", "-id")[: PAGE + 1])
    last = found[PAGE - 1] if len(found) > PAGE else None
    context = {
        "here": "document-requests",
        "manages": manages,
        "rows": found[:PAGE],
        "status": status if status in STATES else "",
        "states": STATES.items(),
        "next": f"{last.created_at.isoformat()}~{last.pk}" if last else "",
        "typed": request.POST if problem else {},
    }
    return render_part(
        request, "feedback/requests.html", "list", shell_context(principal) | context, problem=problem
    )


def _is_behind(cursor: str) -> Q:
    stamp, _separator, pk = cursor.partition("~")
    try:
        created_at = parse_datetime(stamp)
    except ValueError:
        created_at = None
    if created_at is None or created_at.tzinfo is None:
        raise Problem(400, "invalid-cursor", _("This page does not exist: begin at the first page."))
    return Q(created_at__lt=created_at) | Q(created_at=created_at, pk__lt=uuid_in(pk))


@require_POST
@member_page
def answer_document_request(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Says what became of a request."""
    principal.require(MANAGE)
    row: DocumentRequest = access_one(requests_visible_to(principal), id)
    sent = {name: request.POST[name] for name in ("status", "reply") if name in request.POST}
    changed = answer_request(
        principal=principal, request=row, changes=_read_form(DocumentRequestChangeForm, sent)
    )
    if not is_part(request):
        return redirect("document-requests")
    context = {"one": changed, "manages": True}
    return render_part(request, "feedback/requests.html", "row", shell_context(principal) | context)
