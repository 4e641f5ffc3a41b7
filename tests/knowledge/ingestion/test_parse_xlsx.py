"""Spreadsheets, made by openpyxl."""

import datetime as dt
import io

import openpyxl
import pytest

from knowledge.ingestion.formats import xlsx
from knowledge.ingestion.parse import ParseError, parse_document


def save(workbook) -> bytes:
    target = io.BytesIO()
    workbook.save(target)
    return target.getvalue()


def make_workbook(*sheets):
    """Sheets as (title, rows)."""
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for title, rows in sheets:
        sheet = workbook.create_sheet(title)
        for row in rows:
            sheet.append(row)
    return workbook


def read(*sheets):
    return parse_document(data=save(make_workbook(*sheets)), filename="ip-plan.xlsx")


def test_sheets_are_sections_and_small_tables_stay_grids():
    parsed = read(
        ("Contacts", [["Name", "Phone"], ["Ada", "+49 40 123"], [], ["Since", 2019]]), ("Empty", [])
    )
    assert parsed.text == "Contacts\n\n| Name | Phone |\n| Ada | +49 40 123 |\n\n| Since | 2019 |"
    assert [(heading.level, heading.title) for heading in parsed.headings] == [(1, "Contacts")]
    assert parsed.title == "IP plan"


def test_rows_of_long_tables_name_their_columns_below_the_title_of_the_table():
    rows = [["IP plan of Hamburg"], [], ["VLAN", "Name", "Subnet"]]
    rows += [[100 + n, f"floor {n}", f"10.1.{n}.0/24"] for n in range(100)]
    text = read(("Plan", rows)).text
    assert text.startswith(
        "Plan\n\nIP plan of Hamburg\n\nVLAN: 100; Name: floor 0; Subnet: 10.1.0.0/24\nVLAN: 101"
    )
    assert text.endswith("VLAN: 199; Name: floor 99; Subnet: 10.1.99.0/24")


def test_a_table_goes_on_below_blank_rows_and_another_one_has_its_own_header():
    rows = [
        ["VLAN", "Name"],
        *([n, "x" * 20] for n in range(50)),
        [],
        [777, "late"],
        [],
        ["Site", "City"],
        ["a", "b"],
    ]
    text = read(("Plan", rows)).text
    assert "VLAN: 777; Name: late" in text
    assert text.endswith("| Site | City |\n| a | b |")


def test_values_read_as_people_see_them():
    workbook = make_workbook(("V", [["Day", "Time", "Clock", "Share", "Float", "Int", "Flag", "Error"]]))
    sheet = workbook.active
    moment = dt.datetime.fromisoformat("2025-03-01 09:30")
    sheet.append([moment.date(), moment, dt.time(7, 5), 0.255, 9216.0, 12, True, "#N/A"])
    sheet["D2"].number_format = "0.0%"
    last = parse_document(data=save(workbook), filename="a.xlsx").text.split("\n")[-1]
    assert last == "| 2025-03-01 | 2025-03-01 09:30 | 07:05:00 | 25.5% | 9216 | 12 | TRUE |"


def test_formulas_show_what_they_last_gave_and_hidden_sheets_are_left_out():
    workbook = make_workbook(("Shown", [["Sum", "=1+1"], ["plain", "text"]]), ("Hidden", [["secret", "x"]]))
    workbook["Hidden"].sheet_state = "hidden"
    text = parse_document(data=save(workbook), filename="a.xlsx").text
    assert "secret" not in text
    assert "=1+1" not in text
    assert "plain" in text


def test_sheets_that_are_too_long_say_so(monkeypatch):
    monkeypatch.setattr(xlsx, "_MAX_ROWS", 50)
    text = read(("Log", [["Time", "Event"], *([n, "up"] for n in range(500))])).text
    assert "Time: 48; Event: up" in text
    assert "Time: 60" not in text
    assert text.endswith("(The sheet “Log” goes on: only its first 50 rows are here.)")


