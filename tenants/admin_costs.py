"""Costs in the admin: a period by day, model, endpoint, person and tenant, each leading down to its calls."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from tenants.access import Principal
from tenants.admin_charts import Chart, Series
from tenants.admin_cost_figures import Costs, cost_figures
from tenants.admin_operator import on_platform
from tenants.admin_periods import CHOICES, days_asked_for
from tenants.audit import record_by, record_platform_event
from tenants.costs import NOBODY, Asked, Group, Totals, by_field, calls_of, cost_between
from tenants.exports import csv_response
from tenants.models import Ability, Tenant, UsageRecord
from tenants.periods import Days, month_to_date


@dataclass(frozen=True)
class Row:
    """A group of calls; ``link`` leads to them, ``tenant`` is one to enter instead."""

    group: Group
    name: str
    share: int
    link: str = ""
    tenant: str = ""

    @property
    def tokens(self) -> str:
        return f"{shorten(self.group.input_tokens)} / {shorten(self.group.output_tokens)}"


@dataclass(frozen=True)
class Table:
    title: str
    head: str
    rows: list[Row]
    more: int = 0


def shorten(count: int) -> str:
    """``221644500`` as ``221.6 M``."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def may_see_costs(request: HttpRequest) -> bool:
    """Those who manage their tenant, and superusers everywhere."""
    principal: Principal | None = getattr(request, "principal", None)
    return on_platform(request) or (principal is not None and principal.may(Ability.MANAGE))


def costs_page(request: HttpRequest) -> HttpResponseBase:
    """The page, or with ``export`` in its address the same as CSV."""
    if not may_see_costs(request):
        raise PermissionDenied
    days = days_asked_for(request.GET.get("days"))
    platform = on_platform(request)
    calls = calls_of(Asked(days=days))
    costs = cost_figures(calls, days)
    tables = _tables(costs, calls, days, platform=platform)
    if "export" in request.GET:
        return _export(request, days, tables)
    totals = costs.totals
    month = month_to_date()
    context = {
        **admin.site.each_context(request),
        "title": _("Costs"),
        "days": days,
        "periods": [
            {"title": _("%(n)d days") % {"n": n}, "link": f"?days={n}", "active": n == len(days)}
            for n in CHOICES
        ],
        "totals": totals,
        "per_call": _per_call(totals),
        "per_day": totals.cost / len(days),
        "month": cost_between(month.start, month.end),
        "tokens": (shorten(totals.input_tokens), shorten(totals.output_tokens)),
        "chart": _chart(tables[0], days),
        "tables": tables,
        "calls_link": "" if platform else _calls(days),
    }
    return TemplateResponse(request, "admin/costs.html", context)


def _per_call(totals: Totals) -> Decimal | None:
    """Of the calls that have a price."""
    priced = totals.calls - totals.unpriced
    return totals.cost / priced if priced else None


def _calls(days: Days, **query: str) -> str:
    period = {"created_at_from": days.first.isoformat(), "created_at_to": days.last.isoformat()}
    return f"{reverse('admin:tenants_usagerecord_changelist')}?{urlencode(period | query)}"


def _tables(costs: Costs, calls: "QuerySet[UsageRecord]", days: Days, *, platform: bool) -> list[Table]:
    by_days = [
        _row(group, costs.days, link="" if platform else _calls(Days(day, day)))
        for day, group in zip(days, costs.days, strict=True)
    ]
    tables = [Table(_("By day"), _("Day"), by_days[::-1])]
    if platform:
        tables.append(_by_tenant(calls))
    for groups, more, query, title, head in (
        (costs.models, 0, "model", _("By model"), _("Model")),
        (costs.people, costs.more, "member", _("By person"), _("Person")),
        (costs.endpoints, 0, "endpoint", _("By endpoint"), _("Endpoint")),
    ):
        named = [
            _row(
                group,
                groups,
                link="" if platform or group.name == NOBODY else _calls(days, **{query: group.name}),
            )
            for group in groups
        ]
        tables.append(Table(title, head, named, more))
    return tables


def _by_tenant(calls: "QuerySet[UsageRecord]") -> Table:
    groups, more = by_field(calls, "tenant_id")
    names = dict(Tenant.objects.filter(pk__in=[group.name for group in groups]).values_list("pk", "name"))
    rows = [
        _row(group, groups, name=names.get(group.name, ""), tenant=str(group.name))  # type: ignore[call-overload]
        for group in groups
    ]
    return Table(_("By tenant"), _("Tenant"), rows, more)


def _row(group: Group, groups: list[Group], *, name: str = "", link: str = "", tenant: str = "") -> Row:
    """With its share of the highest: of the cost, or of the calls where nothing has a price."""
    highest = max(each.cost for each in groups)
    share = group.cost / highest if highest else Decimal(group.calls) / max(1, max(g.calls for g in groups))
    shown = name or (_("nobody any more") if group.name == NOBODY else str(group.name))
    return Row(group, shown, round(share * 100), link, tenant)


def _chart(by_days: Table, days: Days) -> Chart:
    rows = by_days.rows[::-1]
    priced = any(row.group.cost for row in rows)
    return Chart(
        _("Cost per day") if priced else _("Model calls per day"),
        "bar",
        list(days),
        [Series(_("US dollars"), [row.group.cost for row in rows])]
        if priced
        else [Series(_("calls"), [row.group.calls for row in rows])],
        unit="$" if priced else "",
    )


def _export(request: HttpRequest, days: Days, tables: list[Table]) -> HttpResponseBase:
    detail = {"what": "costs", "from": days.first.isoformat(), "to": days.last.isoformat()}
    principal: Principal | None = getattr(request, "principal", None)
    if principal is None:
        record_platform_event(action="platform.export", actor=request.user, detail=detail)  # type: ignore[arg-type]
    else:
        record_by(principal, "admin.export", None, detail)
    header = ("group", "name", "calls", "unpriced_calls", "input_tokens", "output_tokens", "cost_usd")
    return csv_response(name=f"costs-{days.first}-{days.last}.csv", header=header, rows=_lines(tables))


def _lines(tables: list[Table]) -> Iterator[list[Any]]:
    for table in tables:
        for row in table.rows:
            group = row.group
            yield [
                table.head,
                row.name,
                group.calls,
                group.unpriced,
                group.input_tokens,
                group.output_tokens,
                group.cost,
            ]
