"""A tenant changes its embedding model while questions go on, and back."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from knowledge.embedding.factory import embedder, embedder_for
from knowledge.embedding.spaces import (
    active_model,
    build_space,
    count_missing,
    drop_space,
    progress_of,
    start_migration,
    switch_space,
    tenant_embedder,
)
from knowledge.evaluation.sets import create_set, read_cases
from knowledge.models import Chunk, Document, Embedding, EmbeddingSpace
from knowledge.tasks import build_spaces
from ragsite.core.problems import Problem
from tenants.audit import AuditEvent
from tenants.scope import scope
from tests.cast import add_indexed
from tests.knowledge.helpers import ask
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_embeddings import StubEmbeddings

pytestmark = on_shared_cast

OTHER = "openai:wide@2500"


@pytest.fixture
def other(shared: Any, configure: Any) -> Iterator[str]:
    """Another model, of more dimensions than an index of pgvector takes; a server of ours."""
    from knowledge.embedding import factory

    with StubEmbeddings() as stub:
        configure(OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=stub.url)
        with scope(tenant_id=shared.acme.pk, tags=None):
            yield OTHER
            active = EmbeddingSpace.objects.filter(model=embedder().name).first()
            if active is not None and active.state != "active":
                build_space(active)
                switch_space(space=active)
            for space in EmbeddingSpace.objects.exclude(state="active"):
                drop_space(space=space)
        factory._loaded.pop(OTHER, None)


def write(shared: Any, name: str) -> Document:
    text = f"# {name}\n\nThe mast of {name} is red.\n"
    return add_indexed(collection=shared.collections["acme"], name=f"{name}.md", tags=["runbooks"], text=text)


def test_there_and_back(shared: Any, other: str) -> None:
    first = active_model()
    assert first == embedder().name and tenant_embedder().name == first
    space = start_migration(model=other)
    assert (space.state, space.dimensions) == ("building", 2500)
    with pytest.raises(Problem) as twice:
        start_migration(model=other)
    assert twice.value.status == 409
    stands = progress_of(space)
    assert stands["percent"] == 0 and stands["missing"] == stands["texts"] > 0
    with pytest.raises(Problem) as early:
        switch_space(space=space)
    assert early.value.status == 409 and active_model() == first
    # Questions go on, and what comes meanwhile goes into both.
    assert "30 seconds" in ask(shared.nina, cache=False)["answer"]
    write(shared, "lugger")
    assert build_space(space, seconds=0) in (True, False)
    assert build_space(space) and progress_of(space)["percent"] == 100 and count_missing(space) == 0
    before = dict(Chunk.objects.values_list("pk", "content_hash"))
    cached = ask(shared.nina)
    assert ask(shared.nina)["cache"] == "exact"
    switch_space(space=space)
    assert active_model() == other and tenant_embedder().name == other
    assert EmbeddingSpace.objects.get(model=first).state == "retired"
    # Nothing that was answered by the other model answers any more; words are found, whatever a model of letters thinks.
    assert ask(shared.nina)["cache"] == "miss" and cached["answer"]
    found = write(shared, "yawl")
    answer = ask(shared.nina, "What colour is the mast of yawl?", cache=False)
    assert str(found.pk) in {source["document_id"] for source in answer["sources"]}
    assert dict(Chunk.objects.filter(pk__in=before).values_list("pk", "content_hash")) == before
    # And back at once: the space that is not in use was kept filled.
    old = EmbeddingSpace.objects.get(model=first)
    assert count_missing(old) == 0
    with pytest.raises(Problem):
        drop_space(space=space)
    switch_space(space=old)
    assert active_model() == first
    assert "30 seconds" in ask(shared.nina, cache=False)["answer"]
    drop_space(space=EmbeddingSpace.objects.get(model=other))
    assert not Embedding.objects.filter(space_id=space.pk).exists()
    actions = set(AuditEvent.objects.filter(action__startswith="embedding.").values_list("action", flat=True))
    assert actions == {"embedding.start", "embedding.switch", "embedding.drop"}


def test_the_configured_model_does_not_change_a_tenants(shared: Any, other: str, configure: Any) -> None:
    """Vectors of two models would be compared with one another, and nothing would tell."""
    first = active_model()
    configure(EMBEDDING_MODEL=other)
    assert embedder().name == other and tenant_embedder().name == first
    document = write(shared, "ketch")
    hashes = Chunk.objects.filter(document=document).values_list("embedding_hash", flat=True)
    rows = Embedding.objects.filter(text_hash__in=hashes).values_list("space__model", flat=True)
    assert set(rows) == {first}
    assert "red" in ask(shared.nina, "What colour is the mast of ketch?", cache=False)["answer"]


def test_the_worker_builds_what_was_started_and_mends_what_is_missing(shared: Any, other: str) -> None:
    space = start_migration(model=other)
    build_spaces()
    assert count_missing(space) == 0
    active = EmbeddingSpace.objects.get(state="active")
    Embedding.objects.filter(space=active).first().delete()
    build_spaces()
    assert count_missing(active) == 0
    assert embedder_for(active.model).name == active.model


def test_the_command(shared: Any, other: str) -> None:
    def run(*arguments: str) -> str:
        out = io.StringIO()
        call_command("embeddings", "--tenant", "acme", *arguments, stdout=out)
        return out.getvalue()

    assert "active" in run() and "100 %" in run()
    assert "is whole" in run("start", other)
    document = shared.documents["acme"]["bgp-session-down.md"]
    case = f'{{"question": "What is the hold timer?", "relevant": [{{"document": "{document.pk}", "grade": 1}}]}}'
    try:
        create_set(name="timers", cases=read_cases([case]))
        told = run("compare", other, "--set", "timers")
        assert told.count("ndcg@10") == 3 and "p=" in told
    finally:
        assert "from now on" in run("switch", other)
    assert active_model() == other
    assert "from now on" in run("switch", embedder().name)
    assert "dropped" in run("drop", other)
    for wrong in (
        ("switch", "nothing"),
        ("compare", embedder().name, "--set", "none"),
        ("start", embedder().name),
    ):
        with pytest.raises(CommandError):
            run(*wrong)
