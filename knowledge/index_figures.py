"""How a tenant's index stands, and how it has grown. Sums over documents, so that no chunk is read.

All of it in the scope of the whole tenant: a scope of some tags would count its own documents alone.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core.cache import cache
from django.db.models import Count, Max, Q, Sum

from knowledge.embedding.spaces import progress_of
from knowledge.models import Collection, Corpus, Document, EmbeddingSpace, IndexDay
from tenants.scope import require_tenant_id, unscoped

REMEMBERED_SECONDS = 60


@dataclass(frozen=True)
class IndexFigures:
    """Of all of the tenant's documents, whoever may read them: numbers alone.

    Attributes:
        documents, failed, deleted: how many; deleted ones can still be restored.
        chunks: passages that are searched.
        original_bytes: of the files as they came.
        version: of the corpus; changed_at: when a document was indexed last.
    """

    documents: int
    failed: int
    deleted: int
    chunks: int
    original_bytes: int
    version: int
    changed_at: datetime | None
    languages: tuple[str, ...]


def read_index_figures() -> IndexFigures:
    """The figures of the tenant in force."""
    is_there = Q(deleted_at__isnull=True)
    found = Document.objects.aggregate(
        documents=Count("pk", filter=is_there),
        failed=Count("pk", filter=is_there & ~Q(error="")),
        deleted=Count("pk", filter=~is_there),
        chunks=Sum("chunk_count", filter=is_there, default=0),
        original_bytes=Sum("size", filter=is_there, default=0),
        changed_at=Max("indexed_at"),
    )
    languages = tuple(sorted(set(Collection.objects.values_list("language", flat=True))))
    return IndexFigures(**found, version=Corpus.current_version(), languages=languages)


def read_spaces() -> list[tuple[EmbeddingSpace, dict[str, int]]]:
    """The spaces of vectors with how far each is built; looked up once a minute, because every passage is."""
    key = f"spaces:{require_tenant_id()}"
    stands: dict[str, dict[str, int]] | None = cache.get(key)
    spaces = list(EmbeddingSpace.objects.all())
    if stands is None or any(str(space.pk) not in stands for space in spaces):
        stands = {str(space.pk): progress_of(space) for space in spaces}
        cache.set(key, stands, REMEMBERED_SECONDS)
    return [(space, stands[str(space.pk)]) for space in spaces]


def note_index_day(*, now: datetime) -> None:
    """Keeps how the index of the tenant in force stands, as the figures of the day; the last time of a day holds."""
    figures = read_index_figures()
    IndexDay.objects.bulk_create(
        [
            IndexDay(
                day=now.date(),
                documents=figures.documents,
                chunks=figures.chunks,
                original_bytes=figures.original_bytes,
            )
        ],
        update_conflicts=True,
        unique_fields=["tenant", "day"],
        update_fields=["documents", "chunks", "original_bytes"],
    )


def read_growth(*, now: datetime, figures: IndexFigures, days: int = 90) -> list[IndexDay]:
    """The days that are known of the last ``days``, oldest first; today as it stands now."""
    since = now.date() - timedelta(days=days)
    kept = IndexDay.objects.filter(day__gt=since, day__lt=now.date()).order_by("day")
    today = IndexDay(
        day=now.date(),
        documents=figures.documents,
        chunks=figures.chunks,
        original_bytes=figures.original_bytes,
    )
    return [*kept, today]


def read_sizes_of_all() -> dict[str, int]:
    """``documents``, ``chunks`` and ``original_bytes`` of all tenants together; looked up once a minute."""
    sizes: dict[str, int] | None = cache.get("sizes-of-all")
    if sizes is None:
        with unscoped(reason="measure the index"):
            sizes = Document.objects.filter(deleted_at__isnull=True).aggregate(
                documents=Count("pk"),
                chunks=Sum("chunk_count", default=0),
                original_bytes=Sum("size", default=0),
            )
        cache.set("sizes-of-all", sizes, REMEMBERED_SECONDS)
    return sizes
