"""``make tour``: a stack of its own with the demo data, walked through in Chromium; its pictures go into docs/images.

The pages are the real ones, the answers are what the demo documents say word for word: no model is configured.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.chromium import ARGUMENTS, PHONE, find_chromium

CHECKOUT = Path(__file__).parents[2]
IMAGES = CHECKOUT / "docs" / "images"
PASSWORD = "demo-ragsite"  # of everybody in the demo data
WINDOW = (1280, 860)
START_SECONDS = 300
READY = "ragsite is ready"

QUESTION = "Which hold time do we use on eBGP sessions?"
# What has been asked before the pictures are taken, by whom, and whether it helped.
ASKED = [
    ("nina", "What is connected to ge-0/0/1 on core-rtr-01?", True),
    ("nina", "Why do the two route reflectors have different cluster IDs?", True),
    ("sam", "How did the attacker get around the second factor in INC-5512?", True),
    ("hal", "What does ERR-4711 mean and how do I solve it?", True),
    ("ada", "Which company does Acme take over in Project Harbour?", False),
    ("hal", "What is the Wi-Fi password of the canteen?", False),
]


@contextmanager
def stack() -> Iterator[str]:
    """``manage.py up`` in a folder of its own; yields the address when it is ready."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ragsite-tour-") as folder:
        # The servers of the stack run as another user when this is root: the folder must be passable.
        os.chmod(folder, 0o755)
        log = Path(folder) / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--port", str(port)],
                cwd=CHECKOUT,
                env=os.environ | {"RAGSITE_DATA": f"{folder}/data"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + START_SECONDS
            while READY not in log.read_text(
                errors="replace"
            ):  # said when the demo documents are indexed too
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("The stack did not become ready: try “make run” to see why.")
                time.sleep(1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


class Walk:
    """Somebody at a window, who takes pictures."""

    def __init__(
        self, browser: Browser, site: str, who: str, *, size: tuple[int, int] = WINDOW, dark: bool = False
    ) -> None:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
        )
        context.set_default_timeout(30_000)
        self.page: Page = context.new_page()
        self.site = site
        self.go("/sign-in/")
        self.page.get_by_label("User name").fill(who)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda url: "/sign-in/" not in url)

    def go(self, path: str) -> None:
        self.page.goto(self.site + path)
        self.page.wait_for_load_state("networkidle")

    def ask(self, question: str) -> None:
        self.go("/")
        self.page.get_by_label("Your question").fill(question)
        self.page.get_by_role("button", name="Ask", exact=True).click()
        self.page.locator("article[data-answer]").wait_for()

    def shoot(self, name: str) -> None:
        IMAGES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=IMAGES / f"{name}.png")
        print(f"docs/images/{name}.png")


def tour(browser: Browser, site: str) -> None:
    """The walk: what engineers see, what those who manage see, what reviewers and operators see."""
    for who, question, helped in ASKED:
        walk = Walk(browser, site, who)
        walk.ask(question)
        walk.page.get_by_role("button", name="Yes" if helped else "No", exact=True).first.click()
        walk.page.wait_for_load_state("networkidle")
        walk.page.context.close()

    nina = Walk(browser, site, "nina")
    nina.ask(QUESTION)
    nina.shoot("ask")
    nina.page.locator(".source-link").first.click()
    nina.page.wait_for_load_state("networkidle")
    nina.shoot("document")
    for name, size, dark in (("ask-dark", WINDOW, True), ("ask-phone", PHONE, False)):
        other = Walk(browser, site, "nina", size=size, dark=dark)
        other.ask(QUESTION)
        other.shoot(name)

    ada = Walk(browser, site, "ada")
    for path, name in (
        ("/documents/", "documents"),
        ("/sources/", "sources"),
        ("/members/", "members"),
        ("/roles/", "roles"),
        ("/audit/", "audit"),
    ):
        ada.go(path)
        ada.shoot(name)
    ada.go("/roles/")
    ada.page.locator("a[href$='/preview/']").last.click()
    ada.page.get_by_role("searchbox").fill(QUESTION)
    ada.page.get_by_role("button", name="Try").click()
    ada.page.get_by_role("heading", name="They would see").wait_for()
    ada.shoot("role-preview")

    ada.go("/admin/")
    ada.shoot("admin")
    ada.go("/admin/feedback/review/")
    ada.shoot("reviews")


def main() -> None:
    with stack() as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        tour(browser, site)
        browser.close()


if __name__ == "__main__":
    main()
