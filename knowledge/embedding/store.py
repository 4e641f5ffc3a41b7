"""Vectors by text: computed once for a text and a model in a tenant, and found again when the text comes back."""

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256

from django.utils import timezone

from knowledge.embedding.base import Embedder
from knowledge.embedding.factory import embedder_for
from knowledge.ingestion.aside import Aside
from knowledge.models import Embedding, EmbeddingSpace
from tenants.scope import atomic, require_tenant_id

BATCH = 32


def text_hash(text: str) -> bytes:
    """SHA-256 of a text as it is embedded."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def active_space(*, embedder: Embedder) -> EmbeddingSpace:
    """The space that the tenant in force is searched in; made on first use."""
    space: EmbeddingSpace | None = EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.ACTIVE).first()
    if space is None:
        with atomic():
            EmbeddingSpace.objects.bulk_create(
                [
                    EmbeddingSpace(
                        model=embedder.name,
                        dimensions=embedder.dimensions,
                        state=EmbeddingSpace.State.ACTIVE,
                        activated_at=timezone.now(),
                    )
                ],
                ignore_conflicts=True,
            )
            space = EmbeddingSpace.objects.get(state=EmbeddingSpace.State.ACTIVE)
    found: EmbeddingSpace = space
    return found


def store_vectors(
    *,
    texts: Mapping[bytes, str],
    embedder: Embedder,
    on_progress: Callable[[float], None] = lambda share: None,
) -> int:
    """Embeds those texts whose vectors the tenant is not searched with yet, and returns how many they were.

    They go into the space that is searched, by its own model whatever the configuration says by now. Those that stand
    beside it are filled by ``spaces.keep_filled``: whether their models answer is nothing that documents should wait for.

    Args:
        texts: by ``text_hash``.
        embedder: for a tenant's first space, and for the space of its name.
        on_progress: called with the share done, 0–1, after each batch and some five times a second while one is made; may
            raise to end the work, however long the model still takes for its batch.
    """
    active = active_space(embedder=embedder)
    of_space = embedder if embedder.name == active.model else embedder_for(active.model)
    return fill_space(texts=texts, embedder=of_space, space=active, on_progress=on_progress)


def fill_space(
    *,
    texts: Mapping[bytes, str],
    embedder: Embedder,
    space: EmbeddingSpace,
    on_progress: Callable[[float], None] = lambda share: None,
) -> int:
    """Embeds those texts whose vectors the space does not hold, and returns how many they were.

    Nothing is held open while the model works: each batch is committed by itself, and a vector that nobody comes to use is
    harmless. ``on_progress`` as in ``store_vectors``.
    """
    wanted = list(texts)
    held: set[bytes] = set()
    for begin in range(0, len(wanted), 5000):
        rows = Embedding.objects.filter(space=space, text_hash__in=wanted[begin : begin + 5000])
        # Before they are looked for: what is about to be cleared away is kept, or is gone and made again.
        rows.filter(unused_since__isnull=False).update(unused_since=None)
        held |= {bytes(each) for each in rows.values_list("text_hash", flat=True)}
    missing = [each for each in wanted if each not in held]
    if not missing:
        return 0
    share = 0.0
    aside = Aside(look_round=lambda: on_progress(share))
    try:
        for begin in range(0, len(missing), BATCH):
            batch = missing[begin : begin + BATCH]
            vectors = aside.call(partial(embedder.embed, [texts[each] for each in batch]))
            Embedding.objects.bulk_create(
                [
                    Embedding(tenant_id=require_tenant_id(), space=space, text_hash=each, vector=vector)
                    for each, vector in zip(batch, vectors, strict=True)
                ],
                ignore_conflicts=True,
            )
            share = min(begin + BATCH, len(missing)) / len(missing)
            on_progress(share)
    finally:
        aside.close(lambda: None)
    return len(missing)
