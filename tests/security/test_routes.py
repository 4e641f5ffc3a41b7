"""Every route that takes an id, tried with ids of another tenant, and of the own one's that the role may not see.

A new route without a case here fails the first test.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tenants.models import Tenant, User
from tenants.scope import unscoped
from tests.cast import Cast
from tests.security.helpers import (
    Rows,
    call,
    every_way_in,
    fingerprint,
    make_rows,
    session_client,
    signature,
    tenant_models,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

METHODS = ("get", "post", "put", "patch", "delete")


def upload() -> SimpleUploadedFile:
    return SimpleUploadedFile("new.md", b"# New\n\nText of the attacker.\n", "text/markdown")


@dataclass(frozen=True)
class Case:
    """How a route is attacked.

    Attributes:
        thing: the kind of row that its id names.
        bodies: by method, a body that would be accepted for a row of one's own.
        hidden: whether an engineer without rights to the row gets the 404 that everybody in the tenant can provoke
            (rows that are a person's own or carry tags); other rows are guarded by an ability alone.
        signed: a signature of the body decides, whoever is signed in: everybody without one gets the same 401.
    """

    thing: str
    bodies: dict[str, Callable[[], Any]] = field(default_factory=dict)
    hidden: bool = False
    signed: bool = False


def nothing() -> None:
    return None


CASES: dict[str, Case] = {
    "api/v1/members/<uuid:id>": Case(
        "member", {"GET": nothing, "PATCH": lambda: {"status": "suspended"}, "DELETE": nothing}
    ),
    "api/v1/roles/<uuid:id>": Case(
        "role", {"GET": nothing, "PATCH": lambda: {"tags": ["runbooks"]}, "DELETE": nothing}
    ),
    "api/v1/api-keys/<uuid:id>": Case("api_key", {"GET": nothing, "DELETE": nothing}),
    "api/v1/collections/<uuid:id>": Case(
        "collection", {"GET": nothing, "PATCH": lambda: {"description": "changed"}, "DELETE": nothing}
    ),
    "api/v1/sources/<uuid:id>/hook-secret": Case("source", {"POST": nothing, "DELETE": nothing}),
    "api/v1/sources/<uuid:id>/excluded": Case("source", {"GET": nothing, "DELETE": nothing}),
    "api/v1/sources/<uuid:id>": Case(
        "source", {"GET": nothing, "PATCH": lambda: {"enabled": False}, "DELETE": nothing}
    ),
    "api/v1/sources/<uuid:id>/check": Case("source", {"POST": nothing}),
    "api/v1/sources/<uuid:id>/sync": Case("source", {"POST": nothing}),
    "api/v1/hooks/<uuid:id>": Case("source", {"POST": lambda: {"type": "ping"}}, signed=True),
    "api/v1/tasks/<uuid:id>": Case("job", {"GET": nothing, "DELETE": nothing}, hidden=True),
    "api/v1/documents/<uuid:id>": Case(
        "untagged",
        {
            "GET": nothing,
            "PATCH": lambda: {"title": "changed"},
            "PUT": lambda: {"file": upload()},
            "DELETE": nothing,
        },
        hidden=True,
    ),
    "api/v1/documents/<uuid:id>/restore": Case("deleted", {"POST": nothing}),
    "api/v1/documents/<uuid:id>/content": Case("untagged", {"GET": nothing}, hidden=True),
    "api/v1/documents/<uuid:id>/original": Case("untagged", {"GET": nothing}, hidden=True),
    "api/v1/answers/<uuid:id>": Case("answer", {"GET": nothing}, hidden=True),
    "api/v1/answers/<uuid:id>/stream": Case("answer", {"GET": nothing, "DELETE": nothing}, hidden=True),
    "api/v1/conversations/<uuid:id>": Case(
        "conversation",
        {"GET": nothing, "PATCH": lambda: {"title": "changed"}, "DELETE": nothing},
        hidden=True,
    ),
    "api/v1/conversations/<uuid:id>/share": Case(
        "conversation", {"POST": lambda: {"members": ["nobody-of-this-name"]}}, hidden=True
    ),
    "api/v1/feedback/<uuid:id>": Case(
        "feedback", {"PATCH": lambda: {"rating": 1}, "DELETE": nothing}, hidden=True
    ),
    "api/v1/document-requests/<uuid:id>": Case("document_request", {"PATCH": lambda: {"status": "done"}}),
    "c/<uuid:id>/": Case("conversation", {"GET": nothing}, hidden=True),
    "c/<uuid:id>/settings/": Case("conversation", {"GET": nothing, "POST": nothing}, hidden=True),
    "answers/<uuid:id>/": Case("answer", {"GET": nothing}, hidden=True),
    "answers/<uuid:id>/text/": Case("answer", {"GET": nothing}, hidden=True),
    "answers/<uuid:id>/rating/": Case("answer", {"POST": nothing}, hidden=True),
    "answers/<uuid:id>/request/": Case("answer", {"POST": nothing}, hidden=True),
    "requests/<uuid:id>/": Case("document_request", {"POST": nothing}),
    "documents/<uuid:id>/": Case("untagged", {"GET": nothing}, hidden=True),
    "documents/<uuid:id>/manage/": Case("untagged", {"GET": nothing, "POST": nothing}, hidden=True),
    "documents/<uuid:id>/passages/": Case("untagged", {"GET": nothing}, hidden=True),
    "documents/<uuid:id>/replace/": Case("untagged", {"POST": lambda: {"file": upload()}}, hidden=True),
    "documents/<uuid:id>/reindex/": Case("untagged", {"POST": nothing}),
    "documents/<uuid:id>/delete/": Case("untagged_too", {"POST": nothing}, hidden=True),
    "documents/<uuid:id>/restore/": Case("deleted_too", {"POST": nothing}, hidden=True),
    "collections/<uuid:id>/": Case("collection", {"GET": nothing, "POST": nothing}),
    "collections/<uuid:id>/reindex/": Case("collection", {"POST": nothing}),
    "collections/<uuid:id>/delete/": Case("collection", {"POST": nothing}),
    "sources/<uuid:id>/": Case("source", {"GET": nothing}),
    "sources/<uuid:id>/edit/": Case("source", {"GET": nothing, "POST": nothing}),
    "sources/<uuid:id>/check/": Case("source", {"POST": nothing}),
    "sources/<uuid:id>/sync/": Case("source", {"POST": nothing}),
    "sources/<uuid:id>/take-again/": Case("source", {"POST": lambda: {"uri": "a.md"}}),
    "sources/<uuid:id>/pause/": Case("source", {"POST": nothing}),
    "sources/<uuid:id>/hook/": Case("source", {"GET": nothing, "POST": nothing}),
    "sources/<uuid:id>/hook/delete/": Case("source", {"POST": nothing}),
    "sources/<uuid:id>/delete/": Case("source_too", {"POST": nothing}),
    "jobs/<uuid:id>/": Case("job", {"GET": nothing}, hidden=True),
    "jobs/<uuid:id>/cancel/": Case("job", {"POST": nothing}, hidden=True),
    "jobs/<uuid:id>/retry/": Case("job", {"POST": nothing}, hidden=True),
    "roles/<uuid:id>/preview/": Case("role", {"GET": nothing}),
    "api/v1/invitations/<uuid:id>": Case("invitation", {"GET": nothing, "DELETE": nothing}),
    "members/<uuid:id>/": Case("member", {"POST": nothing}),
    "members/<uuid:id>/remove/": Case("member_too", {"POST": nothing}),
    "invitations/<uuid:id>/resend/": Case("invitation", {"POST": nothing}),
    "invitations/<uuid:id>/revoke/": Case("invitation", {"POST": nothing}),
    "roles/<uuid:id>/": Case("role", {"POST": nothing}),
    "roles/<uuid:id>/delete/": Case("role_too", {"POST": nothing}),
    "api-keys/<uuid:id>/revoke/": Case("api_key", {"POST": nothing}),
    "v1/models/<str:id>": Case("collection", {"GET": nothing}),
}


def walk(patterns: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from walk(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            yield route, pattern.callback


def routes_with_parameter() -> dict[str, Any]:
    """Route → view, for every route of the site that takes something from its path."""
    return {
        route: view for route, view in walk(get_resolver().url_patterns) if "<" in route or "(?P" in route
    }


def is_of_admin(route: str) -> bool:
    return route.startswith("admin/")


def methods_of(view: Any) -> set[str]:
    """The methods that a view supports."""
    if hasattr(view, "view_class"):
        return {name.upper() for name in METHODS if hasattr(view.view_class, name)}
    supported = set()
    from django.test import RequestFactory

    for name in METHODS:
        request = getattr(RequestFactory(), name)("/")
        request.principal, request.user, request.session = None, None, {}
        try:
            if view(request, id=uuid.uuid4()).status_code != 405:
                supported.add(name.upper())
        except AttributeError:  # it got past its method check
            supported.add(name.upper())
    return supported


def path_of(route: str, pk: uuid.UUID) -> str:
    return "/" + route.replace("<uuid:id>", str(pk)).replace("<str:id>", str(pk))


def test_every_route_with_an_id_has_a_case_for_every_method() -> None:
    routes = {route: view for route, view in routes_with_parameter().items() if not is_of_admin(route)}
    assert len(routes) > 15
    assert set(routes) == set(CASES)
    for route, view in routes.items():
        assert methods_of(view) == set(CASES[route].bodies), route


def attempts(route: str, case: Case) -> Iterator[tuple[str, Any]]:
    for method, body in case.bodies.items():
        yield method, body()
        if method == "GET" and route.startswith(("api/", "v1/")):
            yield "HEAD", None


def compare(client: Client, route: str, method: str, body: Any, pk: uuid.UUID) -> tuple[Any, Any]:
    """What the client is told of ``pk``, and of an id that nobody has."""
    absent = uuid.uuid4()
    told = signature(call(client, method, path_of(route, pk), body), hiding=(str(pk),))
    expected = signature(call(client, method, path_of(route, absent), body), hiding=(str(absent),))
    return told, expected


def test_a_foreign_id_is_answered_like_an_absent_one(cast: Cast) -> None:
    rows: Rows = make_rows(cast, slug="acme", admin="ada", member="hal")
    before = fingerprint(cast.acme.pk)
    gus = every_way_in(cast.gus, slug="globex")
    strangers = {**gus, "gina": cast.gina.client, "nobody": Client()}
    for route, case in CASES.items():
        pk = getattr(rows, case.thing)
        for method, body in attempts(route, case):
            for name, client in strangers.items():
                told, expected = compare(client, route, method, body, pk)
                where = f"{name} {method} {route}"
                assert told == expected, where
                if case.signed:
                    assert told[0] == 401, where
                elif name in gus:  # an admin lacks no ability that could answer first
                    assert told[0] == 404, where
                elif name == "nobody":
                    assert told[0] == (401 if route.startswith(("api/", "v1/")) else 302), where
                else:
                    assert told[0] in (403, 404), where
    assert fingerprint(cast.acme.pk) == before

    # The control: to their owner the same requests are no 404.
    ways = sorted(
        (
            (route, case, method, body)
            for route, case in CASES.items()
            for method, body in attempts(route, case)
            if not case.signed
        ),
        key=lambda way: (way[2] == "DELETE", way[1].thing in ("collection", "source", "conversation")),
    )
    for route, case, method, body in ways:
        told = signature(call(cast.ada.client, method, path_of(route, getattr(rows, case.thing)), body))
        assert told[0] not in (401, 404, 405) and told[0] < 500, (method, route, told)
    assert fingerprint(cast.acme.pk) != before


def test_what_a_role_may_not_see_is_answered_like_what_is_absent(cast: Cast) -> None:
    rows: Rows = make_rows(cast, slug="acme", admin="ada", member="hal")
    engineer = every_way_in(cast.nina, slug="acme")  # may ask and upload; the rows are ada's
    before = fingerprint(cast.acme.pk)
    for route, case in CASES.items():
        pk = getattr(rows, case.thing)
        for method, body in attempts(route, case):
            if case.hidden:
                for name, client in engineer.items():
                    told, expected = compare(client, route, method, body, pk)
                    assert told == expected, (name, method, route)
                    assert told[0] == 404, (name, method, route)
            for member in (cast.hal, cast.mona):
                told, expected = compare(member.client, route, method, body, pk)
                if case.hidden:
                    assert told == expected, (member.username, method, route)
                    assert told[0] in (403, 404), (member.username, method, route)
    after = fingerprint(cast.acme.pk)
    assert {table for table in before if before[table] != after[table]} <= {"tenants_apikey"}  # last used

    # What is visible but forbidden is a 403 that says so: a helpdesk member may read this runbook, not change it.
    runbook = cast.documents["acme"]["bgp-session-down.md"].pk
    assert cast.hal.client.get(f"/api/v1/documents/{runbook}").status_code == 200
    for method in ("PATCH", "DELETE"):
        response = call(cast.hal.client, method, f"/api/v1/documents/{runbook}", {"title": "mine"})
        assert response.status_code == 403, method
        assert "upload" in response.json()["detail"]
    # … and a shared conversation may be read, not changed.
    incident = cast.documents["acme"]["incident-0042.md"].pk  # a security analyst's
    assert cast.sam.client.get(f"/api/v1/documents/{incident}").status_code == 200
    assert cast.nina.client.get(f"/api/v1/documents/{incident}").status_code == 404
    assert cast.sam.client.get(f"/documents/{incident}/").status_code == 200
    assert cast.nina.client.get(f"/documents/{incident}/").status_code == 404


def test_routes_of_the_admin_answer_a_foreign_id_like_an_absent_one(cast: Cast) -> None:
    """A tenant's admin finds nothing of another tenant in Django's admin, whatever is registered there."""
    make_rows(cast, slug="acme", admin="ada", member="hal")
    before = fingerprint(cast.acme.pk)
    client = session_client("gus")
    models = [*tenant_models(), Tenant, User]
    tried = set()
    for route, view in routes_with_parameter().items():
        model = getattr(getattr(view, "model_admin", None), "model", None)
        if not is_of_admin(route) or "object_id" not in route or model not in models:
            continue
        if model is User:
            foreign, absent = cast.ada.membership.user_id, 10**9
        else:
            with unscoped(reason="tests"):
                rows = (
                    Tenant.objects.filter(pk=cast.acme.pk)
                    if model is Tenant
                    else model.objects.filter(tenant_id=cast.acme.pk)
                )
                foreign, absent = rows.values_list("pk", flat=True).first(), uuid.uuid4()
        if foreign is None:
            continue
        for method in ("GET", "POST"):
            told, expected = (
                signature(
                    call(client, method, "/" + route.replace("<path:object_id>", str(pk))),
                    hiding=(f"/{pk}/",),
                )
                for pk in (foreign, absent)
            )
            assert told == expected, (method, route)
            assert told[0] in (302, 403, 404), (method, route)
        tried.add(model)
    assert len(tried) >= 10
    assert fingerprint(cast.acme.pk) == before
