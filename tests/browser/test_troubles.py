"""What goes wrong loses no question and shows nothing that it should not."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tenants.models import Budget
from tenants.scope import scope
from tests.browser.chromium import DESKTOP, PHONE
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
]

HOLD_TIMER = "What is the hold timer on edge routers?"
LONG = (Block("The hold timer is 30 seconds. ", cites=((0, 0, 1),)), Block("Then wait for it. " * 5))


def test_an_expired_session_keeps_the_question(visit: Any) -> None:
    nina = visit(lenient=True).sign_in("nina")
    nina.page.context.clear_cookies(name="ragsite_session")
    nina.ask(HOLD_TIMER)
    link = nina.page.get_by_role("link", name="Sign in again")
    expect(link).to_be_visible()
    expect(nina.page.get_by_label("Your question")).to_have_value(HOLD_TIMER)
    link.click()
    nina.page.get_by_label("User name").fill("nina")
    nina.page.get_by_label("Password").fill("demo-ragsite")
    nina.page.get_by_role("button", name="Sign in").click()
    expect(nina.page.get_by_label("Your question")).to_have_value(HOLD_TIMER)
    nina.page.get_by_role("button", name="Ask", exact=True).click()
    expect(nina.wait_for_answer()).to_contain_text("30 seconds")
    nina.go("/")
    expect(nina.page.get_by_label("Your question")).to_have_value("")


def test_a_server_that_cannot_be_reached_keeps_the_question(visit: Any) -> None:
    nina = visit(lenient=True).sign_in("nina")
    nina.page.context.set_offline(True)
    nina.ask(HOLD_TIMER)
    expect(nina.page.locator("[data-problem]")).to_contain_text("The server cannot be reached")
    expect(nina.page.get_by_label("Your question")).to_have_value(HOLD_TIMER)
    expect(nina.page.locator("article")).to_have_count(0)
    nina.page.context.set_offline(False)
    nina.page.get_by_role("button", name="Ask", exact=True).click()
    nina.wait_for_answer()
    expect(nina.page.locator("[data-problem]")).to_be_hidden()


@pytest.fixture
def tight_budget(cast: Any) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None):
        Budget.objects.create(subject="tenant", period="month", soft_usd="0.000001")


def test_a_budget_that_is_over_its_soft_limit_is_said_beside_the_answer(
    tight_budget: None, model: StubProvider, visit: Any
) -> None:
    model.script(*[Reply(blocks=LONG)] * 2)
    nina = visit().sign_in("nina")
    nina.ask(HOLD_TIMER)
    nina.wait_for_answer()
    expect(nina.page.locator("[data-problem]")).to_be_hidden()
    nina.ask("What does the policy say about the hold timer of transit sessions?")
    expect(nina.wait_for_answer(2)).to_contain_text("30 seconds")
    expect(nina.page.locator("[data-problem]")).to_contain_text("over its soft limit")


# Cuts the page's streams after their first lines, as a lost connection would: ``cuts`` of them, then no more.
CUT = """(cuts) => {
  const real = window.fetch;
  window.fetch = async (url, options = {}) => {
    const response = await real(url, options);
    if (!String(url).endsWith("/stream") || options.method === "DELETE" || cuts-- <= 0) return response;
    const reader = response.body.getReader();
    let parts = 0;
    const cut = new ReadableStream({
      async pull(to) {
        const { value, done } = await reader.read();
        if (parts++ >= 2 || done) { reader.cancel(); to.error(new TypeError("network error")); } else to.enqueue(value);
      },
    });
    return new Response(cut, { status: response.status, headers: response.headers });
  };
}"""


def test_a_lost_connection_joins_the_answer_again(visit: Any, model: StubProvider) -> None:
    nina = visit(lenient=True).sign_in("nina")
    nina.page.evaluate(CUT, 2)
    model.script(Reply(blocks=LONG, delta_seconds=0.08))
    nina.ask(HOLD_TIMER)
    expect(nina.page.locator("[data-live-state]")).to_contain_text("Joining the answer again")
    answer = nina.wait_for_answer()
    expect(answer).to_have_attribute("data-state", "answered")
    expect(answer.locator(".prose")).to_contain_text("The hold timer is 30 seconds.")
    expect(nina.page.get_by_label("Your question")).to_have_value("")
    expect(nina.page.locator("[data-problem]")).to_be_hidden()
    assert len(model.requests) == 1, "the model was asked once"


def test_a_connection_that_stays_broken_keeps_what_came_and_the_question(
    visit: Any, model: StubProvider
) -> None:
    nina = visit(lenient=True).sign_in("nina")
    nina.page.evaluate(CUT, 9)
    model.script(Reply(blocks=LONG, delta_seconds=0.3))
    nina.ask(HOLD_TIMER)
    expect(nina.page.locator("article[data-state=failed]")).to_contain_text("The connection broke")
    expect(nina.page.locator("article [data-source]").first).to_be_visible()
    expect(nina.page.get_by_label("Your question")).to_have_value(HOLD_TIMER)
    expect(nina.page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()
    nina.shoot("ask-connection-lost")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_reload_in_mid_stream_goes_on_with_the_answer(
    visit: Any, model: StubProvider, size: tuple[int, int]
) -> None:
    nina = visit(size=size, lenient=True).sign_in("nina")
    model.script(Reply(blocks=LONG, delta_seconds=0.15))
    nina.ask(HOLD_TIMER)
    expect(nina.page.locator("article[aria-busy] [data-live-text]")).not_to_be_empty()
    nina.page.reload()
    expect(nina.page.locator("article[aria-busy] .question")).to_have_text(HOLD_TIMER)
    nina.shoot(f"ask-reloaded-{size[0]}")
    expect(nina.page.get_by_label("Your question")).to_have_value("")
    answer = nina.wait_for_answer()
    expect(answer).to_have_attribute("data-state", "answered")
    assert "/c/" in nina.page.url and len(model.requests) == 1
    # In its conversation too, and not once more afterwards.
    rewritten = Reply(blocks=(Block("What is the hold timer on core routers?"),))
    model.script(rewritten, Reply(blocks=LONG, delta_seconds=0.15))
    nina.ask("And on core routers?")
    expect(nina.page.locator("article[aria-busy] [data-live-text]")).not_to_be_empty()
    nina.page.reload()
    expect(nina.page.locator("article[aria-busy] .question")).to_have_text("And on core routers?")
    nina.wait_for_answer(2)
    nina.page.reload()
    expect(nina.page.locator("article")).to_have_count(2)


def test_a_new_question_is_not_the_old_one(visit: Any, model: StubProvider) -> None:
    nina = visit(lenient=True).sign_in("nina")
    model.script(Reply(blocks=LONG, after_deltas=8, cut="hang"))
    nina.ask(HOLD_TIMER)
    expect(nina.page.locator("article[aria-busy] [data-live-text]")).not_to_be_empty()
    nina.go("/")
    expect(nina.page.get_by_label("Your question")).to_have_value("")
    expect(nina.page.locator("article")).to_have_count(0)
    nina.page.reload()
    expect(nina.page.get_by_label("Your question")).to_have_value("")
    expect(nina.page.locator("article")).to_have_count(0)


def test_stopping_after_a_reload_reaches_the_model(visit: Any, model: StubProvider) -> None:
    nina = visit(lenient=True).sign_in("nina")
    model.script(Reply(blocks=LONG, after_deltas=8, cut="hang"))
    nina.ask(HOLD_TIMER)
    expect(nina.page.locator("article[aria-busy] [data-live-text]")).not_to_be_empty()
    nina.page.reload()
    expect(nina.page.locator("article[aria-busy] [data-live-text]")).not_to_be_empty()
    assert model.disconnects == 0
    nina.page.keyboard.press("Escape")
    expect(nina.page.locator("article[data-state=stopped]")).to_be_visible()
    expect(nina.page.get_by_label("Your question")).to_have_value(HOLD_TIMER)
    assert model.wait_for_disconnect()


def test_what_was_typed_survives_a_reload_and_is_nobody_elses(visit: Any) -> None:
    nina = visit().sign_in("nina")
    nina.page.get_by_label("Your question").fill("Half a ques")
    nina.page.reload()
    expect(nina.page.get_by_label("Your question")).to_have_value("Half a ques")
    nina.page.locator(".menu > summary").click()
    nina.page.get_by_role("button", name="Sign out").click()
    nina.sign_in("hal")
    expect(nina.page.get_by_label("Your question")).to_have_value("")


def test_a_refused_question_says_why(visit: Any) -> None:
    nina = visit(lenient=True).sign_in("nina")
    nina.page.evaluate("document.querySelector('#question').maxLength = 5000")
    nina.ask("y" * 1200)
    expect(nina.page.locator("[data-problem]")).to_contain_text("no more than 1000 characters")
    expect(nina.page.get_by_label("Your question")).to_have_value("y" * 1200)


def test_what_a_model_writes_never_becomes_markup(visit: Any, model: StubProvider) -> None:
    hostile = (
        '<img src="https://evil.example/p.png" onerror="window.pwned=1"><script>window.pwned=1</script> '
        "![p](https://evil.example/q.png) [go](javascript:window.pwned=1) **bold**"
    )
    nina = visit().sign_in("nina")
    blocks = (Block(hostile, cites=((0, 0, 1),)), Block("And that is all there is to say. " * 6))
    model.script(Reply(blocks=blocks, delta_seconds=0.12))
    nina.ask(HOLD_TIMER)
    live = nina.page.locator("article[aria-busy] [data-live-text]")
    expect(live).to_contain_text("<img")
    assert live.locator("img, script").count() == 0
    answer = nina.wait_for_answer()
    expect(answer.locator(".prose strong")).to_have_text("bold")
    assert answer.locator("img, script, [onerror]").count() == 0
    assert nina.page.evaluate("window.pwned") is None


def test_not_in_the_documents_is_a_state_of_its_own(visit: Any) -> None:
    nina = visit().sign_in("nina")
    nina.ask("Which wine goes with roast duck on a Sunday evening?")
    answer = nina.wait_for_answer()
    expect(answer).to_have_attribute("data-state", "unanswered")
    expect(answer).to_contain_text("Not in your documents")
    expect(answer.get_by_role("heading", name="Nearest passages")).to_be_visible()
    nina.shoot("ask-unanswered-desktop")
