"""Periods of a page: days of the tenant, as a date field gives them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.translation import gettext as _

from ragsite.core.problems import FieldProblem, Problem

# What a calendar and a time zone can both hold.
EARLIEST, LATEST = date(2000, 1, 1), date(2999, 12, 31)


@dataclass(frozen=True)
class Days:
    """Whole days of the tenant's time zone; ``last`` is part of it."""

    first: date
    last: date

    @property
    def start(self) -> datetime:
        return day_start(self.first)

    @property
    def end(self) -> datetime:
        return day_start(self.last + timedelta(days=1))

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=i) for i in range(len(self)))

    def before(self) -> "Days":
        """As many days before these."""
        return Days(self.first - timedelta(days=len(self)), self.first - timedelta(days=1))


def day_start(day: date) -> datetime:
    """When a day begins in the time zone in force."""
    return timezone.make_aware(datetime.combine(day, time.min))


def read_day(request: HttpRequest, name: str) -> date | None:
    """A day of the query string.

    Raises:
        Problem: 400 when it is none.
    """
    text = request.GET.get(name, "").strip()
    if not text:
        return None
    try:
        day = parse_date(text)
    except ValueError:
        day = None
    if day is None or not EARLIEST <= day <= LATEST:
        words = _("Give a day as year-month-day, for instance 2026-01-31.")
        raise Problem(400, "invalid", words, errors=[FieldProblem(name, words)])
    return day


def month_to_date() -> Days:
    today = timezone.localdate()
    return Days(today.replace(day=1), today)


def last_month() -> Days:
    last = timezone.localdate().replace(day=1) - timedelta(days=1)
    return Days(last.replace(day=1), last)


def last_days(count: int) -> Days:
    today = timezone.localdate()
    return Days(today - timedelta(days=count - 1), today)


def read_days(request: HttpRequest, *, most: int = 400) -> Days:
    """``from`` and ``to`` of the query string, both days within; the month to date unless told.

    Raises:
        Problem: 400 when they are no days, the wrong way round, or more than ``most`` apart.
    """
    otherwise = month_to_date()
    last = read_day(request, "to") or otherwise.last
    first = read_day(request, "from") or min(otherwise.first, last)
    wrong = ""
    if first > last:
        wrong = _("The period ends before it begins.")
    elif (last - first).days >= most:
        wrong = _("Choose at most %(most)s days.") % {"most": most}
    if wrong:
        raise Problem(400, "invalid", wrong, errors=[FieldProblem("to", wrong)])
    return Days(first, last)