def test_a_cell_at_the_far_end_of_a_sheet_does_not_cost_the_cells_before_it(monkeypatch):
    monkeypatch.setattr(xlsx, "_MAX_CELLS", 50_000)
    workbook = make_workbook(("Wide", [["a", "b"], ["c", "d"]]))
    for row in range(3, 30):
        workbook.active.cell(row, 16_384).value = "far"
    text = parse_document(data=save(workbook), filename="a.xlsx").text
    assert "goes on" in text
    assert len(text) < 10_000


def merge(rows, *ranges):
    workbook = make_workbook(("Links", rows))
    for each in ranges:
        workbook.active.merge_cells(each)
    return parse_document(data=save(workbook), filename="a.xlsx").text


def test_cells_merged_over_rows_say_their_text_in_each():
    rows = [
        ["Site", "Port", "Peer"],
        ["FRA1", "xe-0", "HAM3"],
        [None, "xe-1", "MUC2"],
        [None, "xe-2", "BER1"],
    ]
    rows += [["HAM3", "xe-0", "FRA1"], [None, None, None], [None, "xe-9", "after the blank row"]]
    text = merge(rows, "A2:A4", "A5:A6")
    assert text.endswith(
        "| Site | Port | Peer |\n| FRA1 | xe-0 | HAM3 |\n| FRA1 | xe-1 | MUC2 |\n| FRA1 | xe-2 | BER1 |\n"
        "| HAM3 | xe-0 | FRA1 |\n\n|  | xe-9 | after the blank row |"
    )
    many = [["Site", "Port"], *([f"S{n // 3}" if n % 3 == 0 else None, f"xe-{n}"] for n in range(60))]
    text = merge(many, *(f"A{2 + n}:A{4 + n}" for n in range(0, 60, 3)))
    assert "Site: S0; Port: xe-1\nSite: S0; Port: xe-2\nSite: S1; Port: xe-3\n" in text
    assert text.endswith("Site: S19; Port: xe-59")
    # A title over several rows is said once.
    assert (
        merge([["Plan"], [], [], ["a", "b"], ["c", "d"]], "A1:B3") == "Links\n\nPlan\n\n| a | b |\n| c | d |"
    )


def test_names_over_several_columns_stand_before_those_below_them():
    head = [["Router", "Primary", None, "Backup", None], [None, "IP", "MTU", "IP", "MTU"]]
    data = [[f"r{n}", f"10.0.0.{n}", 9216, f"10.1.0.{n}", 1500] for n in range(40)]
    line = "Router: r7; Primary IP: 10.0.0.7; Primary MTU: 9216; Backup IP: 10.1.0.7; Backup MTU: 1500"
    for ranges in (("A1:A2", "B1:C1", "D1:E1"), ("B1:C1", "D1:E1")):
        text = merge([*head, *data], *ranges)
        assert line in text and "Primary: IP" not in text
        short = merge([*head, *data[:2]], *ranges)
        assert "| Router | Primary IP | Primary MTU | Backup IP | Backup MTU |\n| r0 |" in short
    deep = [["Router", "Sites", None, None, None], *([None if n is None else n for n in row] for row in head)]
    deep[1][0] = None
    assert "Router: r7; Sites Primary IP: 10.0.0.7;" in merge(
        [*deep, *data], "A1:A3", "B1:E1", "B2:C2", "D2:E2"
    )
    # A wide cell above data, or among it, is no second header.
    wide = [["Router", "Addresses", None], *(row[:3] for row in data)]
    assert "Router: r7; Addresses: 10.0.0.7; 9216" in merge(wide, "B1:C1")
    texts = merge(
        [["Site", "Note", None], ["HAM", "up", "since May"], ["FRA", "down", "since June"]], "B1:C1"
    )
    assert "| Site | Note |\n| HAM | up | since May |" in texts


def test_a_workbook_without_values_is_no_text():
    with pytest.raises(ParseError) as caught:
        read(("Empty", []))
    assert caught.value.code == "no_text"
