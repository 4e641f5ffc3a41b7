"""Usage and costs: a period at a glance, down to each call, exported; for those who see costs."""

import csv
import io
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django.test import AsyncClient, Client
from django.utils import timezone

from tenants import costs
from tenants.costs import Asked, by_day, by_field, calls_of, stream_calls, total
from tenants.models import AuditEvent, Membership, Role, Tenant, UsageRecord
from tenants.periods import Days, last_month, month_to_date
from tenants.scope import scope, unscoped
from tests.security.helpers import session_client
from tests.tenants.conftest import People
from tests.tenants.counting import queries_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
PERIOD = "from=2026-03-01&to=2026-03-31"


def add(people: People, at: datetime = NOON, *, of: str = "acme", **values: Any) -> UsageRecord:
    given = {
        "user": people.nina.membership.user,
        "request_id": uuid4(),
        "endpoint": "query",
        "provider": "anthropic",
        "model": "sonnet",
        "kind": "answer",
        "status": "success",
        "input_tokens": 1000,
        "output_tokens": 100,
        "cost_usd": Decimal("0.5"),
        **values,
    }
    with scope(tenant_id=getattr(people, of).pk, tags=None):
        row: UsageRecord = UsageRecord.objects.create(**given)
        UsageRecord.objects.filter(pk=row.pk).update(created_at=at)
        return row


def page_of(client: Client, query: str = PERIOD) -> str:
    response = client.get(f"/usage/?{query}")
    assert response.status_code == 200, response.content
    return str(response.content.decode())


def figures(page: str) -> dict[str, str]:
    """What each figure says, without its tags."""
    found = re.findall(r"<dt>([^<]+)</dt><dd>(.*?)</dd>", page, re.DOTALL)
    return {name: " ".join(re.sub(r"<[^>]+>", " ", text).split()) for name, text in found}


def test_the_figures_of_a_period(people: People) -> None:
    request = uuid4()
    add(people, request_id=request)
    add(people, request_id=request, kind="rewrite", model="haiku", cost_usd=Decimal("0.25"))
    add(people, status="error", cost_usd=Decimal("1.5"), user=None)
    add(people, model="local", cost_usd=None)
    add(people, at=datetime(2026, 2, 20, tzinfo=UTC), cost_usd=Decimal(8))
    add(people, of="globex", cost_usd=Decimal(100))
    page = page_of(session_client("ada"))
    found = figures(page)
    assert found["Cost"] == "$2.25 $8.00 in the 31 days before"
    assert (
        found["Model calls"] == "4 in 3 requests , 1 failed"
        or found["Model calls"] == "4 in 3 requests, 1 failed"
    )
    assert found["Each request"].startswith("$0.75")
    assert found["Tokens"] == "4,000 in, 400 out"
    assert "1 call is of a model without a price" in page
    assert "nobody any more" in page and "unpriced" in page and "budget" not in page.lower()
    assert 'role="img"' in page and "The highest: 10 Mar, $2.25." in page


def test_a_day_without_a_call_is_nought_and_days_are_the_tenants(people: People) -> None:
    with unscoped(reason="tests"):
        Tenant.objects.filter(pk=people.acme.pk).update(time_zone="America/New_York")
    add(people, at=datetime(2026, 3, 10, 3, tzinfo=UTC))  # the 9th in New York
    add(people, at=datetime(2026, 3, 11, 12, tzinfo=UTC))
    ada = session_client("ada")
    page = page_of(ada, "from=2026-03-08&to=2026-03-12")
    told = re.findall(r"<title>(\d+ Mar): ([^<]+)</title>", page)
    spent, nothing = "$0.5000, calls: 1", "$0.00, calls: 0"
    days = {"8 Mar": nothing, "9 Mar": spent, "10 Mar": nothing, "11 Mar": spent, "12 Mar": nothing}
    assert told == list(days.items())
    assert figures(page_of(ada, "from=2026-03-10&to=2026-03-10"))["Model calls"].startswith("0")
    assert figures(page_of(ada, "from=2026-03-09&to=2026-03-09"))["Model calls"].startswith("1")


