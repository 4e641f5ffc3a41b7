"""A tenant's evaluation sets: what they take, and what is said of what they do not."""

import uuid
from typing import Any

import pytest

from knowledge.config import answer_config
from knowledge.embedding.spaces import tenant_embedder
from knowledge.evaluation.run import run_evaluation
from knowledge.evaluation.sets import (
    NewCase,
    Relevant,
    create_set,
    delete_set,
    read_cases,
    replace_cases,
)
from knowledge.models import EvaluationCase, EvaluationSet
from ragsite.core.problems import Problem
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture(autouse=True)
def inside(shared: Any) -> Any:
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield


def case(shared: Any, key: str = "1", question: str = "hold timer?", grade: int = 1) -> NewCase:
    document = shared.documents["acme"]["bgp-session-down.md"]
    return NewCase(key, question, (Relevant(document.pk, grade),))


def fields_of(work: Any) -> set[str]:
    with pytest.raises(Problem) as wrong:
        work()
    assert wrong.value.status == 400
    return {error.field for error in wrong.value.errors}


def test_a_set_lives_and_is_audited(shared: Any) -> None:
    made = create_set(name=" Timers ", cases=[case(shared, grade=3)])
    assert made.name == "Timers" and made.cases.get().grades == {
        str(shared.documents["acme"]["bgp-session-down.md"].pk): 3
    }
    with pytest.raises(Problem) as twice:
        create_set(name="Timers")
    assert twice.value.status == 409
    replace_cases(evaluation_set=made, cases=[case(shared, "a"), case(shared, "b")])
    assert list(made.cases.values_list("key", flat=True)) == ["a", "b"]
    delete_set(evaluation_set=made)
    assert not EvaluationSet.objects.exists() and not EvaluationCase.objects.exists()
    events = AuditEvent.objects.filter(action__startswith="evaluation_set.").order_by("at")
    assert [each.action.partition(".")[2] for each in events] == ["create", "change", "delete"]


def test_what_a_set_does_not_take(shared: Any) -> None:
    with pytest.raises(Problem, match="name"):
        create_set(name="  ")
    wrong = [
        case(shared, key=""),
        case(shared, question="?"),
        case(shared, "3", grade=11),
        NewCase("4", "Who?", ()),
        NewCase("4", "Who else?", (Relevant(uuid.uuid4()),)),
    ]
    assert fields_of(lambda: create_set(name="wrong", cases=wrong)) == {
        *("cases.1.key", "cases.2.question", "cases.3.relevant", "cases.4.relevant"),
        *("cases.5.key", "cases.5.relevant"),
    }
    foreign = shared.documents["globex"]["edge-policy.md"].pk
    assert fields_of(lambda: create_set(name="f", cases=[NewCase("1", "Who?", (Relevant(foreign),))])) == {
        "cases.1.relevant"
    }
    assert not EvaluationSet.objects.exists()


def test_lines_are_read_or_named(shared: Any) -> None:
    (one, two) = read_cases(
        ['{"question": "hold timer?", "relevant": ["bgp-session-down.md"]}', "", '{"id": 7, "question": "x y",'
         ' "relevant": [{"uri": "vpn-faq.md", "grade": 2, "passage": "IKE"}]}']
    )  # fmt: skip
    assert (one.key, two.key, two.relevant[0].grade, two.relevant[0].passage) == ("1", "7", 2, "IKE")
    lines = [
        "{",
        "[]",
        '{"relevant": ["x"]}',
        '{"question": "q"}',
        '{"question": "q", "relevant": [4]}',
        '{"question": "q", "relevant": [{"document": "vpn-faq.md", "grade": 0}]}',
        '{"question": "q", "relevant": ["nowhere.md"]}',
    ]
    assert fields_of(lambda: read_cases(lines)) == {f"line {n}" for n in range(1, 8)}
    assert fields_of(lambda: read_cases([" "])) == {"line 1"}


def test_a_set_without_questions_is_not_run(shared: Any) -> None:
    made = create_set(name="empty")
    with pytest.raises(Problem) as refused:
        run_evaluation(evaluation_set=made, embedder=tenant_embedder(), config=answer_config().retrieval)
    assert refused.value.status == 409 and "import some first" in refused.value.detail
    delete_set(evaluation_set=made)
