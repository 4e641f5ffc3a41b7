"""The costs page of the admin: figures, who sees them, and the way down to the calls."""

import csv
import io
import re
import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from tenants.models import AuditEvent, Tenant, UsageRecord
from tenants.scope import scope, unscoped
from tests.tenants.admin_cast import add_reviewer, operator, signed_in, url_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

COSTS = "/admin/costs/"


def spend(
    member: Any, *, model: str, cost: str | None, endpoint: str = "query", days: int = 0, **more: Any
) -> None:
    with scope(tenant_id=member.membership.tenant_id, tags=None):
        row = UsageRecord.objects.create(
            user=member.membership.user,
            request_id=more.pop("request_id", uuid.uuid4()),
            endpoint=endpoint,
            provider="anthropic",
            model=model,
            kind="answer",
            status=more.pop("status", "success"),
            input_tokens=1000,
            output_tokens=100,
            cost_usd=None if cost is None else Decimal(cost),
        )
        if days:
            UsageRecord.objects.filter(pk=row.pk).update(created_at=timezone.now() - timedelta(days=days))


@pytest.fixture
def spent(cast: Any) -> Any:
    asked = uuid.uuid4()
    spend(cast.nina, model="haiku", cost="0.10", request_id=asked)
    spend(cast.nina, model="haiku", cost="0.30", request_id=asked)
    spend(cast.sam, model="sonnet", cost="2.00", endpoint="stream", days=3)
    spend(cast.sam, model="unknown", cost=None, status="error")
    spend(cast.hal, model="sonnet", cost="5.00", days=20)
    spend(cast.hal, model="sonnet", cost="90.00", days=60)
    spend(cast.gina, model="haiku", cost="7.00")
    return cast


def export(client: Any, query: str = "") -> dict[str, dict[str, list[str]]]:
    """Cells by group and name."""
    response = client.get(f"{COSTS}?export=csv{query}")
    rows = list(csv.reader(io.StringIO(b"".join(response).decode())))
    assert rows[0] == [
        "group",
        "name",
        "calls",
        "unpriced_calls",
        "input_tokens",
        "output_tokens",
        "cost_usd",
    ]
    found: dict[str, dict[str, list[str]]] = {}
    for group, name, *cells in rows[1:]:
        found.setdefault(group, {})[name] = cells
    return found


def test_costs_are_told_by_day_model_person_and_endpoint(spent: Any) -> None:
    ada = signed_in("ada")
    month = export(ada)
    assert {name: float(cells[-1]) for name, cells in month["Model"].items()} == {
        "sonnet": 7.0,
        "haiku": 0.4,
        "unknown": 0.0,
    }
    assert {name: int(cells[0]) for name, cells in month["Person"].items()} == {"sam": 2, "hal": 1, "nina": 2}
    assert {name: int(cells[0]) for name, cells in month["Endpoint"].items()} == {"query": 4, "stream": 1}
    assert month["Model"]["unknown"][:2] == ["1", "1"]
    assert len(month["Day"]) == 30 and sum(float(cells[-1]) for cells in month["Day"].values()) == 7.4
    assert "Tenant" not in month
    week = export(ada, "&days=7")
    assert len(week["Day"]) == 7 and "hal" not in week["Person"]
    quarter = export(ada, "&days=90")
    assert float(quarter["Model"]["sonnet"][-1]) == 97.0


def test_totals_and_averages(spent: Any) -> None:
    text = signed_in("ada").get(COSTS).content.decode()
    figures = dict(re.findall(r">([A-Z][a-z ]+)</(?:span|a)>\s*<strong>([^<]+)</strong>", text))
    assert figures["Cost"] == "$7.40"
    assert figures["Per day"] == "$0.2467"
    assert figures["Calls"] == "5"
    assert figures["Per call"] == "$1.85"  # of the four that have a price
    assert figures["Per question"] == "$1.85"  # four questions called a model
    assert "1 failed" in text and "without 1 calls of models that have no price" in text


def test_month_to_date_is_the_calendars_month_in_the_tenants_time_zone(cast: Any) -> None:
    Tenant.objects.using("platform").filter(pk=cast.acme.pk).update(time_zone="Pacific/Kiritimati")
    with timezone.override("Pacific/Kiritimati"):
        first = timezone.localtime().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for amount, moment in (("4.00", first), ("8.00", first - timedelta(seconds=1))):
        spend(cast.nina, model="haiku", cost=amount)
        with scope(tenant_id=cast.acme.pk, tags=None):
            UsageRecord.objects.filter(cost_usd=Decimal(amount)).update(created_at=moment)
    text = signed_in("ada").get(COSTS).content.decode()
    assert dict(re.findall(r">([A-Z][a-z ]+)</span>\s*<strong>([^<]+)<", text))["This month"] == "$4.00"


def test_every_figure_leads_down_to_its_calls(spent: Any) -> None:
    ada = signed_in("ada")
    page = ada.get(COSTS).content.decode()
    links = {
        name: link.replace("&amp;", "&")
        for link, name in re.findall(r'<th scope="row">\s*<a href="([^"]+)">([^<]+)</a>', page)
    }
    for name, rows in (
        ("sonnet", 2),
        ("haiku", 2),
        ("nina", 2),
        ("stream", 1),
        (str(timezone.localdate()), 3),
    ):
        assert links[name].startswith(url_of(UsageRecord, "changelist")), name
        assert ada.get(links[name]).content.decode().count("data-row") == rows, name
    every = re.search(r'href="([^"]+)">Calls</a>', page)
    assert every and ada.get(every[1].replace("&amp;", "&")).content.decode().count("data-row") == 5


def test_the_platform_sees_all_tenants_and_no_ones_calls(spent: Any) -> None:
    root = operator()
    found = export(root)
    assert {name: float(cells[-1]) for name, cells in found["Tenant"].items()} == {"Acme": 7.4, "Globex": 7.0}
    assert set(found["Person"]) == {"gina", "hal", "sam", "nina"}
    text = root.get(COSTS).content.decode()
    assert url_of(UsageRecord, "changelist") not in text
    assert f'name="tenant" value="{spent.acme.pk}"' in text  # the way into the tenant
    inside = export(operator(spent.globex))
    assert set(inside["Person"]) == {"gina"} and "Tenant" not in inside
    with unscoped(reason="tests"):
        assert (
            AuditEvent.objects.filter(tenant=None, action="platform.export", actor_name="root").count() == 1
        )
        assert (
            AuditEvent.objects.filter(tenant=spent.globex, action="admin.export", actor_name="root").count()
            == 1
        )


def test_costs_are_for_those_who_manage(spent: Any) -> None:
    add_reviewer(spent)
    assert signed_in("rita").get(COSTS).status_code == 403
    assert "gina" not in signed_in("ada").get(COSTS).content.decode()


def test_a_period_without_calls_says_so(cast: Any) -> None:
    text = signed_in("ada").get(COSTS).content.decode()
    assert "Nothing in this period." in text and "$0.00" in text
    assert signed_in("ada").get(COSTS, {"days": "x" * 400}).status_code == 200


def test_a_model_named_like_a_formula_is_no_formula_in_the_file(cast: Any) -> None:
    spend(cast.nina, model="=1+1", cost="1")
    assert "'=1+1" in export(signed_in("ada"))["Model"]
