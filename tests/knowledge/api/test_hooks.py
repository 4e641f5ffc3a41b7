"""Webhooks: who is believed, what follows, what is told to those who are not."""

import base64
import hashlib
import hmac
import json
import subprocess
import time
import uuid
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_redis import get_redis_connection

from knowledge.models import Document, Job, Source
from knowledge.webhooks import receive as receiving
from knowledge.webhooks import secrets as hook_secrets
from knowledge.webhooks.secrets import live_secrets
from knowledge.webhooks.signatures import new_secret, sign
from ragsite.core.problems import Problem
from tenants.models import AuditEvent, Tenant
from tenants.scope import scope
from tests.knowledge.helpers import check_problem, conforms, eventually, run_job, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


def make_source(shared: Any, *, kind: str = "git", **fields: Any) -> tuple[Source, str]:
    """A source of acme with a secret."""
    with scope(tenant_id=shared.acme.pk, tags=None):
        values = {"tags": ["runbooks"], "path": f"https://git.example/{uuid.uuid4()}", **fields}
        source = Source.objects.create(
            name=str(uuid.uuid4()), kind=kind, collection=shared.collections["acme"], **values
        )
    response = send(shared.ada, "post", f"sources/{source.pk}/hook-secret")
    assert response.status_code == 201
    return source, conforms(response, "/api/v1/sources/{id}/hook-secret", "post")["secret"]


def post(
    source: Source | uuid.UUID, body: bytes, headers: dict[str, str], kind: str = "application/json"
) -> Any:
    pk = source.pk if isinstance(source, Source) else source
    return Client().generic("POST", f"/api/v1/hooks/{pk}", body, kind, headers=headers)


def standard(source: Source, secret: str, event: Any, *, at: int | None = None, id: str = "") -> Any:
    body = json.dumps(event).encode()
    sent, message_id = at or int(time.time()), id or f"msg_{uuid.uuid4().hex}"
    signature = sign(secret=secret, message_id=message_id, timestamp=sent, body=body)
    return post(
        source,
        body,
        {"webhook-id": message_id, "webhook-timestamp": str(sent), "webhook-signature": signature},
    )


def github(source: Source, secret: str, event: str = "push", *, form: bool = False, **payload: Any) -> Any:
    body = json.dumps({"nonce": str(uuid.uuid4()), **payload}).encode()
    if form:
        from urllib.parse import urlencode

        body = urlencode({"payload": body.decode()}).encode()
    signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": event, "X-Hub-Signature-256": signature}
    return post(source, body, headers, "application/x-www-form-urlencoded" if form else "application/json")


def jobs_of(shared: Any, source: Source) -> list[Job]:
    with scope(tenant_id=shared.acme.pk, tags=None):
        return list(Job.objects.filter(source=source))


def audit_of(shared: Any, source: Source) -> list[AuditEvent]:
    with scope(tenant_id=shared.acme.pk, tags=None):
        return list(AuditEvent.objects.filter(target_id=str(source.pk)).order_by("at"))


# Who is believed


def test_who_is_not_believed_learns_nothing(shared: Any) -> None:
    """Absent source, no secret, foreign secret, wrong signature, no signature: one answer, and no trace."""
    source, secret = make_source(shared)
    bare, _ = make_source(shared)
    assert send(shared.ada, "delete", f"sources/{bare.pk}/hook-secret").status_code == 204
    other, other_secret = make_source(shared)
    body = b'{"type": "changed"}'

    def signed(key: str, what: bytes = body) -> dict[str, str]:
        now = int(time.time())
        signature = sign(secret=key, message_id="m", timestamp=now, body=what)
        return {"webhook-id": "m", "webhook-timestamp": str(now), "webhook-signature": signature}

    old = int(time.time()) - 400
    told = [
        post(uuid.uuid4(), body, signed(secret)),
        post(bare, body, signed(secret)),
        post(source, body, signed(other_secret)),
        post(source, body, signed(new_secret())),
        post(source, body + b" ", signed(secret)),
        post(source, body, {}),
        post(source, body, {"X-Gitlab-Token": "guess"}),
        post(source, body, {"X-Hub-Signature-256": "sha256=00"}),
        post(source, body, {"X-Hub-Signature": "sha1=00", "X-GitHub-Event": "ping"}),
        standard(source, secret, {"type": "changed"}, at=old),
        post(source, b"\xff" * 100, signed(secret)),
    ]
    documents = set()
    for response in told:
        problem = check_problem(response, 401, "signature")
        problem.pop("request_id")
        headers = {
            k: v for k, v in response.headers.items() if k not in ("X-Request-ID", "Content-Security-Policy")
        }
        documents.add((json.dumps(problem), json.dumps(headers, sort_keys=True)))
    assert len(documents) == 1
    assert not jobs_of(shared, source) and not jobs_of(shared, other)
    # Being signed in changes nothing, in either direction.
    response = shared.ada.client.post(f"/api/v1/hooks/{source.pk}", body, content_type="application/json")
    check_problem(response, 401, "signature")
    assert Client().get(f"/api/v1/hooks/{source.pk}").status_code == 405


