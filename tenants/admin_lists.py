"""Lists that stay quick with a million rows: no count, no deep page, no sort or filter beyond the indexes."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ORDER_VAR
from django.core.paginator import EmptyPage, InvalidPage, Page, Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _
from unfold.contrib.filters.admin import (
    BooleanRadioFilter,
    ChoicesDropdownFilter,
    DropdownFilter,
    RangeDateFilter,
    RelatedDropdownFilter,
    TextFilter,
)
from unfold.views import ChangeList

from tenants.models import Membership
from tenants.periods import day_start

# As deep as one pages: the database walks over what it skips.
DEEPEST_ROW = 10_000
# A search for a part of a text looks at the newest rows of what the filters leave, no further.
ROWS_SEARCHED = 10_000
# From so many of the newest rows a filter takes the values that it offers.
ROWS_SAMPLED = 2_000


class LookaheadPage(Page):  # type: ignore[type-arg]  # generic in the stubs alone
    """A page that knows whether another one follows."""

    def __init__(self, rows: list[Any], number: int, paginator: "LookaheadPaginator", *, more: bool) -> None:
        super().__init__(rows, number, paginator)
        self.more = more

    def has_next(self) -> bool:
        return self.more and self.number < self.paginator.num_pages

    def end_index(self) -> int:
        return self.start_index() + len(self.object_list) - 1

    def start_index(self) -> int:
        return (self.number - 1) * self.paginator.per_page + 1


class LookaheadPaginator(Paginator):  # type: ignore[type-arg]
    """Fetches one row more than it shows instead of counting them all."""

    template_name = "admin/lookahead_pages.html"

    @property
    def count(self) -> int:
        raise NotImplementedError("These rows are never counted.")

    @property
    def num_pages(self) -> int:
        return max(1, DEEPEST_ROW // self.per_page)

    def page(self, number: Any) -> LookaheadPage:
        number = self.validate_number(number)
        first = (number - 1) * self.per_page
        rows = list(self.object_list[first : first + self.per_page + 1])
        if not rows and number > 1:
            raise EmptyPage(_("That page is empty."))
        return LookaheadPage(rows[: self.per_page], number, self, more=len(rows) > self.per_page)


class Listing(ChangeList):
    """A list without totals, sorted by nothing but what ``sortable_by`` names."""

    def get_results(self, request: HttpRequest) -> None:
        self.paginator = self.model_admin.get_paginator(request, self.queryset, self.list_per_page)
        try:
            self.page = self.paginator.page(self.page_num)
        except InvalidPage:
            raise IncorrectLookupParameters from None
        self.result_list = self.page.object_list
        # What Django calls totals is what is on the page: “select all” never means more than one sees.
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count = False
        self.show_admin_actions = True
        self.can_show_all = self.multi_page = False

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        for part in self.params.get(ORDER_VAR, "").split("."):
            index = part.lstrip("-")
            known = index.isdigit() and int(index) < len(self.list_display)
            if not known or self.list_display[int(index)] not in (self.sortable_by or ()):
                self.params.pop(ORDER_VAR, None)
        return list(super().get_ordering(request, queryset))


def newest_of(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """The first rows of ``queryset`` in its order; a search looks no further."""
    first = str(queryset.query.order_by[0])
    if first in ("-created_at", "-at"):
        # A range of the index: a list of ids would have every row looked up once more.
        name = first[1:]
        beyond = list(queryset.values_list(name, flat=True)[ROWS_SEARCHED : ROWS_SEARCHED + 1])
        return queryset.filter(**{f"{name}__gt": beyond[0]}) if beyond else queryset
    return queryset.filter(pk__in=queryset.values("pk")[:ROWS_SEARCHED])


def as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def values_seen(model: type[Model], field: str) -> list[str]:
    """The values of ``field`` in the newest rows; a list of all would be a walk over the whole table."""
    rows = model._default_manager.order_by(*(model._meta.ordering or ()))
    return sorted({value for value in rows.values_list(field, flat=True)[:ROWS_SAMPLED] if value})


class DayFilter(RangeDateFilter):
    """From one day to another, both included, in the time zone of the tenant."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        first, last = (self._day(end) for end in ("from", "to"))
        if first:
            queryset = queryset.filter(**{f"{self.parameter_name}__gte": day_start(first)})
        if last:
            queryset = queryset.filter(**{f"{self.parameter_name}__lt": day_start(last + timedelta(days=1))})
        return queryset

    def _day(self, end: str) -> date | None:
        try:
            return parse_date(str(self.used_parameters.get(f"{self.parameter_name}_{end}") or ""))
        except ValueError:
            return None


class ValueFilter(DropdownFilter):
    """One of the values that ``field`` has had lately; a subclass names title, parameter and field."""

    field = ""
    lookup_choices: list[tuple[str, str]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        self.model = model_admin.model
        return [(value, value) for value in values_seen(model_admin.model, self.field)]

    def has_output(self) -> bool:
        return True  # a value may be asked for that the newest rows do not have

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(**{self.field: value}) if value else queryset

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        value, offered = self.value(), list(self.lookup_choices)
        self.lookup_choices = [*offered, *([(value, value)] if value and value not in dict(offered) else [])]
        yield from super().choices(changelist)


def value_filter(field: str, title: Any) -> type[ValueFilter]:
    """A filter by the values of ``field`` that the newest rows have."""
    return type(
        f"{field.title()}Filter", (ValueFilter,), {"field": field, "parameter_name": field, "title": title}
    )


class MemberFilter(TextFilter):
    """By the exact name of a member of the tenant; a subclass may name another ``field``."""

    title = _("user name")
    parameter_name = "member"
    field = "user_id"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = (self.value() or "").strip()
        if not name:
            return queryset
        # Whoever has left keeps the name in rows of the past.
        users = Membership.objects.filter(user__username=name).values_list("user_id", flat=True)
        found = list(users) or list(
            queryset.filter(user__username=name).values_list("user_id", flat=True)[:1]
        )
        return queryset.filter(**{f"{self.field}__in": found})


def choice(field: str) -> tuple[str, Any]:
    """A filter by a field with choices, as a dropdown."""
    return field, ChoicesDropdownFilter


def yes_or_no(field: str) -> tuple[str, Any]:
    return field, BooleanRadioFilter


def related(field: str) -> tuple[str, Any]:
    """A filter by what a field refers to; for what a tenant has few of."""
    return field, RelatedDropdownFilter


def at(field: str, name: Any = None) -> Any:
    """A column with a time, to the minute and on one line."""

    def shown(row: Any) -> str | None:
        moment = getattr(row, field)
        words = date_format(timezone.localtime(moment), "j M Y, H:i") if moment else None
        return words and words.replace(" ", "\u00a0")

    shown.short_description = name or field.removesuffix("_at").replace("_", " ")  # type: ignore[attr-defined]
    shown.admin_order_field = field  # type: ignore[attr-defined]
    return shown