def test_days_cover_the_change_of_the_clock() -> None:
    with timezone.override("Europe/Berlin"):
        days = Days(date(2026, 3, 28), date(2026, 3, 30))
        assert days.end.astimezone(UTC) - days.start.astimezone(UTC) == timedelta(hours=71)
        assert len(days) == 3 and list(days) == [date(2026, 3, 28), date(2026, 3, 29), date(2026, 3, 30)]
        assert days.before() == Days(date(2026, 3, 25), date(2026, 3, 27))
        assert month_to_date().first.day == 1 and month_to_date().last == timezone.localdate()
        assert last_month().last + timedelta(days=1) == month_to_date().first


def test_the_sums_of_days_models_and_people_are_the_total(people: People) -> None:
    for number in range(20):
        add(
            people,
            at=NOON + timedelta(days=number % 7),
            model=f"m{number % 3}",
            user=[people.nina.membership.user, people.ada.membership.user, None][number % 3],
            cost_usd=None if number % 5 == 0 else Decimal(number) / 7,
        )
    with scope(tenant_id=people.acme.pk, tags=None), timezone.override("UTC"):
        days = Days(date(2026, 3, 1), date(2026, 3, 31))
        calls = calls_of(Asked(days=days))
        whole = total(calls)
        parts = [
            [group for _day, group in by_day(calls, days)],
            by_field(calls, "model")[0],
            by_field(calls, "user__username")[0],
        ]
    assert whole.calls == 20 and whole.unpriced == 4
    for groups in parts:
        assert sum(group.calls for group in groups) == whole.calls
        assert sum(group.unpriced for group in groups) == whole.unpriced
        assert abs(sum(group.cost for group in groups) - whole.cost) < Decimal("1e-9")
    assert [group.name for group in parts[2]] != [] and "-" in {group.name for group in parts[2]}


def test_the_table_leads_to_the_calls(people: People) -> None:
    add(people)
    add(people, model="haiku", user=None, cost_usd=None, status="error")
    add(people, at=NOON + timedelta(days=1), user=people.ada.membership.user)
    ada = session_client("ada")

    def calls(query: str) -> int:
        page = ada.get(f"/usage/calls/?{query}")
        assert page.status_code == 200
        return page.content.decode().count('data-name="Model"')

    links = {
        link.replace("&amp;", "&") for link in re.findall(r'href="/usage/calls/\?([^"]+)"', page_of(ada))
    }
    assert {link: calls(link) for link in links} == {
        "from=2026-03-10&to=2026-03-10": 2,
        "from=2026-03-11&to=2026-03-11": 1,
        f"{PERIOD}&model=sonnet": 2,
        f"{PERIOD}&model=haiku": 1,
        f"{PERIOD}&user=nina": 1,
        f"{PERIOD}&user=ada": 1,
        f"{PERIOD}&user=-": 1,
    }
    page = ada.get(f"/usage/calls/?{PERIOD}&user=-").content.decode()
    assert "unpriced" in page and "error" in page and "nobody any more" in page


def test_calls_are_paged(people: People) -> None:
    for number in range(60):
        add(people, at=NOON + timedelta(seconds=number // 2))
    ada = session_client("ada")
    first = ada.get(f"/usage/calls/?{PERIOD}").content.decode()
    following = re.search(r'href="/usage/calls/\?([^"]*after=[^"]+)"', first)
    assert following and first.count('data-name="Model"') == 50
    second = ada.get(f"/usage/calls/?{following.group(1).replace('&amp;', '&')}").content.decode()
    assert second.count('data-name="Model"') == 10 and "after=" not in second


def test_the_export_is_csv_of_the_calls_and_in_the_log(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "EXPORT_BATCH", 4)
    for number in range(10):
        add(people, at=NOON + timedelta(minutes=number), model="=sonnet", cost_usd=Decimal("0.000000000123"))
    add(people, of="globex", model="theirs")
    ada = session_client("ada")

    async def fetch() -> tuple[Any, str]:
        inner = AsyncClient()
        inner.cookies = ada.cookies
        response: Any = await inner.get(f"/usage/export/?{PERIOD}&user=nina")
        return response, b"".join([part async for part in response.streaming_content]).decode()

    response, body = async_to_sync(fetch)()
    assert 'filename="acme-usage-2026-03-01-2026-03-31.csv"' in response.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(body)))
    assert len(rows) == 10 and len({row["request_id"] for row in rows}) == 10
    assert {(row["model"], row["cost_usd"], row["user"]) for row in rows} == {
        ("'=sonnet", "0.000000000123", "nina")
    }
    with scope(tenant_id=people.acme.pk, tags=None):
        event = AuditEvent.objects.get(action="usage.export")
        assert event.detail == {"from": "2026-03-01", "to": "2026-03-31", "user": "nina"}
        days = Days(date(2026, 3, 1), date(2026, 3, 31))
        assert len(list(stream_calls(calls_of(Asked(days=days))))) == 10


