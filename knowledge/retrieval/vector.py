"""The dense arm: cosine similarity in pgvector, exact, filtered by tenant and role before ranking."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from pgvector.django import CosineDistance

from knowledge.embedding.base import Vectors
from knowledge.retrieval.base import Arm


def search_vectors(*, chunks: "QuerySet[Any]", vector: Vectors, limit: int, deviation: float) -> Arm:
    """The ``limit`` nearest chunks.

    Args:
        chunks: what the asker may read.
        vector: shape ``(dimensions,)``, of length 1.
        deviation: of cosines over a corpus; a constant of the model.
    """
    rows = (
        chunks.annotate(distance=CosineDistance("embedding", vector.tolist()))
        .order_by("distance", "id")
        .values_list("id", "distance")[:limit]
    )
    return Arm(scores={pk: 1.0 - float(distance) for pk, distance in rows}, deviation=deviation)


def cosines_of(*, chunks: "QuerySet[Any]", vector: Vectors, ids: list[UUID]) -> dict[UUID, float]:
    """Cosines of given chunks, so that both lists are scored completely."""
    rows = (
        chunks.filter(id__in=ids)
        .annotate(distance=CosineDistance("embedding", vector.tolist()))
        .values_list("id", "distance")
    )
    return {pk: 1.0 - float(distance) for pk, distance in rows}
