"""Answers and conversations as rows, where it does not matter how they came about."""

from datetime import timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from knowledge.models import Answer, Conversation, Document
from tenants.scope import scope
from tests.cast import PASSWORD, Member

HTMX = {"HX-Request": "true"}


def signed_in(username: str) -> Client:
    client = Client()
    assert client.post("/sign-in/", {"username": username, "password": PASSWORD}).status_code == 302
    return client


def html_of(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response.content[:500]
    return str(response.content.decode())


def htmx(target: str = "", url: str = "") -> dict[str, str]:
    """The headers of a request by htmx."""
    found = dict(HTMX)
    if target:
        found["HX-Target"] = target
    if url:
        found["HX-Current-URL"] = f"http://testserver{url}"
    return found


def source_of(document: Document, n: int, **values: Any) -> dict[str, Any]:
    return {
        "n": n,
        "document_id": str(document.pk),
        "title": document.title,
        "uri": document.uri,
        "collection": "handbook",
        "chunk_id": str(document.pk),
        "heading": document.title,
        "text": document.text[:60],
        "score": 0.75,
        "page": None,
        "start": 0,
        "end": 60,
        "updated_at": document.updated_at.isoformat(),
    } | values


def add_answer(
    member: Member,
    question: str,
    *documents: Document,
    conversation: Conversation | None = None,
    days_ago: float = 0,
    **values: Any,
) -> Answer:
    """An answer that rests on ``documents``; in a conversation of its own unless one is given."""
    at = timezone.now() - timedelta(days=days_ago)
    with scope(tenant_id=member.membership.tenant_id, tags=None):
        user = member.membership.user
        if conversation is None:
            conversation = Conversation.objects.create(user=user, title=question)
            Conversation.objects.filter(pk=conversation.pk).update(updated_at=at)
        text = values.pop("text", "It is so.")
        fields = {
            "answered": True,
            "status": "success",
            "standalone_question": question,
            "confidence": 0.7,
            "sources": [source_of(document, n) for n, document in enumerate(documents, start=1)],
            "citations": [{"source": 1, "start": 0, "end": len(text)}] if documents else [],
            "document_ids": [document.pk for document in documents],
            "endpoint": "page",
        }
        answer: Answer = Answer.objects.create(
            conversation=conversation,
            user=user,
            role_name="r",
            question=question,
            text=text,
            **(fields | values),
        )
        Answer.objects.filter(pk=answer.pk).update(created_at=at)
        answer.created_at = at
    return answer
