"""Rating an answer."""

from datetime import timedelta
from typing import Any

from django.db import IntegrityError
from django.db.models import Count, Q
from django.utils import timezone

from feedback.models import Feedback
from feedback.review import COMPLAINT_UP_TO, THUMB_DOWN, note_rating
from knowledge.answering.semantic import heed_ratings
from knowledge.answering.threshold import DAYS
from knowledge.model_settings import learn_threshold
from knowledge.models import Answer
from ragsite.core.observability import FEEDBACK
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.scope import atomic

SEMANTIC = "semantic"
# A helpful answer may have no number, and a thumb down weighs as the lower half of them.
BAD = Q(rating__isnull=False, rating__lte=THUMB_DOWN) | Q(helpful__isnull=False, helpful=False)
GOOD = Q(rating__isnull=False, rating__gt=COMPLAINT_UP_TO) | Q(helpful__isnull=False, helpful=True)

VALUES = ("rating", "helpful", "reasons", "comment", "correction")


def _detail(feedback: Feedback) -> dict[str, Any]:
    return {"answer": str(feedback.answer_id), "rating": feedback.rating, "helpful": feedback.helpful}


def rate_answer(*, principal: Principal, answer: Answer, values: dict[str, Any]) -> Feedback:
    """The member's feedback on an answer.

    Args:
        values: ``rating`` 1–5, ``helpful``, ``reasons``, ``comment``, ``correction``; at least one of them.

    Raises:
        Problem: 409 when the member has rated this answer already.
    """
    feedback = Feedback(answer=answer, user=principal.membership.user, **values)
    try:
        with atomic():
            feedback.save(force_insert=True)
            record_by(principal, "feedback.create", feedback, _detail(feedback))
            note_rating(feedback)
    except IntegrityError:
        raise Problem(409, "conflict", "You have rated this answer already: change that rating.") from None
    _tell_cache(answer)
    FEEDBACK.labels(str(feedback.rating or ("helpful" if feedback.helpful else "other"))).inc()
    return feedback


def give_rating(*, principal: Principal, answer: Answer, values: dict[str, Any]) -> Feedback:
    """Rates an answer, or changes the member's rating of it: what a page's form does, which may be sent twice.

    Raises:
        Problem: 400 when nothing would be left of the rating.
    """
    own = Feedback.objects.visible_to(principal.membership).filter(answer=answer)
    feedback: Feedback | None = own.first()
    if feedback is None:
        try:
            return rate_answer(principal=principal, answer=answer, values=values)
        except Problem as problem:
            if problem.status != 409:
                raise
            feedback = own.get()
    return change_rating(principal=principal, feedback=feedback, values=values)


def change_rating(*, principal: Principal, feedback: Feedback, values: dict[str, Any]) -> Feedback:
    """Changes some of the values.

    Raises:
        Problem: 400 when nothing would be left of the rating.
    """
    for name, value in values.items():
        setattr(feedback, name, value)
    if all(getattr(feedback, name) in (None, "", []) for name in VALUES):
        raise Problem(
            400,
            "invalid",
            "Nothing would be left of the rating: withdraw it instead.",
            errors=[FieldProblem("rating", "Give a rating, helpful, a reason or a comment.")],
        )
    with atomic():
        feedback.save()
        record_by(principal, "feedback.change", feedback, _detail(feedback))
        note_rating(feedback)
    _tell_cache(feedback.answer)
    return feedback


def withdraw_rating(*, principal: Principal, feedback: Feedback) -> None:
    """Removes the feedback."""
    with atomic():
        record_by(principal, "feedback.delete", feedback, _detail(feedback))
        feedback.delete()
        note_rating(feedback)
    _tell_cache(feedback.answer)


def _tell_cache(answer: Answer) -> None:
    """What members think of an answer, for the cache that shows it for other words."""
    ratings = Feedback.objects.filter(answer=answer)
    heed_ratings(
        tenant_id=answer.tenant_id,
        question=answer.standalone_question or answer.question,
        is_bad=ratings.filter(BAD).exists(),
    )
    if answer.cache == SEMANTIC:
        since = timezone.now() - timedelta(days=DAYS)
        counts = Feedback.objects.filter(answer__cache=SEMANTIC, created_at__gte=since).aggregate(
            good=Count("pk", filter=GOOD & ~BAD), bad=Count("pk", filter=BAD)
        )
        learn_threshold(**counts)
