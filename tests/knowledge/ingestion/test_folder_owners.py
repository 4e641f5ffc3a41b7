"""A folder below the allowed root that bears a tenant's name is that tenant's: two tenants share the root."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from knowledge.models import Source
from knowledge.sources import check_source
from tenants.scope import scope
from tests.cast import Member
from tests.knowledge.helpers import ask, check_problem, run_job, send
from tests.knowledge.ingestion.syncing import documents_of, sync, write
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture
def root(shared: Any, tmp_path: Path, configure: Any) -> Iterator[Path]:
    configure(RAGSITE_INGEST_ROOT=tmp_path)
    write(tmp_path / "globex" / "plans" / "secret.md", "# Plan\n\nThe globex quokka codename is SILVER.\n")
    write(tmp_path / str(shared.globex.pk) / "other.md", "# Other\n\nThe globex quokka colour is red.\n")
    write(tmp_path / "acme" / "own.md", "# Own\n\nThe acme quokka lives in Perth.\n")
    write(tmp_path / "docs" / "shared.md", "# Shared\n\nThe quokka is a marsupial.\n")
    write(tmp_path / "docs" / "globex" / "deep.md", "# Deep\n\nA folder that is called so by chance.\n")
    yield tmp_path
    for tenant in (shared.acme, shared.globex):
        with scope(tenant_id=tenant.pk, tags=None):
            for source in Source.objects.all():
                source.delete()


def ingest(member: Member, directory: str) -> Any:
    return send(member, "post", "ingest", {"directory": directory, "tags": ["runbooks"]})


def taken(member: Member, directory: str) -> set[str]:
    """The paths that a folder brought."""
    response = ingest(member, directory)
    assert response.status_code == 202, response.content
    assert run_job(member, response.json()["task_id"])["state"] == "SUCCESS"
    with scope(tenant_id=member.membership.tenant_id, tags=None):
        source = Source.objects.order_by("-created_at").first()
        return set(documents_of(source))


def refused(member: Member, directory: str) -> str:
    problem = check_problem(ingest(member, directory), 400)
    assert [error["field"] for error in problem["errors"]] == ["directory"]
    return str(problem["errors"][0]["detail"])


def test_the_folder_of_a_tenant_is_refused_to_the_others(shared: Any, root: Path) -> None:
    assert taken(shared.gus, "globex") == {"plans/secret.md"}
    os.symlink(root / "globex", root / "docs" / "link")
    names = ("globex", "globex/plans", "./acme/../globex", str(root / "globex"), "docs/link", "globex/absent")
    for directory in (*names, str(shared.globex.pk), str(shared.globex.pk).upper(), "GLOBEX"):
        assert "kept for another tenant" in refused(shared.ada, directory), directory
    form = {"path": "globex", "collection": "handbook"}
    problem = check_problem(send(shared.ada, "post", "sources", form), 400)
    assert [error["field"] for error in problem["errors"]] == ["path"]
    assert taken(shared.ada, "acme") == {"own.md"}
    assert taken(shared.ada, "docs") == {"shared.md", "globex/deep.md"}
    assert "SILVER" not in str(ask(shared.nina, "What is the globex quokka codename?"))
    assert "SILVER" in str(ask(shared.gina, "What is the globex quokka codename?"))


def test_from_above_the_folders_of_others_are_passed_over(shared: Any, root: Path) -> None:
    assert taken(shared.ada, ".") == {"acme/own.md", "docs/shared.md", "docs/globex/deep.md"}
    assert taken(shared.gus, ".") == {
        "globex/plans/secret.md",
        f"{shared.globex.pk}/other.md",
        "docs/shared.md",
        "docs/globex/deep.md",
    }


def test_a_stored_source_is_held_to_it_at_every_sync(shared: Any, root: Path, configure: Any) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        collection = shared.collections["acme"]
        stolen = Source.objects.create(name="stolen", path="globex", collection=collection, tags=["faq"])
        job = sync(stolen)
        assert job.state == "FAILURE" and "kept for another tenant" in job.error and not documents_of(stolen)
        with pytest.raises(Exception, match="kept for another tenant"):
            check_source(source=stolen)
        docs = Source.objects.create(name="docs", path="docs", collection=collection, tags=["faq"])
        assert sync(docs).changed == 2
        configure(RAGSITE_INGEST_SHARED="false")
        job = sync(docs)
        assert job.state == "FAILURE" and "“acme”" in job.error and "RAGSITE_INGEST_SHARED" in job.error
        assert len(documents_of(docs)) == 2, "nothing is deleted by a refusal"


def test_where_the_root_is_not_shared_a_tenant_has_its_own_folder_alone(
    shared: Any, root: Path, configure: Any
) -> None:
    configure(RAGSITE_INGEST_SHARED="false")
    for directory in (".", "docs", str(root)):
        words = refused(shared.ada, directory)
        assert "“acme”" in words and "RAGSITE_INGEST_SHARED=true" in words
    assert "kept for another tenant" in refused(shared.ada, "globex")
    assert taken(shared.ada, "acme") == {"own.md"}
    assert taken(shared.gus, str(shared.globex.pk)) == {"other.md"}


def test_the_operator_may_name_any_folder(shared: Any, root: Path, configure: Any, capsys: Any) -> None:
    configure(RAGSITE_INGEST_SHARED="false")
    for path, seen in ((root / "docs", 2), (root / "globex", 1), (root, 3)):
        call_command("ingest", str(path), tenant="acme", collection="handbook", tags=["faq"])
        assert f"{seen} seen" in capsys.readouterr().out
    # Such a source is the operator's, who named it: its next syncs go on, and still pass over what is others'.
    with scope(tenant_id=shared.acme.pk, tags=None):
        source = Source.objects.get(path=str(root))
        assert sync(source).unchanged == 3
        assert set(documents_of(source)) == {"acme/own.md", "docs/shared.md", "docs/globex/deep.md"}
