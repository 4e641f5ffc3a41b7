"""Which tags a source gives its documents."""

from collections import defaultdict
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
    found: Source = Source.objects.select_related("collection").defer("state").get(pk=source_id)
    return found


def give_source_tags(documents: Sequence[Document]) -> None:
    """New documents get the tags that their source gives now, whatever it gave when their job began.

    What was tagged by hand when it went from the source last comes back with those tags. First in the transaction that
    adds them.
    """
    by_source: defaultdict[UUID, list[Document]] = defaultdict(list)
    for document in documents:
        if document.source_id:
            by_source[document.source_id].append(document)
    for source_id, added in sorted(by_source.items()):
        if (source := lock_source(source_id)) is None:
            continue
        uris = [document.uri for document in added]
        gone = Document.objects.filter(source=source, uri__in=uris, deleted_at__isnull=False)
        last = {
            uri: (tags, tagged_by)
            for uri, tags, tagged_by in gone.order_by("deleted_at").values_list("uri", "tags", "tagged_by")
        }
        for document in added:
            tags, tagged_by = last.get(document.uri, ([], ""))
            if tagged_by == Document.TaggedBy.HAND:
                document.tags, document.tagged_by = tags, tagged_by
            else:
                document.tags = effective_tags(source)
