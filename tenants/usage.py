"""The cost ledger and what is read from it."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, F, Sum

from ragsite.core.observability import LLM_CALLS, LLM_COST, LLM_TOKENS
from tenants.budgets import (
    count_spending,
    lock_budgets,
    read_tenant_standings,
    release_cost,
    show_standing,
)
from tenants.models import Tenant, UsageRecord, User
from tenants.scope import on_commit

ZERO = Decimal(0)


@dataclass(frozen=True)
class Call:
    """One model call as it happened. Tokens are counts, ``seconds`` wall time, ``cost_usd`` ``None`` if unpriced."""

    provider: str
    model: str
    kind: str
    status: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: Decimal | None
    seconds: float
    estimated: bool = False


def record_calls(*, user: User | None, request_id: uuid.UUID, endpoint: str, calls: list[Call]) -> None:
    """Writes the ledger rows of one request, and settles what was set aside for it.

    In a transaction, as its last step: it takes the lock of the tenant's budgets.
    """
    cost = sum((call.cost_usd or ZERO for call in calls), ZERO)
    if cost:
        lock_budgets()
    release_cost(request_id=request_id)
    UsageRecord.objects.bulk_create(
        UsageRecord(
            user=user,
            request_id=request_id,
            endpoint=endpoint,
            provider=call.provider,
            model=call.model,
            kind=call.kind,
            status=call.status,
            input_tokens=call.input_tokens,
            output_tokens=call.output_tokens,
            cache_read_tokens=call.cache_read_tokens,
            cache_write_tokens=call.cache_write_tokens,
            estimated=call.estimated,
            cost_usd=call.cost_usd,
            latency_ms=round(call.seconds * 1000, 2),
        )
        for call in calls
    )
    if cost:
        count_spending(user_id=user.pk if user else None, cost=cost)
    on_commit(lambda: _count_metrics(calls))  # what was rolled back is in no figure


def _count_metrics(calls: list[Call]) -> None:
    for call in calls:
        LLM_CALLS.labels(call.provider, call.model, call.status).inc()
        LLM_TOKENS.labels(call.model, "input").inc(call.input_tokens)
        LLM_TOKENS.labels(call.model, "output").inc(call.output_tokens)
        LLM_TOKENS.labels(call.model, "cache_read").inc(call.cache_read_tokens)
        LLM_TOKENS.labels(call.model, "cache_write").inc(call.cache_write_tokens)
        if call.cost_usd:
            LLM_COST.labels(call.model).inc(float(call.cost_usd))


def _group(rows: Any, field: str, name: str) -> list[dict[str, Any]]:
    return [
        {
            name: row[field] or "",
            "calls": row["calls"],
            "cost": row["cost"] or ZERO,
            "input_tokens": row["tokens_in"] or 0,
            "output_tokens": row["tokens_out"] or 0,
            "cache_read_tokens": row["cache_read"] or 0,
            "cache_write_tokens": row["cache_write"] or 0,
        }
        for row in rows.values(field)
        .annotate(
            calls=Count("id"),
            cost=Sum("cost_usd"),
            tokens_in=Sum("input_tokens"),
            tokens_out=Sum("output_tokens"),
            cache_read=Sum("cache_read_tokens"),
            cache_write=Sum("cache_write_tokens"),
        )
        .order_by(F("cost").desc(nulls_last=True), "-calls", field)
    ]


def summarise_costs(*, tenant: Tenant, start: datetime, end: datetime) -> dict[str, Any]:
    """The tenant's spending in ``[start, end)``.

    Rates are the period's cost over its length, per hour, day and 30 days. Costs are exact decimals in US dollars;
    calls of a model without a price count as calls and are told in ``unpriced_calls``.
    """
    rows = UsageRecord.objects.filter(created_at__gte=start, created_at__lt=end)
    total = rows.aggregate(
        calls=Count("id"), cost=Sum("cost_usd"), questions=Count("request_id", distinct=True)
    )
    cost = total["cost"] or ZERO
    hours = Decimal(str(max((end - start) / timedelta(hours=1), 1e-9)))
    hourly = cost / hours
    digits = Decimal("0.00000001")
    return {
        "from": start,
        "to": end,
        "total_calls": total["calls"],
        "total_cost": cost,
        "hourly_rate": hourly.quantize(digits),
        "daily_rate": (hourly * 24).quantize(digits),
        "monthly_rate": (hourly * 24 * 30).quantize(digits),
        "avg_cost_per_query": (cost / total["questions"]).quantize(digits) if total["questions"] else ZERO,
        "unpriced_calls": rows.filter(cost_usd__isnull=True).count(),
        "by_model": _group(rows, "model", "model"),
        "by_user": _group(rows, "user__username", "user"),
        "budget": [show_standing(one) for one in read_tenant_standings(tenant)] or None,
    }
