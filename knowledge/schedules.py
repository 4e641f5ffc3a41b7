"""Crontab lines for people: what one means in plain words, when it is due next, and the presets of a form."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from celery.schedules import ParseException
from cron_descriptor import (  # type: ignore[import-untyped]
    FormatException,
    MissingFieldException,
    Options,
    get_description,
)
from django.core.exceptions import ValidationError
from django.utils.dates import WEEKDAYS
from django.utils.text import get_text_list
from django.utils.translation import get_language, to_locale
from django.utils.translation import gettext as _
from django_celery_beat.models import CrontabSchedule

from ragsite.core.problems import FieldProblem, Problem

# What divides an hour and a day evenly: a crontab line starts afresh with each.
MINUTES = (5, 10, 15, 20, 30)
HOURS = (1, 2, 3, 4, 6, 8, 12)
KINDS = ("never", "minutes", "hours", "daily", "weekly", "cron")
HORIZON = timedelta(days=4 * 366 + 1)  # 29 February


def wrong(field: str, message: str) -> Problem:
    """The 400 problem of one field."""
    return Problem(
        400, "invalid", "Some values cannot be used; see errors.", errors=[FieldProblem(field, message)]
    )


def read_zone(name: str) -> ZoneInfo:
    """The time zone of that name.

    Raises:
        Problem: 400.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise wrong("time_zone", f"“{name}” is no time zone: give one such as Europe/Berlin.") from None


def read_crontab(*, line: str, time_zone: str) -> CrontabSchedule:
    """An unsaved schedule row of a crontab line.

    Raises:
        Problem: 400 that says what a line looks like.
    """
    fields = line.split()
    zone = read_zone(time_zone)
    if len(fields) != 5:
        raise wrong(
            "schedule",
            "Give five fields: minute, hour, day of month, month, day of week; */15 * * * * is every 15 minutes.",
        )
    minute, hour, day, month, weekday = fields
    row = CrontabSchedule(
        minute=minute,
        hour=hour,
        day_of_month=day,
        month_of_year=month,
        day_of_week=weekday,
        timezone=zone,
    )
    try:
        row.schedule  # noqa: B018  parses the fields
        row.full_clean(validate_unique=False)
    except (ParseException, ValueError, ValidationError) as error:
        reason = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
        raise wrong("schedule", f"This schedule cannot be read: {reason}") from None
    return row


@dataclass(frozen=True)
class Preset:
    """A schedule as a form offers it.

    Attributes:
        kind: one of ``KINDS``.
        every: minutes or hours.
        at: time of day, of ``daily`` and ``weekly``.
        days: of ``weekly``, as crontab counts them: 0 is Sunday.
        line: of ``cron``.
    """

    kind: str = "never"
    every: int = 0
    at: time = time(2)
    days: tuple[int, ...] = (1,)
    line: str = ""

    def crontab(self) -> str:
        """The crontab line; empty for ``never``."""
        match self.kind:
            case "minutes":
                return f"*/{self.every} * * * *"
            case "hours":
                return "0 * * * *" if self.every == 1 else f"0 */{self.every} * * *"
            case "daily":
                return f"{self.at.minute} {self.at.hour} * * *"
            case "weekly":
                return f"{self.at.minute} {self.at.hour} * * {','.join(map(str, self.days))}"
            case "cron":
                return " ".join(self.line.split())
        return ""

    @classmethod
    def of(cls, line: str) -> "Preset":
        """The preset that a line comes from; ``cron`` for one that none makes."""
        fields = line.split()
        if not fields:
            return cls()
        for preset in _candidates(fields):
            if preset.crontab() == " ".join(fields):
                return preset
        return cls(kind="cron", line=" ".join(fields))


def _candidates(fields: Sequence[str]) -> Iterator[Preset]:
    for minutes in MINUTES:
        yield Preset("minutes", every=minutes)
    for hours in HOURS:
        yield Preset("hours", every=hours)
    if len(fields) == 5 and fields[0].isdigit() and fields[1].isdigit():
        minute, hour = int(fields[0]), int(fields[1])
        if minute < 60 and hour < 24:
            yield Preset("daily", at=time(hour, minute))
            if days := [int(day) for day in fields[4].split(",") if day in "0123456" and len(day) == 1]:
                yield Preset("weekly", at=time(hour, minute), days=tuple(days))


