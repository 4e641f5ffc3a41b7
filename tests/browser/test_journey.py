"""From signing in to the cited passage, as people do it."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.chromium import PHONE
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
]

HOLD_TIMER = "What is the hold timer on edge routers?"
# Notes, for each change of the thread, how many sources and how many characters of the answer are on the page.
WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const live = document.querySelector("article[aria-busy]");
    if (!live) return;
    const now = [live.querySelectorAll("[data-source]").length, live.querySelector("[data-live-text]").textContent.length];
    if (String(now) !== String(seen.at(-1))) seen.push(now);
  }).observe(document.querySelector("[data-thread]"), { childList: true, subtree: true, characterData: true });
}"""
SLOW = Reply(
    blocks=(
        Block("The hold timer on the edge routers is **30 seconds**. ", cites=((0, 0, 1),)),
        Block("Look at the neighbour first, and at both ends of the link. " * 4),
        Block("Then call the backbone duty officer at extension 7741.", cites=((0, 0, 1),)),
    ),
    delta_seconds=0.12,  # long enough for a busy machine to look at it while it grows
)


def test_sign_in_ask_watch_it_stream_and_open_a_citation(visit: Any, model: StubProvider) -> None:
    nina = visit().sign_in("nina")
    nina.shoot("ask-empty-desktop")
    nina.page.evaluate(WATCH)
    model.script(SLOW)
    nina.ask(HOLD_TIMER)
    expect(nina.page.get_by_role("button", name="Stop")).to_be_visible()
    expect(nina.page.locator("article[aria-busy] [data-live-text]")).not_to_be_empty()
    nina.shoot("ask-streaming-desktop")
    answer = nina.wait_for_answer()
    expect(answer).to_have_attribute("data-state", "answered")
    expect(answer.locator("strong")).to_have_text("30 seconds")
    expect(answer.locator(".answer-meta")).to_contain_text("fresh")

    seen = nina.page.evaluate("window.seen")
    first_text = next(i for i, (_, length) in enumerate(seen) if length)
    assert all(sources for sources, _ in seen[first_text:]), "the sources come before the text"
    lengths = sorted({length for _, length in seen if length})
    assert len(lengths) >= 2, f"the text comes in parts: {seen}"
    assert re.fullmatch(r".*/c/[0-9a-f-]{36}/", nina.page.url)
    expect(nina.page.locator("[data-recent] a[aria-current]")).to_have_text(HOLD_TIMER)

    citation = answer.locator(".cite").first
    citation.hover()
    expect(nina.page.get_by_role("tooltip")).to_contain_text(
        "The hold timer on acme edge routers is 30 seconds"
    )
    expect(answer.locator("[data-source].is-lit")).to_have_count(1)
    nina.shoot("ask-answer-desktop")
    assert not nina.scrolls_sideways()

    citation.click()
    passage = nina.page.locator("#passage")
    expect(passage).to_be_in_viewport()
    marked = " ".join(nina.page.locator("mark").all_inner_texts())
    assert "hold timer on acme edge routers is 30 seconds" in marked
    expect(nina.page.get_by_role("heading", level=1)).to_have_text("BGP session down")
    nina.shoot("document-desktop")
    nina.page.get_by_role("link", name="Back to the answer").click()
    expect(nina.page.locator("article[data-answer]")).to_contain_text("30 seconds")


def test_another_tenant_asks_the_same_and_finds_none_of_it(visit: Any) -> None:
    nina, gina = visit().sign_in("nina"), visit(lenient=True).sign_in("gina")
    nina.ask(HOLD_TIMER)
    expect(nina.wait_for_answer()).to_contain_text("30 seconds")
    conversation = nina.page.url
    document = nina.page.locator(".source-link").first.get_attribute("href")

    gina.ask(HOLD_TIMER)
    answer = gina.wait_for_answer()
    expect(answer).to_contain_text("180 seconds")
    page = gina.page.content()
    for foreign in ("is 30 seconds", "extension 7741", "acme", "Acme", "950000"):
        assert foreign not in page
    for address in (conversation, gina.site + document):
        gina.page.goto(address)
        expect(gina.page.locator("h1")).to_have_text("There is nothing here, or you may not see it.")
        assert "30 seconds" not in gina.page.content()


