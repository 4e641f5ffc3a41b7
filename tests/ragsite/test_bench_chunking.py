"""``manage.py bench chunking`` on a small folder of our own."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

FACTS = [
    "The hold timer is thirty seconds.",
    "The officer answers at extension 7741.",
    "The link uses MTU 9216.",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpora").mkdir()
    filler = "Routers carry traffic between many sites every day. " * 12
    text = f"# Handbook\n\n{filler}\n\n" + "\n\n".join(
        f"## Part {n}\n\n{fact} {filler}" for n, fact in enumerate(FACTS)
    )
    (tmp_path / "corpora" / "handbook.md").write_text(text)
    rows = [
        {
            "question": f"What of this: {fact}",
            "corpus": "handbook",
            "references": [
                {"content": fact, "start_index": text.index(fact), "end_index": text.index(fact) + len(fact)}
            ],
        }
        for fact in FACTS
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path


def run(folder: Path, *more: str) -> str:
    out = io.StringIO()
    call_command("bench", "chunking", str(folder), *more, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_our_chunks_are_measured_beside_the_others(folder: Path) -> None:
    figures: dict[str, Any] = json.loads(run(folder, "--json", "--k", "1").splitlines()[-1])
    assert figures["questions"] == 3 and figures["k"] == 1
    assert set(figures["chunkers"]) == {
        "ours",
        *(
            f"{kind} {size}"
            for kind in ("fixed", "recursive")
            for size in ("200/0", "200/100", "400/0", "400/200")
        ),
    }
    ours = figures["chunkers"]["ours"]
    assert ours["recall"] == 1 and 0 < ours["iou"] <= ours["precision"] <= ours["precision_omega"] <= 1
    assert set(figures["iou_ours_against"]) == set(figures["chunkers"]) - {"ours"}


def test_people_get_a_table(folder: Path) -> None:
    lines = run(folder, "--only-ours").splitlines()
    assert any(line.startswith("ours") and line.count(".") == 4 for line in lines), lines


def test_what_cannot_be_used_is_named(folder: Path) -> None:
    with pytest.raises(CommandError, match="There is no nothing"):
        run(folder, "--corpora", "nothing")
    with pytest.raises(CommandError, match="--k must be"):
        run(folder, "--k", "0")
    (folder / "questions.jsonl").write_text('{"question": "x"}\n')
    with pytest.raises(CommandError, match="line 1"):
        run(folder)
    (folder / "questions.jsonl").unlink()
    with pytest.raises(CommandError, match="cannot be read"):
        run(folder)


def test_what_a_token_budget_keeps_is_measured(folder: Path) -> None:
    out = io.StringIO()
    options = ("--json", "--k", "2", "--budgets", "60", "200")
    call_command("bench", "compression", str(folder), *options, stdout=out, stderr=io.StringIO())
    figures = json.loads(out.getvalue().splitlines()[-1])
    whole, tight = figures["budgets"]["whole"], figures["budgets"]["60"]
    assert figures["questions"] == 3 and set(figures["budgets"]) == {"whole", "60", "200"}
    assert whole["kept"] == 1 == tight["kept"]
    assert tight["tokens"] <= 70 < whole["tokens"]
