"""Presentations, made by python-pptx."""

import io

import pptx
import pytest
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from knowledge.ingestion.parse import ParseError, ParseLimits, parse_document

BOX = (Inches(1), Inches(1), Inches(5), Inches(2))


def save(deck) -> bytes:
    target = io.BytesIO()
    deck.save(target)
    return target.getvalue()


def add_slide(deck, title: str, layout: int = 1):
    slide = deck.slides.add_slide(deck.slide_layouts[layout])
    if slide.shapes.title:
        slide.shapes.title.text = title
    return slide


def add_table(slide, rows) -> None:
    table = slide.shapes.add_table(len(rows), len(rows[0]), *BOX).table
    for number, row in enumerate(rows):
        for column, value in enumerate(row):
            table.cell(number, column).text = value


def make_deck():
    deck = pptx.Presentation()
    cover = add_slide(deck, "Core upgrade", 0)
    cover.placeholders[1].text = "NetOps, March"
    why = add_slide(deck, "Why now")
    frame = why.placeholders[1].text_frame
    frame.text = "MX480 is at its end"
    below = frame.add_paragraph()
    below.text, below.level = "no spare parts", 1
    frame.add_paragraph().text = "Bandwidth"
    why.notes_slide.notes_text_frame.text = "Name the contract.\nAsk for questions."
    plan = add_slide(deck, "Plan", 5)
    add_table(plan, [("Step", "When"), ("Drain PE1", "Sat 22:00")])
    chart = CategoryChartData()
    chart.categories = ["Hamburg", "Berlin"]
    chart.add_series("Traffic", (10, 20))
    plan.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *BOX, chart)
    group = add_slide(deck, "", 6).shapes.add_group_shape()
    group.shapes.add_textbox(*BOX).text_frame.text = "Router\vA"
    return deck


def test_slides_are_pages_and_sections_with_lists_tables_charts_groups_and_notes():
    parsed = parse_document(data=save(make_deck()), filename="core.pptx")
    assert parsed.title == "Core upgrade"
    assert [heading.title for heading in parsed.headings] == ["Core upgrade", "Why now", "Plan", "Slide 4"]
    assert list(parsed.pages) == [heading.start for heading in parsed.headings]
    assert [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks] == [
        ("heading", "Core upgrade"),
        ("paragraph", "NetOps, March"),
        ("heading", "Why now"),
        ("list", "- MX480 is at its end\n  - no spare parts\n- Bandwidth"),
        ("paragraph", "Notes: Name the contract.\nAsk for questions."),
        ("heading", "Plan"),
        ("table", "| Step | When |\n| Drain PE1 | Sat 22:00 |"),
        ("paragraph", "Chart: Traffic, Hamburg, Berlin"),
        ("heading", "Slide 4"),
        ("paragraph", "Router A"),
    ]


def test_long_tables_name_their_columns_in_each_row():
    deck = pptx.Presentation()
    add_table(
        add_slide(deck, "Ports", 5), [("Port", "Use"), *((f"xe-{n}", "customer " * 5) for n in range(20))]
    )
    text = parse_document(data=save(deck), filename="a.pptx").text
    assert "Port: xe-0; Use: customer" in text
    assert "Port: xe-19; Use: customer" in text


def test_pictures_alone_are_no_text_and_too_many_slides_are_refused():
    deck = pptx.Presentation()
    add_slide(deck, "", 6)
    with pytest.raises(ParseError) as caught:
        parse_document(data=save(deck), filename="a.pptx")
    assert caught.value.code == "no_text"
    with pytest.raises(ParseError) as caught:
        parse_document(data=save(make_deck()), filename="a.pptx", limits=ParseLimits(max_pages=3))
    assert caught.value.code == "too_large"
    assert "4 slides" in str(caught.value)
