"""Charts: a scale that is round, columns within the picture, words for those who cannot see it."""

import re
from decimal import Decimal
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.charts import HEIGHT, WIDTH, Column, column_chart, nice_ceiling, share_bar
from tenants.templatetags.people import money

AMOUNTS = st.decimals(min_value=0, max_value=10**9, places=9, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "top"),
    [
        ("0", "1"),
        ("0.0031", "0.004"),
        ("1", "1"),
        ("1.01", "2"),
        ("3", "4"),
        ("4.5", "5"),
        ("7", "10"),
        ("99", "100"),
    ],
)
def test_the_scale_ends_at_a_round_number(value: str, top: str) -> None:
    assert nice_ceiling(Decimal(value)) == Decimal(top)


@given(AMOUNTS)
def test_the_scale_reaches_over_the_highest_and_not_far(value: Decimal) -> None:
    top = nice_ceiling(value)
    assert value <= top and (value == 0 or top <= value * Decimal("2.01"))


@given(st.lists(AMOUNTS, min_size=1, max_size=60))
def test_every_column_stays_within_the_picture(values: list[Decimal]) -> None:
    columns = [Column(label=f"{n} <Mar>", value=value, shown='a "b"') for n, value in enumerate(values)]
    chart = ElementTree.fromstring(column_chart(columns, summary="x & <y>", scale=str))
    svg = chart.find("svg")
    assert svg is not None and svg.get("role") == "img" and svg.get("aria-label") == "x & <y>"
    rects = svg.findall("rect")
    assert len(rects) == len(values)
    for rect, value in zip(rects, values, strict=True):
        x, y, width, height = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
        assert x >= 0 and x + width <= WIDTH + 0.1 and y >= 0 and y + height <= HEIGHT + 0.1
        assert (height > 0) == (value > 0), "what is there is seen"
    assert rects[0].findtext("title") == '0 <Mar>: a "b"'
    labels = [span.text for span in chart.findall("div[@class='columns-labels']/span")]
    assert labels[0] == columns[0].label and labels[-1] == columns[-1].label and len(labels) <= 5


def test_no_style_nor_script_is_in_a_chart() -> None:
    chart = column_chart([Column("a", Decimal(1), "1")], summary="s", scale=str) + share_bar(
        Decimal("0.5"), summary="50%"
    )
    assert not re.search(r"style|script|\son\w+=|http", chart)
    assert 'width="50.0"' in chart and 'width="100.0"' in share_bar(Decimal(3), summary="x")


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "unpriced"),
        (Decimal(0), "$0.00"),
        (Decimal("1234567.891"), "$1,234,567.89"),
        (Decimal("0.5364"), "$0.5364"),
        (Decimal("0.002915"), "$0.002915"),
        (Decimal("0.0000001"), "< $0.000001"),
    ],
)
def test_money_shows_the_digits_that_say_something(amount: Decimal | None, shown: str) -> None:
    assert money(amount) == shown
