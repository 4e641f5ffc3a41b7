"""The audit log: every event that the product promises, told to the tenant's admins alone; and CSRF."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import ProgrammingError, connections
from django.test import Client

from tenants.models import AuditEvent
from tenants.scope import scope
from tests.cast import PASSWORD, Cast

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
JSON = {"content_type": "application/json"}


def actions_of(cast: Cast, **filters: Any) -> list[str]:
    with scope(tenant_id=cast.acme.pk, tags=None):
        return list(
            AuditEvent.objects.filter(**filters).order_by("at", "id").values_list("action", flat=True)
        )


def test_what_people_do_is_told(cast: Cast) -> None:
    nina, ada = cast.nina.client, cast.ada.client
    document = cast.documents["acme"]["bgp-session-down.md"]
    Client().post("/api/v1/token", {"username": "nina", "password": "wrong"}, **JSON)
    Client().post("/api/v1/token", {"username": "nina", "password": PASSWORD}, **JSON)
    answer = nina.post(
        "/api/v1/query", {"question": "What is the hold timer on edge routers?"}, **JSON
    ).json()
    nina.get(f"/api/v1/documents/{document.pk}/content")
    nina.get(f"/api/v1/documents/{document.pk}/original")
    uploaded = nina.post(
        "/api/v1/documents", {"file": SimpleUploadedFile("n.md", b"# N\n\ntext\n"), "tags": "runbooks"}
    ).json()
    nina.patch(f"/api/v1/documents/{uploaded['id']}", {"title": "Notes"}, **JSON)
    nina.delete(f"/api/v1/documents/{uploaded['id']}")
    nina.post(f"/api/v1/documents/{uploaded['id']}/restore")
    nina.post("/api/v1/feedback", {"request_id": answer["request_id"], "rating": 5}, **JSON)
    assert actions_of(cast, actor_name="nina") == [
        "session.sign_in_failed",
        "session.sign_in",
        "question.ask",
        "document.read",
        "document.read",
        "document.upload",
        "document.change",
        "document.delete",
        "document.restore",
        "feedback.create",
    ]
    role = ada.post(
        "/api/v1/roles", {"name": "auditor", "tags": ["faq"], "abilities": ["ask"]}, **JSON
    ).json()
    ada.patch(f"/api/v1/roles/{role['id']}", {"tags": ["faq", "runbooks"]}, **JSON)
    member = ada.post(
        "/api/v1/members", {"username": "zoe", "role": "auditor", "password": "a-long-password-7"}, **JSON
    ).json()
    ada.patch(f"/api/v1/members/{member['id']}", {"status": "suspended"}, **JSON)
    ada.delete(f"/api/v1/members/{member['id']}")
    ada.delete(f"/api/v1/roles/{role['id']}")
    key = ada.post("/api/v1/api-keys", {"name": "ci"}, **JSON).json()
    ada.delete(f"/api/v1/api-keys/{key['id']}")
    collection = ada.post("/api/v1/collections", {"name": "Wiki"}, **JSON).json()
    ada.patch(f"/api/v1/collections/{collection['id']}", {"default_tags": ["faq"]}, **JSON)
    ada.delete(f"/api/v1/collections/{collection['id']}")
    ada.post("/api/v1/reindex", {}, **JSON)
    ada.delete("/api/v1/cache")
    assert actions_of(cast, actor_name="ada") == [
        "role.create",
        "role.change",
        "member.add",
        "member.change",
        "member.remove",
        "role.delete",
        "api_key.create",
        "api_key.revoke",
        "collection.create",
        "collection.change",
        "collection.delete",
        "index.rebuild",
        "cache.clear",
    ]
    with scope(tenant_id=cast.acme.pk, tags=None):
        asked = AuditEvent.objects.get(action="question.ask")
        assert asked.role_name == "network_engineer"
        assert asked.method == "jwt"
        assert asked.target_id == asked.request_id == answer["request_id"]
        assert asked.detail["documents"] == list(dict.fromkeys(s["document_id"] for s in answer["sources"]))
        assert not any(PASSWORD in str(event.detail) for event in AuditEvent.objects.all())


def test_the_log_is_for_admins_filtered_and_paged(cast: Cast) -> None:
    for _ in range(3):
        cast.nina.client.get(f"/api/v1/documents/{cast.documents['acme']['edge-policy.md'].pk}/content")
    assert cast.nina.client.get("/api/v1/audit").status_code == 403
    page = cast.ada.client.get("/api/v1/audit?action=document.read&page_size=2").json()
    assert [row["actor"] for row in page["results"]] == ["nina", "nina"]
    rest = cast.ada.client.get(page["next"]).json()
    assert len(rest["results"]) == 1 and rest["next"] is None
    assert cast.gus.client.get("/api/v1/audit?actor=nina").json()["results"] == []
    assert cast.ada.client.get("/api/v1/audit?from=nonsense").status_code == 400


def test_the_application_role_cannot_rewrite_the_log(cast: Cast) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert AuditEvent.objects.exists()
        for statement in ("UPDATE tenants_auditevent SET action = ''", "DELETE FROM tenants_auditevent"):
            with (
                pytest.raises(ProgrammingError, match="permission denied"),
                connections["default"].cursor() as cursor,
            ):
                cursor.execute(statement)


def test_a_session_needs_the_csrf_token_and_a_token_does_not(cast: Cast) -> None:
    client = Client(enforce_csrf_checks=True)
    assert client.login(username="nina", password=PASSWORD)
    body = {"question": "What is the hold timer on edge routers?"}
    refused = client.post("/api/v1/query", body, **JSON)
    assert refused.status_code == 403
    assert refused.headers["Content-Type"] == "application/problem+json"
    client.get("/")
    token = client.cookies["ragsite_csrf"].value
    assert client.post("/api/v1/query", body, headers={"x-csrftoken": token}, **JSON).status_code == 200
    assert client.post("/", {"question": "x"}).status_code == 403
    bearer = Client(enforce_csrf_checks=True)
    bearer.defaults = cast.nina.client.defaults
    assert bearer.post("/api/v1/query", body, **JSON).status_code == 200
