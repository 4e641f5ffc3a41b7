"""The review queue: what becomes of answers that members complained about.

A rating keeps its answer's review in its own transaction (``note_rating``); reviewers change it by the actions below.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.models import Feedback, Review
from knowledge.models import Answer
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Ability, Membership, User
from tenants.scope import atomic

COMPLAINT_UP_TO = 3
# A thumb down without a number: worse than “so so”, and nobody has said that it could not be worse.
THUMB_DOWN = 2
ASKED_WITHIN = timedelta(days=90)
ASKED_UP_TO = 1_000
WAITING = (Review.Status.OPEN, Review.Status.IN_PROGRESS)
ORDER = [str(field) for field in Review._meta.ordering or ()]
CLOSED = (Review.Status.RESOLVED, Review.Status.DISMISSED)


def rating_of(feedback: Feedback) -> int | None:
    """What a rating says as 1 to 5 where it complains, the lower the worse; ``None`` where it does not."""
    marks = []
    if feedback.rating is not None and feedback.rating <= COMPLAINT_UP_TO:
        marks.append(feedback.rating)
    if feedback.helpful is False:
        marks.append(THUMB_DOWN)
    if feedback.reasons or feedback.correction.strip():
        marks.append(COMPLAINT_UP_TO)
    return min(marks) if marks else None


def note_rating(feedback: Feedback) -> None:
    """Keeps the review of a rated answer; called in the transaction of the rating, after it was saved or deleted.

    A complaint opens the review, and opens it again when it was closed. Without any complaint left, one that nobody
    has touched is removed.
    """
    stored = feedback.pk is not None
    mark = rating_of(feedback) if stored else None
    if mark is not None:
        # The unique constraint decides between two who complain at once; the row is then locked by both in turn.
        Review.objects.bulk_create([Review(answer_id=feedback.answer_id)], ignore_conflicts=True)
    review = Review.objects.select_for_update(of=("self",)).filter(answer_id=feedback.answer_id).first()
    if review is None:
        return
    ratings = list(Feedback.objects.filter(answer_id=feedback.answer_id))
    marks = [found for each in ratings if (found := rating_of(each)) is not None]
    if not marks and review.status == Review.Status.OPEN and not (review.assignee_id or review.note):
        review.delete()
        return
    review.ratings = max(len(ratings), 1)
    review.worst = min(marks) if marks else COMPLAINT_UP_TO
    if mark is not None:
        review.asked = times_asked(feedback.answer)
        if review.status in CLOSED:
            review.status, review.closed_at, review.closed_by = Review.Status.OPEN, None, None
    review.save()


def times_asked(answer: Answer) -> int:
    """How often the question was asked, word for word, in the 90 days before."""
    same = Answer.objects.filter(question=answer.question, created_at__gte=timezone.now() - ASKED_WITHIN)
    counted: int = same.order_by()[:ASKED_UP_TO].count()
    return max(1, counted)


def change_review(*, principal: Principal, review: Review, changes: dict[str, Any]) -> Review:
    """Changes ``status``, ``assignee`` or ``note``. One that is taken up or handed on is in progress.

    Raises:
        Problem: 403 without the ability, 400 for a status or an assignee that cannot be.
    """
    require_review(principal)
    before = {"status": review.status, "assignee": review.assignee_id, "note": review.note}
    status = changes.get("status", review.status)
    if status not in Review.Status.values:
        wrong = FieldProblem("status", _("Give one of: %(all)s.") % {"all": ", ".join(Review.Status.values)})
        raise Problem(400, "invalid", wrong.detail, errors=[wrong])
    if "assignee" in changes:
        assignee = changes["assignee"]
        is_self = assignee is not None and assignee.pk == principal.membership.user_id
        if assignee is not None and not is_self and not reviewers().filter(pk=assignee.pk).exists():
            wrong = FieldProblem("assignee", _("Choose a member who may review."))
            raise Problem(400, "invalid", wrong.detail, errors=[wrong])
        if assignee is not None and status == Review.Status.OPEN:
            status = Review.Status.IN_PROGRESS
        review.assignee = assignee
    review.note = changes.get("note", review.note)
    if status in CLOSED and review.status not in CLOSED:
        review.closed_at, review.closed_by = timezone.now(), principal.membership.user
    elif status not in CLOSED:
        review.closed_at, review.closed_by = None, None
    review.status = status
    with atomic():
        review.save(update_fields=["status", "assignee", "note", "closed_at", "closed_by", "updated_at"])
        after = {"status": review.status, "assignee": review.assignee_id, "note": review.note}
        record_by(
            principal,
            "review.change",
            review,
            {"answer": str(review.answer_id)}
            | {
                name: [before[name], after[name]]
                for name in ("status", "assignee")
                if before[name] != after[name]
            }
            | ({"note": True} if before["note"] != after["note"] else {}),
        )
    return review


def change_reviews(*, principal: Principal, reviews: Iterable[Review], changes: dict[str, Any]) -> int:
    """The same change to several, each of them audited; all or none."""
    count = 0
    with atomic():
        for review in reviews:
            change_review(principal=principal, review=review, changes=dict(changes))
            count += 1
    return count


def require_review(principal: Principal) -> None:
    """Raises the 403 problem unless the member may review; whoever manages may as well."""
    if not principal.may(Ability.MANAGE):
        principal.require(Ability.REVIEW)


def reviewers() -> "QuerySet[User]":
    """The people who may review in the tenant in force: to them reviews are assigned."""
    able = Q(role__abilities__contains=[Ability.REVIEW]) | Q(role__abilities__contains=[Ability.MANAGE])
    members = Membership.objects.filter(able, status=Membership.Status.ACTIVE, user__is_service=False)
    return User.objects.filter(pk__in=members.values("user_id"), is_active=True).order_by("username")


def beyond(review: Review, *, backwards: bool = False) -> Q:
    """The condition of what comes after (or before) a review in the queue's order."""
    found = Q()
    same: dict[str, Any] = {}
    for field in ORDER:
        name, falls = field.lstrip("-"), field.startswith("-")
        value = getattr(review, name)
        found |= Q(**same, **{f"{name}__{'lt' if falls != backwards else 'gt'}": value})
        same[name] = value
    return found


def next_review(queue: "QuerySet[Review]", review: Review, *, backwards: bool = False) -> UUID | None:
    """The id of the review that follows (or precedes) in ``queue``, beginning again at its other end."""
    order = [field[1:] if field.startswith("-") else f"-{field}" for field in ORDER] if backwards else ORDER
    rows = queue.exclude(pk=review.pk).order_by(*order).values_list("pk", flat=True)
    found: UUID | None = rows.filter(beyond(review, backwards=backwards)).first() or rows.first()
    return found