def test_what_a_source_remembers_is_not_read_for_its_hooks(shared: Any) -> None:
    source, secret = make_source(shared)
    for key, status in ((new_secret(), 401), (secret, 202)):
        with ExitStack() as stack:
            captured = [
                stack.enter_context(CaptureQueriesContext(connections[alias]))
                for alias in ("platform", "default")
            ]
            assert standard(source, key, {"type": "changed"}).status_code == status
        found = [each["sql"] for one in captured for each in one if 'FROM "knowledge_source"' in each["sql"]]
        assert found and not any('"knowledge_source"."state"' in sql for sql in found), found
        # Before the sender is believed, no more than its secret.
        assert '"hook_secret"' in found[0] and '"options"' not in found[0]


def test_a_suspended_tenant_receives_nothing(shared: Any) -> None:
    source, secret = make_source(shared)
    tenants = Tenant.objects.using("platform").filter(pk=shared.acme.pk)
    tenants.update(status=Tenant.Status.SUSPENDED)
    try:
        check_problem(standard(source, secret, {"type": "changed"}), 401, "signature")
    finally:
        tenants.update(status=Tenant.Status.ACTIVE)
    assert standard(source, secret, {"type": "changed"}).status_code == 202


def test_the_secret_is_shown_once_and_rotates(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source, first = make_source(shared)
    assert first.startswith("whsec_") and len(base64.b64decode(first[6:])) == 32
    for path in (f"sources/{source.pk}", "sources?page_size=200", "audit?page_size=200"):
        assert first[6:] not in send(shared.ada, "get", path).content.decode()
    with scope(tenant_id=shared.acme.pk, tags=None):
        source.refresh_from_db()
        assert first[6:] not in source.hook_secret
    response = send(shared.ada, "post", f"sources/{source.pk}/hook-secret")
    assert "no-store" in response.headers["Cache-Control"]
    made = response.json()
    assert made["secret"] != first and made["hook_url"].endswith(f"/api/v1/hooks/{source.pk}")
    assert made["old_secret_until"] > timezone.now().isoformat()
    for secret in (first, made["secret"]):
        assert standard(source, secret, {"type": "ping"}).json() == {"status": "received"}
    # A second rotation within the day would cut off who still signs with the first.
    check_problem(send(shared.ada, "post", f"sources/{source.pk}/hook-secret"), 409, "rotating")
    later = timezone.now() + timedelta(hours=24, minutes=1)
    with scope(tenant_id=shared.acme.pk, tags=None):
        source.refresh_from_db()
        assert live_secrets(source, now=later) == [made["secret"]]
        monkeypatch.setattr(hook_secrets.timezone, "now", lambda: later)
        assert live_secrets(source) == [made["secret"]]
    check_problem(standard(source, first, {"type": "ping"}), 401, "signature")
    assert [event.action for event in audit_of(shared, source)] == [
        "source.hook_create",
        "source.hook_rotate",
    ]


def test_only_who_manages_makes_secrets(shared: Any) -> None:
    source, _ = make_source(shared)
    for method in ("post", "delete"):
        check_problem(send(shared.nina, method, f"sources/{source.pk}/hook-secret"), 403)
        check_problem(send(shared.gus, method, f"sources/{source.pk}/hook-secret"), 404)
        check_problem(send(shared.ada, method, f"sources/{uuid.uuid4()}/hook-secret"), 404)


# Pushes


def test_a_push_synchronises(shared: Any) -> None:
    source, secret = make_source(shared)
    response = github(source, secret, ref="refs/heads/main", repository={"default_branch": "main"})
    assert response.status_code == 202
    body = conforms(response, "/api/v1/hooks/{id}", "post")
    (job,) = jobs_of(shared, source)
    assert body == {"status": "started", "task_id": str(job.pk), "status_url": f"/api/v1/tasks/{job.pk}"}
    assert (job.kind, job.state, job.user_id) == ("sync", "PENDING", None)
    event = audit_of(shared, source)[-1]
    assert (event.action, event.method, event.address) == ("source.hook", "webhook", "127.0.0.1")
    assert event.detail == {
        "name": source.name,
        "event": "push",
        "scheme": "github",
        "ref": "refs/heads/main",
    }
    assert github(source, secret, form=True, ref="refs/heads/main").json()["task_id"] == str(
        job.pk
    )  # it waits yet
    assert github(source, secret, "ping", zen="Keep it logically awesome.").status_code == 200
    assert github(source, secret, "issues").json() == {
        "status": "ignored",
        "detail": "Only pushes matter here.",
    }


@pytest.mark.parametrize(
    ("options", "ref", "default", "synced"),
    [
        ({}, "refs/heads/main", "main", True),
        ({}, "refs/heads/feature", "main", False),
        ({}, "refs/tags/v1", "main", False),
        ({"branch": "release/2"}, "refs/heads/release/2", "main", True),
        ({"branch": "release/2"}, "refs/heads/main", "main", False),
        ({"branch": "v1"}, "refs/tags/v1", "main", True),
        ({}, "refs/heads/whatever", "", True),
    ],
)
def test_a_push_to_another_branch_is_ignored_and_said(
    shared: Any, options: dict[str, str], ref: str, default: str, synced: bool
) -> None:
    source, secret = make_source(shared, options=options)
    response = github(source, secret, ref=ref, repository={"default_branch": default})
    assert response.status_code == 202
    assert response.json()["status"] == ("started" if synced else "ignored")
    assert synced or ref in response.json()["detail"]
    assert len(jobs_of(shared, source)) == synced


def test_gitlab_by_token_and_by_signature(shared: Any) -> None:
    source, secret = make_source(shared, options={"branch": "main"})
    push = {"object_kind": "push", "ref": "refs/heads/main", "project": {"default_branch": "main"}}
    event = {"X-Gitlab-Event": "Push Hook"}

    def token(body: dict[str, Any], headers: dict[str, str], key: str = secret) -> Any:
        return post(source, json.dumps(body).encode(), {"X-Gitlab-Token": key, **headers})

    assert token(push, event).json()["status"] == "started"
    assert token(push | {"ref": "refs/heads/x"}, event).json()["status"] == "ignored"
    assert token({"object_kind": "issue"}, {"X-Gitlab-Event": "Issue Hook"}).json()["status"] == "ignored"
    check_problem(token(push, event, key=secret + "x"), 401)
    body, now = json.dumps(push | {"n": 1}).encode(), int(time.time())
    signed = {
        "webhook-id": "evt-1",
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secret=secret, message_id="evt-1", timestamp=now, body=body),
    }
    assert post(source, body, signed | event).json()["status"] == "started"
    body = body.replace(b"heads/main", b"heads/side")
    check_problem(post(source, body, signed | event | {"X-Gitlab-Token": secret}), 401)


