"""Headless Chromium against a real server on the test database."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.chromium import ARGUMENTS, DESKTOP, find_chromium
from tests.cast import PASSWORD
from tests.knowledge.conftest import configure, model  # noqa: F401 (fixtures)

ARTEFACTS = Path(__file__).parents[2] / "artefacts"
expect.set_options(timeout=15_000)  # a busy machine is slow, not broken


@dataclass
class Visitor:
    """A person at a browser window.

    Attributes:
        complaints: what the browser's console said: errors, violations of the content security policy, failed requests.
        foreign: addresses outside of the site that a page asked for.
    """

    page: Page
    site: str
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        self.page.goto(self.site + path)

    def sign_in(self, username: str) -> "Visitor":
        self.go("/sign-in/")
        self.page.get_by_label("User name").fill(username)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(self.site + "/")
        return self

    def ask(self, question: str) -> None:
        self.page.get_by_label("Your question").fill(question)
        self.page.get_by_role("button", name="Ask", exact=True).click()

    def wait_for_answer(self, number: int = 1) -> Any:
        """The ``number``th answer of the page, as the server rendered it at the end."""
        answer = self.page.locator("article[data-answer]").nth(number - 1)
        answer.wait_for(timeout=30_000)
        return answer

    def scrolls_sideways(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def shoot(self, name: str) -> None:
        """A picture to look at, which checks nothing: only when PICTURES is set."""
        if not os.environ.get("PICTURES"):
            return
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")


class HiddenLoop:
    """Playwright's event loop, which runs in this thread for as long as Playwright does.

    Django refuses to touch the database beside a running loop, so it is put out of sight except while a test has its
    windows: before, the database is filled, and after, emptied. Inside of a test Django goes on refusing.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.hide()

    def hide(self) -> None:
        asyncio._set_running_loop(None)

    def show(self) -> None:
        asyncio._set_running_loop(self._loop)


@pytest.fixture(scope="session")
def chromium() -> Iterator[tuple[Browser, HiddenLoop]]:
    """One for the run: it takes a second to start, and windows of different contexts share nothing."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        loop = HiddenLoop()
        yield launched, loop
        loop.show()
        launched.close()


@pytest.fixture
def browser(live_site: str, chromium: tuple[Browser, HiddenLoop]) -> Iterator[Browser]:
    # After the database's fixtures, and gone before they end.
    launched, loop = chromium
    loop.show()
    try:
        yield launched
        for context in launched.contexts:
            context.close()
    finally:
        loop.hide()


@pytest.fixture
def visit(browser: Browser, live_site: str) -> Iterator[Any]:
    """``visit(size=PHONE, dark=True, javascript=False)`` opens a window of its own.

    At the end of the test no window may have complained, unless it was opened with ``lenient=True``.
    """
    visitors: list[tuple[Visitor, bool]] = []

    def open_window(
        *, size: tuple[int, int] = DESKTOP, dark: bool = False, javascript: bool = True, lenient: bool = False
    ) -> Visitor:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            java_script_enabled=javascript,
        )
        context.set_default_timeout(15_000)
        visitor = Visitor(page=context.new_page(), site=live_site)
        page = visitor.page
        page.on(
            "console",
            lambda message: (
                visitor.complaints.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(live_site) else visitor.foreign.append(request.url)
            ),
        )
        visitors.append((visitor, lenient))
        return visitor

    yield open_window
    for visitor, lenient in visitors:
        assert not visitor.foreign, visitor.foreign
        assert lenient or not visitor.complaints, visitor.complaints
