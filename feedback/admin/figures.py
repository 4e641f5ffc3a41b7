"""Numbers of the home page as they are shown."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from tenants.templatetags.people import thousands


@dataclass(frozen=True)
class Figure:
    """A number on the home page, where it leads, and a word on it."""

    name: str
    value: str
    link: str = ""
    note: str = ""
    alert: bool = False


def list_link(name: str, **query: Any) -> str:
    path = reverse(f"admin:{name}_changelist")
    return f"{path}?{urlencode(query)}" if query else path


def as_share(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None


def as_percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def as_seconds(ms: float | None) -> float | None:
    return None if ms is None else round(ms / 1000, 2)


def as_time(ms: float | None) -> str:
    if ms is None:
        return "–"
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms"


def as_votes(count: int) -> str:
    return _("of %(n)s votes") % {"n": thousands(count)} if count else ""


def as_bytes(size: int) -> str:
    units: list[tuple[int, str]] = [(2**30, "GB"), (2**20, "MB"), (2**10, "kB")]
    for unit, name in units:
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def as_change(now: int | Decimal, then: int | Decimal) -> str:
    """Against as many days before."""
    if not then:
        return ""
    change = float((Decimal(now) - Decimal(then)) / Decimal(then)) * 100
    sign = "±" if abs(change) < 0.5 else "+" if change > 0 else "−"
    return _("%(sign)s%(change).0f %% to the days before") % {"sign": sign, "change": abs(change)}
