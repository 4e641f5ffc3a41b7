"""The ledger by day, model and endpoint in one walk: three walks of ``tenants.costs`` take a second and more where a
tenant has a million calls."""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum

from tenants.admin_periods import number_of_day
from tenants.costs import Group, Totals, by_field
from tenants.models import UsageRecord
from tenants.periods import Days
from tenants.usage import ZERO


@dataclass(frozen=True)
class Costs:
    """``days`` in order, the groups costliest first; ``more`` people than are listed."""

    totals: Totals
    days: list[Group]
    models: list[Group]
    endpoints: list[Group]
    people: list[Group]
    more: int


def cost_figures(calls: "QuerySet[UsageRecord]", days: Days) -> Costs:
    """What ``calls``, all of them on ``days``, come to."""
    by_day: dict[str, Group] = {day.isoformat(): _nothing(day.isoformat()) for day in days}
    names = list(by_day)
    by_model, by_endpoint = _Groups(), _Groups()
    whole, failed = _nothing(""), 0
    for row in _rows(calls, days):
        found = Group(
            "", row["calls"], row["cost"] or ZERO, row["unpriced"], row["tokens_in"], row["tokens_out"]
        )
        name = names[row["day"] - 1]
        by_day[name] = _sum(by_day[name], found)
        by_model.add(row["model"], found)
        by_endpoint.add(row["endpoint"], found)
        whole, failed = _sum(whole, found), failed + row["failed"]
    people, more = by_field(calls, "user__username")
    totals = Totals(
        calls=whole.calls,
        requests=calls.order_by().aggregate(n=Count("request_id", distinct=True))["n"],
        failed=failed,
        unpriced=whole.unpriced,
        cost=whole.cost,
        input_tokens=whole.input_tokens,
        output_tokens=whole.output_tokens,
    )
    return Costs(totals, list(by_day.values()), by_model.ordered(), by_endpoint.ordered(), people, more)


def _rows(calls: "QuerySet[UsageRecord]", days: Days) -> Any:
    return (
        calls.order_by()
        .annotate(day=number_of_day("created_at", days))
        .values("day", "model", "endpoint")
        .annotate(
            calls=Count("id"),
            cost=Sum("cost_usd"),
            unpriced=Count("id", filter=Q(cost_usd=None)),
            failed=Count("id", filter=~Q(status="success")),
            tokens_in=Sum("input_tokens"),
            tokens_out=Sum("output_tokens"),
        )
    )


class _Groups(defaultdict[str, Group]):
    def __missing__(self, name: str) -> Group:
        return _nothing(name)

    def add(self, name: str, found: Group) -> None:
        self[name] = _sum(self[name], found)

    def ordered(self) -> list[Group]:
        return sorted(self.values(), key=lambda group: (-group.cost, -group.calls, group.name))


def _nothing(name: str) -> Group:
    return Group(name, 0, ZERO, 0, 0, 0)


def _sum(group: Group, found: Group) -> Group:
    return replace(
        group,
        calls=group.calls + found.calls,
        cost=group.cost + found.cost,
        unpriced=group.unpriced + found.unpriced,
        input_tokens=group.input_tokens + found.input_tokens,
        output_tokens=group.output_tokens + found.output_tokens,
    )
