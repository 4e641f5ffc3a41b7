"""The review queue: lowest and most frequent first; one review after the other on one page."""

from copy import copy
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ERROR_FLAG
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from feedback.admin.filters import (
    STATUS_NAMES,
    AssigneeFilter,
    ReasonFilter,
    ReviewStatusFilter,
    WorstFilter,
    name_reasons,
)
from feedback.models import Feedback, Review
from feedback.review import change_review, change_reviews, next_review, reviewers
from knowledge.admin.answers import WIDE
from knowledge.admin.trace import show_answer
from knowledge.models import Answer
from tenants.access import Principal
from tenants.admin_base import TenantModelAdmin
from tenants.admin_lists import at
from tenants.models import Ability, User

STATUS_COLOURS = {"open": "warning", "in_progress": "info", "resolved": "success", "dismissed": "default"}
PRESERVED = "_changelist_filters"
RATINGS_SHOWN = 100
# What a button of the page does beside saving the form, and whether it goes on to the next review.
BUTTONS: dict[str, tuple[dict[str, Any], bool]] = {
    "_next": ({}, True),
    "_resolve": ({"status": Review.Status.RESOLVED.value}, True),
    "_dismiss": ({"status": Review.Status.DISMISSED.value}, True),
    "_assign": ({}, False),
}


class Named:
    """A review under the name of its question, which the page's title shows instead of an id."""

    def __init__(self, review: Review, name: str) -> None:
        self._review, self._name = review, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._review, name)

    def __str__(self) -> str:
        return self._name


class ReviewForm(forms.ModelForm):  # type: ignore[type-arg]
    status = forms.ChoiceField(
        choices=[(value.value, name) for value, name in STATUS_NAMES.items()], widget=UnfoldAdminSelectWidget
    )

    class Meta:
        model = Review
        fields = ("status", "assignee", "note")
        widgets = {"note": UnfoldAdminTextareaWidget(attrs={"rows": 3})}


