"""The days that the admin's figures are about."""

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import DateTimeField, F, Func, IntegerField, Value

from tenants.periods import Days, day_start, last_days

CHOICES = (7, 30, 90)
DEFAULT = 30


def days_asked_for(wanted: str | None) -> Days:
    """The last 7, 30 or 90 days; 30 for anything that is no choice."""
    known = {str(count): count for count in CHOICES}
    return last_days(known.get(wanted or "", DEFAULT))


def number_of_day(field: str, days: Days) -> Any:
    """On which of ``days`` a moment falls, from 1.

    PostgreSQL looks each moment up among the days' beginnings: half the time of a conversion to the time zone.
    """
    starts = [day_start(day) for day in days]
    return Func(
        F(field),
        Value(starts, output_field=ArrayField(DateTimeField())),
        function="WIDTH_BUCKET",
        output_field=IntegerField(),
    )
