"""Budgets as those who ask meet them: a warning and the cheaper model, then 402, while the cache goes on answering."""

from collections.abc import Callable, Iterator
from decimal import ROUND_UP, Decimal
from typing import Any

import pytest

from knowledge.answering import spending
from tenants.models import Budget, Reservation, Spending, UsageRecord
from tenants.scope import scope
from tests.knowledge.answering.test_providers import three  # noqa: F401
from tests.knowledge.helpers import (
    HOLD_TIMER,
    ask,
    check_problem,
    check_stream,
    conforms,
    read_events,
    read_stream,
    send,
)
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
GOOD = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))


@pytest.fixture
def budget(shared: Any) -> Iterator[Any]:
    def make(**limits: str) -> None:
        with scope(tenant_id=shared.acme.pk, tags=None):
            Budget.objects.all().delete()
            Budget.objects.create(subject="tenant", period="month", **limits)

    yield make
    with scope(tenant_id=shared.acme.pk, tags=None):
        Budget.objects.all().delete()
        assert not Reservation.objects.exists(), "money is still set aside"


def test_over_the_soft_limit_the_cheaper_model_answers_and_says_so(
    shared: Any, model: StubProvider, budget: Any
) -> None:
    model.script(GOOD, GOOD)
    budget(soft_usd="0.000001")
    assert "warnings" not in ask(shared.nina, cache=False)  # nothing was spent yet
    response = send(shared.nina, "post", "query", {"question": HOLD_TIMER, "cache": False})
    body = conforms(response, "/api/v1/query", "post")
    assert "over its soft limit" in body["warnings"][0]
    assert [request.body["model"] for request in model.requests] == ["claude-sonnet-5-5", "claude-haiku-5-5"]


def test_over_the_hard_limit_nothing_is_called_and_the_cache_answers(
    shared: Any, model: StubProvider, budget: Any
) -> None:
    model.script(GOOD)
    ask(shared.nina, "What is the hold timer of edge routers?")
    calls = len(model.requests)
    budget(hard_usd="0.000001")
    body = {"question": HOLD_TIMER, "cache": False}
    refused = send(shared.nina, "post", "query", body)
    problem = check_problem(refused, 402, "budget-exhausted")
    assert problem["budget"]["resets_at"] and int(refused.headers["Retry-After"]) > 0
    streamed, text = read_stream(shared.nina, "query/stream", body)
    assert streamed.status_code == 402 and "budget-exhausted" in text  # a status, not an event
    assert len(model.requests) == calls
    assert ask(shared.nina, "What is the hold timer of edge routers?")["cache"] == "exact"
    assert send(shared.nina, "post", "search", {"question": HOLD_TIMER}).status_code == 200


@pytest.mark.parametrize(
    "limits", [{"soft_usd": "0.000001"}, {"soft_usd": "0.000001", "hard_usd": "0.000002"}]
)
def test_what_is_cached_is_shown_over_a_soft_limit_too(
    shared: Any, model: StubProvider, budget: Any, limits: dict[str, str]
) -> None:
    model.script(GOOD, GOOD)
    ask(shared.nina)
    budget(**limits)
    again = ask(shared.nina)
    assert (again["cache"], again["model"]) == ("exact", "claude-sonnet-5-5") and len(model.requests) == 1
    if "hard_usd" not in limits:
        other = "What is the hold timer of edge routers?"
        assert [ask(shared.nina, other)["cache"] for _ in range(2)] == ["miss", "exact"]
        assert model.requests[-1].body["model"] == "claude-haiku-5-5"


@pytest.fixture
def one_call(
    shared: Any, model: StubProvider, budget: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Afterwards there is money for one call, to its last cent: what is set aside for it, and no more."""
    amounts: list[Decimal] = []
    reserve = spending.reserve_cost

    def note(**values: Any) -> bool:
        amounts.append(values["amount"])
        return reserve(**values)

    def make() -> None:
        budget(hard_usd="5")
        model.script(GOOD)
        with monkeypatch.context() as patch:
            patch.setattr(spending, "reserve_cost", note)
            ask(shared.nina, cache=False)
        with scope(tenant_id=shared.acme.pk, tags=None):
            UsageRecord.objects.all().delete()
            Spending.objects.all().delete()
        budget(hard_usd=str(amounts[-1].quantize(Decimal("0.000001"), rounding=ROUND_UP)))

    return make


def test_after_a_broken_stream_without_money_for_another_the_documents_are_quoted(
    shared: Any,
    three: StubProvider,  # noqa: F811
    one_call: Callable[[], None],
) -> None:
    one_call()
    asked = len(three.requests)
    sentences = tuple(Block(f"Sentence {n} of a long answer.", cites=((0, 0, 1),)) for n in range(9))
    three.script(Reply(blocks=sentences, after_deltas=20, cut="error"))
    events = read_events(shared.nina, "query/stream", {"question": HOLD_TIMER, "cache": False})
    body = check_stream(events)
    assert [event["type"] for event in events].count("restart") == 1
    assert body["provider"] == "extractive" and body["fallback"] and "30 seconds" in body["answer"]
    assert "Sentence" not in body["answer"] and len(three.requests) == asked + 1
    with scope(tenant_id=shared.acme.pk, tags=None):
        rows = UsageRecord.objects.filter(request_id=body["request_id"])
        assert {(row.provider, row.status) for row in rows} == {
            ("anthropic", "broken"),
            ("extractive", "success"),
        }
        spent = sum(row.cost_usd for row in rows)
        assert 0 < spent <= Budget.objects.get().hard_usd


def test_after_a_call_that_timed_out_without_money_for_another_the_documents_are_quoted(
    shared: Any,
    three: StubProvider,  # noqa: F811
    one_call: Callable[[], None],
    configure: Any,
) -> None:
    one_call()
    asked = len(three.requests)
    configure(RAGSITE_FIRST_BYTE_SECONDS=0.5)
    three.script(Reply(wait_seconds=600))
    body = ask(shared.nina, cache=False)
    assert body["provider"] == "extractive" and body["fallback"] and "30 seconds" in body["answer"]
    assert len(three.requests) == asked + 1


def test_a_call_that_fails_gives_its_money_back(shared: Any, model: StubProvider, budget: Any) -> None:
    budget(hard_usd="5")
    model.script(Reply(status=401))
    assert ask(shared.nina, cache=False)["provider"] == "extractive"
    with scope(tenant_id=shared.acme.pk, tags=None):
        failed = UsageRecord.objects.get(status="permanent")
    assert failed.cost_usd == 0
