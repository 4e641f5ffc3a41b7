"""What the model calls of the tenant cost: a period at a glance, and down to each call."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils.formats import date_format
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.charts import Column, column_chart, share_bar
from tenants.costs import (
    NOBODY,
    Asked,
    Group,
    by_day,
    by_field,
    calls_of,
    cost_between,
    stream_calls,
    total,
)
from tenants.exports import csv_response
from tenants.models import Ability, UsageRecord
from tenants.pages import is_part, member_page, render_part, shell_context
from tenants.paging import NEWEST, read_page
from tenants.periods import Days, last_days, last_month, month_to_date, read_days
from tenants.templatetags.people import money

PAGE = 50
HEADER = (
    *("at", "user", "model", "provider", "kind", "endpoint", "status", "input_tokens", "output_tokens"),
    *("cache_read_tokens", "cache_write_tokens", "cost_usd", "latency_ms", "request_id"),
)


def _require(principal: Principal) -> None:
    """For those who see costs, and for those who manage."""
    if not principal.may(Ability.MANAGE):
        principal.require(Ability.SEE_COSTS.value)


def _period(days: Days) -> dict[str, str]:
    return {"from": days.first.isoformat(), "to": days.last.isoformat()}


def _presets(chosen: Days) -> list[dict[str, Any]]:
    offered = {
        _("Month to date"): month_to_date(),
        _("Last month"): last_month(),
        _("30 days"): last_days(30),
        _("90 days"): last_days(90),
    }
    return [
        {"words": words, "query": urlencode(_period(days)), "chosen": days == chosen}
        for words, days in offered.items()
    ]


@require_GET
@member_page
def usage(request: HttpRequest, principal: Principal) -> HttpResponse:
    """A period: its total, by day, by model, by person."""
    _require(principal)
    problem, days = None, month_to_date()
    try:
        days = read_days(request)
    except Problem as found:
        if is_part(request):
            raise
        problem = found
    calls = calls_of(Asked(days=days))
    totals = total(calls)
    context = shell_context(principal) | {
        "here": "usage",
        "days": days,
        "presets": _presets(days),
        "query": urlencode(_period(days)),
        "totals": totals,
        "before": cost_between(days.before().start, days.before().end),
        "chart_of_days": _chart(calls, days) if totals.calls else None,
        "groups": [
            _groups(calls, days, "model", _("By model"), _("Model"), totals.cost),
            _groups(calls, days, "user", _("By person"), _("Person"), totals.cost),
        ],
    }
    return render_part(request, "tenants/usage.html", "all", context, problem=problem)


def _chart(calls: "QuerySet[UsageRecord]", days: Days) -> dict[str, Any]:
    """Costs by day; where nothing has a price, calls by day."""
    rows = by_day(calls, days)
    priced = any(group.cost for _day, group in rows)
    columns = [
        Column(
            label=date_format(day, "j M"),
            value=group.cost if priced else Decimal(group.calls),
            shown=_("%(cost)s, calls: %(calls)s") % {"cost": money(group.cost), "calls": group.calls},
        )
        for day, group in rows
    ]
    highest = max(columns, key=lambda column: column.value)
    words = _("Costs by day.") if priced else _("Model calls by day.")
    highest_words = _("The highest: %(day)s, %(value)s.") % {
        "day": highest.label,
        "value": money(highest.value) if priced else highest.value,
    }
    return {
        "title": _("Costs by day") if priced else _("Model calls by day"),
        "svg": column_chart(
            columns,
            summary=f"{words} {highest_words}",
            scale=(lambda value: f"${value.normalize():f}") if priced else (lambda value: f"{value:.0f}"),
        ),
        "rows": [
            {"day": day, "group": group, "query": urlencode({"from": group.name, "to": group.name})}
            for day, group in reversed(rows)
            if group.calls
        ],
    }


def _groups(
    calls: "QuerySet[UsageRecord]", days: Days, field: str, title: str, head: str, cost: Decimal
) -> dict[str, Any]:
    groups, more = by_field(calls, "user__username" if field == "user" else field)
    every = sum(group.calls for group in groups)

    def share(group: Group) -> Decimal:
        return group.cost / cost if cost else Decimal(group.calls) / every

    return {
        "field": field,
        "title": title,
        "head": head,
        "more": more,
        "rows": [
            {
                "group": group,
                "name": _("nobody any more") if group.name == NOBODY else group.name,
                "query": urlencode({**_period(days), field: group.name}),
                "bar": share_bar(share(group), summary=f"{share(group):.0%}"),
            }
            for group in groups
        ],
    }


def _asked(request: HttpRequest) -> Asked:
    def text(name: str) -> str:
        return request.GET.get(name, "").replace("\0", "")[:150]

    return Asked(days=read_days(request), user=text("user"), model=text("model"))


@require_GET
@member_page
def usage_calls(request: HttpRequest, principal: Principal) -> HttpResponse:
    """The calls of a day, a model or a person."""
    _require(principal)
    asked = _asked(request)
    rows = calls_of(asked).select_related("user")
    page = read_page(rows, order=NEWEST, cursor=request.GET.get("after", ""), size=PAGE)
    kept = _period(asked.days) | {
        name: value for name, value in {"user": asked.user, "model": asked.model}.items() if value
    }
    context = shell_context(principal) | {
        "here": "usage",
        "asked": asked,
        "days": asked.days,
        "is_nobody": asked.user == NOBODY,
        "page": page,
        "totals": total(calls_of(asked)),
        "query": urlencode(kept),
        "back": urlencode(_period(asked.days)),
        "older": urlencode({**kept, "after": page.next}),
    }
    return render_part(request, "tenants/usage_calls.html", "list", context)


@require_GET
@member_page
def usage_export(request: HttpRequest, principal: Principal) -> StreamingHttpResponse:
    """The calls as CSV; exporting is in the audit log."""
    _require(principal)
    asked = _asked(request)
    facts = _period(asked.days) | {"user": asked.user, "model": asked.model}
    record_by(principal, "usage.export", None, {name: value for name, value in facts.items() if value})
    name = f"{principal.membership.tenant.slug}-usage-{asked.days.first}-{asked.days.last}.csv"
    return csv_response(name=name, header=HEADER, rows=_cells(stream_calls(calls_of(asked))))


def _cells(calls: Iterator[UsageRecord]) -> Iterator[list[Any]]:
    for one in calls:
        yield [
            one.created_at,
            one.user.username if one.user else "",
            one.model,
            one.provider,
            one.kind,
            one.endpoint,
            one.status,
            one.input_tokens,
            one.output_tokens,
            one.cache_read_tokens,
            one.cache_write_tokens,
            one.cost_usd,
            one.latency_ms,
            one.request_id,
        ]
