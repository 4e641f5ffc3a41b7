"""What one does with an answer: copy, ask again, edit, rate, request what is missing; at a desk and on a phone."""

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.chromium import DESKTOP, PHONE
from tests.browser.test_every_page import barriers
from tests.cast import PASSWORD
from tests.knowledge.rows import add_answer
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
    pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"]),
]

HOLD_TIMER = "What is the hold timer on edge routers?"
DUCK = "Which wine goes with roast duck on a Sunday evening?"
WITH_CODE = Reply(
    blocks=(
        Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),
        Block("\n\n```\nset protocols bgp hold-time 30\ncommit\n```\n"),
        Block("\nThen wait.", cites=((0, 0, 1),)),
    )
)


def name(base: str, size: tuple[int, int]) -> str:
    return f"{base}-{'desktop' if size == DESKTOP else 'phone'}"


def test_code_and_the_answer_are_copied(visit: Any, model: StubProvider, size: tuple[int, int]) -> None:
    nina = visit(size=size)
    nina.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=nina.site)
    nina.sign_in("nina")
    model.script(WITH_CODE)
    nina.ask(HOLD_TIMER)
    answer = nina.wait_for_answer()

    def copied() -> str:
        return str(nina.page.evaluate("navigator.clipboard.readText()"))

    button = answer.get_by_role("button", name="Copy", exact=True)
    expect(button).to_have_count(1)
    button.click()
    expect(answer.locator("[data-copy-code]")).to_have_text("Copied")
    assert copied().strip() == "set protocols bgp hold-time 30\ncommit"
    answer.get_by_role("link", name="Copy with sources").click()
    expect(answer.locator("[data-copy-answer]")).to_have_text("Copied")
    text = copied()
    assert text.startswith(HOLD_TIMER) and "30 seconds.[1]" in text
    assert re.search(
        rf"\[1\] BGP session down, bgp-session-down\.md\n +{re.escape(nina.site)}/documents/", text
    )
    expect(answer.locator("[data-copy-answer]")).to_have_text("Copy with sources")
    assert not nina.scrolls_sideways()
    nina.shoot(name("answer-code", size))
    assert not barriers(nina)
    nina.page.reload()
    expect(nina.wait_for_answer().get_by_role("button", name="Copy", exact=True)).to_have_count(1)


def test_asking_again_and_in_other_words(visit: Any, size: tuple[int, int]) -> None:
    nina = visit(size=size).sign_in("nina")
    nina.ask(HOLD_TIMER)
    nina.wait_for_answer()
    nina.ask(HOLD_TIMER)
    second = nina.wait_for_answer(2)
    expect(second.locator(".answer-meta")).to_contain_text("cached")
    second.get_by_role("button", name="Ask again").click()
    third = nina.wait_for_answer(3)
    expect(third.locator(".answer-meta")).to_contain_text("fresh")
    conversation = nina.page.url

    third.get_by_role("link", name="Edit").click()
    box = nina.page.get_by_label("Your question")
    expect(box).to_be_focused()
    expect(box).to_have_value(HOLD_TIMER)
    nina.page.keyboard.type(" And the limit?")
    nina.page.keyboard.press("Enter")
    expect(nina.wait_for_answer(4).locator(".question")).to_have_text(f"{HOLD_TIMER} And the limit?")
    assert nina.page.url == conversation
    nina.page.reload()
    expect(nina.page.locator("article[data-answer]")).to_have_count(4)


def test_an_answer_that_is_being_renewed_says_so(cast: Any, visit: Any, size: tuple[int, int]) -> None:
    nina = visit(size=size)
    nina.sign_in("nina")
    nina.ask(HOLD_TIMER)
    nina.wait_for_answer()
    with httpx.Client(base_url=f"{nina.site}/api/v1/") as ada:  # somebody changes another document
        sign_in = {"username": "ada", "password": PASSWORD, "tenant": "acme"}
        token = ada.post("token", json=sign_in).json()["access"]
        path = f"documents/{cast.documents['acme']['vpn-faq.md'].pk}"
        changed = ada.patch(path, json={"title": "VPN"}, headers={"Authorization": f"Bearer {token}"})
        assert changed.status_code == 200, changed.text
    nina.page.goto(f"{nina.site}/")
    nina.ask(HOLD_TIMER)
    answer = nina.wait_for_answer()
    expect(answer).to_contain_text("cached, being renewed")
    expect(answer.get_by_text("This answer is being made again")).to_be_visible()
    assert not nina.scrolls_sideways()
    nina.shoot(name("answer-stale", size))


