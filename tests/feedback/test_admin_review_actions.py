"""Which ratings open a review, and what reviewers make of it."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from feedback.models import Feedback, Review
from feedback.ratings import change_rating, rate_answer, withdraw_rating
from feedback.review import beyond, change_review, change_reviews, next_review, rating_of, reviewers
from knowledge.models import Answer
from ragsite.core.problems import Problem
from tenants.models import AuditEvent
from tenants.scope import atomic, scope
from tests.tenants.admin_cast import add_reviewer
from tests.tenants.counting import without_scope

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


@pytest.fixture
def acme(cast: Any) -> Any:
    with scope(tenant_id=cast.acme.pk, tags=None):
        yield cast


def ask(member: Any, question: str = "What is the hold timer?") -> Answer:
    answer: Answer = Answer.objects.create(
        user=member.membership.user, role_name="r", question=question, endpoint="query", status="success"
    )
    return answer


def rate(member: Any, answer: Answer, **values: Any) -> Feedback:
    return rate_answer(principal=member.principal, answer=answer, values=values)


@pytest.mark.parametrize(
    ("values", "mark"),
    [
        ({"rating": 1}, 1),
        ({"rating": 3}, 3),
        ({"rating": 4}, None),
        ({"helpful": True}, None),
        ({"helpful": False}, 2),
        ({"helpful": False, "rating": 1}, 1),
        ({"helpful": False, "rating": 5}, 2),
        ({"rating": 5, "reasons": ["slow"]}, 3),
        ({"helpful": True, "correction": "It is 30."}, 3),
        ({"comment": "Nice"}, None),
        ({"correction": "  "}, None),
    ],
)
def test_what_counts_as_a_complaint(values: dict[str, Any], mark: int | None) -> None:
    assert rating_of(Feedback(**values)) == mark


def test_a_complaint_opens_a_review_and_praise_none(acme: Any) -> None:
    good, bad = ask(acme.nina), ask(acme.nina)
    rate(acme.nina, good, rating=5, helpful=True)
    rate(acme.nina, bad, rating=2)
    review = Review.objects.get()
    assert (review.answer_id, review.status, review.worst, review.ratings) == (bad.pk, "open", 2, 1)
    assert review.tenant_id == acme.acme.pk


def test_the_lowest_rating_and_how_many_there_are_are_kept(acme: Any) -> None:
    answer = ask(acme.nina)
    mine = rate(acme.nina, answer, rating=3)
    theirs = rate(acme.ada, answer, rating=1)
    rate(acme.sam, answer, rating=5)
    review = Review.objects.get()
    assert (review.worst, review.ratings) == (1, 3)
    change_rating(principal=acme.ada.principal, feedback=theirs, values={"rating": 2})
    review.refresh_from_db()
    assert (review.worst, review.ratings) == (2, 3)
    withdraw_rating(principal=acme.ada.principal, feedback=theirs)
    review.refresh_from_db()
    assert (review.worst, review.ratings) == (3, 2)
    change_rating(principal=acme.nina.principal, feedback=mine, values={"rating": 5})
    assert not Review.objects.exists()  # nobody complains any more, and nobody had begun


def test_a_review_that_somebody_has_begun_outlives_its_complaint(acme: Any) -> None:
    answer = ask(acme.nina)
    rating = rate(acme.nina, answer, rating=1)
    review = Review.objects.get()
    change_review(principal=acme.ada.principal, review=review, changes={"note": "The runbook is old."})
    withdraw_rating(principal=acme.nina.principal, feedback=rating)
    review.refresh_from_db()
    assert (review.worst, review.note) == (3, "The runbook is old.")


def test_a_new_complaint_opens_a_closed_review_again(acme: Any) -> None:
    answer = ask(acme.nina)
    rate(acme.nina, answer, rating=2)
    review = Review.objects.get()
    change_review(
        principal=acme.ada.principal, review=review, changes={"status": "resolved", "note": "Done."}
    )
    assert review.closed_by == acme.ada.membership.user and review.closed_at is not None
    rate(acme.sam, answer, rating=5)
    review.refresh_from_db()
    assert review.status == "resolved"
    rate(acme.ada, answer, helpful=False)
    review.refresh_from_db()
    assert (review.status, review.closed_at, review.closed_by, review.note) == ("open", None, None, "Done.")


def test_how_often_a_question_was_asked_is_counted_in_ninety_days_and_one_tenant(acme: Any) -> None:
    answer = ask(acme.nina)
    for _ in range(3):
        ask(acme.sam)
    ask(acme.sam, "What is the hold timer? Really?")
    old = ask(acme.sam)
    Answer.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=91))
    with scope(tenant_id=acme.globex.pk, tags=None):
        ask(acme.gina)
    rate(acme.nina, answer, rating=1)
    assert Review.objects.get().asked == 4


def plan_of(statement: str) -> str:
    """As the application role, under row-level security, in a table that is too large to walk over."""
    with atomic(), connections["default"].cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        cursor.execute(f"EXPLAIN {statement}")
        return "\n".join(line for (line,) in cursor.fetchall())


def test_counting_how_often_a_question_was_asked_uses_its_index_and_ends(acme: Any) -> None:
    answer = ask(acme.nina)
    with CaptureQueriesContext(connections["default"]) as queries:
        rate(acme.nina, answer, rating=1)
    counted = next(q["sql"] for q in queries.captured_queries if "COUNT(" in q["sql"])
    assert "LIMIT 1000" in counted
    # Many others and their figures, so that the planner does not take the tenant's index as well as the question's.
    many = range(2000)
    Answer.objects.bulk_create(
        Answer(question=f"Question {n}", standalone_question=f"Question {n}") for n in many
    )
    with connections["owner"].cursor() as cursor:
        cursor.execute("ANALYZE knowledge_answer")
    with atomic(), connections["default"].cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexonlyscan = off")
        cursor.execute("SELECT proleakproof FROM pg_proc WHERE proname = 'texteq'")
        assert cursor.fetchone()[0] is True
        same = Answer.objects.filter(question=answer.question).only("pk").order_by()
        cursor.execute(f"EXPLAIN {same.query.sql_with_params()[0]}", same.query.sql_with_params()[1])
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "answers_by_question" in plan, plan


def test_two_who_complain_at_once_make_one_review(cast: Any, in_thread: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with scope(tenant_id=cast.acme.pk, tags=None):
        answer = ask(cast.nina)
    people = [cast.nina, cast.sam, cast.ada, cast.hal]

    def complain(member: Any) -> None:
        try:
            with scope(tenant_id=cast.acme.pk, tags=None):
                rate(member, answer, rating=2)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(complain, people))
    with scope(tenant_id=cast.acme.pk, tags=None):
        review = Review.objects.get()
        assert (review.ratings, review.worst) == (4, 2)


def test_changes_are_audited_and_only_what_changed_is_told(acme: Any) -> None:
    rate(acme.nina, ask(acme.nina), rating=1)
    review = Review.objects.get()
    change_review(
        principal=acme.ada.principal,
        review=review,
        changes={"assignee": acme.ada.membership.user, "note": "x"},
    )
    assert review.status == "in_progress"  # taken up
    event = AuditEvent.objects.get(action="review.change")
    assert event.target_id == str(review.pk) and event.actor_name == "ada"
    assert event.detail == {
        "answer": str(review.answer_id),
        "status": ["open", "in_progress"],
        "assignee": [None, acme.ada.membership.user_id],
        "note": True,
    }


def test_only_those_who_may_review_are_assigned_and_change_anything(acme: Any) -> None:
    rita = add_reviewer(acme)
    rate(acme.nina, ask(acme.nina), rating=1)
    review = Review.objects.get()
    assert list(reviewers().values_list("username", flat=True)) == ["ada", "rita"]
    with pytest.raises(Problem) as refused:
        change_review(principal=acme.nina.principal, review=review, changes={"status": "resolved"})
    assert refused.value.status == 403
    for changes in (
        {"assignee": acme.nina.membership.user},
        {"assignee": acme.gus.membership.user},
        {"status": "gone"},
    ):
        with pytest.raises(Problem) as wrong:
            change_review(principal=rita.principal, review=review, changes=changes)
        assert wrong.value.status == 400
    review.refresh_from_db()
    assert (review.status, review.assignee_id) == ("open", None)


def test_several_are_changed_or_none(acme: Any) -> None:
    for n in range(3):
        rate(acme.nina, ask(acme.nina, f"q{n}"), rating=1)
    changes = {"status": "dismissed"}
    assert change_reviews(principal=acme.ada.principal, reviews=Review.objects.all(), changes=changes) == 3
    assert AuditEvent.objects.filter(action="review.change").count() == 3
    with pytest.raises(Problem):
        change_reviews(principal=acme.ada.principal, reviews=Review.objects.all(), changes={"status": "gone"})
    assert Review.objects.filter(status="dismissed").count() == 3


def test_the_queue_runs_from_the_lowest_and_most_frequent_and_round_again(acme: Any) -> None:
    places = [(1, 9, 1), (1, 2, 5), (1, 2, 1), (2, 50, 9), (3, 1, 1)]
    made = [
        Review.objects.create(answer=ask(acme.nina, f"q{n}"), worst=worst, asked=asked, ratings=ratings)
        for n, (worst, asked, ratings) in enumerate(reversed(places))
    ][::-1]
    queue = Review.objects.all()
    assert list(queue) == made
    walked, at = [made[0]], made[0]
    for _ in made:
        at = Review.objects.get(pk=next_review(queue, at))
        walked.append(at)
    assert walked == [*made, made[0]]
    for before, review in pairwise(made):
        assert next_review(queue, review, backwards=True) == before.pk
    assert next_review(queue, made[0], backwards=True) == made[-1].pk
    assert next_review(queue.filter(pk=made[0].pk), made[0]) is None
    open_ones = queue.filter(status="open")
    for rows in (open_ones, open_ones.filter(beyond(made[1]))):
        with CaptureQueriesContext(connections["default"]) as queries:
            list(rows[:50])
        plan = plan_of(without_scope(queries.captured_queries[0]["sql"]))
        assert "Index Scan using review_queue" in plan and "Sort" not in plan, plan
