"""``Idempotency-Key`` on every POST of the API: one effect, the same answer, no secret in clear.

A new POST without a body here fails the first test.
"""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.urls import get_resolver
from django.utils import timezone

from feedback.models import Feedback
from knowledge.documents import delete_document
from knowledge.models import Answer, Document
from tenants.idempotency import clear_idempotency, read_key
from tenants.models import ApiKey, IdempotentRequest, UsageRecord
from tenants.rest import TenantView
from tenants.scope import scope
from tests.cast import Cast, Member
from tests.knowledge.conftest import configure, model  # noqa: F401
from tests.security.helpers import Rows, call, fingerprint, make_rows, read_body
from tests.security.test_routes import walk
from tests.stub_provider import StubProvider

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
QUESTION = "What is the hold timer on edge routers?"
NOT_CREATING = {"api/v1/search", "api/v1/cache/warm"}

Body = Callable[[Rows], dict[str, Any] | None]


def nothing(_: Rows) -> None:
    return None


def file(_: Rows) -> dict[str, Any]:
    return {"file": SimpleUploadedFile("note.md", b"# Note\n\nWords.\n", "text/markdown"), "tags": "runbooks"}


# Route → body, and the name of the row that its id is of.
POSTS: dict[str, tuple[Body, str]] = {
    "api/v1/query": (lambda _: {"question": QUESTION}, ""),
    "api/v1/query/stream": (lambda _: {"question": QUESTION}, ""),
    "api/v1/query/batch": (lambda _: {"questions": [QUESTION]}, ""),
    "api/v1/members": (lambda _: {"username": "newcomer", "role": "helpdesk"}, ""),
    "api/v1/roles": (lambda _: {"name": "guests", "tags": ["faq"], "abilities": ["ask"]}, ""),
    "api/v1/api-keys": (lambda _: {"name": "a key"}, ""),
    "api/v1/collections": (lambda _: {"slug": "plans", "name": "Plans"}, ""),
    "api/v1/documents": (file, ""),
    "api/v1/documents/<uuid:id>/restore": (nothing, "deleted"),
    "api/v1/sources": (lambda _: {"path": "plans", "tags": ["runbooks"], "collection": "handbook"}, ""),
    "api/v1/sources/<uuid:id>/check": (nothing, "source"),
    "api/v1/sources/<uuid:id>/sync": (nothing, "source"),
    "api/v1/sources/<uuid:id>/hook-secret": (nothing, "source"),
    "api/v1/ingest": (lambda _: {"directory": "folder", "tags": ["runbooks"]}, ""),
    "api/v1/reindex": (lambda rows: {"document": str(rows.document)}, ""),
    "api/v1/conversations/<uuid:id>/share": (lambda _: {"members": ["nina"]}, "conversation"),
    "api/v1/feedback": (lambda rows: {"request_id": str(rows.answer), "rating": 4}, ""),
    "api/v1/document-requests": (lambda _: {"question": "Where is the plan?"}, ""),
}


def posts() -> set[str]:
    return {
        route
        for route, view in walk(get_resolver().url_patterns)
        if route.startswith("api/v1/")
        and issubclass(getattr(view, "view_class", object), TenantView)
        and hasattr(view.view_class, "post")
    }


def post(member: Member, route: str, body: Any, key: str, *, pk: Any = "", **headers: str) -> Any:
    path = "/" + route.replace("<uuid:id>", str(pk))
    return call(member.client, "POST", path, body, **{"idempotency-key": key, **headers})


def told(response: Any) -> Any:
    text = read_body(response).decode()
    if response.headers["Content-Type"] == "application/x-ndjson":
        events = [json.loads(line) for line in text.splitlines()]
        answer = "".join(event["data"] for event in events if event["type"] == "answer_chunk")
        return [answer, *(event["data"] for event in events if event["type"] in ("sources", "done"))]
    return json.loads(text) if text else None


def without_keys(rows: dict[str, str]) -> dict[str, str]:
    return {table: value for table, value in rows.items() if table != "tenants_idempotentrequest"}


def kept(member: Member) -> list[IdempotentRequest]:
    with scope(tenant_id=member.membership.tenant_id, tags=None):
        return list(IdempotentRequest.objects.all())


