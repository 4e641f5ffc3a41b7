"""Evaluation sets, their runs and the embedding models in the admin: read at a glance, changed elsewhere."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import reverse

from knowledge.embedding.spaces import drop_space
from knowledge.models import EmbeddingSpace, EvaluationCase, EvaluationRun, EvaluationSet
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.pages.helpers import html_of, signed_in, words_of
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.tenants.admin_cast import add_evaluation, url_of

pytestmark = on_shared_cast


@pytest.fixture
def trial(shared: Any) -> Iterator[EvaluationRun]:
    with scope(tenant_id=shared.acme.pk, tags=None):
        run = add_evaluation(name="questions of acme")
        EvaluationCase.objects.create(evaluation_set=run.evaluation_set, key="1", question="hold timer?")
        yield run
        EvaluationSet.objects.filter(pk=run.evaluation_set_id).delete()
        drop_space(space=EmbeddingSpace.objects.get(model="another/model"))


def words(response: Any) -> str:
    return words_of(html_of(response)).replace("\u00a0", " ")


def test_metrics_are_read_at_a_glance(shared: Any, trial: EvaluationRun) -> None:
    ada = signed_in("ada")
    runs = words(ada.get(url_of(EvaluationRun, "changelist")))
    assert "0.612 (+0.021, p 0.012)" in runs and "another model on trial" in runs
    assert "the whole tenant" in runs and "0.591" in runs
    one = words(ada.get(url_of(EvaluationRun, "change", trial.compared_with_id)))
    assert re.search(r"ndcg@10 recall@10 mrr@10 (fused|dense) 0\.591 0\.800 0\.550", one)
    sets = words(ada.get(url_of(EvaluationSet, "changelist")))
    assert re.search(r"questions of acme 1 0\.591 ", sets), sets  # of the last run that is no trial
    spaces = words(ada.get(url_of(EmbeddingSpace, "changelist")))
    assert "ndcg@10 0.591 → 0.612 (+0.021, p 0.012)" in spaces
    page = html_of(ada.get(url_of(EmbeddingSpace, "change", EmbeddingSpace.objects.get(state="active").pk)))
    assert f'href="{reverse("index")}"' in page
    listed = html_of(ada.get(url_of(EvaluationSet, "change", trial.evaluation_set_id)))
    path = f"{url_of(EvaluationRun, 'changelist')}?evaluation_set__id__exact={trial.evaluation_set_id}"
    assert f'href="{path}"' in listed and "0.612" in words(ada.get(path))


def test_nothing_is_changed_there_but_a_set_removed(shared: Any, trial: EvaluationRun) -> None:
    ada = signed_in("ada")
    for model in (EvaluationSet, EvaluationRun, EmbeddingSpace):
        pk = model.objects.first().pk
        assert ada.get(url_of(model, "add")).status_code == 403
        assert b'name="_save"' not in ada.get(url_of(model, "change", pk)).content
        if model is not EvaluationSet:
            assert ada.post(url_of(model, "delete", pk), {"post": "yes"}).status_code == 403
    assert (
        ada.post(url_of(EvaluationSet, "delete", trial.evaluation_set_id), {"post": "yes"}).status_code == 302
    )
    assert not EvaluationSet.objects.exists() and not EvaluationRun.objects.exists()
    event = AuditEvent.objects.get(action="evaluation_set.delete", actor_name="ada")
    assert event.detail == {"name": "questions of acme"}
