"""Django admin in a real browser: figures, the tenants of a superuser, reviews by the keyboard, costs, a trace."""

import uuid
from decimal import Decimal
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from feedback.models import Review
from feedback.ratings import rate_answer
from knowledge.models import Answer
from tenants.models import UsageRecord
from tenants.scope import scope
from tests.browser.chromium import DESKTOP, PHONE
from tests.browser.conftest import Visitor
from tests.cast import PASSWORD

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
]

SIZES = pytest.mark.parametrize(("size", "name"), [(DESKTOP, "desktop"), (PHONE, "phone")])
HOSTILE = (
    '<img src=x onerror="window.pwned=1"><div x-data x-init="window.pwned=1" hx-get="/admin/" hx-trigger="load">'
    "</div> ![p](https://evil.example/q.png) [go](javascript:window.pwned=1)"
)


@pytest.fixture
def asked(cast: Any) -> Any:
    """Three questions that were answered, each rated badly, the first of them by a hostile hand; and their costs."""
    questions = (
        "What is the hold timer on edge routers?",
        "What is the maximum-prefix limit?",
        "Which extension?",
    )
    for n, question in enumerate(questions):
        response = cast.nina.client.post(
            "/api/v1/query", {"question": question}, content_type="application/json"
        )
        pk = response.json()["request_id"]
        with scope(tenant_id=cast.acme.pk, tags=None):
            answer = Answer.objects.get(pk=pk)
            values = {"rating": n + 1, "comment": HOSTILE}
            rate_answer(principal=cast.nina.principal, answer=answer, values=values)
            if n == 0:
                Answer.objects.filter(pk=pk).update(text=f"{answer.text}\n\n{HOSTILE}")
            UsageRecord.objects.create(
                user=cast.nina.membership.user, request_id=uuid.uuid4(), endpoint="query", provider="anthropic",
                model=f"model-{n}", kind="answer", status="success", cost_usd=Decimal(n + 1),
            )  # fmt: skip
    return cast


def enter(visitor: Visitor, username: str) -> Page:
    visitor.go("/sign-in/?next=/admin/")
    visitor.page.get_by_label("User name").fill(username)
    visitor.page.get_by_label("Password").fill(PASSWORD)
    visitor.page.get_by_role("button", name="Sign in").click()
    visitor.page.wait_for_url(visitor.site + "/admin/")
    return visitor.page


def press(page: Page, key: str) -> None:
    page.wait_for_load_state()  # the keys are heard from then on
    page.keyboard.press(key)


def drawn(page: Page) -> int:
    """Charts with something painted on them."""
    return int(
        page.evaluate(
            """() => [...document.querySelectorAll("canvas.chart")].filter((canvas) =>
                 canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte)
               ).length"""
        )
    )


@SIZES
def test_the_home_page_draws_its_figures(asked: Any, visit: Any, size: Any, name: str) -> None:
    ada = visit(size=size)
    page = enter(ada, "ada")
    expect(page.get_by_text("Questions per day")).to_be_visible()
    charts = page.locator("canvas.chart").count()
    assert charts >= 4 and drawn(page) == charts
    assert not ada.scrolls_sideways()
    page.get_by_role("link", name="7 days").click()
    expect(page.locator(".admin-figure", has_text="Questions").locator("strong")).to_have_text("3")
    page.get_by_text("The same in numbers").click()
    expect(page.get_by_role("columnheader", name="Not in the documents")).to_be_visible()
    page.evaluate("scrollTo(0, 0)")
    ada.shoot(f"admin-home-{name}")


def test_the_home_page_follows_unfolds_switch_to_the_dark(asked: Any, visit: Any) -> None:
    ada = visit(dark=True)
    page = enter(ada, "ada")
    expect(page.locator("html")).to_have_class("dark")
    assert drawn(page) == page.locator("canvas.chart").count()
    ada.shoot("admin-home-dark")


@SIZES
def test_a_superuser_chooses_a_tenant_and_leaves_it(asked: Any, visit: Any, size: Any, name: str) -> None:
    root = visit(size=size)
    page = enter(root, "root")
    where = page.get_by_role("region", name="Where you work")
    expect(where).to_contain_text("You work on the platform")
    where.get_by_label("Tenant").select_option(label="Acme (acme)")
    where.get_by_role("button", name="Enter").click()
    expect(where).to_contain_text("You work in Acme as superuser root")
    assert not root.scrolls_sideways()
    root.shoot(f"admin-tenant-{name}")
    page.goto(root.site + "/admin/feedback/review/")
    expect(where).to_contain_text("You work in Acme")
    expect(page.get_by_role("link", name="What is the hold timer on edge routers?")).to_be_visible()
    where.get_by_role("button", name="Leave Acme").click()
    expect(where).to_contain_text("You work on the platform")
    # The list of tenants leads in as well.
    page.goto(root.site + "/admin/tenants/tenant/")
    page.locator("tr.data-row", has_text="globex").get_by_role("button", name="Choose").click()
    expect(where).to_contain_text("You work in Globex")


