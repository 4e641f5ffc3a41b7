"""What holds for every page of ours: no barrier that axe-core finds, no sideways scrolling, light, nothing from elsewhere.

A new page without a case here fails the first test.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from django.urls import get_resolver

from tests.browser.conftest import DESKTOP, PHONE
from tests.security.test_routes import walk

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WEIGHT = 150 * 1024  # bytes, uncompressed: the page with its styles, scripts and pictures

HOLD_TIMER = "What is the hold timer on edge routers?"

# Routes that are no pages, or redirect at once.
NO_PAGES = {"livez", "readyz", "health", "metrics", "sign-out/", "tenant/", "answers/<uuid:id>/"}


class Rows:
    """Rows of acme for the pages that show one thing, and a conversation of ada's."""

    def __init__(self, cast: Any) -> None:
        self.cast = cast
        self.conversation = ""

    def document(self) -> str:
        return str(self.cast.documents["acme"]["bgp-session-down.md"].pk)

    def role(self) -> str:
        return str(self.cast.nina.membership.role.pk)


# Route → the address of a page of it, for somebody who manages.
PAGES: dict[str, Callable[[Rows], str]] = {
    "": lambda rows: "/",
    "c/<uuid:id>/": lambda rows: rows.conversation,
    "documents/<uuid:id>/": lambda rows: f"/documents/{rows.document()}/?start=20&end=120",
    "roles/<uuid:id>/preview/": lambda rows: f"/roles/{rows.role()}/preview/?question={HOLD_TIMER}",
    "styleguide": lambda rows: "/styleguide",
    "upload/": lambda rows: "/upload/",
}
SIGNED_OUT = {"sign-in/": "/sign-in/", "error": "/nowhere/"}


def test_every_page_has_a_case() -> None:
    routes = {route for route, _ in walk(get_resolver().url_patterns)}
    pages = {route for route in routes if not route.startswith(("api/", "admin/"))} - NO_PAGES
    assert pages == (set(PAGES) | set(SIGNED_OUT)) - {"error"}


def barriers(visitor: Any) -> list[str]:
    """What axe-core finds, one line each."""
    visitor.page.evaluate(AXE)
    found = visitor.page.evaluate(
        "tags => axe.run({runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']})", WCAG
    )
    return [
        f"{one['id']}: {one['help']} ({node['html'][:160]}) {node['failureSummary'][:200]}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


def look_at(visitor: Any, address: str, name: str) -> list[str]:
    """Everything that is wrong with a page, as sentences."""
    received: list[int] = []
    page = visitor.page

    def weigh(response: Any) -> None:
        if response.ok:
            received.append(len(response.body()))

    page.on("response", weigh)
    page.goto(visitor.site + address)
    page.wait_for_load_state("networkidle")
    wrong = [f"axe {line}" for line in barriers(visitor)]
    if visitor.scrolls_sideways():
        wrong.append("scrolls sideways")
    visitor.shoot(f"page-{name}-{page.viewport_size['width']}")
    page.evaluate("document.documentElement.dir = 'rtl'")
    if visitor.scrolls_sideways():
        wrong.append("scrolls sideways from right to left")
    page.remove_listener("response", weigh)
    weight = sum(received)
    if weight > WEIGHT:
        wrong.append(f"weighs {weight / 1024:.0f} KiB")
    return wrong


@pytest.mark.parametrize(
    ("size", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop-light", "phone-dark"]
)
def test_no_page_has_a_barrier(cast: Any, visit: Any, size: tuple[int, int], dark: bool) -> None:
    rows = Rows(cast)
    ada = visit(size=size, dark=dark).sign_in("ada")
    ada.ask(HOLD_TIMER)
    ada.wait_for_answer()
    rows.conversation = ada.page.url.removeprefix(ada.site)
    found = {}
    for route, address in PAGES.items():
        if wrong := look_at(ada, address(rows), name_of(route)):
            found[route] = wrong
    nobody = visit(size=size, dark=dark, lenient=True)
    for route, address in SIGNED_OUT.items():
        if wrong := look_at(nobody, address, name_of(route)):
            found[route] = wrong
    assert not found, json.dumps(found, indent=1)


def name_of(route: str) -> str:
    return route.replace("<uuid:id>", "one").strip("/").replace("/", "-") or "ask"
