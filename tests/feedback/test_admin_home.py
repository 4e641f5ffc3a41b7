"""The admin's home page: the right figures for each reader, also where there are none."""

import json
import re
from datetime import timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.db.models import Sum
from django.utils import timezone

from feedback.models import DocumentRequest, Feedback, Review
from knowledge.answering.warm import warm_cache
from knowledge.models import Answer, Job
from ragsite.core.redis import redis_connection
from tenants.models import Role, UsageRecord
from tenants.people import add_member, create_tenant, create_user
from tenants.scope import scope
from tenants.templatetags.people import money
from tests.cast import PASSWORD
from tests.knowledge.conftest import configure, model  # noqa: F401
from tests.knowledge.helpers import ask, send
from tests.stub_provider import Block, Reply, StubProvider
from tests.tenants.admin_cast import add_reviewer, operator, signed_in
from tests.tenants.test_admin_costs import export
from tests.tenants.test_admin_lists import statements

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def figures(client: Any, **query: Any) -> dict[str, tuple[str, str]]:
    """Value and note by name."""
    response = client.get("/admin/", query)
    assert response.status_code == 200
    items = re.findall(r'<li class="admin-figure.*?</li>', response.content.decode(), re.DOTALL)
    found = {}
    for item in items:
        name, value, note = (
            re.search(pattern, item, re.DOTALL)[1].strip()  # type: ignore[index]
            for pattern in (r"<(?:a|span)[^>]*>(.*?)</", r"<strong>(.*?)</strong>", r"<small>(.*?)</small>")
        )
        found[unescape(name)] = (value, unescape(note))
    return found


def charts(client: Any, **query: Any) -> dict[str, dict[str, list[Any]]]:
    """Values by the name of the series, by the title of the chart."""
    text = client.get("/admin/", query).content.decode()
    found = {}
    for figure in re.findall(r'<figure class="admin-chart">.*?</figure>', text, re.DOTALL):
        title = re.search(r"<figcaption>(.*?)(?: <span|</figcaption>)", figure, re.DOTALL)
        data = re.search(r'data-value="([^"]*)"', figure)
        sets = json.loads(unescape(data[1]))["datasets"] if data else []
        found[title[1]] = {each["label"]: each["data"] for each in sets}  # type: ignore[index]
    return found


def answer(member: Any, *, days: int = 0, **values: Any) -> Answer:
    defaults = {"status": "success", "answered": True, "cost_usd": Decimal("0.25"), "latency_ms": 800.0}
    row: Answer = Answer.objects.create(
        user=member.membership.user, role_name="r", question="q", endpoint="query", **(defaults | values)
    )
    at = timezone.now() - timedelta(days=days)
    Answer.objects.filter(pk=row.pk).update(created_at=at)
    call = UsageRecord.objects.create(
        user=member.membership.user,
        request_id=row.pk,
        endpoint="query",
        provider="anthropic",
        model="haiku",
        kind="answer",
        status="success",
        cost_usd=row.cost_usd,
    )
    UsageRecord.objects.filter(pk=call.pk).update(created_at=at)
    return row


def test_the_figures_are_the_tenants_own(cast: Any) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None):
        rated = answer(cast.nina)
        answer(cast.sam, status="cached", cost_usd=0, latency_ms=20.0)
        answer(cast.sam, status="unanswered", answered=False)
        answer(cast.sam, days=3)
        answer(cast.hal, days=10)
        Feedback.objects.create(answer=rated, user=cast.nina.membership.user, helpful=True, rating=4)
        Feedback.objects.create(answer=rated, user=cast.sam.membership.user, helpful=False)
        Review.objects.create(answer=rated)
        DocumentRequest.objects.create(question="Where?")
        Job.objects.create(kind="reindex", state="FAILURE")
    with scope(tenant_id=cast.globex.pk, tags=None):
        for _ in range(9):
            answer(cast.gina)
    for client in (signed_in("ada"), operator(cast.acme)):
        week = figures(client, days=7)
        assert week["Questions"] == ("4", "+300 % to the days before")
        assert week["People asking"][0] == "2"
        assert week["Cost"][0] == "$0.7500"
        assert week["Helpful"] == ("50 %", "of 2 votes")
        assert week["Average rating"][0] == "4.0"
        assert week["From the cache"][0] == week["Not in the documents"][0] == "25 %"
        assert week["Jobs failed"][0] == week["Answers to review"][0] == week["Documents requested"][0] == "1"
        assert week["Indexed documents"][0] == "5"
        assert 760 <= float(week["Time to answer, p50"][0].removesuffix(" ms")) <= 840
        assert figures(client)["Questions"][0] == "5"
        shown = charts(client, days=7)
        assert shown["Questions per day"]["answered"] == [0, 0, 0, 1, 0, 0, 1]
        assert shown["Questions per day"]["not in the documents"][-1] == 1
        assert shown["People asking per day"]["people"] == [0, 0, 0, 1, 0, 0, 2]
        assert shown["Jobs per day"]["failed"][-1] == 1
    assert figures(signed_in("gus"), days=7)["Questions"][0] == "9"


