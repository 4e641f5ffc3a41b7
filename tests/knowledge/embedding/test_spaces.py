"""A tenant changes its embedding model while questions go on, and back."""

import io
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.utils import timezone

from knowledge.config import answer_config
from knowledge.documents import delete_document, restore_document
from knowledge.embedding import factory
from knowledge.embedding.base import EmbeddingError, Vectors
from knowledge.embedding.factory import embedder, embedder_for
from knowledge.embedding.spaces import (
    KEPT_FOR,
    REST_SECONDS,
    Compared,
    active_model,
    build_space,
    count_missing,
    drop_retired_spaces,
    drop_space,
    is_compared,
    progress_of,
    start_migration,
    switch_space,
    tenant_embedder,
)
from knowledge.evaluation.run import run_evaluation
from knowledge.evaluation.spaces import compare_space, read_comparison, request_comparison
from knowledge.models import Chunk, Document, Embedding, EmbeddingSpace, EvaluationRun, EvaluationSet
from knowledge.retention import clear_away
from knowledge.tasks import build_spaces, compare_space_on_set
from ragsite.core.problems import Problem
from tenants.audit import AuditEvent
from tenants.scope import scope
from tests.cast import add_indexed
from tests.knowledge.helpers import ask
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


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
    # Questions go on, and so do documents.
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
    # What was found by the other model is shown once more, while it is made again.
    again = ask(shared.nina)
    assert (again["cache"], again["stale"], again["answer"]) == ("exact", True, cached["answer"])
    # Words are found, whatever a model of letters thinks.
    found = write(shared, "yawl")
    answer = ask(shared.nina, "What colour is the mast of yawl?", cache=False)
    assert str(found.pk) in {source["document_id"] for source in answer["sources"]}
    assert dict(Chunk.objects.filter(pk__in=before).values_list("pk", "content_hash")) == before
    # And back: the space that is not in use is kept filled.
    old = EmbeddingSpace.objects.get(model=first)
    build_spaces()
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


@pytest.fixture
def away(shared: Any) -> Iterator["Away"]:
    """A retired space of acme whose model does not answer; in the scope of acme."""
    model = Away()
    factory._loaded[model.name] = model
    with scope(tenant_id=shared.acme.pk, tags=None):
        space = EmbeddingSpace.objects.create(
            model=model.name, dimensions=model.dimensions, state="retired", retired_at=timezone.now()
        )
        yield model
        drop_space(space=space)
    factory._loaded.pop(model.name)


class Away:
    """An embedder that is asked in vain, until it is back."""

    dimensions = 3

    def __init__(self) -> None:
        self.name, self.asked, self.is_back, self.permanent = f"away/{uuid.uuid4()}", 0, False, False

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked += 1
        if not self.is_back:
            raise EmbeddingError("It does not answer.", permanent=self.permanent)
        return np.ones((len(texts), self.dimensions), dtype=np.float32)


def test_documents_do_not_wait_for_a_model_that_is_not_searched(shared: Any, away: Away) -> None:
    document = write(shared, "brig")
    hashes = Chunk.objects.filter(document=document).values_list("embedding_hash", flat=True)
    models = Embedding.objects.filter(text_hash__in=hashes).values_list("space__model", flat=True)
    assert set(models) == {active_model()} and away.asked == 0


@pytest.mark.parametrize("permanent", [False, True])
def test_a_model_that_failed_rests_and_is_filled_later(shared: Any, away: Away, permanent: bool) -> None:
    away.permanent = permanent
    space = EmbeddingSpace.objects.get(model=away.name)
    missing = count_missing(space)
    for _ in range(3):
        build_spaces()
    assert away.asked == 1 and missing == count_missing(space) > 0
    (rest,) = cache.get_many([f"embedding-rests:{away.name}", f"embedding-rests:{space.pk}"])
    assert rest.endswith(str(space.pk) if permanent else away.name)
    assert 0 < cache.ttl(rest) <= REST_SECONDS
    away.is_back = True
    cache.delete(rest)
    build_spaces()
    assert count_missing(space) == 0
    # Nothing has changed: it is left alone, and looked at again when something has.
    Embedding.objects.filter(space=space).first().delete()
    build_spaces()
    assert count_missing(space) == 1
    write(shared, "sloop")
    build_spaces()
    assert count_missing(space) == 0


