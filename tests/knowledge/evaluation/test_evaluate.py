"""``manage.py evaluate``, on a BEIR folder and on a tenant's own questions."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from knowledge.embedding.factory import embedder
from knowledge.evaluation import history, place
from knowledge.evaluation.beir import read_data_set
from knowledge.evaluation.metrics import METRICS
from knowledge.models import Collection, Document, EvaluationRun, EvaluationSet
from ragsite.core.config import config
from tenants.models import AuditEvent, Tenant
from tenants.people import create_tenant
from tenants.removal import models_of_tenants, remove_tenant
from tenants.scope import scope, unscoped
from tests.knowledge.evaluation.beir_folder import QUERIES, lines, write_beir
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


def run(*words: object) -> tuple[list[str], str]:
    """The lines of standard output, and standard error."""
    out, err = io.StringIO(), io.StringIO()
    call_command("evaluate", *(str(word) for word in words), stdout=out, stderr=err)
    return out.getvalue().splitlines(), err.getvalue()


def slugs() -> set[str]:
    with unscoped(reason="tests"):
        return set(Tenant.objects.values_list("slug", flat=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "tiny")


def test_a_folder_is_measured_in_a_tenant_of_its_own_that_is_gone_afterwards(
    shared: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Tenant] = []
    monkeypatch.setattr(place, "create_tenant", lambda **of: made.append(create_tenant(**of)) or made[-1])
    before = slugs()
    told, said = run(folder, "--json")
    figures = json.loads(told[-1])
    assert list(figures) == ["documents", "queries", "arms", "p50_ms", "p95_ms"]
    assert (figures["documents"], figures["queries"]) == (4, 3)
    assert list(figures["arms"]) == ["dense", "keyword", "fused"]
    assert all(list(values) == list(METRICS) for values in figures["arms"].values())
    assert figures["arms"]["fused"] == {"ndcg@10": 1.0, "recall@10": 1.0, "mrr@10": 1.0}
    assert 0 < figures["p50_ms"] <= figures["p95_ms"]
    assert "There is no earlier run" in "\n".join(told) and "indexed 4 of 4" in said
    assert "1 documents hold no text" in said
    assert len(made) == 1 and slugs() == before
    assert not (config().documents_root / str(made[0].pk)).exists()
    assert not run(folder)[0][-1].startswith("{")  # the figures as JSON only when asked for


def test_the_paired_test_compares_with_the_stored_last_run(shared: Any, folder: Path) -> None:
    data = read_data_set(folder=folder)
    run(folder)
    stored = history.read_runs(data_hash=data.hash)
    assert stored[-1]["embedder"] == embedder().name and set(stored[-1]["results"]) == set(QUERIES)
    for arms in stored[-1]["results"].values():  # a run that found nothing
        arms["fused"] = dict.fromkeys(METRICS, 0.0)
    path = history._path(data.hash)
    path.write_text(json.dumps(stored * 30))
    told = "\n".join(run(folder)[0])
    assert f"against the run of {stored[-1]['at']}" in told
    fused = [line.split() for line in told.splitlines() if line.startswith("fused") and "p=" in line]
    # Of three questions that all gained, two of the eight assignments of signs are as far from 0.
    assert [line[1:3] + line[5:7] for line in fused] == [[m, "+1.0000", "p=0.2500", "3/0"] for m in METRICS]
    assert len(history.read_runs(data_hash=data.hash)) == history.KEPT
    path.write_text("{broken")
    assert history.read_runs(data_hash=data.hash) == []


def test_other_questions_are_measured_apart(shared: Any, folder: Path) -> None:
    other = folder / "typed.jsonl"
    other.write_text(lines([{"_id": key, "text": "quarterly bonus"} for key in QUERIES]))
    run(folder)
    told, _ = run(folder, "--queries", other, "--json")
    assert told[0].startswith("tiny/typed: 4 documents, 3 questions") and "no earlier run" in "\n".join(told)
    assert json.loads(told[-1])["arms"]["keyword"]["recall@10"] == 0.0
    other.write_text(lines([{"_id": "q1", "text": "hold timer"}, {"_id": "q9", "text": "x"}]))
    with pytest.raises(CommandError, match=r"there is no query “q2” in .*typed\.jsonl"):
        run(folder, "--queries", other)


def test_a_tenant_that_is_kept_is_used_again(
    shared: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = slugs()
    _, said = run(folder, "--keep")
    (slug,) = slugs() - before
    assert f"stays in the tenant {slug}" in said and slug.startswith("evaluation-")
    with unscoped(reason="tests"):
        tenant = Tenant.objects.get(slug=slug)
    with scope(tenant_id=tenant.pk, tags=None):
        ids = set(Document.objects.values_list("pk", flat=True))
        assert Collection.objects.get().description.startswith(embedder().name)
    told, said = run(folder, "--keep", "--json")
    assert "indexed" not in said and json.loads(told[-1])["arms"]["fused"]["recall@10"] == 1.0
    assert slugs() - before == {slug}
    run(folder)  # one that is removed afterwards works beside it
    assert slugs() - before == {slug}
    # Made by other code, it is indexed again, in the same rows.
    monkeypatch.setattr(place, "_code_hash", lambda: "of another day")
    _, said = run(folder, "--keep")
    assert "indexed 4 of 4" in said
    with scope(tenant_id=tenant.pk, tags=None):
        assert set(Document.objects.values_list("pk", flat=True)) == ids
    _remove_and_look(tenant)
    assert slugs() == before


def _remove_and_look(tenant: Tenant) -> None:
    """The end of a tenant: no row of it in any table, every row of the others, and an event of the platform's."""
    with unscoped(reason="tests"):
        counts = {
            model: (
                model._base_manager.filter(tenant_id=tenant.pk).count(),
                model._base_manager.exclude(tenant_id=tenant.pk).exclude(tenant_id=None).count(),
            )
            for model in models_of_tenants()
        }
    assert sum(own for own, _ in counts.values()) > 20
    remove_tenant(tenant=tenant)
    with unscoped(reason="tests"):
        for model, (_, others) in counts.items():
            assert not model._base_manager.filter(tenant_id=tenant.pk).exists(), model
            left = model._base_manager.exclude(tenant_id=tenant.pk).exclude(tenant_id=None)
            assert left.count() == others, model
        event = AuditEvent.objects.filter(tenant=None, action="platform.tenant_removed").first()
        assert event is not None and event.detail["slug"] == tenant.slug


