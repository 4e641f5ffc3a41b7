"""Budgets under parallel calls: nothing is given away twice, nothing is lost, and a crash does not block for long."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from ragsite.core.problems import Problem
from tenants import budgets
from tenants.access import Principal
from tenants.budgets import (
    clear_reservations,
    read_standings,
    read_tenant_standings,
    release_cost,
    reserve_cost,
    span_of,
    warnings_of,
)
from tenants.models import AuditEvent, Budget, Reservation, Spending, Tenant, UsageRecord
from tenants.scope import atomic, enter, scope
from tenants.usage import Call, record_calls
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
ESTIMATE, ACTUAL = Decimal("0.02"), Decimal("0.013")


def budget(**fields: Any) -> Budget:
    row: Budget = Budget.objects.create(**fields)
    return row


def call(cost: Decimal | None) -> Call:
    return Call("anthropic", "m", "answer", "success", 10, 5, 0, 0, cost, 0.1)


def ledger() -> Decimal:
    return sum((row.cost_usd or Decimal(0) for row in UsageRecord.objects.all()), Decimal(0))


def spend(principal: Principal, *, cost: Decimal, estimate: Decimal = ESTIMATE) -> None:
    """One question: reserved, called, settled."""
    request_id = uuid.uuid4()
    reserve_cost(membership=principal.membership, request_id=request_id, amount=estimate)
    with atomic():
        record_calls(
            user=principal.membership.user, request_id=request_id, endpoint="query", calls=[call(cost)]
        )


@pytest.fixture
def nina(people: People) -> Iterator[Principal]:
    principal: Principal = people.nina.principal
    with enter(principal.scope()):
        yield principal


def at_once(count: int, work: Callable[[int], Any], *, threads: int = 16) -> list[Any]:
    """``count`` pieces of work on connections of their own, begun together; what each returned or raised."""
    barrier = threading.Barrier(min(count, threads))
    first = iter(range(min(count, threads)))
    guard = threading.Lock()

    def run(number: int) -> Any:
        with guard:
            waits = next(first, None) is not None
        if waits:
            barrier.wait(20)
        try:
            return work(number)
        except Problem as problem:
            return problem
        finally:
            connections.close_all()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(count)))


def parallel_calls(people: People, *, count: int, threads: int) -> None:
    limit = Decimal("0.50")
    members = [people.nina.principal, people.ada.principal]
    with scope(tenant_id=people.acme.pk, tags=None):
        budget(subject="tenant", period="day", hard_usd=limit)

    def ask(number: int) -> str:
        principal = members[number % 2]
        with enter(principal.scope()):
            spend(principal, cost=ACTUAL)
        return "answered"

    told = at_once(count, ask, threads=threads)
    refused = [one for one in told if isinstance(one, Problem)]
    assert {one.status for one in refused} == {402} and len(refused) + told.count("answered") == count
    with scope(tenant_id=people.acme.pk, tags=None):
        assert ledger() == ACTUAL * told.count("answered")
        assert limit - ESTIMATE < ledger() <= limit, "spent to the last call that fits, and not one more"
        assert Spending.objects.get(user=None).spent_usd == ledger()
        assert not Reservation.objects.exists()


def test_parallel_calls_stay_within_a_hard_limit(people: People) -> None:
    parallel_calls(people, count=60, threads=16)


@pytest.mark.long
def test_two_hundred_parallel_calls_stay_within_a_hard_limit(people: People) -> None:
    parallel_calls(people, count=200, threads=60)


def test_calls_under_way_hold_their_money(people: People) -> None:
    """None is settled before all have asked: what is set aside must count, not what is spent."""
    with scope(tenant_id=people.acme.pk, tags=None):
        budget(subject="member", user=people.nina.membership.user, period="month", hard_usd="0.10")

    def ask(number: int) -> bool:
        with enter(people.nina.principal.scope()):
            return reserve_cost(
                membership=people.nina.membership, request_id=uuid.uuid4(), amount=Decimal("0.02")
            )

    told = at_once(24, ask, threads=12)
    assert told.count(True) == 5
    with enter(people.ada.principal.scope()):  # somebody else's money is not touched
        assert not reserve_cost(
            membership=people.ada.membership, request_id=uuid.uuid4(), amount=Decimal("0.02")
        )


def test_a_period_that_begins_amid_calls_counts_each_once(people: People) -> None:
    """The sum that a period begins with, and what is added to it, never count a row twice or not at all."""

    def ask(number: int) -> None:
        with enter(people.nina.principal.scope()):
            if number == 10:
                budget(subject="tenant", period="month", hard_usd="100")
                budget(subject="members", period="day", soft_usd="100")
            spend(people.nina.principal, cost=ACTUAL)

    at_once(40, ask, threads=10)
    with scope(tenant_id=people.acme.pk, tags=None):
        assert ledger() == 40 * ACTUAL
        assert [row.spent_usd for row in Spending.objects.all()] == [40 * ACTUAL] * 2


def test_what_a_crash_leaves_behind_expires_and_is_told(
    nina: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by caplog: another test of the same process may have set logging up anew.
    told: list[Any] = []
    monkeypatch.setattr(
        budgets, "logger", SimpleNamespace(warning=lambda words, **facts: told.append((words, facts)))
    )
    budget(subject="tenant", period="day", hard_usd="0.03")
    crashed = uuid.uuid4()
    assert reserve_cost(membership=nina.membership, request_id=crashed, amount=ESTIMATE)
    with pytest.raises(Problem):
        spend(nina, cost=ACTUAL)
    Reservation.objects.filter(pk=crashed).update(expires_at=timezone.now() - timedelta(seconds=1))
    spend(nina, cost=ACTUAL)
    Reservation.objects.filter(pk=crashed).update(expires_at=timezone.now() - timedelta(hours=1))
    assert clear_reservations() == 1
    ((words, facts),) = told
    assert "not in the ledger" in words and facts == {"questions": 1, "most_usd": f"{ESTIMATE:f}" + "0" * 10}
    assert clear_reservations() == 0 and len(told) == 1
    assert ledger() == ACTUAL, "a guess is no row"


def test_a_refusal_says_when_the_budget_begins_anew(nina: Principal, people: People) -> None:
    Tenant.objects.using("platform").filter(pk=people.acme.pk).update(time_zone="Asia/Kolkata")
    nina.membership.tenant.refresh_from_db()
    budget(subject="members", period="day", hard_usd="0.05", soft_usd="0.01")
    spend(nina, cost=Decimal("0.04"))
    with pytest.raises(Problem) as refused:
        spend(nina, cost=ACTUAL)
    problem = refused.value
    assert (problem.status, problem.code) == (402, "budget-exhausted")
    assert "Your daily budget" in problem.detail and "00:00 (IST)" in problem.detail
    assert 0 < int(problem.headers["Retry-After"]) <= 24 * 3600
    facts = problem.extra["budget"]
    assert facts["limit_usd"] == "0.050000" and facts["resets_at"].endswith("T00:00:00+05:30")
    (warning,) = warnings_of(read_standings(nina.membership))
    assert "soft limit" in warning


def test_a_members_own_budget_takes_the_place_of_each_members(nina: Principal) -> None:
    budget(subject="members", period="day", hard_usd="0.01")
    budget(subject="member", user=nina.membership.user, period="day", hard_usd="1")
    budget(subject="tenant", period="month", hard_usd="5")
    spend(nina, cost=ACTUAL)
    assert {(one.subject, one.span.period) for one in read_standings(nina.membership)} == {
        ("member", "day"),
        ("tenant", "month"),
    }
    assert [one.subject for one in read_tenant_standings(nina.membership.tenant)] == ["tenant"]


def test_a_failed_call_and_its_retry_are_both_set_aside(nina: Principal) -> None:
    budget(subject="tenant", period="day", hard_usd="0.05")
    request_id = uuid.uuid4()
    for amount in (ESTIMATE, ACTUAL):
        reserve_cost(membership=nina.membership, request_id=request_id, amount=amount)
    assert Reservation.objects.get().amount_usd == ESTIMATE + ACTUAL
    with pytest.raises(Problem):
        reserve_cost(membership=nina.membership, request_id=uuid.uuid4(), amount=ESTIMATE)
    release_cost(request_id=request_id)
    reserve_cost(membership=nina.membership, request_id=uuid.uuid4(), amount=ESTIMATE)


def test_a_model_without_a_price_is_refused_where_a_hard_limit_holds(nina: Principal) -> None:
    reserve = {"membership": nina.membership, "request_id": uuid.uuid4(), "amount": None}
    assert not reserve_cost(**reserve)
    soft = budget(subject="tenant", period="day", soft_usd="1")
    assert not reserve_cost(**reserve)
    Budget.objects.filter(pk=soft.pk).update(hard_usd="2")
    with pytest.raises(Problem) as refused:
        reserve_cost(**reserve)
    assert (refused.value.status, refused.value.code) == (402, "unpriced-model")


def test_who_manages_is_told_once_at_80_and_at_100_percent(nina: Principal) -> None:
    budget(subject="tenant", period="month", hard_usd="0.20")

    def told() -> list[tuple[str, int]]:
        events = AuditEvent.objects.filter(action__startswith="budget.").order_by("at")
        return [(event.action, event.detail["percent"]) for event in events]

    spend(nina, cost=Decimal("0.15"))
    assert told() == []
    for cost in ("0.011", "0.001", "0.019"):
        spend(nina, cost=Decimal(cost))
    assert told() == [("budget.near", 80)]
    for _ in range(2):
        with pytest.raises(Problem):
            spend(nina, cost=ACTUAL)  # does not fit any more: the budget is spent
    assert told() == [("budget.near", 80), ("budget.spent", 90)]


def test_another_time_zone_gives_no_money_early(
    nina: Principal, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_clock(hour: int, *, day: int = 10) -> datetime:
        at = datetime(2026, 3, day, hour, 30, tzinfo=UTC)
        monkeypatch.setattr(budgets, "timezone", SimpleNamespace(now=lambda: at))
        return at

    def move(zone: str) -> None:
        Tenant.objects.using("platform").filter(pk=people.acme.pk).update(time_zone=zone)
        nina.membership.tenant.time_zone = zone

    budget(subject="tenant", period="day", hard_usd=Decimal("0.02"))
    morning = set_clock(10)
    spend(nina, cost=ESTIMATE)
    UsageRecord.objects.update(created_at=morning)
    set_clock(20)
    for zone in ("Asia/Tokyo", "Pacific/Pago_Pago", "UTC", "Asia/Tokyo"):
        move(zone)  # in Tokyo the next day began at 15:00 UTC
        with pytest.raises(Problem) as caught:
            spend(nina, cost=ESTIMATE)
        assert caught.value.extra["budget"]["resets_at"].startswith(
            {
                "UTC": "2026-03-11T00:00",
                "Asia/Tokyo": "2026-03-11T09:00",
                "Pacific/Pago_Pago": "2026-03-10T13:00",
            }[zone]
        )
        (standing,) = read_standings(nina.membership)
        assert standing.spent == ESTIMATE
    set_clock(0, day=11)  # over; what was spent in the morning is of no day of Tokyo's that goes on
    spend(nina, cost=ESTIMATE)
    (standing,) = read_standings(nina.membership)
    assert standing.span.end == datetime(2026, 3, 11, 15, tzinfo=UTC)


def test_days_and_months_are_those_of_the_tenants_calendar() -> None:
    at = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)  # the night that Berlin's clocks go forward
    day = span_of("day", at=at, zone="Europe/Berlin")
    assert (day.end - day.start) == timedelta(days=1)  # of the wall clock
    assert day.end.astimezone(UTC) - day.start.astimezone(UTC) == timedelta(hours=23)
    month = span_of("month", at=datetime(2026, 12, 31, 23, 30, tzinfo=UTC), zone="Europe/Berlin")
    assert (month.start.isoformat(), month.end.isoformat()) == (
        "2027-01-01T00:00:00+01:00",
        "2027-02-01T00:00:00+01:00",
    )