def test_the_way_back_is_mended(shared: Any, other: str) -> None:
    first = EmbeddingSpace.objects.get(model=active_model())
    space = start_migration(model=other)
    build_space(space)
    switch_space(space=space)
    long_ago = timezone.now() - timedelta(days=20)
    EmbeddingSpace.objects.filter(pk=first.pk).update(activated_at=long_ago, retired_at=long_ago)
    Embedding.objects.filter(space=first).first().delete()
    with pytest.raises(Problem) as refused:
        switch_space(space=first)
    assert refused.value.code == "not-built"
    build_spaces()
    switch_space(space=first)
    assert active_model() == first.model
    # One that is about to be dropped is not.
    EmbeddingSpace.objects.filter(pk=space.pk).update(
        retired_at=timezone.now() - KEPT_FOR, activated_at=long_ago
    )
    Embedding.objects.filter(space=space).first().delete()
    build_spaces()
    assert count_missing(space) == 1


def test_a_document_that_comes_back_after_a_switch_gets_its_vectors(shared: Any, other: str) -> None:
    document = write(shared, "trimaran")
    delete_document(document=document)
    space = start_migration(model=other)
    build_space(space)
    switch_space(space=space)
    EmbeddingSpace.objects.filter(pk=space.pk).update(activated_at=timezone.now() - timedelta(days=2))
    build_spaces()  # it is whole, and not looked at again for a while
    document.refresh_from_db()
    restore_document(document=document)
    assert count_missing(space) > 0
    build_spaces()
    assert count_missing(space) == 0
    # And whatever else it lacks is found in an hour.
    Embedding.objects.filter(space=space).first().delete()
    build_spaces()
    assert count_missing(space) == 1 and 0 < cache.ttl(f"space-whole:{space.pk}") <= 3600
    cache.delete(f"space-whole:{space.pk}")
    build_spaces()
    assert count_missing(space) == 0


def test_no_switch_without_a_comparison_where_there_are_questions(
    shared: Any, other: str, timers: EvaluationSet
) -> None:
    first = active_model()
    space = start_migration(model=other)
    with pytest.raises(Problem) as early:
        compare_space(space=space, evaluation_set=timers)
    assert early.value.code == "not-built"
    assert build_space(space)
    assert is_compared(space) == Compared.MISSING and read_comparison(space) is None
    with pytest.raises(Problem) as refused:
        switch_space(space=space)
    assert refused.value.code == "not-compared" and "compare them first" in refused.value.detail
    assert active_model() == first
    with pytest.raises(Problem):
        compare_space(space=EmbeddingSpace.objects.get(model=first), evaluation_set=timers)
    ordinary = run_evaluation(
        evaluation_set=timers, embedder=tenant_embedder(), config=answer_config().retrieval
    )
    run = compare_space(space=space, evaluation_set=timers)
    assert run.trial and run.embedder == other and run.compared_with.embedder == first
    found = read_comparison(space)
    assert found is not None and (found.old, found.new, found.questions) == (first, other, 1)
    assert [each.name for each in found.metrics] == ["ndcg@10", "recall@10", "mrr@10"]
    assert all(each.difference == round(each.new - each.old, 4) for each in found.metrics)
    # Of the model on trial no later run takes any notice.
    again = run_evaluation(
        evaluation_set=timers, embedder=tenant_embedder(), config=answer_config().retrieval
    )
    assert again.compared_with == run.compared_with != ordinary
    assert switch_space(space=space) == Compared.MADE and active_model() == other
    # The way back asks for nothing.
    assert switch_space(space=EmbeddingSpace.objects.get(model=first)) == Compared.NOT_ASKED
    events = AuditEvent.objects.filter(action="embedding.switch").order_by("at")
    assert [event.detail["compared"] for event in events][-2:] == ["made", "not asked"]


