"""``manage.py bench``: figures for people, and for machines."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import CommandParser
from django.db import connections

from knowledge.embedding.onnx import NAME
from ragsite.bench import bench_kinds, embedding
from ragsite.bench._scale import PLAIN
from ragsite.management.commands.bench import Command
from tenants.people import create_tenant


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


@pytest.mark.parametrize("kind", bench_kinds())
def test_every_kind_explains_its_options(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        Command().create_parser("manage.py", "bench").parse_args([kind, "--help"])
    assert ended.value.code == 0 and "--json" in capsys.readouterr().out


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


def test_the_semantic_cache_is_measured_beside_a_threshold_alone() -> None:
    figures = json.loads(run("semantic-cache", "--each", "9", "--json").splitlines()[-1])
    assert (figures["paraphrases"], figures["different"] > 1000) == (45, True)
    ours = next(row for row in figures["guarded"] if row["threshold"] == figures["start"])
    alone = next(row for row in figures["cosine_alone"] if row["threshold"] == figures["start"])
    assert ours["hits"] >= 0.4 and ours["wrong"] <= 0.001 < 0.05 < alone["wrong"]
    assert (
        figures["cosine_alone_as_safe"]["wrong"] <= 0.001 and figures["cosine_alone_as_useful"]["hits"] >= 0.4
    )
    table = run("semantic-cache", "--each", "27", "--examples", "1")
    assert "words and cosine" in table and "missed: " in table


def write_corpus(folder: Path) -> None:
    """Three documents, and a question about the second."""
    (folder / "qrels").mkdir()
    texts = ["Bananas ripen faster in a paper bag.", "The MTU on every leaf is 9216.", "Paris is in France."]
    rows = [{"_id": f"d{place}", "title": "", "text": text} for place, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "Which MTU do leaves have?"}))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\nunknown\td0\t1\n")


def test_embedding_is_measured_on_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path)
    monkeypatch.setattr(embedding, "REFERENCE", NAME)  # torch takes long to load; here both sides are ours
    words = ["embedding", "--rounds", "2", "--texts", "2", "--corpus", str(tmp_path)]
    figures = json.loads(run(*words, "--json").splitlines()[-1])
    assert figures["documents"] == 3 and figures["queries"] == 1
    assert figures["ndcg@10"] == {"ours": 1.0, "theirs": 1.0, "ratio": 1.0}
    assert figures["texts_per_s"]["ours"] > 0 and figures["query_ms"]["ratio"] > 0
    with pytest.raises(CommandError, match="no BEIR folder"):
        run("embedding", "--corpus", str(tmp_path / "missing"))
    with pytest.raises(CommandError, match="1 or more"):
        run("embedding", "--rounds", "0")


def test_ndcg_is_that_of_the_definition(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    corpus = embedding.read_corpus(tmp_path)
    documents, question = np.eye(3, dtype=np.float32), np.array([[0.9, 0.5, 0.1]], dtype=np.float32)
    assert embedding.ndcg(documents, question, corpus=corpus) == pytest.approx(1 / np.log2(3))
    assert embedding.read_corpus(tmp_path, documents=2).ids == ["d1", "d0"]


@pytest.fixture
def plain_table(transactional_db: None) -> Iterator[None]:
    """The table of ``--plain`` belongs to no migration, so nothing else takes it away again."""
    yield
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {PLAIN}")


@pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
def test_search_over_many_tenants_is_compared_with_looking_at_everything(
    tmp_path: Path, plain_table: None
) -> None:
    write_corpus(tmp_path)
    words = [
        "retrieval-scale",
        "--corpus",
        str(tmp_path),
        "--chunks",
        "400",
        "--tenants",
        "11",
        "--fixed",
        "120",
    ]
    create_tenant(slug="scale2-400-11-000", name="A run was ended while it made this one")
    figures = json.loads(run(*words, "--questions", "2", "--hnsw", "--churn", "--json").splitlines()[-1])
    assert figures["tenants"] == 11
    cells = {(cell["tenant"], cell["role"]): cell for cell in figures["cells"]}
    assert cells["fixed 120", "100%"]["read"] == 120 > cells["fixed 120", "10%"]["read"] > 0
    assert all(cell["recall"] == cell["kw_recall"] == 1 for cell in cells.values())
    assert all(cell["exact_p50"] > 0 and 0 < cell["hnsw_recall"] <= 1 for cell in cells.values())
    assert figures["churn"]["from file"]["recall"] == 1 and figures["churn"]["documents"] == 4
    beside = json.loads(run(*words, "--chunks", "440", "--questions", "1", "--json").splitlines()[-1])
    assert beside["chunks"] == 440, "another total is made beside it"
    for wrong in (["--tenants", "10"], ["--questions", "0"], ["--fixed", "400"]):
        with pytest.raises(CommandError, match="--fixed"):
            run(*words, *wrong)