@pytest.mark.parametrize("kind", ["git", "push"])
def test_the_end_of_a_job_starts_none(shared: Any, kind: str) -> None:
    source, secret = make_source(shared, kind=kind)
    for event in ("job.completed", "job.failed"):
        answer = standard(source, secret, {"type": event, "data": {"id": str(uuid.uuid4())}})
        assert answer.status_code == 202, answer.content
        assert answer.json()["status"] == "ignored" and "end of a job" in answer.json()["detail"]
    assert not jobs_of(shared, source)


def test_a_paused_source_ignores_its_hooks(shared: Any) -> None:
    source, secret = make_source(shared, enabled=False)
    assert github(source, secret, ref="refs/heads/main").json() == {
        "status": "ignored",
        "detail": "The source is paused.",
    }
    assert not jobs_of(shared, source)


# Once each, within bounds


def test_a_delivery_counts_once(shared: Any) -> None:
    source, secret = make_source(shared, kind="web", path="https://docs.example/")
    first = standard(source, secret, {"type": "site.published"}, id="msg_once")
    again = standard(source, secret, {"type": "site.published"}, id="msg_once")
    assert (first.json()["status"], again.json()["status"]) == ("started", "duplicate")
    assert again.status_code == 202 and again.json()["task_id"] == first.json()["task_id"]
    with scope(tenant_id=shared.acme.pk, tags=None):
        Job.objects.filter(source=source).update(state="SUCCESS")
    assert standard(source, secret, {"type": "site.published"}, id="msg_once").json()["status"] == "duplicate"
    assert len(jobs_of(shared, source)) == 1
    assert standard(source, secret, {"type": "site.published"}, id="msg_other").json()["status"] == "started"
    # Another source may have the same id; and a delivery that failed is not taken for a copy of itself.
    pushed, its_secret = make_source(shared, kind="push")
    for _ in range(2):
        check_problem(standard(pushed, its_secret, {"type": "document.upsert"}, id="msg_once"), 400)


