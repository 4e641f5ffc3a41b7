"""Documents follow their source: its tags and its collection, in the transaction that changes them."""

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from django.utils import timezone

from knowledge.ingestion.index import retag_documents
from knowledge.ingestion.source_tags import effective_tags, lock_source
from knowledge.models import Collection, Document, Source
from knowledge.withdrawals import have_withdrawal_measured

AT_ONCE = 1000
READ = ("tags", "tagged_by", "collection_id")


def follow_source(*, source: Source, before: Sequence[str]) -> None:
    """Brings every document of a source in line with it, those that can be restored too.

    Args:
        source: held by ``lock_source`` in this transaction, and saved.
        before: the tags that it gave until now.
    """
    rows = Document.objects.filter(source=source).order_by("pk").values_list("pk", *READ)
    behind = [
        pk
        for pk, tags, tagged_by, collection_id in rows
        if sorted(tags) != wanted_tags(source=source, tags=tags, tagged_by=tagged_by, before=before)
        or collection_id != source.collection_id
    ]
    for begin in range(0, len(behind), AT_ONCE):
        follow_documents(source=source, documents=behind[begin : begin + AT_ONCE], before=before)


def follow_collection(*, collection: Collection, before: Sequence[str]) -> None:
    """Brings the documents of those sources in line that give the collection's default tags."""
    sources = Source.objects.filter(collection=collection, tags=[]).order_by("pk")
    for source_id in sources.values_list("pk", flat=True):
        if (source := lock_source(source_id)) is not None and not source.tags:
            follow_source(source=source, before=before)


def wanted_tags(*, source: Source, tags: Sequence[str], tagged_by: str, before: Sequence[str]) -> list[str]:
    """The tags of a document that has these by now, sorted.

    What a person set stays. Whoever pushes a document may choose among the source's tags: what was chosen stays as far as
    it still may be given.
    """
    given = effective_tags(source)
    if tagged_by == Document.TaggedBy.HAND:
        return sorted(tags)
    # Before it was noted, a choice could be told by its tags alone.
    is_chosen = tagged_by == Document.TaggedBy.SENDER or sorted(tags) != before
    if source.kind == Source.Kind.PUSH and is_chosen:
        return sorted(set(tags) & set(given))
    return given


def follow_documents(*, source: Source, documents: Sequence[UUID], before: Sequence[str] = ()) -> None:
    """Gives documents the tags and the collection of their source; in a transaction that holds the source.

    Args:
        documents: a batch of its documents; those that are in line already are left alone.
        before: as ``follow_source`` takes it.
    """
    rows = (
        Document.objects.select_for_update().filter(pk__in=documents).order_by("pk").values_list("pk", *READ)
    )
    behind: defaultdict[tuple[str, ...], list[UUID]] = defaultdict(list)
    lost: dict[UUID, list[str]] = {}
    for pk, tags, tagged_by, collection_id in rows:
        wanted = wanted_tags(source=source, tags=tags, tagged_by=tagged_by, before=before)
        if sorted(tags) != wanted or collection_id != source.collection_id:
            behind[tuple(wanted)].append(pk)
            lost[pk] = sorted(set(tags) - set(wanted))
    for given, ids in behind.items():
        changed = Document.objects.filter(pk__in=ids)
        changed.update(tags=list(given), collection=source.collection, updated_at=timezone.now())
        retag_documents(documents=ids, tags=given, collection_id=source.collection_id)
    for pk, gone in lost.items():
        if gone:
            have_withdrawal_measured(document_id=pk, lost_tags=gone)
            break
