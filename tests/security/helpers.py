"""What the attacks share: requests, comparisons of what came back, and one row of every kind in each tenant."""

import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from asgiref.sync import async_to_sync
from django.apps import apps
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.test import AsyncClient, Client
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.utils import timezone

from feedback.models import DocumentRequest, Feedback
from knowledge.documents import delete_document
from knowledge.ingestion.jobs import create_job
from knowledge.models import Answer, Conversation, Job, Source
from tenants.keys import create_api_key
from tenants.models import Invitation, Membership, Role
from tenants.people import add_member, create_user
from tenants.scope import scope
from tests.cast import PASSWORD, Cast, Member, add_indexed, member_of


def call(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """One request; ``body`` is JSON, or a form with a file when it holds one. A stream is read to its end."""
    if path.partition("?")[0].endswith("/stream"):
        return async_to_sync(_call_stream)(client, method, path, body, headers)
    if method in ("GET", "HEAD"):
        return getattr(client, method.lower())(path, headers=headers or None)
    if body and any(isinstance(value, SimpleUploadedFile) for value in body.values()):
        for value in body.values():
            if isinstance(value, SimpleUploadedFile):
                value.seek(0)
        data = encode_multipart(BOUNDARY, body)
        return client.generic(method, path, data, MULTIPART_CONTENT, headers=headers or None)
    return client.generic(method, path, _json(body), "application/json", headers=headers or None)


def _json(body: Any) -> bytes:
    return b"" if body is None else json.dumps(body, default=str).encode()


async def _call_stream(client: Client, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
    """An event loop must live as long as the stream, so the same credentials go through an asynchronous client."""
    known = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value for name, value in client.defaults.items()
    }
    inner = AsyncClient(enforce_csrf_checks=client.handler.enforce_csrf_checks)
    inner.cookies = client.cookies
    response: Any = await inner.generic(
        method, path, _json(body), "application/json", headers=known | headers
    )
    if response.streaming and response.is_async:  # the body of a HEAD is taken away by the test client
        response.read = b"".join([part async for part in response.streaming_content])
    return response


def read_body(response: Any) -> bytes:
    """The body, streamed or not."""
    if hasattr(response, "read") and isinstance(response.read, bytes):
        return response.read
    return b"".join(response.streaming_content) if response.streaming else bytes(response.content)


def signature(response: Any, *, hiding: tuple[str, ...] = ()) -> tuple[Any, ...]:
    """What a client can tell two responses apart by: status, headers and body, without what is new in every request.

    Args:
        hiding: what the client itself sent, such as the id in question.
    """
    body = read_body(response).decode("utf-8", "replace")
    if response.headers.get("Content-Type", "") in ("application/json", "application/problem+json"):
        document = json.loads(body) if body else None
        if isinstance(document, dict):
            document.pop("request_id", None)
        body = json.dumps(document, sort_keys=True)
    body = re.sub(r'(csrfmiddlewaretoken" value|nonce|data-request-id)="[^"]*"', "", body)
    request_id = response.headers.get("X-Request-ID", "")
    for value in (request_id, *hiding):
        body = body.replace(value, "…") if value else body
    # The length says something only where the body does not (HEAD).
    unlike = {"x-request-id", "content-security-policy", "set-cookie", "expires", "ratelimit"} | (
        {"content-length"} if body else set()
    )
    headers = {k.lower(): v for k, v in response.headers.items() if k.lower() not in unlike}
    for name, value in headers.items():
        for hidden in hiding:
            value = value.replace(hidden, "…")
        headers[name] = value
    return response.status_code, tuple(sorted(headers.items())), body


@dataclass(frozen=True)
class Rows:
    """The id of one thing of each kind in a tenant, all of them its admin's."""

    member: uuid.UUID
    member_too: uuid.UUID
    role: uuid.UUID
    role_too: uuid.UUID
    invitation: uuid.UUID
    api_key: uuid.UUID
    collection: uuid.UUID
    document: uuid.UUID
    untagged: uuid.UUID
    untagged_too: uuid.UUID
    deleted: uuid.UUID
    deleted_too: uuid.UUID
    source: uuid.UUID
    source_too: uuid.UUID
    job: uuid.UUID
    conversation: uuid.UUID
    answer: uuid.UUID
    feedback: uuid.UUID
    document_request: uuid.UUID


def make_rows(cast: Cast, *, slug: str, admin: str, member: str) -> Rows:
    """One of everything in a tenant; ``member`` is the one that requests are about."""
    owner: Member = getattr(cast, admin)
    collection = cast.collections[slug]
    with scope(tenant_id=cast.tenants[slug].pk, tags=None):
        user = owner.membership.user
        role = Role.objects.create(name="auditor", tags=["audits"])
        role_too = Role.objects.create(name="auditor 2")
        member_too = add_member(user=create_user(username=f"leaver-of-{slug}"), role=role)
        invitation = Invitation.objects.create(
            email="guest@example.com",
            role=Role.objects.get(name="helpdesk"),
            expires_at=timezone.now() + timedelta(days=1),
        )
        key, _ = create_api_key(principal=owner.principal, member=owner.membership, name="robot")
        deleted = add_indexed(
            collection=collection, name="old.md", tags=["runbooks"], text="# Old\n\nGone by now.\n"
        )
        delete_document(document=deleted)
        untagged = add_indexed(
            collection=collection, name="board.md", tags=[], text="# Board\n\nFor the board alone.\n"
        )
        # For the pages' own ways to delete and restore: the API's take the others.
        untagged_too = add_indexed(
            collection=collection, name="board-2.md", tags=[], text="# Board 2\n\nFor the board alone, too.\n"
        )
        deleted_too = add_indexed(
            collection=collection, name="old-2.md", tags=[], text="# Old 2\n\nGone by now, too.\n"
        )
        delete_document(document=deleted_too)
        source = Source.objects.create(name="folder", path="folder", collection=collection, tags=["runbooks"])
        source_too = Source.objects.create(name="folder 2", path="folder-2", collection=collection, tags=[])
        job = create_job(kind=Job.Kind.REINDEX, collection=collection, user=user)
        document = cast.documents[slug]["bgp-session-down.md"]
        conversation = Conversation.objects.create(user=user, title=f"of {admin}")
        answer = Answer.objects.create(
            conversation=conversation,
            user=user,
            role_name="admin",
            question=f"What does {admin} ask?",
            text=f"Only {admin} may read this answer.",
            document_ids=[untagged.pk],
            endpoint="query",
            status="success",
        )
        feedback = Feedback.objects.create(answer=answer, user=user, rating=4)
        document_request = DocumentRequest.objects.create(user=user, question=f"What does {admin} miss?")
        about = Membership.objects.get(user__username=member)
    return Rows(
        member=about.pk,
        member_too=member_too.pk,
        role=role.pk,
        role_too=role_too.pk,
        invitation=invitation.pk,
        api_key=key.pk,
        collection=collection.pk,
        document=document.pk,
        untagged=untagged.pk,
        untagged_too=untagged_too.pk,
        deleted=deleted.pk,
        deleted_too=deleted_too.pk,
        source=source.pk,
        source_too=source_too.pk,
        job=job.pk,
        conversation=conversation.pk,
        answer=answer.pk,
        feedback=feedback.pk,
        document_request=document_request.pk,
    )


def session_client(username: str, *, csrf: bool = False) -> Client:
    """A client that has signed in on the page."""
    client = Client(enforce_csrf_checks=False)
    response = client.post("/sign-in/", {"username": username, "password": PASSWORD})
    assert response.status_code == 302, response.content
    client.handler.enforce_csrf_checks = csrf
    return client


def key_client(member: Member, **options: Any) -> Client:
    """A client with an API key of the member; the admin of the tenant is whoever is named as ``principal``."""
    with scope(tenant_id=member.membership.tenant_id, tags=None):
        principal = options.pop("principal", member.principal)
        _, raw = create_api_key(
            principal=principal, member=member.membership, name=f"key {uuid.uuid4()}", **options
        )
    return Client(headers={"authorization": f"Bearer {raw}"})


def every_way_in(member: Member, *, slug: str) -> dict[str, Client]:
    """The same member by token, session and API key."""
    return {
        "jwt": member_of(slug=slug, username=member.username).client,
        "session": session_client(member.username),
        "api_key": key_client(member),
    }


def tenant_models() -> list[Any]:
    """Every model whose rows belong to a tenant."""
    return [
        model
        for model in apps.get_models()
        if any(f.name == "tenant" and f.is_relation for f in model._meta.concrete_fields)
    ]


def fingerprint(tenant_id: uuid.UUID) -> dict[str, str]:
    """A hash of all rows of a tenant by table, read past both walls."""
    found = {}
    with connections["platform"].cursor() as cursor:
        for model in tenant_models():
            table = model._meta.db_table
            cursor.execute(
                f"SELECT string_agg(t::text, '|' ORDER BY t::text) FROM {table} t WHERE tenant_id = %s",
                [tenant_id],
            )
            found[table] = hashlib.sha256((cursor.fetchone()[0] or "").encode()).hexdigest()
        cursor.execute("SELECT t::text FROM tenants_tenant t WHERE id = %s", [tenant_id])
        found["tenants_tenant"] = cursor.fetchone()[0]
    return found
