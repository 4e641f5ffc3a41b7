"""What the member themselves said of the answers on a page; the answers' own views know nothing of it."""

from dataclasses import dataclass, field
from typing import Any

from django import template
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from feedback.models import DocumentRequest, Feedback

register = template.Library()

REASONS: dict[str, Promise] = {
    Feedback.Reason.WRONG: _("It is wrong"),
    Feedback.Reason.INCOMPLETE: _("Something is missing"),
    Feedback.Reason.OUTDATED: _("It is out of date"),
    Feedback.Reason.BAD_SOURCES: _("The sources do not fit"),
    Feedback.Reason.UNCLEAR: _("It is hard to understand"),
    Feedback.Reason.SLOW: _("It took too long"),
    Feedback.Reason.OTHER: _("Something else"),
}
STATES: dict[str, Promise] = {
    DocumentRequest.Status.OPEN: _("open"),
    DocumentRequest.Status.DONE: _("done"),
    DocumentRequest.Status.DECLINED: _("declined"),
}


@dataclass(frozen=True)
class Given:
    """A member's ratings and requests, by the answer's id."""

    ratings: dict[str, Feedback] = field(default_factory=dict)
    requests: dict[str, DocumentRequest] = field(default_factory=dict)


@register.simple_tag(takes_context=True)
def given_to(context: Any, answers: Any) -> Given:
    """What the member said of ``answers``: one query for the ratings, one for requests where any could be."""
    ids = [answer.data["request_id"] for answer in answers]
    unanswered = [answer.data["request_id"] for answer in answers if not answer.data["answered"]]
    membership = context["request"].principal.membership
    ratings = Feedback.objects.visible_to(membership).filter(answer__in=ids) if ids else ()
    requests = (
        DocumentRequest.objects.visible_to(membership).filter(answer__in=unanswered) if unanswered else ()
    )
    return Given({str(f.answer_id): f for f in ratings}, {str(r.answer_id): r for r in requests})


@register.inclusion_tag("feedback/_rating.html", takes_context=True)
def rating_of(context: Any, answer: Any) -> dict[str, Any]:
    """Thumbs, and after them why."""
    pk = answer.data["request_id"]
    given = context.get("given") or given_to(context, [answer])
    return rating_context(context["request"], pk, given.ratings.get(pk))


@register.inclusion_tag("feedback/_request.html", takes_context=True)
def request_of(context: Any, answer: Any) -> dict[str, Any]:
    """The form that asks for a document, or what became of the request."""
    pk = answer.data["request_id"]
    given = context.get("given") or given_to(context, [answer])
    return {"request": context["request"], "pk": pk, "row": given.requests.get(pk)}


def rating_context(request: Any, pk: str, rating: Feedback | None, **more: Any) -> dict[str, Any]:
    """What ``feedback/_rating.html`` shows."""
    reasons = [(value, words, bool(rating and value in rating.reasons)) for value, words in REASONS.items()]
    return {"request": request, "pk": pk, "rating": rating, "reasons": reasons, "grades": range(1, 6)} | more


@register.filter
def state_words(status: str) -> Any:
    """A request's status in words."""
    return STATES.get(status, status)
