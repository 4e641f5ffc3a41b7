"""The history beside the Ask page and as a page of its own, the dialog of a conversation, and the keys for it."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.chromium import DESKTOP, PHONE
from tests.browser.test_every_page import barriers
from tests.knowledge.rows import add_answer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
]

HOLD_TIMER = "What is the hold timer on edge routers?"


@pytest.fixture
def asked(cast: Any) -> list[Any]:
    runbook = cast.documents["acme"]["bgp-session-down.md"]
    questions = [HOLD_TIMER, "Whom do I call?", "Which interface is looked at?"]
    return [add_answer(cast.nina, question, runbook, days_ago=n) for n, question in enumerate(questions)]


@pytest.fixture
def asked_much(cast: Any, asked: list[Any]) -> None:
    for n in range(60):
        add_answer(cast.nina, f"An older question, the letter {'abcdefghij'[n % 10]}?", days_ago=10 + n)


def test_search_pin_rename_share_and_delete_beside_the_page(asked: list[Any], visit: Any) -> None:
    nina = visit().sign_in("nina")
    side = nina.page.locator("#side-list")
    expect(side.locator("li")).to_have_count(3)
    nina.page.get_by_label("Search your history").fill("call")
    expect(side.locator("li")).to_have_count(1)
    side.get_by_role("link", name="Whom do I call?", exact=True).click()
    expect(nina.page.get_by_role("heading", level=1)).to_have_text("Whom do I call?")
    expect(side.locator("a[aria-current]")).to_have_text("Whom do I call?")

    nina.page.get_by_role("link", name="Share, rename").click()
    dialog = nina.page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    nina.shoot("conversation-dialog-desktop")
    assert not barriers(nina)
    dialog.get_by_label("Title").fill("On call")
    dialog.get_by_role("button", name="Rename").click()
    expect(nina.page.locator("#conversation-title")).to_have_text("On call")
    expect(side.locator("a[aria-current]")).to_have_text("On call")
    dialog.get_by_role("button", name="Pin to the top").click()
    expect(side.get_by_role("heading", name="Pinned")).to_be_visible()
    expect(dialog).to_contain_text("May not read every source: mona, sam")
    dialog.get_by_label("User names").fill("sam")
    with nina.page.expect_response(lambda response: response.status == 409):
        dialog.get_by_role("button", name="Share", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("sam")
    nina.complaints.clear()  # the browser notes a 409 as an error
    dialog.get_by_label("User names").fill("hal")
    dialog.get_by_role("button", name="Share", exact=True).click()
    expect(dialog.get_by_role("button", name="Stop sharing with hal")).to_be_visible()

    hal = visit().sign_in("hal")
    expect(hal.page.locator("#side-list li")).to_contain_text("shared by nina")
    dialog.get_by_role("button", name="Stop sharing with hal").click()
    expect(dialog.get_by_role("button", name="Stop sharing with hal")).to_have_count(0)
    hal.page.reload()
    expect(hal.page.locator("#side-list li")).to_have_count(0)

    nina.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    # One that is not the page behind: the page stays.
    side.locator("li", has_text="Which interface").hover()
    side.get_by_role("link", name="Rename, pin, share or delete: Which interface").click()
    dialog.locator("summary", has_text="Delete this conversation").click()
    dialog.get_by_role("button", name="Delete", exact=True).click()
    expect(dialog).to_be_hidden()
    expect(side.locator("li")).to_have_count(2)
    expect(nina.page.locator("#conversation-title")).to_have_text("On call")
    nina.page.get_by_role("link", name="Share, rename").click()
    dialog.locator("summary", has_text="Delete this conversation").click()
    dialog.get_by_role("button", name="Delete", exact=True).click()
    nina.page.wait_for_url(nina.site + "/")
    expect(side.locator("li")).to_have_count(1)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_whole_history(asked_much: None, visit: Any, size: tuple[int, int]) -> None:
    nina = visit(size=size).sign_in("nina")
    if size == PHONE:
        nina.page.get_by_role("link", name="History").click()
    else:
        nina.page.get_by_role("link", name="Whole history").click()
    rows = nina.page.locator(".history-list li:not(.history-next)")
    expect(rows).to_have_count(50)
    assert not nina.scrolls_sideways()
    nina.shoot(f"history-{'phone' if size == PHONE else 'desktop'}")
    nina.page.get_by_role("link", name="Earlier", exact=True).click()
    expect(rows).to_have_count(63)
    nina.page.get_by_label("Search titles and questions").fill("interface")
    expect(rows).to_have_count(1)
    assert "q=interface" in nina.page.url
    rows.get_by_role("link", name="Rename, pin, share or delete").click()
    dialog = nina.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Pin to the top").click()
    expect(nina.page.get_by_role("heading", name="Pinned")).to_be_visible()
    assert not nina.scrolls_sideways()
    nina.shoot(f"conversation-dialog-{'phone' if size == PHONE else 'desktop'}-history")
    dialog.get_by_role("button", name="Close").click()
    rows.locator(".history-title").click()
    expect(nina.page.locator("article[data-answer]")).to_have_count(1)


def test_keys_lead_everywhere(asked: list[Any], visit: Any) -> None:
    nina = visit().sign_in("nina")
    keys = nina.page.keyboard
    box = nina.page.get_by_label("Your question")
    focused = nina.page.locator(":focus")
    help_dialog = nina.page.get_by_role("dialog", name="Keyboard")

    expect(box).to_be_focused()
    keys.type("n?/h")  # in a field they are letters
    expect(box).to_have_value("n?/h")
    box.fill("")
    nina.page.locator("h1").click()
    keys.press("?")
    expect(help_dialog).to_be_visible()
    nina.shoot("keys-desktop")
    assert not barriers(nina)
    keys.press("n")
    expect(help_dialog).to_be_visible()
    keys.press("Escape")
    expect(help_dialog).to_be_hidden()
    keys.press("h")
    expect(focused).to_have_text(HOLD_TIMER)
    keys.press("ArrowDown")
    expect(focused).to_have_text("Whom do I call?")
    keys.press("ArrowUp")
    keys.press("ArrowUp")
    expect(focused).to_have_text(HOLD_TIMER)
    keys.press("Enter")
    expect(nina.page.locator("article[data-answer]")).to_have_count(1)
    keys.press("/")
    expect(box).to_be_focused()
    keys.type(HOLD_TIMER)
    keys.press("Meta+Enter")
    answer = nina.wait_for_answer(2)
    nina.page.locator("h1").click()
    keys.press("s")
    expect(focused).to_have_attribute("class", "source-link")
    first = focused.get_attribute("href")
    if answer.locator(".source").count() > 1:
        keys.press("ArrowDown")
        assert focused.get_attribute("href") != first
    nina.page.get_by_text("Filters", exact=True).click()
    keys.press("Escape")
    expect(nina.page.locator("[data-filters]")).not_to_have_attribute("open", "")
    keys.press("n")
    nina.page.wait_for_url(nina.site + "/")
    expect(box).to_be_focused()


def test_single_keys_can_be_switched_off(asked: list[Any], visit: Any) -> None:
    nina = visit().sign_in("nina")
    nina.page.get_by_role("button", name="Keyboard").click()
    nina.page.get_by_label("Single keys work outside of fields").uncheck()
    nina.page.keyboard.press("Escape")
    nina.page.reload()
    nina.page.locator("h1").click()
    nina.page.keyboard.press("/")
    nina.page.keyboard.press("?")
    expect(nina.page.get_by_label("Your question")).not_to_be_focused()
    expect(nina.page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_from_right_to_left_nothing_breaks(asked: list[Any], visit: Any, size: tuple[int, int]) -> None:
    nina = visit(size=size).sign_in("nina")
    for path in ("/", f"/c/{asked[0].conversation_id}/", "/history/"):
        nina.go(path)
        nina.page.evaluate("document.documentElement.dir = 'rtl'")
        assert not nina.scrolls_sideways(), path
        width = nina.page.evaluate("document.documentElement.clientWidth")
        main = nina.page.locator("main").bounding_box()
        assert main and main["x"] >= 0 and main["x"] + main["width"] <= width
    nina.go(f"/c/{asked[0].conversation_id}/")
    nina.page.evaluate("document.documentElement.dir = 'rtl'")
    nina.shoot(f"ask-answer-rtl-{'phone' if size == PHONE else 'desktop'}")
