"""What a process of the version before writes while a new one is rolled out: found, and indexed as of now.

Such a process knows neither vectors by text, nor terms, nor sets of tags, nor the version at which search has to look at a
document. What it has deleted needs nothing: passages are read from the database before they are shown.
"""

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef
from django.utils import timezone

from knowledge.ingestion.index import note_changes, note_tags
from knowledge.ingestion.jobs import create_job
from knowledge.models import Chunk, Document, Job, TagSet
from tenants.scope import atomic

AT_ONCE = 200
AGAIN_AFTER = timedelta(hours=1)  # of a document that cannot be indexed


def adopt_documents(*, now: datetime | None = None) -> int:
    """Jobs for the documents of the tenant in force whose passages search cannot use; returns how many."""
    tried = Job.objects.filter(
        document=OuterRef("document"),
        kind=Job.Kind.REINDEX,
        created_at__gt=(now or timezone.now()) - AGAIN_AFTER,
    )
    chunks = Chunk.objects.filter(
        ~Exists(tried), embedding_hash__isnull=True, document__deleted_at__isnull=True
    ).exclude(document__stored_name="")
    found = list(chunks.order_by().values_list("document", flat=True).distinct()[:AT_ONCE])
    for document in Document.objects.filter(pk__in=found).without_text():
        create_job(kind=Job.Kind.REINDEX, document=document)
    return len(found)


def adopt_tags() -> int:
    """Has search look at documents whose set of tags it does not know; returns how many."""
    present: Any = Document.objects.filter(deleted_at__isnull=True, chunk_count__gt=0)
    known = {tuple(tags) for tags in TagSet.objects.values_list("tags", flat=True)}
    found = 0
    for tags in present.order_by().values_list("tags", flat=True).distinct():
        if tuple(sorted(tags)) not in known:
            with atomic():
                documents = list(present.filter(tags=tags).values_list("pk", flat=True))
                note_tags(tags)
                note_changes(documents=documents)
            found += len(documents)
    return found
