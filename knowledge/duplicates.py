"""The same content in several documents of a tenant: by its bytes, and by its words alone."""

from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from knowledge.models import Document
from tenants.models import Membership

SHOWN = 20


def find_same_content(*, document: Document, membership: Membership) -> list[tuple[Document, bool]]:
    """Other documents that say the same, as far as the member may read them; oldest first, ``SHOWN`` at most.

    Returns:
        Each with whether it is the same to the byte; else it is in its words, whatever case, blanks and format.
    """
    same = Q()
    if document.sha256:
        same |= Q(sha256=document.sha256)
    if document.text_sha256:
        same |= Q(text_sha256=document.text_sha256)
    if not same:
        return []
    rows: Any = (
        Document.objects.visible_to(membership)
        .filter(same, status=Document.Status.INDEXED)
        .exclude(pk=document.pk)
        .only("title", "uri", "sha256", "tenant_id")
        .order_by("created_at", "id")[:SHOWN]
    )
    return [(row, row.sha256 == document.sha256) for row in rows]


def with_duplicates(documents: QuerySet[Any], membership: Membership) -> QuerySet[Any]:
    """The documents, each with ``has_duplicates``: whether another one that the member reads says the same.

    Not how many: lists never count.
    """
    bytes_too = Q(sha256=OuterRef("sha256")) & ~Q(sha256="")
    words_too = Q(text_sha256=OuterRef("text_sha256")) & ~Q(text_sha256="")
    others = Document.objects.visible_to(membership).exclude(pk=OuterRef("pk"))
    same = others.filter(bytes_too | words_too, status=Document.Status.INDEXED)
    found: QuerySet[Any] = documents.annotate(has_duplicates=Exists(same.order_by()))
    return found


def has_duplicates(document: Document, membership: Membership) -> bool:
    """Whether another document that the member reads says the same."""
    return bool(find_same_content(document=document, membership=membership))
