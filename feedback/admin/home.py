"""The admin's home page: the figures that matter to whoever opens it."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from feedback.admin.figures import (
    Figure,
    as_bytes,
    as_change,
    as_percent,
    as_seconds,
    as_share,
    as_time,
    as_votes,
    list_link,
)
from feedback.admin.platform import platform_home
from feedback.reports import satisfaction, waiting_work
from knowledge.reports import AnswerDay, answer_figures, index_size, job_days
from tenants.admin_charts import Chart, Series
from tenants.admin_operator import on_platform
from tenants.admin_periods import CHOICES, days_asked_for
from tenants.admin_site import may_in_tenant
from tenants.models import Ability
from tenants.periods import Days
from tenants.templatetags.people import money, thousands

# Beside a longer period the one before would double what is counted.
COMPARED_UP_TO = 30


def add_figures(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's ``DASHBOARD_CALLBACK``."""
    days = days_asked_for(request.GET.get("days"))
    if on_platform(request):
        shown = platform_home(days)
    elif may_in_tenant(request, Ability.MANAGE):
        shown = tenant_home(days)
    else:
        shown = reviewer_home(days)
    periods = [
        {"title": _("%(n)d days") % {"n": count}, "link": f"?days={count}", "active": count == len(days)}
        for count in CHOICES
    ]
    return context | {"days": days, "periods": periods} | shown


def tenant_home(days: Days) -> dict[str, Any]:
    """For those who manage: everything."""
    answers, jobs, rated, size = answer_figures(days), job_days(days), satisfaction(days), index_size()
    before = answer_figures(days.before()) if len(days) <= COMPARED_UP_TO else None
    total = answers.total
    then = before.total if before else AnswerDay()
    failing = sum(day.failed for day in jobs)
    work = waiting_work()
    since = {"created_at_from": days.first, "created_at_to": days.last}
    reviews = reverse("admin:feedback_review_changelist")
    figures = [
        Figure(
            _("Questions"),
            thousands(total.questions),
            list_link("knowledge_answer", **since),
            as_change(total.questions, then.questions),
        ),
        Figure(
            _("People asking"),
            thousands(answers.active),
            list_link("tenants_membership"),
            as_change(answers.active, before.active if before else 0),
        ),
        Figure(
            _("Cost"),
            money(total.cost),
            f"{reverse('admin:costs')}?days={len(days)}",
            as_change(total.cost, then.cost),
        ),
        Figure(
            _("Helpful"),
            as_percent(rated.total.helpful, rated.total.voted),
            reviews,
            as_votes(rated.total.voted),
        ),
        Figure(
            _("Average rating"),
            "–" if rated.total.average is None else number_format(rated.total.average, 1),
            list_link("feedback_feedback", **since),
            _("of 5, %(n)s ratings") % {"n": thousands(rated.total.rated)} if rated.total.rated else "",
        ),
        Figure(
            _("Time to answer, p50"),
            as_time(total.latency(0.5)),
            "",
            _("p95 %(time)s") % {"time": as_time(total.latency(0.95))} if total.questions else "",
        ),
        Figure(
            _("From the cache"),
            as_percent(total.cached, total.questions),
            list_link("knowledge_answer", status="cached", **since),
        ),
        Figure(
            _("Not in the documents"),
            as_percent(total.unanswered, total.questions),
            list_link("knowledge_answer", status="unanswered", **since),
        ),
        Figure(
            _("Jobs failed"),
            thousands(failing),
            list_link("knowledge_job", state__exact="FAILURE", **since),
            "",
            alert=bool(failing),
        ),
        Figure(
            _("Indexed documents"),
            thousands(size.documents),
            list_link("knowledge_document"),
            _("%(chunks)s passages, %(size)s")
            % {"chunks": thousands(size.chunks), "size": as_bytes(size.size)},
        ),
        Figure(_("Answers to review"), thousands(work.reviews), reviews, alert=bool(work.reviews)),
        Figure(
            _("Documents requested"),
            thousands(work.requests),
            list_link("feedback_documentrequest", status__exact="open"),
        ),
    ]
    return {
        "figures": figures,
        "charts": _charts(days, answers.days, jobs, rated.days),
        "numbers": _numbers(days, answers.days, jobs, rated.days),
    }


