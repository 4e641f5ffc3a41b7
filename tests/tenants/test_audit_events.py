"""What is audited: who did what to what, when, by which way in."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.cast import PASSWORD, Cast
from tests.security.helpers import call, session_client

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def events(cast: Cast, action: str, *, of: str = "ada") -> list[dict[str, Any]]:
    response = getattr(cast, of).client.get(f"/api/v1/audit?action={action}&page_size=200")
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def one(cast: Cast, action: str, **expected: Any) -> dict[str, Any]:
    """The one event of this action that has the expected values."""
    matching = [e for e in events(cast, action) if all(e[k] == v for k, v in expected.items())]
    assert len(matching) == 1, (action, expected, events(cast, action))
    event = matching[0]
    assert uuid.UUID(event["request_id"]), action
    assert event["at"]
    return event


def test_people_and_documents_leave_their_trace(cast: Cast) -> None:
    # Signing in and failing to
    sign_in = {"username": "nina", "password": PASSWORD}
    assert call(Client(), "POST", "/api/v1/token", sign_in).status_code == 200
    one(cast, "session.sign_in", actor="nina", method="jwt", role="network_engineer", address="127.0.0.1")
    session_client("nina").post("/sign-out/")
    one(cast, "session.sign_in", actor="nina", method="session")
    one(cast, "session.sign_out", actor="nina", method="session")
    call(Client(), "POST", "/api/v1/token", sign_in | {"password": "wrong-secret"})
    failed = one(cast, "session.sign_in_failed", actor="nina")
    assert "wrong-secret" not in str(failed)
    call(Client(), "POST", "/api/v1/token", {"username": "nobody", "password": "x"})
    assert len(events(cast, "session.sign_in_failed")) == 1, (
        "nobody's failure is the platform's, not a tenant's"
    )

    # A question, with the role and the documents that were shown
    answer = call(
        cast.nina.client, "POST", "/api/v1/query", {"question": "What is the hold timer on edge routers?"}
    )
    asked = one(cast, "question.ask", actor="nina", role="network_engineer", method="jwt")
    shown = {source["document_id"] for source in answer.json()["sources"]}
    assert shown and set(asked["detail"]["documents"]) == shown
    assert asked["target_id"] == asked["request_id"] == answer.json()["request_id"]
    assert "hold timer" not in str(asked)

    # Reading, uploading, changing, deleting, restoring a document
    runbook = str(cast.documents["acme"]["bgp-session-down.md"].pk)
    for path in ("content", "original"):
        response = cast.nina.client.get(f"/api/v1/documents/{runbook}/{path}")
        assert response.status_code == 200
        b"".join(response) if response.streaming else None
    assert len([e for e in events(cast, "document.read") if e["target_id"] == runbook]) == 2
    session_client("nina").get(f"/documents/{runbook}/")
    one(cast, "document.read", target_id=runbook, method="session", actor="nina")
    file = SimpleUploadedFile("new.md", b"# New\n\nText.\n", "text/markdown")
    made = call(cast.nina.client, "POST", "/api/v1/documents", {"file": file, "tags": ["runbooks"]})
    assert made.status_code == 202, made.content
    one(cast, "document.upload", target_id=made.json()["id"], actor="nina")
    path = f"/api/v1/documents/{runbook}"
    call(cast.ada.client, "PATCH", path, {"tags": ["faq"]})
    change = one(cast, "document.change", target_id=runbook, actor="ada")
    assert change["detail"]["before"]["tags"] == ["runbooks"] and change["detail"]["after"]["tags"] == ["faq"]
    call(cast.ada.client, "DELETE", path)
    one(cast, "document.delete", target_id=runbook, actor="ada")
    call(cast.ada.client, "POST", f"{path}/restore")
    one(cast, "document.restore", target_id=runbook, actor="ada")
    # What was refused is no event of these kinds.
    assert call(cast.hal.client, "DELETE", path).status_code == 403
    assert len(events(cast, "document.delete")) == 1
    assert events(cast, "document.", of="gus") == [], "another tenant's log has nothing of it"


def test_every_change_of_an_admin_leaves_its_trace(
    cast: Cast, settings: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    from ragsite.core.config import config

    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(config(), "ingest_root", tmp_path)
    ada = cast.ada.client

    def made(path: str, body: dict[str, Any], status: int = 201) -> str:
        response = call(ada, "POST", f"/api/v1/{path}", body)
        assert response.status_code == status, (path, response.content)
        return str(response.json().get("id") or response.json().get("task_id"))

    role = made("roles", {"name": "auditor", "tags": ["audits"], "abilities": ["ask"]})
    call(ada, "PATCH", f"/api/v1/roles/{role}", {"tags": ["audits", "faq"]})
    member = made("members", {"username": "neil", "role": "auditor", "password": "long-enough-Passw0rd"})
    call(ada, "PATCH", f"/api/v1/members/{member}", {"status": "suspended"})
    call(ada, "PATCH", f"/api/v1/members/{member}", {"role": "helpdesk"})
    key = made("api-keys", {"name": "robot", "member": "nina", "scopes": ["ask"]})
    call(ada, "DELETE", f"/api/v1/api-keys/{key}")
    collection = made("collections", {"name": "Plans"})
    call(ada, "PATCH", f"/api/v1/collections/{collection}", {"default_tags": ["standards"]})
    source = made("sources", {"path": "folder", "tags": ["runbooks"], "collection": "plans"})
    call(ada, "PATCH", f"/api/v1/sources/{source}", {"enabled": False})
    made(f"sources/{source}/sync", {}, 202)
    job = made("reindex", {}, 202)
    call(ada, "DELETE", f"/api/v1/tasks/{job}")
    call(ada, "DELETE", "/api/v1/cache")
    call(ada, "DELETE", f"/api/v1/sources/{source}")
    call(ada, "DELETE", f"/api/v1/collections/{collection}")
    call(ada, "DELETE", f"/api/v1/members/{member}")
    call(ada, "DELETE", f"/api/v1/roles/{role}")
    for action, target in (
        ("role.create", role),
        ("role.change", role),
        ("role.delete", role),
        ("member.add", member),
        ("member.remove", member),
        ("api_key.create", key),
        ("api_key.revoke", key),
        ("collection.create", collection),
        ("collection.change", collection),
        ("collection.delete", collection),
        ("source.create", source),
        ("source.change", source),
        ("source.sync", source),
        ("source.delete", source),
        ("index.rebuild", job),
        ("task.cancel", job),
    ):
        event = one(cast, action, target_id=target, actor="ada", role="admin", method="jwt")
        assert event["address"] == "127.0.0.1", action
    assert len([e for e in events(cast, "member.change") if e["target_id"] == member]) == 2
    one(cast, "cache.clear", actor="ada")
    logged = str(events(cast, "member.") + events(cast, "api_key."))
    assert "long-enough-Passw0rd" not in logged and "rsk_" not in logged
