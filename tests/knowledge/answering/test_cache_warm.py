"""Warming: the questions that are asked most are answered ahead, as the roles that asked them, within the budget."""

from typing import Any

import pytest

from knowledge.answering.warm import most_asked, warm_after_change, warm_cache
from knowledge.models import Answer
from ragsite.core.redis import redis_connection
from tenants.models import AuditEvent, Budget, UsageRecord
from tenants.scope import scope
from tests.knowledge.helpers import HOLD_TIMER, ask, check_problem, send, upload_indexed
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
PREFIX = "What is the maximum-prefix limit of a transit session?"
VPN = "What does code 809 of the VPN client mean?"
GOOD = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))


@pytest.fixture
def asked(shared: Any) -> Any:
    """Three questions, by how often they were asked, and nothing of it cached."""
    with scope(tenant_id=shared.acme.pk, tags=None):
        Answer.objects.all().delete()
    for member, question, times in (
        (shared.nina, HOLD_TIMER, 3),
        (shared.hal, HOLD_TIMER, 2),
        (shared.nina, PREFIX, 2),
        (shared.nina, VPN, 1),
    ):
        for _ in range(times):
            ask(member, question)
    redis_connection().flushdb()
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield shared


def test_what_was_asked_most_is_answered_for_each_role(asked: Any) -> None:
    told = [(each.text, each.membership.role.name, each.times) for each in most_asked()]
    assert told[0] == (HOLD_TIMER, "network_engineer", 3)
    assert set(told[1:]) == {(HOLD_TIMER, "helpdesk", 2), (PREFIX, "network_engineer", 2)}
    answers = Answer.objects.count()
    assert warm_cache(most=2) == 2 and warm_cache() == 1 and warm_cache() == 0
    assert Answer.objects.count() == answers, "nobody asked"
    assert ask(asked.nina)["cache"] == ask(asked.hal)["cache"] == ask(asked.nina, PREFIX)["cache"] == "exact"
    assert ask(asked.nina, VPN)["cache"] == ask(asked.sam)["cache"] == "miss"
    # A role that reads less has nothing of what others had warmed for them.
    role, tags = f"roles/{asked.hal.membership.role_id}", asked.hal.membership.role.tags
    send(asked.ada, "patch", role, {"tags": ["faq"]})
    assert warm_cache() > 0
    after = ask(asked.hal)
    assert "30 seconds" not in str(after)
    send(asked.ada, "patch", role, {"tags": tags})


def test_it_keeps_to_the_budget_and_is_in_the_ledger(asked: Any, model: StubProvider) -> None:
    for _ in range(3):
        model.script(GOOD)
    UsageRecord.objects.all().delete()
    assert warm_cache(most=1) == 1 and len(model.requests) == 1
    (row,) = UsageRecord.objects.all()
    assert (row.endpoint, row.user_id) == ("renewal", None) and row.cost_usd > 0
    Budget.objects.create(period="day", hard_usd="0.000001")
    assert warm_cache() == 0 and len(model.requests) == 1
    Budget.objects.all().delete()


def test_it_is_asked_for_by_those_who_manage(asked: Any, monkeypatch: Any) -> None:
    from knowledge import tasks

    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(tasks.warm_answers, "enqueue_on_commit", lambda **kwargs: sent.append(kwargs))
    response = send(asked.ada, "post", "cache/warm", {"most": 2})
    assert (response.status_code, response.json()) == (202, {"status": "started", "questions": 2})
    assert sent == [{"most": 2, "wait_seconds": 0}]
    assert AuditEvent.objects.filter(action="cache.warm").exists()
    check_problem(send(asked.nina, "post", "cache/warm", {}), 403)
    check_problem(send(asked.ada, "post", "cache/warm", {"most": 0}), 400)
    assert send(asked.gus, "post", "cache/warm", {}).json() == {"status": "started", "questions": 0}
    # By itself after a change, once in five minutes; for all that comes meanwhile once more at their end.
    sent.clear()
    for _ in range(3):
        warm_after_change()
    assert [each["wait_seconds"] for each in sent] == [0, 300]


@pytest.mark.parametrize("limits", [{"soft_usd": "0.000001"}, {"hard_usd": "0.000001"}])
def test_a_member_without_money_does_not_stop_it(
    asked: Any, model: StubProvider, limits: dict[str, str]
) -> None:
    for _ in range(4):
        model.script(GOOD)
    ask(asked.nina)
    redis_connection().flushdb()
    Budget.objects.create(subject="members", period="month", **limits)
    try:
        assert warm_cache(most=1) == 1
        assert ask(asked.nina)["cache"] == "exact"
        assert UsageRecord.objects.filter(endpoint="renewal", user=None).exists()
    finally:
        Budget.objects.all().delete()


def test_every_change_of_the_index_asks_for_it(asked: Any, monkeypatch: Any) -> None:
    changes: list[int] = []
    monkeypatch.setattr("knowledge.answering.warm.warm_after_change", lambda: changes.append(1))
    document = upload_indexed(asked.nina, "timers.md", "# Timers\n\nThe dead timer is 40 s.", tags="configs")
    assert len(changes) == 1
    assert send(asked.nina, "delete", f"documents/{document}").status_code == 204
