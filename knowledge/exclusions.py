"""Documents of sources that a person has deleted: they stay away although their source holds them, changed or not.

Each until it is restored, or the source is told to take it again.
"""

from typing import Any

from django.utils import timezone

from knowledge.models import Document, ExpiredItem, Source
from tenants.access import Principal
from tenants.audit import record_by
from tenants.scope import atomic


def exclude_document(document: Document) -> None:
    """Has the source of a document pass it over; in the transaction that deletes it."""
    if document.source_id is None:
        return
    values = {
        "by_hand": True,
        "sha256": document.sha256,
        "fingerprint": document.fingerprint,
        "current_since": document.current_since or timezone.now(),
    }
    ExpiredItem.objects.update_or_create(source_id=document.source_id, uri=document.uri, defaults=values)


def excluded_items(source: Source) -> Any:
    """What a source passes over because it was deleted here, by path."""
    return ExpiredItem.objects.filter(source=source, by_hand=True).order_by("uri")


def is_excluded(*, source: Source, uri: str) -> bool:
    found: bool = excluded_items(source).filter(uri=uri).exists()
    return found


def take_again(*, source: Source, uri: str | None = None, principal: Principal | None = None) -> int:
    """Lets a source have a document again, or all that it passes over; they come with its next sync. Returns how many."""
    items = excluded_items(source) if uri is None else excluded_items(source).filter(uri=uri)
    with atomic():
        uris = list(items.values_list("uri", flat=True))
        items.delete()
        if uris:
            record_by(principal, "source.take_again", source, {"name": source.name, "documents": uris[:100]})
    return len(uris)
