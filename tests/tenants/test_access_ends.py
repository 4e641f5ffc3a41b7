"""What ends or narrows access holds on the next request, for every way in."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
from django.db import IntegrityError, connections
from django.db.models.signals import pre_delete
from django.test import Client

from knowledge.models import Conversation
from tenants.models import Membership, Role, Tenant, User
from tenants.people import add_member, set_tenant_status
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD, member_of
from tests.security.helpers import call, key_client, session_client
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def ways_in(people: People) -> dict[str, Client]:
    return {
        "jwt": member_of(slug="acme", username="nina").client,
        "session": session_client("nina"),
        "api_key": key_client(people.nina, principal=people.ada.principal),
    }


def statuses(ways: dict[str, Client]) -> dict[str, int]:
    found = {name: client.get("/api/v1/documents").status_code for name, client in ways.items()}
    page = ways["session"].get("/")
    assert page.status_code == {200: 200, 401: page.status_code}[found["session"]]
    if found["session"] == 401:
        assert page.status_code in (302, 401)
    return found


ALL = {"jwt": 200, "session": 200, "api_key": 200}
NONE = {"jwt": 401, "session": 401, "api_key": 401}


def patch_member(people: People, **body: Any) -> None:
    path = f"/api/v1/members/{people.nina.membership.pk}"
    assert call(people.ada.client, "PATCH", path, body).status_code == 200


def change_user(**values: Any) -> None:
    User.objects.filter(username="nina").update(**values)


def change_password() -> None:
    user = User.objects.get(username="nina")
    user.set_password("another-Passw0rd")
    user.save()


def test_suspension_and_removal(people: People) -> None:
    undoable: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "the member": (
            lambda: patch_member(people, status="suspended"),
            lambda: patch_member(people, status="active"),
        ),
        "the tenant": (
            lambda: set_tenant_status(tenant=people.acme, status="suspended"),
            lambda: set_tenant_status(tenant=people.acme, status="active"),
        ),
        "the user": (lambda: change_user(is_active=False), lambda: change_user(is_active=True)),
    }
    for what, (suspend, resume) in undoable.items():
        ways = ways_in(people)
        assert statuses(ways) == ALL, what
        suspend()
        assert statuses(ways) == NONE, what
        sign_in = {"username": "nina", "password": PASSWORD}
        assert call(Client(), "POST", "/api/v1/token", sign_in).status_code == 401, what
        assert people.gina.client.get("/api/v1/me").status_code == 200, "the other tenant goes on"
        resume()
        again = statuses(ways_in(people))
        assert again == ALL, what
    ways = ways_in(people)
    assert (
        call(people.ada.client, "DELETE", f"/api/v1/members/{people.nina.membership.pk}").status_code == 204
    )
    assert statuses(ways) == NONE
    # Back as a new member: old keys and tokens stay dead.
    with scope(tenant_id=people.acme.pk, tags=None):
        role = Role.objects.get(name="network_engineer")
        add_member(user=people.nina.membership.user, role=role)
    assert {k: v for k, v in statuses(ways).items() if k != "session"} == {"jwt": 401, "api_key": 401}


def test_a_new_password_ends_sessions_and_tokens(people: People) -> None:
    ways = ways_in(people)
    pair = call(Client(), "POST", "/api/v1/token", {"username": "nina", "password": PASSWORD}).json()
    change_password()
    # A key is a credential of its own, with its own revocation.
    assert statuses(ways) == NONE | {"api_key": 200}
    assert call(Client(), "POST", "/api/v1/token/refresh", {"refresh": pair["refresh"]}).status_code == 401
    old = {"username": "nina", "password": PASSWORD}
    assert call(Client(), "POST", "/api/v1/token", old).status_code == 401


def test_another_role_holds_on_the_next_request(people: People) -> None:
    ways = ways_in(people)
    patch_member(people, role="management")
    for name, client in ways.items():
        me = client.get("/api/v1/me").json()
        assert me["role"] == "management", name
        assert me["abilities"] == ["ask", "see_costs"], name
        assert call(client, "GET", "/api/v1/tasks").status_code == 403, name  # upload is gone
        assert call(client, "GET", "/api/v1/costs").status_code == 200, name
        assert client.get("/api/v1/documents").json()["results"] == [], name
    patch_member(people, role="admin")
    assert {c.get("/api/v1/audit").status_code for c in ways.values()} == {200}
    assert {len(c.get("/api/v1/documents").json()["results"]) for c in ways.values()} == {3}
    patch_member(people, role="helpdesk")
    assert {c.get("/api/v1/audit").status_code for c in ways.values()} == {403}


def test_each_method_of_each_view_asks_for_an_ability_head_too(people: People) -> None:
    """HEAD runs GET: the length of its answer would tell what may not be read."""
    from django.urls import get_resolver

    from tests.security.test_routes import walk

    open_to_members = {"MeView", "TaskView"}  # of what is their own
    for route, callback in walk(get_resolver().url_patterns):
        view = getattr(callback, "view_class", None)
        if view is None or not hasattr(view, "abilities") or view.__name__ in open_to_members:
            continue
        handlers = {m.upper() for m in ("get", "post", "put", "patch", "delete") if hasattr(view, m)}
        assert set(view.abilities) == handlers, route
    for path in ("audit", "members", "roles", "api-keys", "sources", "costs", "cache/stats"):
        for method in ("GET", "HEAD"):
            response = call(people.nina.client, method, f"/api/v1/{path}")
            assert response.status_code == 403, (method, path)
    assert call(people.ada.client, "HEAD", "/api/v1/audit").status_code == 200


def test_the_last_who_manages_stays(people: People) -> None:
    ada = people.ada
    path = f"/api/v1/members/{ada.membership.pk}"
    assert call(ada.client, "PATCH", path, {"status": "suspended"}).status_code == 409
    assert call(ada.client, "PATCH", path, {"role": "helpdesk"}).status_code == 409
    assert call(ada.client, "DELETE", path).status_code == 409
    role = f"/api/v1/roles/{ada.membership.role_id}"
    assert call(ada.client, "PATCH", role, {"abilities": ["ask"]}).status_code == 409
    with scope(tenant_id=people.acme.pk, tags=None):
        assert Membership.objects.get(pk=ada.membership.pk).role.may("manage")


def test_a_session_needs_the_csrf_token_and_a_header_none(people: People) -> None:
    client = session_client("nina", csrf=True)
    body = {"title": "mine"}
    path = "/api/v1/documents/00000000-0000-0000-0000-000000000000"
    for method in ("POST", "PATCH", "PUT", "DELETE"):
        where = "/api/v1/search" if method == "POST" else path
        refused = call(client, method, where, body)
        assert refused.status_code == 403 and "CSRF" in refused.json()["detail"], method
    assert call(client, "POST", "/api/v1/query/stream", {"question": "what?"}).status_code == 403
    for path_of_page in ("/sign-out/", "/tenant/"):
        assert client.post(path_of_page).status_code == 403
    assert client.get("/api/v1/me").status_code == 200  # still signed in
    client.get("/sign-out/")
    client.get("/sign-in/")
    token = client.cookies["ragsite_csrf"].value
    assert call(client, "PATCH", path, body, **{"x-csrftoken": "x" * 64}).status_code == 403
    evil = {"x-csrftoken": token, "origin": "https://evil.example"}
    assert call(client, "PATCH", path, body, **evil).status_code == 403
    assert call(client, "PATCH", path, body, **{"x-csrftoken": token}).status_code == 404
    header = people.nina.client.defaults["HTTP_AUTHORIZATION"]
    strict = Client(enforce_csrf_checks=True, headers={"authorization": header})
    assert call(strict, "PATCH", path, body).status_code == 404
    # A header that does not hold is not rescued by the session beside it.
    assert call(client, "GET", "/api/v1/me", authorization="Bearer nonsense").status_code == 401


def write_conversation(user: User, tenant: Tenant) -> None:
    try:
        with scope(tenant_id=tenant.pk, tags=None):
            Conversation.objects.create(user=user, title="Written while its user is deleted")
    finally:
        connections.close_all()


def test_a_user_is_deleted_although_something_is_written_for_them(people: People) -> None:
    user = people.nina.membership.user
    with ThreadPoolExecutor(1) as threads:
        written: list[Future[None]] = []

        def write(**_: Any) -> None:  # what goes with the user has been looked up by now
            written.append(threads.submit(write_conversation, user, people.acme))
            wait(written, timeout=0.5)

        pre_delete.connect(write, sender=User)
        try:
            with unscoped(reason="tests"):
                user.delete()
        finally:
            pre_delete.disconnect(write, sender=User)
        with pytest.raises(IntegrityError):
            written[0].result()
    with unscoped(reason="tests"):
        assert not User.objects.filter(username="nina").exists()
        assert not Conversation.objects.filter(user_id=user.pk).exists()
