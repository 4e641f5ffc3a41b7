"""``manage.py bench ingest``: a real worker indexes a small corpus, and another program does the same beside it."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from knowledge.evaluation.beir import read_corpus
from ragsite.bench import ingest

PEER = """
import json, os, sys, time
rows = open(sys.argv[1]).read().splitlines()[: int(sys.argv[2])]
assert os.path.isdir(os.environ["EMBEDDING_MODEL"]), "no model"
assert not os.listdir("."), "not in an empty folder"
open("index", "w").write("x")
held = bytearray(50_000_000)
time.sleep(0.1 * len(rows))
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [
        {"_id": f"p{n}", "title": f"Passage {n}", "text": f"Router {n} has the loopback 10.0.0.{n}." * n}
        for n in range(6)
    ]
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path


def run(*words: str) -> str:
    out = io.StringIO()
    call_command("bench", "ingest", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


@pytest.mark.long
@pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
def test_a_worker_indexes_and_a_peer_beside_it(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from knowledge.ingestion.jobs import find_abandoned_jobs
    from tenants.models import Tenant

    peer = corpus / "peer"
    peer.mkdir()
    (peer / "index.py").write_text(PEER)
    words = [str(corpus), "--limit", "4", "--peer", str(peer), "--peer-python", sys.executable]
    figures: dict[str, Any] = json.loads(run(*words, "--json").splitlines()[-1])
    assert [each["program"] for each in figures["runs"]] == ["ours", "peer", "ours"]
    # The one without text is no document.
    assert figures["documents"] == 4 and figures["bytes"] > 4 * 40
    ours, theirs = figures["ours"], figures["peer"]
    assert ours["chunks"] == theirs["chunks"] == 4 and ours["failed"] == 0
    assert ours["cpu_seconds"] > 0 and ours["peak_rss_mb"] > 60 > theirs["peak_rss_mb"] > 45
    assert figures["ratio"]["documents_per_s"] == pytest.approx(
        ours["documents_per_s"] / theirs["documents_per_s"], rel=0.02
    )
    assert [line.split()[0] for line in ingest.render(figures)][:3] == [
        "ours",
        "documents_per_s",
        "chunks_per_s",
    ]
    assert not Tenant._base_manager.using("owner").filter(slug__startswith="bench-").exists()
    assert find_abandoned_jobs() == []


def rival(corpus: Path, **options: Any) -> ingest._Peer:
    (corpus / "index.py").write_text(PEER)
    given = {"peer": corpus, "peer_python": Path(sys.executable), "peer_model": "", **options}
    entries = read_corpus(folder=corpus)[1:5]
    (corpus / "work").mkdir(exist_ok=True)
    return ingest._Peer(given, corpus=entries, place=corpus / "work")


def test_a_peer_has_the_same_passages_and_its_start_is_taken_off(corpus: Path) -> None:
    peer = rival(corpus)
    rows = [json.loads(line) for line in (corpus / "work" / "corpus.jsonl").read_text().splitlines()]
    assert [row["_id"] for row in rows] == ["p1", "p2", "p3", "p4"] and rows[0]["title"] == "Passage 1"
    run = peer.run()
    assert run["start_seconds"] >= 0.1 and run["seconds"] > 0 and run["peak_rss_mb"] > 45
    with pytest.raises(CommandError, match=r"(?s)failed \(code 1\).*no model"):
        rival(corpus, peer_model=str(corpus / "missing")).run()
    with pytest.raises(CommandError, match="cannot be run"):
        rival(corpus, peer_python=corpus / "no-python").run()


def test_what_cannot_be_measured_is_said(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="0 or more"):
        run(str(corpus), "--limit", "-1")
    with pytest.raises(CommandError, match=r"no index\.py"):
        run(str(corpus), "--peer", str(corpus))
    with pytest.raises(CommandError, match="cannot be read"):
        run(str(corpus / "missing"))
    monkeypatch.setattr(ingest.app.control, "inspect", lambda **_: FakeInspect())
    with pytest.raises(CommandError, match="A worker runs"):
        run(str(corpus))


class FakeInspect:
    def ping(self) -> dict[str, Any]:
        return {"celery@other": {"ok": "pong"}}
