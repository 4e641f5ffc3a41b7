"""Which tags a source gives its documents."""

from collections.abc import Sequence
from uuid import UUID

from knowledge.models import Document, Source


def effective_tags(source: Source) -> list[str]:
    """The tags of a source's documents: its own, else its collection's defaults."""
    return sorted(set(source.tags or source.collection.default_tags))


def lock_source(source_id: UUID) -> Source | None:
    """A source as it stands now. Until the transaction ends nobody changes it, or adds documents to it.

    To be called before documents are locked, or two transactions might wait for each other.
    """
    if not Source.objects.select_for_update(no_key=True).filter(pk=source_id).exists():
        return None
    # Read only now: while the lock was waited for, its collection may have changed.
    found: Source = Source.objects.select_related("collection").get(pk=source_id)
    return found


def give_source_tags(documents: Sequence[Document]) -> None:
    """New documents get the tags that their source gives now, whatever it gave when their job began.

    First in the transaction that adds them.
    """
    for source_id in sorted({document.source_id for document in documents if document.source_id}):
        source = lock_source(source_id)
        for document in documents:
            if source is not None and document.source_id == source_id:
                document.tags = effective_tags(source)
