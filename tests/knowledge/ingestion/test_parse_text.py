"""Plain text, logs and reStructuredText."""

from pathlib import Path

from knowledge.ingestion.parse import parse_document


def parse(text: str, filename: str = "a.txt"):
    return parse_document(data=text.encode(), filename=filename)


def headings_of(parsed):
    for heading in parsed.headings:
        assert heading.start == 0 or parsed.text[heading.start - 1] == "\n"
    return [(heading.level, heading.title) for heading in parsed.headings]


def blocks_of(parsed):
    return [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks]


def test_blank_lines_part_the_blocks():
    parsed = parse("First line\nof a paragraph.\n\n- an item\n- another\n\na | b | c\nd | e | f\n")
    assert blocks_of(parsed) == [
        ("paragraph", "First line\nof a paragraph."),
        ("list", "- an item\n- another"),
        ("table", "a | b | c\nd | e | f"),
    ]


def test_underlined_numbered_and_capital_lines_are_headings():
    parsed = parse("The plan\n========\n\nWords.\n\nSTEP ONE\n\nMore.\n\n2.1 Check the link\n\nStill more.\n")
    assert headings_of(parsed) == [(1, "The plan"), (2, "STEP ONE"), (3, "2.1 Check the link")]
    assert parsed.title == "The plan"


def test_numbered_items_with_blank_lines_between_them_are_no_headings():
    assert headings_of(parse("Do this:\n\n1. Stop the session\n\n2. Clear it\n\n3. Start it\n")) == []


def test_a_short_first_line_is_the_title():
    assert parse("Door codes\n\nThe code changes weekly.\n", "x.txt").title == "Door codes"
    assert parse("This is a sentence.\n\nAnd more.\n", "door-codes.txt").title == "Door codes"


def test_a_log_is_lines():
    parsed = parse("Oct 1 10:00 link down\nOct 1 10:01 link up\n", "edge.log")
    assert blocks_of(parsed) == [("code", "Oct 1 10:00 link down\nOct 1 10:01 link up")]


def test_rst_sections_get_levels_in_order_of_their_adornments():
    parsed = parse(
        "=====\nGuide\n=====\n\nAims\n----\n\nB ``x``\n~~~~~~~\n\nwords\n\nCost\n----\n\nwords\n", "a.rst"
    )
    assert headings_of(parsed) == [(1, "Guide"), (2, "Aims"), (3, "B x"), (2, "Cost")]
    assert parsed.title == "Guide"


def test_rst_literal_blocks_and_directives_stay_whole():
    text = "Run::\n\n    show bgp\n\n    show ospf\n\n.. code-block:: text\n\n   ping x\n\nAfter.\n"
    assert [kind for kind, _ in blocks_of(parse(text, "a.rst"))] == ["code", "code", "paragraph"]


def test_rst_simple_tables_are_no_headings():
    parsed = parse(
        "Limits\n======\n\n=====  =====\nType   Limit\n=====  =====\nLX     -19\n=====  =====\n", "a.rst"
    )
    assert headings_of(parsed) == [(1, "Limits")]
    assert blocks_of(parsed)[1][0] == "table"


def test_rst_directives_never_read_a_file(tmp_path: Path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the password is hunter2")
    text = (
        f".. include:: {secret}\n\n.. raw:: html\n   :file: {secret}\n\n.. csv-table::\n   :file: {secret}\n"
    )
    parsed = parse(text, "a.rst")
    assert parsed.text == text
    assert "hunter2" not in parsed.text
