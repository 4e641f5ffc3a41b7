"""Charts as SVG, made on the server: no script, no style attribute, one sentence for those who hear the page.

Whoever shows one puts a table of the same numbers beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 1000, 200  # stretched to the room there is: words stand beside the picture, not in it
LABELS = 5  # columns named below, at most


@dataclass(frozen=True)
class Column:
    """One column: ``value`` is drawn, ``shown`` is what stands for it in words."""

    label: str
    value: Decimal
    shown: str


def nice_ceiling(value: Decimal) -> Decimal:
    """The next of 1, 2, 4, 5, 10 × 10ⁿ: a scale whose half and whole are round. 1 for nothing."""
    if value <= 0:
        return Decimal(1)
    power = Decimal(1).scaleb(value.adjusted())
    step = (value / power).quantize(Decimal("0.0000001"), rounding=ROUND_CEILING)
    return next(nice for nice in (1, 2, 4, 5, 10) if step <= nice) * power


def _n(value: Decimal) -> str:
    """A coordinate."""
    return f"{value:.1f}"


def column_chart(columns: Sequence[Column], *, summary: str, scale: Callable[[Decimal], str]) -> SafeString:
    """Columns over time, with a scale at the side; each tells its value on hover.

    Args:
        columns: oldest first, at least one.
        summary: what the picture says, for those who cannot see it.
        scale: a value of the scale in words.
    """
    top = nice_ceiling(max(column.value for column in columns))
    wide = Decimal(WIDTH) / len(columns)
    gap = wide / 4
    bars = format_html_join(
        "",
        '<rect x="{}" y="{}" width="{}" height="{}"><title>{}: {}</title></rect>',
        (
            (
                _n(i * wide + gap / 2),
                _n(HEIGHT - height),
                _n(wide - gap),
                _n(height),
                column.label,
                column.shown,
            )
            for i, column in enumerate(columns)
            # What is there but small stays visible.
            for height in [max(HEIGHT * column.value / top, Decimal(3)) if column.value else Decimal(0)]
        ),
    )
    lines = format_html_join(
        "", '<line x1="0" x2="{0}" y1="{1}" y2="{1}"/>', ((WIDTH, y) for y in (1, HEIGHT // 2, HEIGHT - 1))
    )
    return format_html(
        '<div class="columns"><div class="columns-scale" aria-hidden="true">{}</div>'
        '<svg class="chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>'
        '<div class="columns-labels" aria-hidden="true">{}</div></div>',
        format_html_join("", "<span>{}</span>", ((scale(value),) for value in (top, top / 2, Decimal(0)))),
        WIDTH,
        HEIGHT,
        summary,
        lines,
        bars,
        format_html_join("", "<span>{}</span>", ((label,) for label in _labels(columns))),
    )


def _labels(columns: Sequence[Column]) -> list[str]:
    """The first, the last and some between them, evenly."""
    count = min(LABELS, len(columns))
    if count < 2:
        return [column.label for column in columns]
    last = len(columns) - 1
    return [columns[round(i * last / (count - 1))].label for i in range(count)]


def share_bar(share: Decimal, *, summary: str) -> SafeString:
    """A bar as long as ``share`` (0 to 1), for a row of a table."""
    wide = max(Decimal(0), min(Decimal(1), share)) * 100
    return format_html(
        '<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect width="{}" height="8"/></svg>',
        summary,
        _n(wide),
    )
