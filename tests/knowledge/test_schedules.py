"""Crontab lines in plain words, as presets, and when they are due."""

from datetime import UTC, datetime

import pytest
from django.utils import translation

from knowledge.schedules import Preset, describe, next_runs, read_preset
from ragsite.core.problems import Problem

BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("", "never", "only by hand, Europe/Berlin"),
        ("*/15 * * * *", "minutes", "every 15 minutes, Europe/Berlin"),
        ("0 * * * *", "hours", "every hour, Europe/Berlin"),
        ("0 */6 * * *", "hours", "every 6 hours, Europe/Berlin"),
        ("0 2 * * *", "daily", "every day at 02:00, Europe/Berlin"),
        ("5 14 * * 1", "weekly", "every Monday at 14:05, Europe/Berlin"),
        ("30 6 * * 0,3", "weekly", "every Wednesday and Sunday at 06:30, Europe/Berlin"),
        ("0 7 * * 1,2,3,4,5", "weekly", "every working day at 07:00, Europe/Berlin"),
        ("0 2 1,15 * *", "cron", "at 02:00, on day 1 and 15 of the month, Europe/Berlin"),
        ("*/7 * * * *", "cron", "every 7 minutes, Europe/Berlin"),
        ("0  2 *  * *", "daily", "every day at 02:00, Europe/Berlin"),
        ("never mind", "cron", "never mind, Europe/Berlin"),
    ],
)
def test_a_line_is_said_in_plain_words(line: str, kind: str, words: str) -> None:
    if kind in ("never", "minutes", "hours"):  # no time of day
        words = words.removesuffix(", Europe/Berlin")
    assert Preset.of(line).kind == kind
    assert describe(line, time_zone=BERLIN) == words
    assert describe(line) == words.removesuffix(", Europe/Berlin")


def test_a_preset_comes_back_from_its_line() -> None:
    for preset in (
        Preset("minutes", every=20),
        Preset("hours", every=12),
        Preset("daily"),
        Preset("weekly", days=(0, 2, 6)),
    ):
        assert Preset.of(preset.crontab()) == preset


def test_another_language_keeps_the_words_of_free_lines_readable() -> None:
    with translation.override("de"):
        assert describe("0 2 1 * *") != describe("0 3 1 * *")


def days(runs: list[datetime]) -> list[str]:
    return [run.isoformat() for run in runs]


def test_when_it_is_due_next_in_its_own_zone() -> None:
    friday = datetime(2026, 3, 27, 20, 0, tzinfo=UTC)
    assert days(next_runs("30 6 * * 1", time_zone=BERLIN, after=friday, count=2)) == [
        "2026-03-30T06:30:00+02:00",
        "2026-04-06T06:30:00+02:00",
    ]
    assert days(next_runs("0 */12 * * *", time_zone=BERLIN, after=friday, count=2)) == [
        "2026-03-28T00:00:00+01:00",
        "2026-03-28T12:00:00+01:00",
    ]
    # An hour that the clock leaves out: a quarter of an hour after the gap began, not never.
    assert days(next_runs("15 2 * * *", time_zone=BERLIN, after=datetime(2026, 3, 28, 12, tzinfo=UTC))) == [
        "2026-03-29T03:15:00+02:00"
    ]
    assert days(next_runs("0 0 29 2 *", time_zone="UTC", after=friday)) == ["2028-02-29T00:00:00+00:00"]
    assert next_runs("", time_zone=BERLIN) == []


def test_an_exact_moment_is_over() -> None:
    at = datetime(2026, 5, 4, 2, 0, tzinfo=UTC)
    assert days(next_runs("0 2 * * *", time_zone="UTC", after=at)) == ["2026-05-05T02:00:00+00:00"]


@pytest.mark.parametrize(
    ("form", "weekdays", "line"),
    [
        ({}, [], ""),
        ({"schedule_kind": "never", "cron": "* * * * *"}, [], ""),
        ({"schedule_kind": "minutes", "minutes": "10"}, [], "*/10 * * * *"),
        ({"schedule_kind": "hours", "hours": "1"}, [], "0 * * * *"),
        ({"schedule_kind": "daily", "daily_at": "23:59"}, [], "59 23 * * *"),
        ({"schedule_kind": "weekly", "weekly_at": "06:05"}, ["5", "1", "9", "x"], "5 6 * * 1,5"),
        ({"schedule_kind": "cron", "cron": " 0  3 * * mon "}, [], "0 3 * * mon"),
    ],
)
def test_a_form_chooses_a_line(form: dict[str, str], weekdays: list[str], line: str) -> None:
    assert read_preset(form, weekdays=weekdays).crontab() == line


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"schedule_kind": "hourly"}, "one of the schedules"),
        ({"schedule_kind": "minutes", "minutes": "7"}, "one of 5, 10, 15, 20, 30"),
        ({"schedule_kind": "hours", "hours": ""}, "one of 1, 2, 3, 4, 6, 8, 12"),
        ({"schedule_kind": "daily", "daily_at": "25:00"}, "such as 02:00"),
        ({"schedule_kind": "weekly", "weekly_at": "02:00"}, "at least one day"),
        ({"schedule_kind": "cron", "cron": "  "}, "Give a crontab line"),
    ],
)
def test_what_cannot_be_used_is_said(form: dict[str, str], words: str) -> None:
    with pytest.raises(Problem) as caught:
        read_preset(form, weekdays=[])
    [error] = caught.value.errors
    assert error.field == "schedule" and words in error.detail


@pytest.mark.parametrize(
    ("line", "zone", "field"),
    [
        ("61 * * * *", "UTC", "schedule"),
        ("* * *", "UTC", "schedule"),
        ("0 0 31 2 *", "UTC", "schedule"),
        ("0 0 * * *", "Mars/Olympus", "time_zone"),
        ("0 0 * * *", "../../etc/passwd", "time_zone"),
        ("0 0 * * *", "", "time_zone"),
    ],
)
def test_lines_and_zones_that_cannot_be_read(line: str, zone: str, field: str) -> None:
    with pytest.raises(Problem) as caught:
        next_runs(line, time_zone=zone)
    assert [error.field for error in caught.value.errors] == [field]