@SIZES
def test_the_review_queue_is_worked_with_the_keyboard(asked: Any, visit: Any, size: Any, name: str) -> None:
    ada = visit(size=size)
    page = enter(ada, "ada")
    page.goto(ada.site + "/admin/feedback/review/")
    ada.shoot(f"admin-queue-{name}")
    page.get_by_role("link", name="Begin with the first").click()
    question = page.locator("h2.admin-question")
    expect(question).to_have_text("What is the hold timer on edge routers?")
    expect(page.locator("[data-answer]")).to_contain_text("30 seconds")
    expect(page.locator("[data-source]").first).to_be_visible()
    assert page.evaluate("window.pwned") is None
    assert page.locator("[data-answer] :is(img, script, div, [x-data], [hx-get])").count() == 0
    assert not ada.scrolls_sideways()
    ada.shoot(f"admin-review-{name}")

    press(page, "j")
    expect(question).to_have_text("What is the maximum-prefix limit?")
    press(page, "k")
    expect(question).to_have_text("What is the hold timer on edge routers?")
    note = page.get_by_label("Note")
    note.click()
    page.keyboard.type("rdjka are letters here")
    expect(note).to_have_value("rdjka are letters here")
    note.blur()
    press(page, "a")
    expect(page.get_by_label("Assignee").locator("option:checked")).to_have_text("ada")
    expect(page.get_by_label("Note")).to_have_value("rdjka are letters here")
    # Taken up it has left the list of what is open; resolving it goes on there.
    press(page, "r")
    expect(question).to_have_text("What is the maximum-prefix limit?")
    press(page, "d")
    expect(question).to_have_text("Which extension?")
    press(page, "s")
    page.wait_for_url("**/admin/feedback/review/**")
    expect(page.get_by_text("Nothing is left here.")).to_be_visible()
    with_status = in_a_thread(lambda: statuses(asked))
    assert with_status == [("resolved", "ada"), ("dismissed", None), ("open", None)]


def in_a_thread(function: Any) -> Any:
    """Django refuses to touch the database in the thread of Playwright's loop."""
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connections

    def call() -> Any:
        try:
            return function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def statuses(cast: Any) -> list[tuple[str, str | None]]:
    with scope(tenant_id=cast.acme.pk, tags=None):
        rows = Review.objects.order_by("worst").values_list("status", "assignee__username")
        return list(rows)


@SIZES
def test_costs_lead_down_to_their_calls(asked: Any, visit: Any, size: Any, name: str) -> None:
    ada = visit(size=size)
    page = enter(ada, "ada")
    page.goto(ada.site + "/admin/costs/")
    expect(page.locator(".admin-figure", has_text="This month").locator("strong")).to_have_text("$6.00")
    assert drawn(page) == 1
    assert not ada.scrolls_sideways()
    ada.shoot(f"admin-costs-{name}")
    page.get_by_role("link", name="model-2").click()
    expect(page.locator("tr.data-row")).to_have_count(1)
    expect(page.locator("tr.data-row")).to_contain_text("model-2")
    ada.shoot(f"admin-calls-{name}")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    assert download.value.suggested_filename.endswith(".csv")


@SIZES
def test_an_answers_trace(asked: Any, visit: Any, size: Any, name: str) -> None:
    ada = visit(size=size)
    page = enter(ada, "ada")
    page.goto(ada.site + "/admin/knowledge/answer/")
    page.get_by_role("link", name="What is the maximum-prefix limit?").click()
    stages = page.locator(".admin-stages")
    expect(stages.get_by_role("rowheader", name="Search", exact=True)).to_be_visible()
    assert stages.locator("meter").count() >= 4
    expect(page.locator("[data-source]").first).to_contain_text("score")
    page.locator("[data-answer] a.cite").first.click()
    expect(page.locator("[data-source]:target")).to_have_count(1)
    assert not ada.scrolls_sideways()
    page.evaluate("scrollTo(0, 0)")
    ada.shoot(f"admin-trace-{name}")


def test_a_list_is_filtered_by_day_and_value(asked: Any, visit: Any) -> None:
    ada = visit()
    page = enter(ada, "ada")
    page.goto(ada.site + "/admin/knowledge/answer/")
    page.locator("#changelist a", has_text="Filters").click()
    page.get_by_label("By user name").fill("nobody")
    page.get_by_role("button", name="Apply Filters").click()
    expect(page.locator("tr.data-row")).to_have_count(0)
    ada.shoot("admin-answers-filtered")