def test_a_comparison_with_a_model_of_before_does_not_count(
    shared: Any, other: str, timers: EvaluationSet
) -> None:
    space = start_migration(model=other)
    build_space(space)
    compare_space(space=space, evaluation_set=timers)
    EvaluationRun.objects.filter(trial=False).update(embedder="a model that is not searched any more")
    assert is_compared(space) == Compared.MISSING
    assert switch_space(space=space, without_comparison=True) == Compared.MISSING
    assert active_model() == other


def test_a_worker_compares_and_says_why_not(shared: Any, other: str, timers: EvaluationSet) -> None:
    space = start_migration(model=other)
    with pytest.raises(Problem):
        request_comparison(space=space, evaluation_set=timers)
    build_space(space)
    request_comparison(space=space, evaluation_set=timers)
    with pytest.raises(Problem) as twice:
        request_comparison(space=space, evaluation_set=timers)
    assert twice.value.status == 409
    task = {"ragsite_tenant": str(shared.acme.pk)}
    compare_space_on_set.apply(
        kwargs={"space_id": str(space.pk), "set_id": str(uuid.uuid4())}, headers=task
    ).get()
    space.refresh_from_db()
    assert space.comparing_since is None and "set is gone" in space.compare_error
    request_comparison(space=space, evaluation_set=timers)
    compare_space_on_set.apply(
        kwargs={"space_id": str(space.pk), "set_id": str(timers.pk)}, headers=task
    ).get()
    space.refresh_from_db()
    assert (space.comparing_since, space.compare_error) == (None, "")
    assert is_compared(space) == Compared.MADE


def test_what_is_not_searched_any_more_is_dropped_after_a_while(shared: Any, other: str) -> None:
    space = start_migration(model=other)
    build_space(space)
    first = EmbeddingSpace.objects.get(model=active_model())
    assert switch_space(space=space) == Compared.NO_QUESTIONS
    first.refresh_from_db()
    assert first.retired_at is not None
    assert drop_retired_spaces(now=first.retired_at + KEPT_FOR) == 0
    assert drop_retired_spaces(now=timezone.now() - KEPT_FOR) == 0
    # A version of before kept no time: it counts from when it is seen.
    EmbeddingSpace.objects.filter(pk=first.pk).update(retired_at=None)
    assert drop_retired_spaces(now=timezone.now() + KEPT_FOR) == 0
    switch_space(space=first)
    later = timezone.now() + KEPT_FOR + timedelta(seconds=1)
    assert clear_away(now=later)["spaces"] == 1
    assert list(EmbeddingSpace.objects.values_list("model", flat=True)) == [first.model]


def test_the_command(shared: Any, other: str, timers: EvaluationSet) -> None:
    def run(*arguments: str) -> str:
        out = io.StringIO()
        call_command("embeddings", "--tenant", "acme", *arguments, stdout=out, stderr=out)
        return out.getvalue()

    assert "active" in run() and "100 %" in run()
    assert "is whole" in run("start", other)
    with pytest.raises(
        CommandError, match=r"embeddings compare .* --set NAME.* one of timers.*--without-comparison"
    ):
        run("switch", other)
    assert "not compared yet; evaluation sets: timers" in run()
    told = run("compare", other, "--set", "timers")
    assert told.count("ndcg@10") == 1 and "p=" in told and "1 questions" in told
    assert "ndcg@10" in run() and "not compared yet" not in run()
    assert "from now on" in run("switch", other)
    assert active_model() == other and "dropped after" in run()
    assert "from now on" in run("switch", embedder().name)
    assert "dropped" in run("drop", other)
    for wrong in (
        ("switch", "nothing"),
        ("compare", embedder().name, "--set", "none"),
        ("start", embedder().name),
    ):
        with pytest.raises(CommandError):
            run(*wrong)
