"""How a tenant's index stands: sizes, vectors, freshness. Sums over documents, so that no chunk is read."""

from dataclasses import dataclass
from datetime import datetime

from django.core.cache import cache
from django.db.models import Count, Max, Q, Sum

from knowledge.embedding.spaces import progress_of
from knowledge.models import Collection, Corpus, Document, EmbeddingSpace
from tenants.scope import require_tenant_id

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
