"""What goes wrong loses no question and shows nothing that it should not."""

from typing import Any

import pytest
from playwright.sync_api import expect

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


def test_a_connection_that_breaks_keeps_what_came_and_the_question(visit: Any, model: StubProvider) -> None:
    nina = visit(lenient=True).sign_in("nina")
    # The page's own stream is cut after its first two lines, as a lost connection would.
    nina.page.evaluate(
        """() => {
          const real = window.fetch;
          window.fetch = async (...call) => {
            const response = await real(...call);
            const reader = response.body.getReader();
            let parts = 0;
            const cut = new ReadableStream({
              async pull(to) {
                const { value } = await reader.read();
                if (parts++ >= 2) to.error(new TypeError("network error")); else to.enqueue(value);
              },
            });
            return new Response(cut, { status: response.status, headers: response.headers });
          };
        }"""
    )
    model.script(Reply(blocks=LONG, delta_seconds=0.05))
    nina.ask(HOLD_TIMER)
    expect(nina.page.locator("article[data-state=failed]")).to_contain_text("The connection broke")
    expect(nina.page.locator("article [data-source]").first).to_be_visible()
    expect(nina.page.get_by_label("Your question")).to_have_value(HOLD_TIMER)
    expect(nina.page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()


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


def test_feedback_is_given_and_changed(visit: Any) -> None:
    nina = visit().sign_in("nina")
    nina.ask(HOLD_TIMER)
    answer = nina.wait_for_answer()
    answer.get_by_role("button", name="Yes").click()
    expect(answer.get_by_role("status")).to_have_text("Thank you.")
    expect(answer.get_by_role("button", name="Yes")).to_have_attribute("aria-pressed", "true")
    answer.get_by_role("button", name="No", exact=True).click()
    expect(answer.get_by_role("button", name="No", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(answer.get_by_role("button", name="Yes")).to_have_attribute("aria-pressed", "false")


def test_filters_narrow_the_answer_and_are_counted(visit: Any) -> None:
    nina = visit().sign_in("nina")
    nina.page.get_by_text("Filters").click()
    nina.page.get_by_label("standards").check()
    expect(nina.page.locator("[data-filters-count]")).to_have_text("1")
    nina.ask("What is the maximum-prefix limit?")
    answer = nina.wait_for_answer()
    titles = answer.locator(".source-title").all_inner_texts()
    assert titles and set(titles) == {"Edge BGP policy"}