def reviewer_home(days: Days) -> dict[str, Any]:
    """For those who review and do not manage: what waits, and what members think."""
    rated, work = satisfaction(days), waiting_work()
    figures = [
        Figure(_("Answers to review"), thousands(work.reviews), reverse("admin:feedback_review_changelist")),
        Figure(
            _("Documents requested"),
            thousands(work.requests),
            list_link("feedback_documentrequest", status__exact="open"),
        ),
        Figure(
            _("Helpful"), as_percent(rated.total.helpful, rated.total.voted), "", as_votes(rated.total.voted)
        ),
        Figure(
            _("Average rating"), "–" if rated.total.average is None else number_format(rated.total.average, 1)
        ),
    ]
    return {"figures": figures, "charts": _rating_charts(days, rated.days)}


def _charts(days: Days, answers: list[AnswerDay], jobs: Any, rated: Any) -> list[Chart]:
    labels = list(days)
    plain = [day.questions - day.cached - day.missed - day.failed for day in answers]
    return [
        Chart(
            _("Questions per day"),
            "bar",
            labels,
            [
                Series(_("answered"), plain),
                Series(_("from the cache"), [day.cached for day in answers], "soft"),
                Series(_("not in the documents"), [day.missed for day in answers], "warn"),
                Series(_("failed or stopped"), [day.failed for day in answers], "bad"),
            ],
            stacked=True,
        ),
        Chart(_("People asking per day"), "line", labels, [Series(_("people"), [d.users for d in answers])]),
        Chart(
            _("Cost per day"), "bar", labels, [Series(_("US dollars"), [d.cost for d in answers])], unit="$"
        ),
        Chart(
            _("Time to answer"),
            "line",
            labels,
            [
                Series("p50", [as_seconds(d.latency(0.5)) for d in answers]),
                Series("p95", [as_seconds(d.latency(0.95)) for d in answers], "warn"),
            ],
            unit="s",
        ),
        *_rating_charts(days, rated),
        Chart(
            _("Shares of the questions"),
            "line",
            labels,
            [
                Series(_("from the cache"), [as_share(d.cached, d.questions) for d in answers]),
                Series(
                    _("not in the documents"), [as_share(d.unanswered, d.questions) for d in answers], "warn"
                ),
            ],
            unit="%",
            highest=100,
        ),
        Chart(
            _("Jobs per day"),
            "bar",
            labels,
            [
                Series(_("done"), [day.finished for day in jobs], "soft"),
                Series(_("failed"), [day.failed for day in jobs], "bad"),
            ],
            stacked=True,
        ),
    ]


def _rating_charts(days: Days, rated: Any) -> list[Chart]:
    return [
        Chart(
            _("Helpful"),
            "line",
            list(days),
            [Series(_("helpful"), [as_share(day.helpful, day.voted) for day in rated], "good")],
            unit="%",
            highest=100,
        ),
        Chart(
            _("Average rating"),
            "line",
            list(days),
            [Series(_("of 5"), [day.average for day in rated], "good")],
            highest=5,
        ),
    ]


def _numbers(days: Days, answers: list[AnswerDay], jobs: Any, rated: Any) -> dict[str, Any]:
    """The charts as a table, newest day first."""
    rows = [
        [
            day,
            thousands(answer.questions),
            thousands(answer.users),
            as_percent(answer.cached, answer.questions),
            as_percent(answer.unanswered, answer.questions),
            money(answer.cost),
            as_time(answer.latency(0.5)),
            as_time(answer.latency(0.95)),
            as_percent(rating.helpful, rating.voted),
            "–" if rating.average is None else number_format(rating.average, 1),
            thousands(job.failed),
        ]
        for day, answer, rating, job in zip(days, answers, rated, jobs, strict=True)
    ]
    headers = (
        *(_("Day"), _("Questions"), _("People"), _("From the cache"), _("Not in the documents"), _("Cost")),
        *("p50", "p95", _("Helpful"), _("Rating"), _("Jobs failed")),
    )
    return {"headers": headers, "rows": rows[::-1]}
