"""The server's own time and the queries of every page that answers a GET."""

import statistics
import time
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver

from knowledge.models import Answer, Collection, Conversation, Document, Job, Source
from ragsite.bench import Figures, Say
from tenants.authentication import SESSION_TENANT
from tenants.command_line import find_tenant, whole_tenant
from tenants.models import Membership, Role

# What an id in a page's path names, by the path's first part; of each the newest row is taken.
NEWEST = {
    "c": Conversation,
    "collections": Collection,
    "documents": Document,
    "jobs": Job,
    "roles": Role,
    "sources": Source,
    "answers": Answer,
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--tenant", default="acme")
    parser.add_argument("--user", default="ada")
    parser.add_argument("--rounds", type=int, default=30)


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    """Figures by page: milliseconds, queries, size in KiB.

    Raises:
        CommandError: no such tenant or member, or no rounds.
    """
    if options["rounds"] < 1:
        raise CommandError("--rounds must be 1 or more.")
    settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, "testserver"]
    client, paths = _prepare(options["tenant"], options["user"])
    pages = {
        path: found for path in paths if (found := _measure_page(client, path, options["rounds"])) is not None
    }
    worst = max(found["p95_ms"] for found in pages.values())
    return {"pages": pages, "worst_p95_ms": worst, "rounds": options["rounds"]}


def render(figures: Figures) -> Iterable[str]:
    yield f"{'page':60} {'p50 ms':>8} {'p95 ms':>8} {'queries':>8} {'KiB':>6}"
    for path, found in sorted(figures["pages"].items(), key=lambda item: -item[1]["p95_ms"]):
        yield f"{path[:60]:60} {found['p50_ms']:8.1f} {found['p95_ms']:8.1f} {found['queries']:8} {found['kib']:6.1f}"


def _prepare(slug: str, username: str) -> tuple[Client, list[str]]:
    """A signed-in client, and the address of every page."""
    with whole_tenant(find_tenant(slug)):
        member = Membership.objects.select_related("user").filter(user__username=username).first()
        if member is None:
            raise CommandError(f"{username} is not a member of {slug}.")
        ids = {
            part: row.pk
            for part, model in NEWEST.items()
            if (row := model.objects.order_by("-created_at").only("pk").first()) is not None
        }
        client = Client(headers={"accept": "text/html"})
        client.force_login(member.user)
        session = client.session
        session[SESSION_TENANT] = str(member.tenant_id)
        session.save()
    paths = []
    for route in _routes(get_resolver().url_patterns):
        pk = ids.get(route.partition("/")[0])
        if route.startswith(("api/", "admin/", "sign-out", "metrics", "health", "readyz", "livez")):
            continue
        if "<" not in route:
            paths.append(f"/{route}")
        elif pk and route.count("<") == 1 and "<uuid:" in route:
            name = route[route.index("<") : route.index(">") + 1]
            paths.append("/" + route.replace(name, str(pk)))
    return client, paths


def _measure_page(client: Client, path: str, rounds: int) -> dict[str, Any] | None:
    with CaptureQueriesContext(connections["default"]) as queries:
        response = client.get(path)
    if response.status_code != 200 or not response["Content-Type"].startswith("text/html"):
        return None
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        client.get(path)
        times.append((time.perf_counter() - begun) * 1000)
    times.sort()
    return {
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(times[max(0, round(0.95 * len(times)) - 1)], 1),
        "queries": len(queries),
        "kib": round(len(response.content) / 1024, 1),
    }


def _routes(patterns: Any, prefix: str = "") -> Iterator[str]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            yield route
