"""What the templates of people, keys, log and costs share."""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from django import template
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

register = template.Library()


@register.simple_tag
def when(at: datetime | None, never: str = "") -> SafeString | str:
    """How long ago, or the day that is to come; to the second on hover and for machines. ``never`` where there is none."""
    if at is None:
        return never
    now, local = timezone.now(), timezone.localtime(at)
    if at > now:
        words = date_format(local, "j M Y")
    elif (now - at).total_seconds() < 60:
        words = _("just now")
    else:
        words = _("%(time)s ago") % {"time": timesince(at, now, depth=1)}
    exact = f"{date_format(local, 'j M Y, H:i:s')} {local.tzname()}"
    return format_html('<time datetime="{}" title="{}">{}</time>', local.isoformat(), exact, words)


@register.simple_tag
def moment(at: datetime) -> SafeString:
    """A time to the second, how long ago on hover."""
    local, now = timezone.localtime(at), timezone.localtime()
    shown = date_format(local, "j M, H:i:s" if local.year == now.year else "j M Y, H:i:s")
    ago = _("%(time)s ago") % {"time": timesince(at, now)}
    return format_html('<time datetime="{}" title="{}">{}</time>', local.isoformat(), ago, shown)


@register.filter
def money(amount: Decimal | None) -> str:
    """US dollars: cents from a dollar up, below it as many digits as say something."""
    if amount is None:
        return _("unpriced")
    if not amount:
        return "$0.00"
    digits = 2 if abs(amount) >= 1 else 4 if abs(amount) >= Decimal("0.01") else 6
    shown = amount.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return f"${shown:,}" if shown else "< $0.000001"


@register.filter
def thousands(number: Any) -> str:
    """``1234567`` as ``1,234,567``."""
    return f"{number or 0:,}"


@register.filter
def has(mapping: Any, key: Any) -> bool:
    """Whether ``key`` is in ``mapping``."""
    return key in mapping