def test_a_delivery_whose_process_died_is_taken_when_it_is_sent_again(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any) -> Any:
        raise Killed

    source, secret = make_source(shared, kind="push", path="push/killed")
    event = {"type": "document.upsert", "data": {"uri": "a.md", "content": "# A\n\nText.\n"}}
    with monkeypatch.context() as patch:
        patch.setattr(receiving, "LEASE_SECONDS", 1)
        patch.setattr(receiving, "_act", die)
        patch.setattr(receiving, "_forget", lambda *_: None)  # nothing runs in a process that is gone
        with pytest.raises(Killed):
            standard(source, secret, event, id="msg_killed")

    def send_again() -> Any:
        response = standard(source, secret, event, id="msg_killed")
        return response if response.status_code != 503 else None

    taken = eventually(send_again)
    assert (taken.status_code, taken.json()["status"]) == (202, "started")
    assert document_of(shared, source, "a.md") is not None
    assert standard(source, secret, event, id="msg_killed").json()["status"] == "duplicate"


def test_a_copy_is_no_duplicate_before_the_first_is_done(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, secret = make_source(shared, kind="web", path="https://slow.example/")
    event, act, copies = {"type": "site.published"}, receiving._act, []

    def while_a_copy_comes(*args: Any) -> Any:
        copies.append(standard(source, secret, event, id="msg_slow"))
        return act(*args)

    monkeypatch.setattr(receiving, "_act", while_a_copy_comes)
    assert standard(source, secret, event, id="msg_slow").json()["status"] == "started"
    (copy,) = copies
    check_problem(copy, 503, "delivery-in-progress")
    assert 0 < int(copy.headers["Retry-After"]) <= receiving.LEASE_SECONDS
    assert standard(source, secret, event, id="msg_slow").json()["status"] == "duplicate"

    # One that fails leaves alone what has become of another process's work meanwhile.
    def fail_late(*_: Any) -> Any:
        (found,) = get_redis_connection("default").keys(f"*:hook:{source.pk}:*{late}")
        get_redis_connection("default").set(found, "{}")
        raise Problem(400, "invalid", "No.")

    late = hashlib.sha256(b"standard:msg_late").hexdigest()
    monkeypatch.setattr(receiving, "_act", fail_late)
    check_problem(standard(source, secret, event, id="msg_late"), 400)
    assert standard(source, secret, event, id="msg_late").json()["status"] == "duplicate"


def test_with_redis_away_deliveries_go_on(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from redis.exceptions import ConnectionError

    def away(*_: Any, **__: Any) -> Any:
        raise ConnectionError("away")

    source, secret = make_source(shared)
    monkeypatch.setattr("knowledge.webhooks.receive.get_redis_connection", away)
    monkeypatch.setattr("tenants.limits.get_redis_connection", away)
    assert standard(source, secret, {"type": "changed"}).json()["status"] == "started"


def test_deliveries_are_bounded(shared: Any, configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source, secret = make_source(shared)
    monkeypatch.setattr("knowledge.api.hooks.MAX_EVENT_BYTES", 1000)
    configure(RAGSITE_MAX_UPLOAD_BYTES=1024)
    check_problem(standard(source, secret, {"type": "x" * 70_000}), 413, "too-large")
    for body in (b"", b"[]", b"nonsense", b"\xff\xfe", b"[" * 50_000, b'{"type": 5}', b'{"type": ""}'):
        now = int(time.time())
        signature = sign(secret=secret, message_id=str(uuid.uuid4()), timestamp=now, body=body)
        headers = {"webhook-id": "m", "webhook-timestamp": str(now), "webhook-signature": signature}
        check_problem(post(source, body, headers), 401)
        headers["webhook-signature"] = sign(secret=secret, message_id="m", timestamp=now, body=body)
        check_problem(post(source, body, headers), 400)
    monkeypatch.setattr("knowledge.api.hooks.DELIVERIES_PER_ADDRESS", 2)
    get_redis_connection("default").flushdb()
    answers = [standard(source, secret, {"type": "ping"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["Retry-After"]) > 0


# Pushed documents


def upsert(source: Source, secret: str, **data: Any) -> Any:
    return standard(
        source, secret, {"type": "document.upsert", "timestamp": "2026-01-01T00:00:00Z", "data": data}
    )


def document_of(shared: Any, source: Source, uri: str) -> Document | None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        found: Document | None = Document.objects.filter(
            source=source, uri=uri, deleted_at__isnull=True
        ).first()
        return found


def test_a_pushed_document_is_indexed_changed_and_deleted(shared: Any) -> None:
    source, secret = make_source(shared, kind="push", path="push/1", tags=["runbooks", "standards"])
    response = upsert(
        source, secret, uri="kb/4711", title="Optics", content="# Any\n\nThe kestrel optic is spare."
    )
    assert response.status_code == 202
    job = run_job(shared.ada, response.json()["task_id"])
    assert job["state"] == "SUCCESS", job
    document = document_of(shared, source, "kb/4711")
    assert document is not None and (document.title, document.tags) == ("Optics", ["runbooks", "standards"])
    assert document.media_type == "text/markdown" and document.status == "indexed"
    # The same again is no work; other content is, and keeps its place.
    assert upsert(source, secret, uri="kb/4711", title="Optics", content="# Any\n\nThe kestrel optic is spare.").json() == {
        "status": "unchanged", "detail": "The document is indexed with this very content."
    }  # fmt: skip
    html = base64.b64encode(b"<title>New</title><p>The kestrel optic is gone.</p>").decode()
    response = upsert(
        source, secret, uri="kb/4711", content_base64=html, media_type="text/html", tags=["runbooks"]
    )
    assert run_job(shared.ada, response.json()["task_id"])["state"] == "SUCCESS"
    changed = document_of(shared, source, "kb/4711")
    assert changed is not None and changed.pk == document.pk and changed.version == document.version + 1
    assert (changed.title, changed.tags, changed.media_type) == ("Optics", ["runbooks"], "text/html")
    assert "gone" in changed.text
    # It can be indexed again from what is stored, whatever its uri ends in.
    again = send(shared.ada, "post", "reindex", {"document": str(changed.pk)}).json()["task_id"]
    assert run_job(shared.ada, again)["documents"]["failed"] == 0
    for expected in ("deleted", "absent"):
        response = standard(source, secret, {"type": "document.delete", "data": {"uri": "kb/4711"}})
        assert (response.status_code, response.json()["status"]) == (200, expected)
    assert document_of(shared, source, "kb/4711") is None
    assert upsert(source, secret, uri="kb/4711", content="Back.").json()["status"] == "started"
    with scope(tenant_id=shared.acme.pk, tags=None):
        events = AuditEvent.objects.filter(target_id=str(document.pk)).order_by("at")
        assert [(e.action, e.method) for e in events] == [
            ("document.push", "webhook"), ("document.push", "webhook"), ("index.rebuild", "jwt"),
            ("document.delete", "webhook"),
        ]  # fmt: skip
    check_problem(send(shared.ada, "post", f"sources/{source.pk}/sync"), 409, "pushed")


def test_push_sources_are_made_without_a_place(shared: Any) -> None:
    paths = set()
    for name in ("one", "two"):
        body = {"kind": "push", "name": f"pushed {name}", "collection": "handbook", "tags": ["runbooks"]}
        response = send(shared.ada, "post", "sources", body)
        assert response.status_code == 201, response.content
        paths.add(response.json()["path"])
        check = send(shared.ada, "post", f"sources/{response.json()['id']}/check").json()
        assert check["ok"] and "sent to this source" in check["detail"]
        row = send(shared.ada, "patch", f"sources/{response.json()['id']}", {"enabled": False}).json()
        assert row["path"] in paths and row["enabled"] is False
    assert len(paths) == 2


def test_a_pushed_document_has_no_more_than_its_sources_tags(shared: Any) -> None:
    source, secret = make_source(shared, kind="push", path="push/2", tags=["runbooks"])
    for tags in (["incident_reports"], ["runbooks", "configs"]):
        problem = check_problem(upsert(source, secret, uri="a.md", content="x", tags=tags), 400, "invalid")
        assert problem["errors"][0]["field"] == "data.tags" and "runbooks" in problem["errors"][0]["detail"]
    bare, its_secret = make_source(shared, kind="push", path="push/3", tags=[])
    check_problem(upsert(bare, its_secret, uri="a.md", content="x", tags=["runbooks"]), 400)
    assert upsert(bare, its_secret, uri="a.md", content="x").status_code == 202
    document = document_of(shared, bare, "a.md")
    assert document is not None and document.tags == []
    check_problem(send(shared.nina, "get", f"documents/{document.pk}"), 404)
    # Another source's document of the same uri, or one that a person uploaded, is out of reach.
    standard(source, secret, {"type": "document.delete", "data": {"uri": "a.md"}})
    standard(source, secret, {"type": "document.delete", "data": {"uri": "vpn-faq.md"}})
    assert document_of(shared, bare, "a.md") is not None
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert Document.objects.filter(uri="vpn-faq.md", deleted_at__isnull=True).exists()


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("uri", {"content": "x"}), ("uri", {"uri": "", "content": "x"}), ("uri", {"uri": "x" * 1001, "content": "x"}),
        ("uri", {"uri": "a\0b", "content": "x"}), ("uri", {"uri": 5, "content": "x"}),
        ("content", {"uri": "a"}), ("content", {"uri": "a", "content": "x", "content_base64": "eA=="}),
        ("content", {"uri": "a", "content": ["x"]}), ("content_base64", {"uri": "a", "content_base64": "ä"}),
        ("content_base64", {"uri": "a", "content_base64": 7}),
        ("title", {"uri": "a", "content": "x", "title": "x" * 501}),
        ("title", {"uri": "a", "content": "x", "title": "a\nb"}),
        ("tags", {"uri": "a", "content": "x", "tags": "runbooks"}), ("tags", {"uri": "a", "content": "x", "tags": []}),
        ("media_type", {"uri": "a", "content": "x", "media_type": "image/png"}),
    ],
)  # fmt: skip
def test_wrong_values_are_named(shared: Any, field: str, data: dict[str, Any]) -> None:
    source, secret = make_source(shared, kind="push")
    problem = check_problem(
        standard(source, secret, {"type": "document.upsert", "data": data}), 400, "invalid"
    )
    assert [error["field"] for error in problem["errors"]] == [f"data.{field}"]


def test_what_cannot_be_taken_leaves_nothing_behind(shared: Any) -> None:
    source, secret = make_source(shared, kind="push")
    pdf = base64.b64encode(b"no pdf").decode()
    check_problem(upsert(source, secret, uri="a.pdf", content_base64=pdf, media_type="application/pdf"), 415)
    check_problem(upsert(source, secret, uri="a.md", content=""), 400)
    check_problem(
        standard(source, secret, {"type": "document.rename", "data": {"uri": "a"}}), 400, "unknown-event"
    )
    check_problem(github(source, secret, ref="refs/heads/main"), 400, "unknown-event")
    assert document_of(shared, source, "a.pdf") is None and not jobs_of(shared, source)


# As the documentation shows it


def test_the_shell_example_of_the_documentation_works(shared: Any, shared_site: str, tmp_path: Any) -> None:
    """The lines of docs/api.md, run as they stand there but for the address and the secret."""
    from pathlib import Path

    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    example = text.partition("<!-- signed by openssl -->\n```sh\n")[2].partition("```")[0]
    assert "openssl" in example
    source, secret = make_source(shared, kind="push", path="push/example")
    script = f"HOOK={shared_site}/api/v1/hooks/{source.pk}\nSECRET={secret}\n{example}"
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, cwd=tmp_path, timeout=30)
    assert json.loads(done.stdout)["status"] == "started", done
    assert eventually(lambda: document_of(shared, source, "kb/4711"))
