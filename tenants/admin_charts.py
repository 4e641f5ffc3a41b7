"""Charts of the admin as data for Chart.js, which comes with unfold; colours follow its themes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from django.utils.formats import date_format

# Between the tones that read well on light and on dark.
INK = "#7a8391"
COLOURS = {
    "main": "var(--color-primary-500)",
    "soft": "var(--color-primary-300)",
    "good": "var(--color-green-600)",
    "warn": "var(--color-orange-500)",
    "bad": "var(--color-red-600)",
    "plain": "var(--color-base-400)",
}


@dataclass(frozen=True)
class Series:
    """One line or set of bars; ``None`` leaves a gap."""

    name: str
    values: Sequence[int | float | Decimal | None]
    colour: str = "main"


@dataclass(frozen=True)
class Chart:
    """``kind`` is ``bar`` or ``line``; ``unit`` stands behind the numbers of the scale; ``says`` is for those who do
    not see it."""

    title: str
    kind: str
    labels: Sequence[date]
    series: Sequence[Series]
    says: str = ""
    unit: str = ""
    stacked: bool = False
    highest: float | None = None

    @property
    def is_empty(self) -> bool:
        return not any(value for each in self.series for value in each.values)

    @property
    def data(self) -> str:
        datasets = [
            {
                "label": f"{each.name} ({self.unit})" if self.unit else each.name,
                "data": [None if value is None else float(value) for value in each.values],
                "borderColor": COLOURS[each.colour],
                "backgroundColor": COLOURS[each.colour],
                "borderWidth": 2 if self.kind == "line" else 0,
                "pointRadius": 0,
                "pointHitRadius": 8,
                "tension": 0.25,
                "spanGaps": True,
                "maxBarThickness": 18,
                "borderRadius": 2,
            }
            for each in self.series
        ]
        return json.dumps({"labels": [date_format(day, "j M") for day in self.labels], "datasets": datasets})

    @property
    def options(self) -> str:
        ticks = {"color": INK, "maxTicksLimit": 6, "maxRotation": 0}
        legend = {
            "display": len(self.series) > 1,
            "position": "bottom",
            "labels": {"color": INK, "boxWidth": 8, "boxHeight": 8, "usePointStyle": True},
        }
        return json.dumps(
            {
                "animation": False,
                "responsive": True,
                "maintainAspectRatio": False,
                "interaction": {"mode": "index", "intersect": False},
                "plugins": {"legend": legend},
                "scales": {
                    "x": {"stacked": self.stacked, "ticks": ticks, "grid": {"display": False}},
                    "y": {
                        "stacked": self.stacked,
                        "beginAtZero": True,
                        "max": self.highest,
                        "ticks": {"color": INK, "maxTicksLimit": 5},
                        "grid": {"lineWidth": 0.5},
                    },
                },
            }
        )
