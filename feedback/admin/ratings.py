"""The ratings themselves; they are their members' own, and never changed here."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from feedback.admin.filters import RatingFilter, name_reasons
from feedback.models import Feedback
from knowledge.admin.answers import WIDE
from knowledge.admin.trace import withheld_answers
from tenants.admin_base import ReadOnlyTenantAdmin
from tenants.admin_lists import DayFilter, MemberFilter, at, yes_or_no
from tenants.models import Ability

HIDDEN = _("withheld: your role may not read everything that the answer rests on")


@admin.register(Feedback)
class FeedbackAdmin(ReadOnlyTenantAdmin):
    abilities = (Ability.MANAGE, Ability.REVIEW)
    list_display = ("question", "rating", "helpful", "shown_reasons", "user", at("created_at"))
    list_filter = (RatingFilter, yes_or_no("helpful"), ("created_at", DayFilter), MemberFilter)
    search_fields = ("answer__question", "comment")
    search_help_text = _(
        "Words of the question or the comment, in the newest 10,000 ratings, or the id of an answer"
    )
    search_whole = False
    search_ids = ("pk", "answer_id")
    list_select_related = ("answer", "user")
    fields = (
        "question",
        "user",
        "rating",
        "helpful",
        "shown_reasons",
        "shown_comment",
        "shown_correction",
        "created_at",
        "updated_at",
    )
    export_fields = (
        "answer_id",
        "question",
        "user",
        "rating",
        "helpful",
        "shown_reasons",
        "comment",
        "correction",
        "created_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # The ids of the documents stay: by them a comment is shown or withheld.
        wide = [f"answer__{name}" for name in WIDE if name not in ("document_ids", "depends_on")]
        rows: QuerySet[Any] = super().get_queryset(request).select_related("answer", "user")
        return rows.defer(*wide)

    @admin.display(description=_("question"))
    def question(self, feedback: Feedback) -> str:
        return feedback.answer.question[:200]

    @admin.display(description=_("reasons"))
    def shown_reasons(self, feedback: Feedback) -> str:
        return name_reasons(feedback.reasons)

    @admin.display(description=_("comment"))
    def shown_comment(self, feedback: Feedback) -> str:
        return str(HIDDEN) if getattr(feedback, "withheld", False) else feedback.comment

    @admin.display(description=_("correction"))
    def shown_correction(self, feedback: Feedback) -> str:
        return str(HIDDEN) if getattr(feedback, "withheld", False) else feedback.correction

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        found: Any = super().get_object(request, object_id, from_field)
        if found is not None:
            found.withheld = bool(withheld_answers([found.answer], self.principal(request)))
        return found

    def export_rows(self, request: HttpRequest, rows: QuerySet[Any]) -> Iterator[list[Any]]:
        # A comment may quote what its writer could read and the reader may not.
        principal, found = self.principal(request), list(rows)
        withheld = withheld_answers([each.answer for each in found], principal)
        for each in found:
            if str(each.answer_id) in withheld:
                each.comment = each.comment and str(HIDDEN)
                each.correction = each.correction and str(HIDDEN)
        return super().export_rows(request, found)  # type: ignore[arg-type]
