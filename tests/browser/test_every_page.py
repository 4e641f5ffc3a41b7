"""What holds for every page of ours: no barrier that axe-core finds, no sideways scrolling, light, nothing from elsewhere.

A new page without a case here fails the first test.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import axe_playwright_python
import pytest
from django.urls import get_resolver
from django.utils import timezone
from playwright.sync_api import Error

from feedback.models import DocumentRequest
from knowledge.evaluation.sets import NewCase, Relevant, create_set
from knowledge.models import (
    Collection,
    Embedding,
    EmbeddingSpace,
    EvaluationRun,
    IndexDay,
    Job,
    Source,
)
from tenants.models import UsageRecord
from tenants.scope import scope
from tests.browser.chromium import DESKTOP, PHONE
from tests.security.test_routes import walk

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WEIGHT = 150 * 1024  # bytes, uncompressed: the page with its styles, scripts and pictures

HOLD_TIMER = "What is the hold timer on edge routers?"

# Routes that are no pages of their own: they take forms, hand out parts of a page or files, or lead elsewhere at once.
NO_PAGES = {
    "mcp",
    "livez",
    "readyz",
    "health",
    "metrics",
    "sign-out/",
    "tenant/",
    "answers/<uuid:id>/",
    "answers/<uuid:id>/text/",
    "answers/<uuid:id>/rating/",
    "answers/<uuid:id>/request/",
    "api-keys/<uuid:id>/revoke/",
    "audit/export/",
    "collections/<uuid:id>/delete/",
    "collections/<uuid:id>/reindex/",
    "documents/bulk/",
    "documents/restore/",
    "documents/<uuid:id>/delete/",
    "documents/<uuid:id>/reindex/",
    "documents/<uuid:id>/replace/",
    "documents/<uuid:id>/restore/",
    "index/spaces/",
    "invitations/<uuid:id>/resend/",
    "invitations/<uuid:id>/revoke/",
    "jobs/<uuid:id>/cancel/",
    "jobs/<uuid:id>/retry/",
    "members/<uuid:id>/",
    "members/<uuid:id>/remove/",
    "requests/<uuid:id>/",
    "roles/<uuid:id>/",
    "roles/<uuid:id>/delete/",
    "sources/check/",
    "sources/<uuid:id>/check/",
    "sources/<uuid:id>/delete/",
    "sources/<uuid:id>/hook/delete/",
    "sources/<uuid:id>/pause/",
    "sources/<uuid:id>/sync/",
    "sources/<uuid:id>/take-again/",
    "upload/progress/",
    "usage/export/",
    "usage/questions/",
}


class Rows:
    """Rows of acme for the pages that show one thing."""

    def __init__(self, cast: Any, conversation: str) -> None:
        self.conversation = conversation
        self.document = str(cast.documents["acme"]["bgp-session-down.md"].pk)
        self.role = str(cast.nina.membership.role.pk)
        with scope(tenant_id=cast.tenants["acme"].pk, tags=None):
            collection = Collection.objects.get()
            self.collection = str(collection.pk)
            source = Source.objects.create(
                name="Runbooks", kind="folder", path="runbooks", collection=collection
            )
            self.source = str(source.pk)
            Job.objects.create(kind="sync", source=source, state="FAILURE", error="The folder is not there.")
            Job.objects.create(
                kind="sync",
                source=source,
                state="SUCCESS",
                finished_at=timezone.now(),
                result={"totals": {"added": 2, "moved": 1}, "changes": {"added": ["a.md", "b.md"]}},
            )
            self.job = str(Job.objects.create(kind="sync", source=source, state="PROGRESS", progress=40).pk)
            DocumentRequest.objects.create(user=cast.nina.membership.user, question="Where is the fibre map?")
            self._add_index_figures(cast)
            UsageRecord.objects.create(
                user=cast.nina.membership.user,
                request_id=uuid4(),
                endpoint="query",
                provider="anthropic",
                model="claude-sonnet-5-5",
                kind="answer",
                status="success",
                input_tokens=900,
                output_tokens=120,
                cost_usd="0.003",
            )

    def _add_index_figures(self, cast: Any) -> None:
        """A model on trial, compared and whole; one of before; and how the index has grown."""
        now = timezone.now()
        vectors = Embedding.objects.filter(space__state="active")
        trial = EmbeddingSpace.objects.create(model="openai:text-embedding-3-large@1024", dimensions=384)
        Embedding.objects.bulk_create(
            [Embedding(space=trial, text_hash=each.text_hash, vector=each.vector) for each in vectors]
        )
        EmbeddingSpace.objects.create(model="older/model", dimensions=384, state="retired", retired_at=now)
        document = cast.documents["acme"]["edge-policy.md"]
        made = create_set(name="questions", cases=[NewCase("1", HOLD_TIMER, (Relevant(document.pk),))])
        active = EmbeddingSpace.objects.get(state="active").model
        means = {"fused": {"ndcg@10": 0.61, "recall@10": 0.8, "mrr@10": 0.55}}
        figures = {"questions": 40, "difference": 0.021, "low": 0.004, "high": 0.04, "p": 0.012}
        shared = {"evaluation_set": made, "documents": 5, "queries": 40, "p50_ms": 9.0, "p95_ms": 14.0}
        old = EvaluationRun.objects.create(**shared, embedder=active, metrics=means)
        EvaluationRun.objects.create(
            **shared,
            embedder=trial.model,
            metrics=means,
            compared_with=old,
            trial=True,
            comparison={"fused": dict.fromkeys(means["fused"], figures)},
        )
        IndexDay.objects.bulk_create(
            IndexDay(
                day=(now - timedelta(days=days)).date(),
                documents=40 - days,
                chunks=4 * (40 - days),
                original_bytes=30_000 * (40 - days),
                withdrawal_ms=[80.0 + days],
            )
            for days in range(1, 30)
        )


# Route → the address of a page of it, for somebody who manages.
PAGES: dict[str, Callable[[Rows], str]] = {
    "": lambda rows: "/",
    "account/": lambda rows: "/account/",
    "api-keys/": lambda rows: "/api-keys/",
    "audit/": lambda rows: "/audit/",
    "c/<uuid:id>/": lambda rows: rows.conversation,
    "c/<uuid:id>/settings/": lambda rows: f"{rows.conversation}settings/",
    "collections/": lambda rows: "/collections/",
    "collections/<uuid:id>/": lambda rows: f"/collections/{rows.collection}/",
    "collections/new/": lambda rows: "/collections/new/",
    "documents/": lambda rows: "/documents/",
    "documents/<uuid:id>/": lambda rows: f"/documents/{rows.document}/?start=20&end=120",
    "documents/<uuid:id>/manage/": lambda rows: f"/documents/{rows.document}/manage/",
    "documents/<uuid:id>/passages/": lambda rows: f"/documents/{rows.document}/passages/",
    "history/": lambda rows: "/history/",
    "index/": lambda rows: "/index/",
    "jobs/": lambda rows: "/jobs/",
    "jobs/<uuid:id>/": lambda rows: f"/jobs/{rows.job}/",
    "members/": lambda rows: "/members/",
    "requests/": lambda rows: "/requests/",
    "roles/": lambda rows: "/roles/",
    "roles/<uuid:id>/preview/": lambda rows: f"/roles/{rows.role}/preview/?question={HOLD_TIMER}",
    "search/why/": lambda rows: f"/search/why/?question={HOLD_TIMER}&document=merger.md&role={rows.role}",
    "settings/": lambda rows: "/settings/",
    "sources/": lambda rows: "/sources/",
    "sources/<uuid:id>/": lambda rows: f"/sources/{rows.source}/",
    "sources/<uuid:id>/edit/": lambda rows: f"/sources/{rows.source}/edit/",
    "sources/<uuid:id>/hook/": lambda rows: f"/sources/{rows.source}/hook/",
    "sources/new/": lambda rows: "/sources/new/",
    "styleguide": lambda rows: "/styleguide",
    "upload/": lambda rows: "/upload/",
    "usage/": lambda rows: "/usage/",
    "usage/calls/": lambda rows: "/usage/calls/",
}
SIGNED_OUT = {
    "sign-in/": "/sign-in/",
    "error": "/nowhere/",
    "join/": "/join/",
    "password/forgotten/": "/password/forgotten/",
    "password/new/": "/password/new/",
}


def test_every_page_has_a_case() -> None:
    routes = {route for route, _ in walk(get_resolver().url_patterns)}
    pages = {route for route in routes if not route.startswith(("api/", "v1/", "admin/"))} - NO_PAGES
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
            with suppress(Error):  # of the page before, which is gone
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
def test_no_page_has_a_barrier(
    cast: Any, visit: Any, in_thread: Any, size: tuple[int, int], dark: bool
) -> None:
    ada = visit(size=size, dark=dark).sign_in("ada")
    ada.ask(HOLD_TIMER)
    ada.wait_for_answer()
    path = ada.page.url.removeprefix(ada.site).partition("#")[0]
    rows = in_thread(lambda: Rows(cast, path))
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