def test_what_cannot_be_measured_is_told(shared: Any, folder: Path, tmp_path: Path) -> None:
    before = slugs()
    for words, told in (
        ((tmp_path / "nowhere",), "There is no folder"),
        ((tmp_path,), r"corpus\.jsonl cannot be read"),
        ((folder, "--user", "hal"), "--user goes with --tenant"),
        ((folder, "--tenant", "acme", "--keep"), "go with a BEIR folder"),
        ((folder / "queries.jsonl", "--tenant", "nobody"), "There is no tenant “nobody”: choose one of acme"),
    ):
        with pytest.raises(CommandError, match=told):
            run(*words)
    (folder / "queries.jsonl").write_text("{oops\n")
    with pytest.raises(CommandError, match=r"queries\.jsonl, line 1 is not JSON"):
        run(folder)
    assert slugs() == before


def test_a_tenants_own_questions(shared: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    incident = {
        "id": "i",
        "question": "Which error code did the bastion log?",
        "relevant": ["incident-0042.md"],
    }
    timer = {
        "id": "t",
        "question": "hold timer",
        "relevant": [{"document": "bgp-session-down.md", "grade": 2}],
    }
    path.write_text(lines([incident, timer]))
    told, _ = run(path, "--tenant", "acme", "--json")
    assert json.loads(told[-1])["arms"]["fused"]["recall@10"] == 1.0
    # Sam reads incidents and no runbooks: his walls are up while he is measured.
    told, _ = run(path, "--tenant", "acme", "--user", "sam", "--json")
    assert (
        json.loads(told[-1])["arms"]["fused"]["recall@10"] == 0.5 and json.loads(told[-1])["documents"] == 1
    )
    assert "There is no earlier run" in "\n".join(told)  # the whole tenant's is none of his
    path.write_text(lines([timer]))
    told, _ = run(path, "--tenant", "acme")
    assert "against the run of" in "\n".join(told) and "0/0 of 1" in "\n".join(told)
    with pytest.raises(CommandError, match="nobody is not an active member"):
        run(path, "--tenant", "acme", "--user", "nobody")
    path.write_text('{"question": 4}\n' + lines([timer | {"relevant": ["missing.md"]}]) + "[]\n")
    with pytest.raises(CommandError) as wrong:
        run(path, "--tenant", "acme")
    assert [part.partition(":")[0] for part in str(wrong.value).splitlines()] == [
        "line 1",
        "line 3",
        "line 2",
    ]
    assert "There is no document “missing.md”" in str(wrong.value)
    with scope(tenant_id=shared.acme.pk, tags=None):
        made = EvaluationSet.objects.get(name="own")
        assert list(made.cases.values_list("key", flat=True)) == ["t"]
        runs = EvaluationRun.objects.filter(evaluation_set=made)
        assert runs.count() == 3 and runs.filter(reader="sam").count() == 1
        made.delete()
    with scope(tenant_id=shared.globex.pk, tags=None):
        assert not EvaluationSet.objects.exists()