def test_a_follow_up_stays_in_its_conversation(visit: Any) -> None:
    nina = visit().sign_in("nina")
    nina.ask(HOLD_TIMER)
    nina.wait_for_answer()
    conversation = nina.page.url
    nina.ask("What is the maximum-prefix limit?")
    expect(nina.wait_for_answer(2)).to_contain_text("950000")
    assert nina.page.url == conversation
    expect(nina.page.locator("[data-recent] li")).to_have_count(1)
    nina.page.reload()
    expect(nina.page.locator("article[data-answer]")).to_have_count(2)
    nina.page.get_by_role("link", name="New question").click()
    expect(nina.page.get_by_label("Your question")).to_be_focused()


def test_the_keyboard_is_enough(visit: Any, model: StubProvider) -> None:
    nina = visit().sign_in("nina")
    box = nina.page.get_by_label("Your question")
    nina.page.locator("h1").click()
    nina.page.keyboard.press("/")
    expect(box).to_be_focused()
    expect(box).to_have_value("")
    nina.page.keyboard.type("What is the hold timer")
    nina.page.keyboard.press("Shift+Enter")
    nina.page.keyboard.type("on edge routers?")
    model.script(Reply(blocks=SLOW.blocks, after_deltas=8, cut="hang"))
    nina.page.keyboard.press("Control+Enter")
    expect(nina.page.locator("article[aria-busy] [data-live-text]")).not_to_be_empty()
    nina.page.keyboard.press("Escape")
    expect(nina.page.locator("article[data-state=stopped]")).to_contain_text("Stopped before it was complete")
    expect(box).to_have_value("What is the hold timer\non edge routers?")
    assert model.wait_for_disconnect(), "stopping reaches the model"
    model.script(Reply(blocks=SLOW.blocks))
    box.focus()
    nina.page.keyboard.press("Enter")
    answer = nina.wait_for_answer()
    answer.locator(".cite").first.focus()
    expect(nina.page.get_by_role("tooltip")).to_be_visible()
    nina.page.keyboard.press("Escape")
    expect(nina.page.locator("#citation-preview")).to_be_hidden()


def test_without_javascript(visit: Any) -> None:
    nina = visit(javascript=False).sign_in("nina")
    nina.ask(HOLD_TIMER)
    answer = nina.wait_for_answer()
    expect(answer).to_contain_text("30 seconds")
    nina.shoot("ask-answer-without-javascript")
    answer.get_by_role("button", name="No", exact=True).click()
    answer = nina.wait_for_answer()
    answer.locator("summary", has_text="Say more").click()
    answer.get_by_label("Something is missing").check()
    answer.get_by_label("Comment").fill("Which routers?")
    answer.get_by_role("button", name="Save").click()
    answer.locator("summary", has_text="Your feedback").click()
    expect(answer.get_by_label("Something is missing")).to_be_checked()
    expect(answer.get_by_label("Comment")).to_have_value("Which routers?")
    answer.get_by_role("link", name="Edit").click()
    expect(nina.page.get_by_label("Your question")).to_have_value(HOLD_TIMER)
    answer.get_by_role("button", name="Ask again").click()
    answer = nina.wait_for_answer(2)
    expect(answer.locator(".answer-meta")).to_contain_text("fresh")
    answer.locator(".cite").first.click()
    expect(nina.page.locator("#passage")).to_be_in_viewport()
    nina.go("/")
    nina.page.locator(".examples button").first.click()
    nina.wait_for_answer()
    nina.ask("Which wine goes with roast duck on a Sunday evening?")
    answer = nina.wait_for_answer(2)
    answer.locator("summary", has_text="Request a document").click()
    answer.get_by_role("button", name="Send the request").click()
    expect(nina.wait_for_answer(2)).to_contain_text("You requested a document on")
    nina.page.get_by_role("link", name="Your requests").click()
    expect(nina.page.locator("tbody")).to_contain_text("Which wine goes with roast duck")