def test_feedback_is_given_in_place_and_is_there_later(visit: Any, size: tuple[int, int]) -> None:
    nina = visit(size=size).sign_in("nina")
    nina.ask(HOLD_TIMER)
    answer = nina.wait_for_answer()
    url = nina.page.url
    answer.get_by_role("button", name="Yes").click()
    expect(answer.get_by_role("status")).to_have_text("Thank you.")
    expect(answer.get_by_role("button", name="Yes")).to_have_attribute("aria-pressed", "true")
    expect(answer.get_by_label("Comment")).to_be_hidden()
    answer.get_by_role("button", name="No", exact=True).click()
    expect(answer.get_by_role("button", name="No", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(answer.get_by_role("button", name="Yes")).to_have_attribute("aria-pressed", "false")
    expect(answer.get_by_label("Comment")).to_be_visible()
    answer.get_by_label("It is out of date").check()
    answer.get_by_label("2", exact=True).check()
    answer.get_by_label("What it should say").fill("It is 45 seconds since May.")
    nina.shoot(name("answer-feedback", size))
    assert not barriers(nina)
    assert not nina.scrolls_sideways()
    answer.get_by_label("Comment").focus()
    nina.page.keyboard.type("Not any more.")
    nina.page.keyboard.press("Control+Enter")
    expect(answer.get_by_label("Comment")).to_be_hidden()
    assert nina.page.url == url
    nina.page.reload()
    answer = nina.wait_for_answer()
    expect(answer.get_by_role("button", name="No", exact=True)).to_have_attribute("aria-pressed", "true")
    answer.locator("summary", has_text="Your feedback").click()
    expect(answer.get_by_label("It is out of date")).to_be_checked()
    expect(answer.get_by_label("2", exact=True)).to_be_checked()
    expect(answer.get_by_label("Comment")).to_have_value("Not any more.")
    answer.get_by_role("button", name="Withdraw my feedback").click()
    expect(answer.get_by_role("status")).to_have_text("Withdrawn.")
    expect(answer.get_by_role("button", name="No", exact=True)).to_have_attribute("aria-pressed", "false")


def test_what_is_not_in_the_documents_is_requested_and_answered(visit: Any, size: tuple[int, int]) -> None:
    nina = visit(size=size).sign_in("nina")
    nina.ask(DUCK)
    answer = nina.wait_for_answer()
    expect(answer).to_have_attribute("data-state", "unanswered")
    expect(answer).to_contain_text("Not in your documents")
    expect(answer.get_by_role("heading", name="Nearest passages")).to_be_visible()
    answer.locator("summary", has_text="Request a document").click()
    answer.get_by_label("Which document should say it?").fill("The cellar book.")
    nina.shoot(name("ask-unanswered", size))
    assert not barriers(nina)
    answer.get_by_role("button", name="Send the request").click()
    expect(answer).to_contain_text("Thank you.")
    answer.get_by_role("link", name="Your requests").click()
    expect(nina.page.locator("tbody tr")).to_contain_text("The cellar book.")
    assert not nina.scrolls_sideways()

    ada = visit(size=size).sign_in("ada")
    ada.go("/requests/")
    row = ada.page.locator("tbody tr")
    expect(row).to_contain_text("nina")
    ada.shoot(name("requests", size))
    row.locator("summary").click()
    row.get_by_label("Reply to the member").fill("It is in Wines now.")
    assert not barriers(ada)
    assert not ada.scrolls_sideways()
    row.get_by_role("button", name="Done").click()
    expect(ada.page.locator("tbody tr .badge")).to_have_text("done")
    ada.page.get_by_label("Status").select_option("open")
    expect(ada.page.locator("#request-list")).to_contain_text("No open request.")
    nina.page.go_back()
    nina.page.reload()
    expect(nina.page.locator("article")).to_contain_text("It is in Wines now.")


def test_filters_are_seen_remembered_and_cleared(visit: Any, size: tuple[int, int]) -> None:
    nina = visit(size=size).sign_in("nina")
    nina.page.get_by_text("Filters", exact=True).click()
    nina.page.get_by_label("standards").check()
    expect(nina.page.locator("[data-filters-count]")).to_have_text("1")
    nina.ask("What is the maximum-prefix limit?")
    titles = nina.wait_for_answer().locator(".source-title").all_inner_texts()
    assert titles and set(titles) == {"Edge BGP policy"}
    nina.go("/")
    on = nina.page.locator("[data-filters-on]")
    expect(on).to_contain_text("standards")
    nina.shoot(name("ask-filters-on", size))
    assert not barriers(nina)
    assert not nina.scrolls_sideways()
    nina.page.get_by_role("button", name="Clear the filters").click()
    expect(on).to_be_hidden()
    nina.page.reload()
    expect(on).to_be_hidden()
    # Another member at the same browser has filters of their own.
    nina.page.get_by_text("Filters", exact=True).click()
    nina.page.get_by_label("runbooks").check()
    nina.page.locator(".menu > summary").click()
    nina.page.get_by_role("button", name="Sign out").click()
    nina.sign_in("hal")
    expect(on).to_be_hidden()


@pytest.fixture
def often_asked(cast: Any) -> str:
    for member in (cast.hal, cast.ada):
        add_answer(member, HOLD_TIMER, cast.documents["acme"]["bgp-session-down.md"])
    return HOLD_TIMER


def test_what_others_ask_often_is_offered(often_asked: str, visit: Any, size: tuple[int, int]) -> None:
    nina = visit(size=size).sign_in("nina")
    expect(nina.page.get_by_role("heading", name="Often asked here")).to_be_visible()
    nina.shoot(name("ask-often-asked", size))
    nina.page.get_by_role("button", name=often_asked).click()
    expect(nina.wait_for_answer()).to_contain_text("30 seconds")
