"""Lists by pages that never count: each page says where the next one begins."""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from ragsite.core.problems import Problem

# The value of the field that a list is sorted by, and the id, of the last row before a page.
Place = tuple[Any, UUID]


def _moment(value: Any) -> datetime:
    found = parse_datetime(str(value))
    if found is None or found.tzinfo is None:
        raise ValueError("no moment")
    return found


@dataclass(frozen=True)
class Order:
    """What a list is sorted by; the id decides between equals, in the same direction.

    Attributes:
        field: the name of a field that is never null.
        descending: from the greatest to the least.
        read: makes a value of the field from what a cursor's JSON holds.
    """

    field: str
    descending: bool = False
    read: Callable[[Any], Any] = str

    @property
    def names(self) -> tuple[str, str]:
        sign = "-" if self.descending else ""
        return f"{sign}{self.field}", f"{sign}id"


NEWEST = Order("created_at", descending=True, read=_moment)


@dataclass(frozen=True)
class Page:
    """Rows, and the cursor of those that follow; empty where none do."""

    rows: list[Any]
    next: str


def read_page(queryset: "QuerySet[Any]", *, order: Order, cursor: str, size: int) -> Page:
    """One page of what is visible.

    Raises:
        Problem: 400 for a cursor that is not one of ours.
    """
    rows = list(rows_after(queryset, order, read_cursor(cursor, order) if cursor else None)[: size + 1])
    following = cursor_of(rows[size - 1], order) if len(rows) > size else ""
    return Page(rows=rows[:size], next=following)


def rows_after(queryset: "QuerySet[Any]", order: Order, place: Place | None) -> "QuerySet[Any]":
    """The rows in order, those behind ``place`` alone if one is given."""
    queryset = queryset.order_by(*order.names)
    if place is None:
        return queryset
    value, pk = place
    side = "lt" if order.descending else "gt"
    # The first condition is one that an index can begin at.
    return queryset.filter(
        Q(**{f"{order.field}__{side}e": value})
        & (Q(**{f"{order.field}__{side}": value}) | Q(**{f"id__{side}": pk}))
    )


def cursor_of(row: Any, order: Order) -> str:
    """The cursor of the rows behind ``row``."""
    return write_cursor((getattr(row, order.field), row.pk))


def write_cursor(place: Place) -> str:
    """A place as an address carries it."""
    value, pk = place
    told = value if isinstance(value, int | str) else value.isoformat()
    return base64.urlsafe_b64encode(json.dumps([told, str(pk)]).encode()).decode().rstrip("=")


def read_cursor(cursor: str, order: Order) -> Place:
    """The place that a cursor names.

    Raises:
        Problem: 400.
    """
    try:
        value, pk = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return order.read(value), UUID(pk)
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise Problem(
            400, "invalid-cursor", _("This page's address is not one of ours: begin at the list's start.")
        ) from None
