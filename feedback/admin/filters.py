"""Filters of the review queue and of what members asked for; each stays within one index."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.contrib.filters.admin import DropdownFilter

from feedback.models import DocumentRequest, Feedback, Review
from feedback.review import COMPLAINT_UP_TO, reviewers

NOBODY, ME = "nobody", "me"
REVIEWERS_LISTED = 100
STATUS_NAMES = {
    Review.Status.OPEN: _("open"),
    Review.Status.IN_PROGRESS: _("in progress"),
    Review.Status.RESOLVED: _("resolved"),
    Review.Status.DISMISSED: _("dismissed"),
}
REQUEST_NAMES = {
    DocumentRequest.Status.OPEN: _("open"),
    DocumentRequest.Status.DONE: _("done"),
    DocumentRequest.Status.DECLINED: _("declined"),
}


class StatusFilter(DropdownFilter):
    """One status at a time, the open ones unless told: each is a range of the index, in the list's order."""

    title = _("status")
    parameter_name = "status"
    all_option = None
    names: dict[Any, Any] = {}
    default = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(value.value, name) for value, name in self.names.items()]

    def value(self) -> str:
        value = super().value()
        return value if value in {status.value for status in self.names} else self.default

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(status=self.value())


class ReviewStatusFilter(StatusFilter):
    names = STATUS_NAMES


class RequestStatusFilter(StatusFilter):
    names = REQUEST_NAMES


class AssigneeFilter(DropdownFilter):
    title = _("assignee")
    parameter_name = "assignee"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        names = reviewers().values_list("username", flat=True)[:REVIEWERS_LISTED]
        return [(ME, _("me")), (NOBODY, _("nobody")), *((f"@{name}", name) for name in names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        if value == ME:
            return queryset.filter(assignee_id=request.user.pk)
        if value == NOBODY:
            return queryset.filter(assignee__isnull=True)
        return queryset.filter(assignee__username=value[1:]) if value.startswith("@") else queryset


class ReasonFilter(DropdownFilter):
    title = _("reason")
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(Feedback.Reason.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value not in Feedback.Reason.values:
            return queryset
        given = Feedback.objects.filter(answer_id=OuterRef("answer_id"), reasons__contains=[value])
        return queryset.filter(Exists(given))


class RatingFilter(DropdownFilter):
    """One of the numbers of a rating; asking the table which it holds would be a walk over all of it."""

    title = _("rating")
    parameter_name = "rating"
    highest = 5

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(str(mark), str(mark)) for mark in range(1, self.highest + 1)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        known = value in {key for key, _name in self.lookup_choices}
        return queryset.filter(**{str(self.parameter_name): int(value)}) if value and known else queryset


class WorstFilter(RatingFilter):
    title = _("lowest rating")
    parameter_name = "worst"
    highest = COMPLAINT_UP_TO


def name_reasons(reasons: Iterable[str]) -> str:
    """Each reason once, in words."""
    names = dict(Feedback.Reason.choices)
    return ", ".join(str(names.get(reason, reason)) for reason in dict.fromkeys(reasons))