@admin.register(Review)
class ReviewAdmin(TenantModelAdmin):
    abilities = (Ability.MANAGE, Ability.REVIEW)
    may_change = True
    form = ReviewForm
    change_form_template = "feedback/admin/review.html"
    list_before_template = "feedback/admin/queue.html"
    list_display = (
        "question",
        "shown_worst",
        "asked",
        "ratings",
        "reasons",
        "shown_status",
        "assignee",
        at("created_at"),
    )
    list_filter = (ReviewStatusFilter, WorstFilter, ReasonFilter, AssigneeFilter)
    search_fields = ("answer__question", "note")
    search_help_text = _("Words of the question or the note, or the id of the answer")
    search_whole = False
    search_ids = ("pk", "answer_id")
    fields = ("status", "assignee", "note")
    list_select_related = ("answer", "assignee")
    actions = ("assign_to_me", "resolve", "dismiss", "open_again")
    export_fields = (
        "answer_id",
        "question",
        "worst",
        "asked",
        "ratings",
        "reasons",
        "status",
        "assignee",
        "note",
        "created_at",
        "updated_at",
        "closed_at",
        "closed_by",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        wide = [f"answer__{name}" for name in WIDE]
        given = Prefetch("answer__feedback", Feedback.objects.only("answer_id", "tenant_id", "reasons"))
        rows: QuerySet[Any] = super().get_queryset(request).select_related("answer", "assignee")
        return rows.defer(*wide).prefetch_related(given)

    @display(description=_("question"))
    def question(self, review: Review) -> str:
        return review.answer.question[:120]

    @display(description=_("lowest"))
    def shown_worst(self, review: Review) -> str:
        return "★" * review.worst

    @display(description=_("reasons"))
    def reasons(self, review: Review) -> str:
        return name_reasons(reason for rating in review.answer.feedback.all() for reason in rating.reasons)

    @display(description=_("status"), label=STATUS_COLOURS)
    def shown_status(self, review: Review) -> tuple[str, Any]:
        return review.status, STATUS_NAMES[Review.Status(review.status)]

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "assignee":
            # Whoever has it keeps it in the list, and so does a superuser who takes it.
            pk = request.resolver_match.kwargs.get("object_id") if request.resolver_match else None
            present = Review.objects.filter(pk=pk).values("assignee_id")
            able = Q(pk__in=reviewers().values("pk")) | Q(pk=request.user.pk) | Q(pk__in=present)
            kwargs["queryset"] = User.objects.filter(able).order_by("username")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal) -> None:
        stored = Review.objects.get(pk=obj.pk)
        change_review(principal=principal, review=stored, changes=changes)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        principal = self.principal(request)
        changes = {name: form.cleaned_data[name] for name in form.changed_data}
        for button, (more, _goes_on) in BUTTONS.items():
            if button in request.POST:
                changes |= more
        if "_assign" in request.POST:
            changes["assignee"] = principal.membership.user
        if changes:
            self.write(obj=obj, changes=changes, principal=principal)

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        if not any(button in request.POST for button in BUTTONS):
            return super().response_change(request, obj)  # type: ignore[no-any-return]
        goes_on = any(button in request.POST and goes for button, (_more, goes) in BUTTONS.items())
        if not goes_on:
            return HttpResponseRedirect(self._page(request, obj.pk))
        following = next_review(self._queue(request), obj)
        if following is None:
            messages.success(request, _("Nothing is left here."))
            kept = request.GET.get(PRESERVED, "")
            path = reverse("admin:feedback_review_changelist")
            return HttpResponseRedirect(f"{path}?{kept}" if kept else path)
        return HttpResponseRedirect(self._page(request, following))

    def _page(self, request: HttpRequest, pk: Any) -> str:
        kept = request.GET.get(PRESERVED, "")
        query = f"?{urlencode({PRESERVED: kept})}" if kept else ""
        return f"{reverse('admin:feedback_review_change', args=[pk])}{query}"

    def _queue(self, request: HttpRequest) -> QuerySet[Any]:
        """What the list that the reviewer came from holds."""
        inner = copy(request)
        inner.GET = QueryDict(request.GET.get(PRESERVED, ""), mutable=True)  # type: ignore[assignment]
        inner.GET.pop(ERROR_FLAG, None)  # type: ignore[misc]
        inner.GET.pop("p", None)
        queue: QuerySet[Any] = self.get_changelist_instance(inner).queryset
        return queue

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        if obj is not None:
            principal, queue = self.principal(request), self._queue(request)
            answer = Answer.objects.select_related("user").get(pk=obj.answer_id)
            after, before = next_review(queue, obj), next_review(queue, obj, backwards=True)
            given = Feedback.objects.filter(answer_id=obj.answer_id).select_related("user")[:RATINGS_SHOWN]
            context |= {
                "original": Named(obj, answer.question[:80]),
                "shown": show_answer(answer, principal),
                "ratings": [(rating, name_reasons(rating.reasons)) for rating in given],
                "next_page": self._page(request, after) if after else "",
                "previous_page": self._page(request, before) if before else "",
                "is_mine": obj.assignee_id == principal.membership.user_id,
            }
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)  # type: ignore[no-any-return]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        path = reverse("admin:feedback_review_changelist")
        shown = request.GET.get("status", Review.Status.OPEN.value)
        tabs = [
            {
                "title": str(name).capitalize(),
                "link": f"{path}?status={value.value}",
                "active": shown == value.value,
            }
            for value, name in STATUS_NAMES.items()
        ]
        return super().changelist_view(request, (extra_context or {}) | {"tabs": tabs})

    def _change_all(self, request: HttpRequest, queryset: QuerySet[Review], changes: dict[str, Any]) -> None:
        count = change_reviews(principal=self.principal(request), reviews=queryset, changes=changes)
        text = ngettext("%(n)d review changed.", "%(n)d reviews changed.", count) % {"n": count}
        messages.success(request, text)

    @admin.action(description=_("Assign to me"), permissions=["change"])
    def assign_to_me(self, request: HttpRequest, queryset: QuerySet[Review]) -> None:
        self._change_all(request, queryset, {"assignee": self.principal(request).membership.user})

    @admin.action(description=_("Resolve"), permissions=["change"])
    def resolve(self, request: HttpRequest, queryset: QuerySet[Review]) -> None:
        self._change_all(request, queryset, {"status": Review.Status.RESOLVED.value})

    @admin.action(description=_("Dismiss"), permissions=["change"])
    def dismiss(self, request: HttpRequest, queryset: QuerySet[Review]) -> None:
        self._change_all(request, queryset, {"status": Review.Status.DISMISSED.value})

    @admin.action(description=_("Open again"), permissions=["change"])
    def open_again(self, request: HttpRequest, queryset: QuerySet[Review]) -> None:
        self._change_all(request, queryset, {"status": Review.Status.OPEN.value})
