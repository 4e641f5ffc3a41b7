"""``manage.py bench``: figures for people, and for machines."""

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import CommandParser

from ragsite.bench import bench_kinds
from ragsite.management.commands.bench import Command


def run(*words: str) -> str:
    out = io.StringIO()
    call_command("bench", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_every_kind_says_what_it_measures() -> None:
    parser = Command().create_parser("manage.py", "bench")
    assert isinstance(parser, CommandParser)
    listed = " ".join(parser.format_help().split())
    for name, kind in bench_kinds().items():
        first_line = (kind.__doc__ or "").partition("\n")[0]
        assert first_line and f"{name} {first_line}" in listed


@pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
def test_pages_are_measured_as_a_table_and_as_json(cast: Any) -> None:
    figures = json.loads(run("pages", "--rounds", "1", "--json").splitlines()[-1])
    assert figures["rounds"] == 1
    assert figures["pages"]["/documents/"]["kib"] > 1
    assert figures["worst_p95_ms"] == max(page["p95_ms"] for page in figures["pages"].values())
    assert "/documents/ " in run("pages", "--rounds", "1")
    with pytest.raises(CommandError, match="1 or more"):
        run("pages", "--rounds", "0")
    with pytest.raises(CommandError, match="not a member"):
        run("pages", "--user", "nobody")