def test_the_history_without_javascript(visit: Any) -> None:
    nina = visit(javascript=False).sign_in("nina")
    nina.ask(HOLD_TIMER)
    nina.wait_for_answer()
    nina.page.get_by_role("link", name="Whole history").click()
    nina.page.get_by_label("Search titles and questions").fill("hold")
    nina.page.get_by_role("button", name="Search").click()
    expect(nina.page.locator(".history-list li")).to_have_count(1)
    nina.page.get_by_role("link", name="Rename, pin, share or delete").click()
    nina.page.get_by_label("Title").fill("Timers")
    nina.page.get_by_role("button", name="Rename").click()
    nina.page.get_by_role("button", name="Pin to the top").click()
    expect(nina.page.get_by_role("button", name="Unpin")).to_be_visible()
    nina.page.get_by_label("User names").fill("ada")
    nina.page.get_by_role("button", name="Share", exact=True).click()
    expect(nina.page.locator("#messages")).to_contain_text("Shared with ada.")
    nina.shoot("conversation-settings-without-javascript")
    nina.page.locator("summary", has_text="Delete this conversation").click()
    nina.page.get_by_role("button", name="Delete", exact=True).click()
    expect(nina.page.get_by_role("heading", level=1)).to_have_text("History")
    expect(nina.page.locator(".history-list li")).to_have_count(0)


def test_on_a_phone_in_the_dark(visit: Any) -> None:
    nina = visit(size=PHONE, dark=True).sign_in("nina")
    assert not nina.scrolls_sideways()
    nina.shoot("ask-empty-phone-dark")
    nina.page.get_by_text("Filters", exact=True).click()
    assert not nina.scrolls_sideways()
    nina.page.get_by_text("Filters", exact=True).click()
    nina.ask(HOLD_TIMER)
    answer = nina.wait_for_answer()
    background = nina.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert sum(int(part) for part in re.findall(r"\d+", background)) < 150, background
    assert not nina.scrolls_sideways()
    text, sources = answer.locator(".answer-main").bounding_box(), answer.locator(".sources").bounding_box()
    assert text and sources
    assert sources["y"] >= text["y"] + text["height"], "the sources are below"
    nina.shoot("ask-answer-phone-dark")
    answer.locator(".cite").first.click()
    expect(nina.page.locator("#passage")).to_be_in_viewport()
    assert not nina.scrolls_sideways()
    nina.shoot("document-phone-dark")


@pytest.mark.parametrize("width", [375, 768, 1024, 1920])
def test_no_width_scrolls_sideways(visit: Any, width: int) -> None:
    nina = visit(size=(width, 900)).sign_in("nina")
    nina.ask(HOLD_TIMER)
    nina.wait_for_answer()
    assert not nina.scrolls_sideways()
    nina.shoot(f"ask-answer-{width}")
    nina.page.locator(".menu > summary").click()
    expect(nina.page.get_by_role("button", name="Sign out")).to_be_in_viewport()
    assert not nina.scrolls_sideways()


def test_appearance_can_be_chosen_and_is_kept(visit: Any) -> None:
    nina = visit().sign_in("nina")
    nina.page.locator(".menu > summary").click()
    nina.page.get_by_label("Appearance").select_option("dark")
    nina.page.reload()
    background = nina.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert sum(int(part) for part in re.findall(r"\d+", background)) < 150, background


def test_signing_out(visit: Any) -> None:
    nina = visit().sign_in("nina")
    nina.page.locator(".menu > summary").click()
    nina.page.get_by_role("button", name="Sign out").click()
    nina.page.wait_for_url("**/sign-in/")
    nina.go("/")
    nina.page.wait_for_url("**/sign-in/")