def read_preset(form: Mapping[str, Any], *, weekdays: Sequence[str]) -> Preset:
    """The preset that a form chose.

    Args:
        form: ``schedule_kind`` and the fields of its kind.
        weekdays: the days chosen for ``weekly``.

    Raises:
        Problem: 400 that names the field.
    """
    kind = form.get("schedule_kind", "never")
    if kind not in KINDS:
        raise wrong("schedule", _("Choose one of the schedules."))
    if kind in ("minutes", "hours"):
        allowed = MINUTES if kind == "minutes" else HOURS
        every = str(form.get(kind, ""))
        if every not in {str(n) for n in allowed}:
            raise wrong("schedule", _("Choose how often: one of %(list)s.") % {"list": _listed(allowed)})
        return Preset(kind, every=int(every))
    if kind in ("daily", "weekly"):
        try:
            at = time.fromisoformat(str(form.get(f"{kind}_at", "")))
        except ValueError:
            raise wrong("schedule", _("Give the time of day as hours and minutes, such as 02:00.")) from None
        at = at.replace(second=0, microsecond=0, tzinfo=None)
        if kind == "daily":
            return Preset(kind, at=at)
        days = sorted({int(day) for day in weekdays if day in ("0", "1", "2", "3", "4", "5", "6")})
        if not days:
            raise wrong("schedule", _("Choose at least one day of the week."))
        return Preset(kind, at=at, days=tuple(days))
    if kind == "cron":
        line = str(form.get("cron", "")).strip()
        if not line:
            raise wrong("schedule", _("Give a crontab line, or choose another schedule."))
        return Preset(kind, line=line[:100])
    return Preset()


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def weekday_name(day: int) -> str:
    """The name of a day as crontab counts it."""
    return str(WEEKDAYS[(day - 1) % 7])


def describe(line: str, *, time_zone: str = "") -> str:
    """A crontab line in plain words; with the time zone where a time of day is named."""
    preset = Preset.of(line)
    match preset.kind:
        case "never":
            return _("only by hand")
        case "minutes":
            return _("every %(n)d minutes") % {"n": preset.every}
        case "hours":
            return _("every hour") if preset.every == 1 else _("every %(n)d hours") % {"n": preset.every}
        case "daily":
            words = _("every day at %(time)s") % {"time": f"{preset.at:%H:%M}"}
        case "weekly":
            names = [weekday_name(day) for day in sorted(preset.days, key=lambda day: (day - 1) % 7)]
            days = get_text_list(names, _("and"))
            if preset.days == (1, 2, 3, 4, 5):
                days = _("working day")
            words = _("every %(days)s at %(time)s") % {"days": days, "time": f"{preset.at:%H:%M}"}
        case _:
            words = _describe_freely(preset.line)
    return f"{words}, {time_zone}" if time_zone else words


def _describe_freely(line: str) -> str:
    options = Options()
    options.use_24hour_time_format = True
    options.locale_code = to_locale(get_language() or "en")
    try:
        words = str(get_description(line, options))
    except (FormatException, MissingFieldException, ValueError):
        return line
    return words[:1].lower() + words[1:]


def next_runs(line: str, *, time_zone: str, after: datetime | None = None, count: int = 1) -> list[datetime]:
    """When a line is due next, in its zone; fewer than ``count`` where it is hardly ever due.

    Celery wants every field to match, the day of the month and the day of the week alike.

    Raises:
        Problem: 400 for a line or a zone that cannot be read.
    """
    if not line:
        return []
    row = read_crontab(line=line, time_zone=time_zone)
    plan, zone = row.schedule, read_zone(time_zone)
    start = (after or datetime.now(UTC)).astimezone(zone)
    found: list[datetime] = []
    for number in range(HORIZON.days):
        day = start.date() + timedelta(days=number)
        if (
            day.day not in plan.day_of_month
            or day.month not in plan.month_of_year
            or day.isoweekday() % 7 not in plan.day_of_week
        ):
            continue
        for hour in sorted(plan.hour):
            for minute in sorted(plan.minute):
                moment = datetime.combine(day, time(hour, minute), zone).astimezone(UTC)
                if moment > start.astimezone(UTC):
                    found.append(moment.astimezone(zone))
                    if len(found) == count:
                        return found
    return found
