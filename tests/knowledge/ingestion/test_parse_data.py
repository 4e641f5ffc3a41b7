"""JSON, lines of JSON and notebooks."""

import json

import pytest

from knowledge.ingestion.parse import ParseError, parse_document


def read(value, filename="a.json"):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse_document(data=data, filename=filename)


def test_lists_of_records_become_rows_that_name_their_fields():
    text = read(
        [{"device": "r1", "mtu": 9216, "tags": ["a", "b"], "note": None}, {"device": "r2", "up": True}]
    ).text
    assert text == "device: r1; mtu: 9216; tags: a, b\ndevice: r2; up: true"


def test_json_without_line_ends_is_laid_out_and_numbers_keep_their_digits():
    value = {
        "interfaces": [
            {"name": f"ge-0/0/{n}", "units": [{"ip": "10.0.0.1/24"}], "rate": 1.50} for n in range(9)
        ]
    }
    data = json.dumps(value).replace("1.5}", "1.50}").encode()
    parsed = read(data, "b.json")
    assert (
        '      "name": "ge-0/0/3",\n      "units": [\n        {"ip": "10.0.0.1/24"}\n      ],\n      "rate": 1.50\n'
        in parsed.text
    )
    assert json.loads(parsed.text) == value
    assert "name: ge-0/0/3" in [heading.title for heading in parsed.headings]


def test_json_that_people_wrote_keeps_its_text_even_where_it_is_no_json():
    text = '{\n  // a comment\n  "vlan": 10,\n}'
    assert read(text.encode()).text == text


def test_escapes_become_letters():
    assert "Prüfung" in read({"description": "Prüfung " * 40, "n": [[1], [2]]}).text


def test_lines_of_json_are_rows_with_the_path_of_each_field():
    lines = b'{"ts":"2025-01-01","event":{"kind":"down","if":"ge-0/0/1"},"n":1.10}\nnot json\n[1,2]\n{"l":[{"a":1}]}\n'
    assert read(lines, "a.jsonl").text == (
        "ts: 2025-01-01; event.kind: down; event.if: ge-0/0/1; n: 1.10\nnot json\n1, 2\nl[1].a: 1"
    )


def test_yaml_keeps_its_text_and_its_aliases():
    text = "base: &b\n  mtu: 9216\nge-0:\n  <<: *b\n"
    assert read(text.encode(), "a.yaml").text == text


def test_notebooks_keep_the_order_of_cells_and_bound_their_outputs():
    notebook = {
        "cells": [
            {
                "cell_type": "markdown",
                "source": ["# Latency\n", "\n", "We measure.\n\n## Setup\n\n- one\n- two"],
            },
            {
                "cell_type": "code",
                "source": "print(1)",
                "outputs": [
                    {"output_type": "stream", "text": ["1\n", "x" * 5000]},
                    {
                        "output_type": "display_data",
                        "data": {"image/png": "AAAA", "text/plain": "<Figure size 1>"},
                    },
                ],
            },
            {
                "cell_type": "code",
                "source": "1/0",
                "outputs": [
                    {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "division by zero"}
                ],
            },
        ]
    }
    parsed = read(notebook, "study.ipynb")
    assert parsed.title == "Latency"
    assert [(heading.level, heading.title) for heading in parsed.headings] == [(1, "Latency"), (2, "Setup")]
    kinds = [block.kind for block in parsed.blocks]
    assert kinds == ["heading", "paragraph", "heading", "list", "code", "code", "code", "code"]
    assert "Output:\n1\nxxx" in parsed.text
    assert len(parsed.text) < 2500
    assert "AAAA" not in parsed.text
    assert "Figure" not in parsed.text
    assert parsed.text.endswith("Output:\nZeroDivisionError: division by zero")


def test_notebooks_of_the_old_format_are_read_and_others_refused():
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": "a = 1", "outputs": []}]}]}
    assert read(old, "a.ipynb").text == "a = 1"
    for value, code in (
        (b"{", "damaged"),
        ({"a": 1}, "wrong_type"),
        ([1], "wrong_type"),
        ({"cells": []}, "no_text"),
    ):
        with pytest.raises(ParseError) as caught:
            read(value, "a.ipynb")
        assert caught.value.code == code