def test_for_those_who_see_costs_or_manage(people: People) -> None:
    def have(username: str, *abilities: str) -> None:
        with scope(tenant_id=people.acme.pk, tags=None):
            role = Role.objects.create(name=f"{username} {abilities}", abilities=list(abilities))
            Membership.objects.filter(user__username=username).update(role=role)

    nina = session_client("nina")
    paths = ("/usage/", "/usage/calls/", "/usage/export/", "/usage/questions/")
    for path in paths:
        assert nina.get(path).status_code == 403 and Client().get(path).status_code == 302
    have("nina", "ask", "see_costs")
    assert {nina.get(path).status_code for path in paths} == {200}
    assert "/usage/" in nina.get("/").content.decode()
    assert nina.get("/members/").status_code == 403
    have("nina", "ask", "manage")
    assert {nina.get(path).status_code for path in paths} == {200}


@pytest.mark.parametrize(
    "query", ["from=x", "from=2026-02-30", "from=2026-03-02&to=2026-03-01", "from=2020-01-01&to=2026-01-01"]
)
def test_what_is_no_period_is_said(people: People, query: str) -> None:
    ada = session_client("ada")
    response = ada.get(f"/usage/?{query}")
    assert response.status_code == 400 and "field-error" in response.content.decode()
    assert ada.get(f"/usage/calls/?{query}").status_code == 400


def test_nothing_yet_is_said(people: People) -> None:
    page = page_of(session_client("ada"), "")
    assert "No model was called" in page and figures(page)["Cost"].startswith("$0.00")


def test_the_database_is_asked_as_often_for_fifty_as_for_five(people: People) -> None:
    ada = session_client("ada")
    for path in (f"/usage/?{PERIOD}", f"/usage/calls/?{PERIOD}"):
        add(people)
        few = queries_of(lambda path=path: ada.get(path))  # type: ignore[misc]
        for number in range(50):
            add(people, at=NOON + timedelta(hours=number), model=f"m{number}")
        assert queries_of(lambda path=path: ada.get(path)) == few <= 10  # type: ignore[misc]


def test_many_models_are_listed_up_to_a_number(people: People) -> None:
    for number in range(53):
        add(people, model=f"m{number}")
    page = page_of(session_client("ada"))
    assert page.count("model=m") == 50 and "and 3 more" in page


def test_questions_are_counted_beside_the_costs(cast: Any) -> None:
    from tests.security.helpers import call

    for question in ("What is the hold timer on edge routers?", "Who won the chess match on the moon?"):
        assert call(cast.ada.client, "POST", "/api/v1/query", {"question": question}).status_code == 200
    ada = session_client("ada")
    today = timezone.localdate().isoformat()
    part = ada.get(
        f"/usage/questions/?from={today}&to={today}", headers={"hx-request": "true"}
    ).content.decode()
    found = figures(part)
    assert found["Questions"].startswith("2") and found["Answered"].startswith("50 %")
    assert "/usage/questions/" in page_of(ada, "")


def test_times_of_the_database_and_of_python_agree_on_every_zone() -> None:
    """A zone that can be chosen is one that PostgreSQL knows: days are cut there."""
    from tenants.people import time_zones

    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT name FROM pg_timezone_names")
        known = {name for (name,) in cursor.fetchall()}
    assert len(time_zones()) > 300
    assert set(time_zones()) - known == set()