@pytest.fixture
def root(tmp_path: Path, configure: Any) -> Iterator[None]:  # noqa: F811
    for name in ("folder", "plans"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "a.md").write_text("# A\n\nWords.\n")
    configure(RAGSITE_INGEST_ROOT=tmp_path)
    yield


def test_every_post_that_creates_has_its_effect_once(cast: Cast, root: None) -> None:
    assert posts() - NOT_CREATING == set(POSTS)
    rows = make_rows(cast, slug="acme", admin="ada", member="hal")
    with scope(tenant_id=cast.acme.pk, tags=None):
        Answer.objects.update(document_ids=[])  # may be shared with anybody
        Feedback.objects.all().delete()
    for route, (body, of) in POSTS.items():
        key, pk = f'"{uuid.uuid4()}"', getattr(rows, of) if of else ""
        before = without_keys(fingerprint(cast.acme.pk))
        first = post(cast.ada, route, body(rows), key, pk=pk)
        assert first.status_code < 300, (route, first.content)
        done = told(first)
        after = without_keys(fingerprint(cast.acme.pk))
        assert after != before or route.endswith("/check"), route
        again = post(cast.ada, route, body(rows), key, pk=pk)
        assert (again.status_code, told(again)) == (first.status_code, done), route
        assert again.headers["Idempotency-Replayed"] == "true" and "Idempotency-Replayed" not in first.headers
        assert without_keys(fingerprint(cast.acme.pk)) == after, route
        different: dict[str, Any] = {"question": "Something else?", "name": "else"}
        if body is file:
            different = file(rows) | {"file": SimpleUploadedFile("note.md", b"# Note\n\nOther words.\n")}
        other = post(cast.ada, route, different, key, pk=pk)
        assert other.status_code == 422, route
        assert other.json()["type"] == "/problems/idempotency-key-reused"
        assert without_keys(fingerprint(cast.acme.pk)) == after, route
    # A key is its member's own, and stands for one address.
    assert post(cast.sam, "api/v1/query", {"question": QUESTION}, key).status_code == 200
    assert post(cast.ada, "api/v1/roles", {"question": "Where is the plan?"}, key).status_code == 422
    # What does not create does not heed it.
    search = {"question": QUESTION}
    assert (
        "Idempotency-Replayed" not in [post(cast.ada, "api/v1/search", search, key) for _ in "ab"][1].headers
    )


def test_secrets_that_are_shown_once_are_not_stored_in_clear(cast: Cast) -> None:
    rows = make_rows(cast, slug="acme", admin="ada", member="hal")
    key = post(cast.ada, "api/v1/api-keys", {"name": "robot 2"}, "k-1").json()["key"]
    secret = post(cast.ada, "api/v1/sources/<uuid:id>/hook-secret", None, "k-2", pk=rows.source)
    assert secret.json()["secret"].startswith("whsec_")
    stored = "".join(f"{row.body} {row.reference} {row.fingerprint}" for row in kept(cast.ada))
    assert len(stored) > 100
    for part in (key, key.rpartition(".")[2], secret.json()["secret"], secret.json()["secret"][6:]):
        assert part not in stored
    again = post(cast.ada, "api/v1/api-keys", {"name": "robot 2"}, "k-1")
    assert again.json()["key"] == key and again.headers["Cache-Control"] == "no-store"
    # Whoever may not make keys any more does not get this one either.
    from tenants.models import Role
    from tenants.people import change_member

    with scope(tenant_id=cast.acme.pk, tags=None):
        admin = Role.objects.get(name="admin")
        change_member(membership=cast.nina.membership, role=admin, principal=None)  # the last one stays
        change_member(membership=cast.ada.membership, role=Role.objects.get(name="helpdesk"), principal=None)
    assert post(cast.ada, "api/v1/api-keys", {"name": "robot 2"}, "k-1").status_code == 403


def test_an_answer_that_is_replayed_is_read_anew(cast: Cast) -> None:
    body = {"question": QUESTION}
    for route in ("api/v1/query", "api/v1/query/stream"):
        assert "30 seconds" in str(told(post(cast.nina, route, body, f"key of {route}".replace(" ", "-"))))
    with scope(tenant_id=cast.acme.pk, tags=None):
        delete_document(document=cast.documents["acme"]["bgp-session-down.md"])
    for route in ("api/v1/query", "api/v1/query/stream"):
        again = post(cast.nina, route, body, f"key of {route}".replace(" ", "-"))
        assert again.headers["Idempotency-Replayed"] == "true"
        assert "30 seconds" not in str(told(again))
    assert all(not row.body for row in kept(cast.nina))