def test_the_cost_is_the_same_wherever_it_is_told(
    cast: Any,
    configure: Any,  # noqa: F811
    model: StubProvider,  # noqa: F811
) -> None:
    """With calls that sort questions, the renewal of a cached answer, and one call that has no price."""
    configure(RAGSITE_ROUTING="model")
    sorted_ = Reply(blocks=(Block("complex"),))
    said = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))
    model.script(sorted_, said, sorted_, said, sorted_, said, sorted_, said)
    for _ in range(2):
        ask(cast.nina, cache=False)
    redis_connection().flushdb()
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert warm_cache() == 1
    configure(RAGSITE_SMALL_MODEL="claude-of-no-price")
    ask(cast.nina, cache=False)
    with scope(tenant_id=cast.acme.pk, tags=None):
        ledger = UsageRecord.objects.aggregate(cost=Sum("cost_usd"))["cost"]
        calls = set(UsageRecord.objects.values_list("endpoint", "kind"))
        assert calls == {
            (endpoint, kind) for endpoint in ("query", "renewal") for kind in ("answer", "classify")
        }
        assert UsageRecord.objects.filter(cost_usd=None).count() == 1
        assert Answer.objects.aggregate(cost=Sum("cost_usd"))["cost"] < ledger
    ada = signed_in("ada")
    assert figures(ada)["Cost"][0] == money(ledger)
    assert charts(ada)["Cost per day"]["US dollars ($)"][-1] == pytest.approx(float(ledger))
    costs = export(ada)
    for group in ("Day", "Model", "Person", "Endpoint"):
        assert sum(Decimal(cells[-1]) for cells in costs[group].values()) == ledger, group
    assert Decimal(str(send(cast.ada, "get", "costs").json()["total_cost"])) == ledger
    assert Decimal(str(send(cast.ada, "get", "stats").json()["cost"])) == ledger


def test_figures_lead_to_the_rows_behind_them(cast: Any) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None):
        answer(cast.nina)
        answer(cast.nina, status="unanswered", answered=False)
        answer(cast.nina, days=20)
        Job.objects.create(kind="reindex", state="FAILURE")
    ada = signed_in("ada")
    text = ada.get("/admin/", {"days": 7}).content.decode()
    links = {
        name: unescape(link) for link, name in re.findall(r'<a href="([^"]+)">([^<]+)</a>\s*<strong>', text)
    }
    for name, rows in (
        ("Questions", 2),
        ("Not in the documents", 1),
        ("From the cache", 0),
        ("Jobs failed", 1),
    ):
        assert ada.get(links[name]).content.decode().count("data-row") == rows, name
    assert links["Cost"] == "/admin/costs/?days=7"


def test_a_tenant_without_anything_has_a_home(cast: Any) -> None:
    tenant = create_tenant(slug="empty", name="Empty")
    with scope(tenant_id=tenant.pk, tags=None):
        admin = Role.objects.get(name="admin")
        add_member(user=create_user(username="emma", password=PASSWORD, check_password=False), role=admin)
    for client in (signed_in("emma"), operator(tenant)):
        for days in ("7", "30", "90", "", "x"):
            found = figures(client, days=days)
            assert found["Questions"] == ("0", "") and found["Cost"][0] == "$0.00"
            assert found["Helpful"][0] == found["Time to answer, p50"][0] == "–"
        assert all(not series for series in charts(client).values())
        assert "Nothing in this period." in client.get("/admin/").content.decode()


def test_a_reviewer_sees_what_waits_and_no_costs(cast: Any) -> None:
    add_reviewer(cast)
    with scope(tenant_id=cast.acme.pk, tags=None):
        Review.objects.create(answer=answer(cast.nina))
    assert set(figures(signed_in("rita"))) == {
        "Answers to review",
        "Documents requested",
        "Helpful",
        "Average rating",
    }
    assert figures(signed_in("rita"))["Answers to review"][0] == "1"
    assert set(charts(signed_in("rita"))) == {"Helpful", "Average rating"}


def test_the_platform_has_figures_of_its_own(cast: Any) -> None:
    create_tenant(slug="other", name="Other")
    found = figures(operator())
    assert found["Active tenants"][0] == "3" and found["Active users"][0] == "9"
    assert found["Cost of all tenants"][0] == "$0.00" and "Questions" not in found


def test_the_home_page_takes_as_many_queries_with_many_rows_as_with_few(cast: Any) -> None:
    ada = signed_in("ada")
    with scope(tenant_id=cast.acme.pk, tags=None):
        for n in range(3):
            answer(cast.nina, days=n)
    ada.get("/admin/")
    with statements() as few:
        ada.get("/admin/")
    with scope(tenant_id=cast.acme.pk, tags=None):
        for n in range(60):
            Review.objects.create(answer=answer(cast.sam, days=n % 20))
    with statements() as many:
        ada.get("/admin/")
    assert len(many()) == len(few()) <= 25


def test_the_charts_are_there_as_numbers_too(cast: Any) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None):
        answer(cast.nina)
    text = signed_in("ada").get("/admin/", {"days": 7}).content.decode()
    table = re.search(r'<table class="admin-table">(.*?)</table>', text, re.DOTALL)
    assert table and table[1].count("<tr>") == 8 and "$0.2500" in table[1]
