"""The ratings themselves; they are their members' own, and never changed here."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db.models import Case, F, QuerySet, TextField, Value, When
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from feedback.admin.filters import RatingFilter, name_reasons
from feedback.models import Feedback
from knowledge.admin.answers import WIDE
from knowledge.answering.record import readable_documents
from tenants.access import Principal
from tenants.admin_base import ReadOnlyTenantAdmin
from tenants.admin_lists import DayFilter, MemberFilter, at, newest_of, yes_or_no
from tenants.models import Ability

HIDDEN = _("withheld: your role may not read everything that the answer rests on")


def withheld_ratings(ratings: list[Feedback], principal: Principal) -> list[Feedback]:
    """Those of answers that the reader may not read: a comment may quote what its writer could."""
    readable = readable_documents([each.answer for each in ratings], membership=principal.membership)
    return [each for each in ratings if not readable >= each.answer.needed_ids]


@admin.register(Feedback)
class FeedbackAdmin(ReadOnlyTenantAdmin):
    abilities = (Ability.MANAGE, Ability.REVIEW)
    list_display = ("question", "rating", "helpful", "shown_reasons", "user", at("created_at"))
    list_filter = (RatingFilter, yes_or_no("helpful"), ("created_at", DayFilter), MemberFilter)
    search_fields = ("answer__question", "searched_comment")
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

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if search_term.strip():
            # Whether a search finds what is withheld would tell it, letter by letter.
            written = newest_of(queryset).exclude(comment="")
            hidden = withheld_ratings(list(written), self.principal(request))
            comment = Case(
                When(pk__in=[each.pk for each in hidden], then=Value("", TextField())), default=F("comment")
            )
            queryset = queryset.annotate(searched_comment=comment)
        return super().get_search_results(request, queryset, search_term)

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
            found.withheld = bool(withheld_ratings([found], self.principal(request)))
        return found

    def export_rows(self, request: HttpRequest, rows: QuerySet[Any]) -> Iterator[list[Any]]:
        found = list(rows)
        for each in withheld_ratings(found, self.principal(request)):
            each.comment = each.comment and str(HIDDEN)
            each.correction = each.correction and str(HIDDEN)
        return super().export_rows(request, found)  # type: ignore[arg-type]