def test_a_document_that_is_restored_is_read_anew(cast: Cast) -> None:
    document = cast.documents["acme"]["bgp-session-down.md"]
    with scope(tenant_id=cast.acme.pk, tags=None):
        delete_document(document=document)
    route = "api/v1/documents/<uuid:id>/restore"
    first = post(cast.nina, route, None, "bring-it-back", pk=document.pk)
    assert first.status_code == 200 and first.json()["title"] == document.title
    again = post(cast.nina, route, None, "bring-it-back", pk=document.pk)
    assert again.json() == first.json() and again.headers["Idempotency-Replayed"] == "true"
    with scope(tenant_id=cast.acme.pk, tags=None):
        Document.objects.filter(pk=document.pk).update(tags=["incident_reports"])
    told = post(cast.nina, route, None, "bring-it-back", pk=document.pk)
    assert told.status_code == 404 and document.title not in told.content.decode()
    assert all(not row.body for row in kept(cast.nina))


def test_fifty_at_once_have_one_effect(cast: Cast) -> None:
    barrier = threading.Barrier(25)

    def create(_: int) -> int:
        barrier.wait(20)
        try:
            return int(post(cast.ada, "api/v1/api-keys", {"name": "one"}, "same").status_code)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(25) as pool:
        statuses = list(pool.map(create, range(50)))
    assert set(statuses) <= {201, 409} and 201 in statuses
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert ApiKey.objects.count() == 1


def test_a_question_that_is_sent_again_is_charged_once(cast: Cast, model: StubProvider) -> None:  # noqa: F811
    body = {"question": QUESTION, "cache": False}
    answers = [post(cast.nina, "api/v1/query", body, "once") for _ in range(3)]
    assert len({answer.json()["request_id"] for answer in answers}) == 1
    assert len(model.requests) == 1
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert UsageRecord.objects.count() == 1


def test_what_is_refused_leaves_its_key_free(cast: Cast) -> None:
    assert post(cast.ada, "api/v1/api-keys", {"name": ""}, "again").status_code == 400
    assert kept(cast.ada) == []
    assert post(cast.ada, "api/v1/api-keys", {"name": "better"}, "again").status_code == 201
    assert post(cast.nina, "api/v1/api-keys", {"name": "not mine"}, "again").status_code == 403
    for wrong in ("", " ", "x" * 256, '"unclosed', "sp ace", '""', "é"):
        refused = post(cast.ada, "api/v1/api-keys", {"name": "never"}, wrong)
        assert refused.status_code == 400, wrong
        assert refused.json()["type"] == "/problems/invalid-idempotency-key"
    assert read_key('"a \\"b\\" \\\\"') == 'a "b" \\'
    assert read_key("8e03978e-40d5-43dd-bc93-6894a57f9324") == read_key(
        '"8e03978e-40d5-43dd-bc93-6894a57f9324"'
    )


def test_the_life_of_a_key(cast: Cast) -> None:
    made = post(cast.ada, "api/v1/roles", {"name": "guests"}, "k")
    assert made.status_code == 201

    def change(**fields: Any) -> None:
        with scope(tenant_id=cast.acme.pk, tags=None):
            IdempotentRequest.objects.update(**fields)

    # Under way: 409. Its process has died: another may do the work, here to find the role there already.
    change(status=None, body="")
    waiting = post(cast.ada, "api/v1/roles", {"name": "guests"}, "k")
    assert waiting.status_code == 409 and waiting.headers["Retry-After"] == "1"
    change(started_at=timezone.now() - timedelta(minutes=6))
    assert post(cast.ada, "api/v1/roles", {"name": "guests"}, "k").status_code == 409  # the name is taken
    assert kept(cast.ada) == []
    # After a day the key is as new.
    assert post(cast.ada, "api/v1/roles", {"name": "visitors"}, "k").status_code == 201
    change(started_at=timezone.now() - timedelta(hours=25))
    assert post(cast.ada, "api/v1/roles", {"name": "others"}, "k").status_code == 201
    change(started_at=timezone.now() - timedelta(hours=25))
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert clear_idempotency() == 1
