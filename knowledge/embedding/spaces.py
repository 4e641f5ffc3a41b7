"""Which model a tenant is searched with, and the change to another one.

Vectors of two models cannot be compared, so a change of model is a migration of each tenant: the new space is built beside
the active one while questions go on, compared with it, and put in its place in one transaction. The old one is kept, and
kept filled, for ``KEPT_FOR``, so that the way back is one transaction too. Documents go into the active one alone when they
are indexed; a worker fills the others behind them. All of it is work in the scope of the whole tenant: a scope of some tags
sees no vectors.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from django.core.cache import cache
from django.db.models import Count, Exists, OuterRef, Q, Subquery
from django.utils import timezone

from knowledge.embedding.base import Embedder, EmbeddingError, Vectors
from knowledge.embedding.batching import embed_question_now
from knowledge.embedding.factory import embedder, embedder_for
from knowledge.embedding.store import fill_space
from knowledge.ingestion.diff import embedded_text
from knowledge.models import Chunk, Corpus, Embedding, EmbeddingSpace, EvaluationCase, EvaluationRun
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.scope import atomic, on_commit, require_tenant_id, unscoped

logger = structlog.get_logger(__name__)

READ_AT_ONCE = 256
# How long one can switch back to a space that is not searched any more.
KEPT_FOR = timedelta(days=30)
# Chunks that were being written while a tenant was switched have their vectors in the space before: so long the one that
# is searched is looked at every time, then once in so many seconds.
REPAIRED_FOR = timedelta(days=1)
WHOLE_SECONDS = 3600
# A model that failed rests: at least so long, and so many times as long as it took to fail.
REST_SECONDS, REST_TIMES = 300.0, 20


class Compared(StrEnum):
    """Whether a space was measured beside the one in use before it takes its place."""

    NOT_ASKED = (
        "not asked"  # it has been searched before, or nothing is: the way back, and the first, are free
    )
    NO_QUESTIONS = "no questions"  # the tenant holds no evaluation set with questions
    MISSING = "missing"
    MADE = "made"


def active_model() -> str:
    """The name of the model that the tenant in force is searched with; empty before anything is indexed."""
    found: str | None = (
        EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.ACTIVE)
        .values_list("model", flat=True)
        .first()
    )
    return found or ""


def corpus_state() -> tuple[int, str]:
    """The corpus version in force (0 before anything was indexed), and the name of the model that is searched with."""
    active = EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.ACTIVE).values("model")[:1]
    found = Corpus.objects.values_list("version", Subquery(active)).first()
    return (found[0], found[1] or "") if found else (0, "")


def tenant_embedder() -> Embedder:
    """The embedder of the tenant in force: its active space's, or the configured one before there is any."""
    name = active_model()
    return embedder_for(name) if name else embedder()


def embeddings_unavailable(error: EmbeddingError) -> Problem:
    """The problem of a question that cannot be embedded; why is for the log."""
    logger.error("the question cannot be embedded", reason=error.reason)
    return Problem(
        503,
        "embeddings-unavailable",
        "The search is not available just now: try again in a moment.",
        headers={"Retry-After": "30"},
    )


def embed_for_tenant(text: str) -> tuple[Vectors, str]:
    """A question's vector by the model of the tenant in force, and that model's name; for code in a thread of its own.

    Raises:
        Problem: 503 when it cannot be made.
    """
    try:
        model = tenant_embedder()
        return embed_question_now(text, embedder=model), model.name
    except EmbeddingError as error:
        raise embeddings_unavailable(error) from error


def start_migration(*, model: str, principal: Principal | None = None) -> EmbeddingSpace:
    """A new space of vectors beside the active one, to be built.

    Args:
        model: a name that ``embedder_for`` knows; it is loaded here, so that a wrong one fails at once.

    Raises:
        Problem: 409 where the tenant is searched with that model, or holds a space of it, already.
        EmbeddingError: the model cannot be loaded.
    """
    made = embedder_for(model)
    dimensions = made.dimensions
    with atomic():
        if EmbeddingSpace.objects.filter(model=made.name).exists():
            raise Problem(
                409, "conflict", f"There is a space of {made.name} already: switch to it, or drop it first."
            )
        space: EmbeddingSpace = EmbeddingSpace.objects.create(model=made.name, dimensions=dimensions)
        record_by(principal, "embedding.start", space, {"model": space.model})
    return space


def count_missing(space: EmbeddingSpace) -> int:
    """Texts of the tenant's chunks that have no vector in the space."""
    figures = _missing(space).aggregate(texts=Count("embedding_hash", distinct=True))
    return int(figures["texts"])


def progress_of(space: EmbeddingSpace) -> dict[str, int]:
    """``texts`` in all and ``missing`` of them, and ``percent`` done."""
    texts = int(
        Chunk.objects.filter(embedding_hash__isnull=False).aggregate(
            n=Count("embedding_hash", distinct=True)
        )["n"]
    )
    missing = count_missing(space)
    return {
        "texts": texts,
        "missing": missing,
        "percent": 100 if not missing else min(99, 100 * (texts - missing) // max(1, texts)),
    }


def build_space(
    space: EmbeddingSpace,
    *,
    on_progress: Callable[[int], None] = lambda made: None,
    seconds: float | None = None,
) -> bool:
    """Embeds what the space is missing, and says whether nothing is missing any more.

    May be ended and begun again at any time, by any number of workers: what is there is never made twice for long.

    Args:
        on_progress: called with the number of vectors made so far, after each batch.
        seconds: stop about then; ``None``: when it is whole.
    """
    model, begun, made = embedder_for(space.model), time.monotonic(), 0
    while True:
        rows = list(
            _missing(space)
            .order_by("embedding_hash")
            .values_list("embedding_hash", "document__title", "heading_path", "text")[:READ_AT_ONCE]
        )
        if not rows:
            return True
        texts = {
            bytes(digest): embedded_text(title=title, heading_path=headings, text=text)
            for digest, title, headings, text in rows
        }
        made += fill_space(texts=texts, embedder=model, space=space)
        if EmbeddingSpace.objects.filter(pk=space.pk, state=EmbeddingSpace.State.ACTIVE).exists():
            with atomic():  # search has read these passages without a vector
                Corpus.raise_version()
        on_progress(made)
        if seconds is not None and time.monotonic() - begun > seconds:
            return False


def find_spaces_to_fill(*, now: datetime) -> list[tuple[UUID, UUID]]:
    """``(tenant, space)`` of what may lack vectors, in every tenant: those that are built, those that one can switch back
    to, and those that are searched. In no order, so that one whose texts cannot be embedded holds up no other for long."""
    state = EmbeddingSpace.State
    recent = Q(activated_at__gt=now - REPAIRED_FOR)
    kept = Q(state=state.RETIRED) & (Q(retired_at__isnull=True) | Q(retired_at__gt=now - KEPT_FOR))
    with unscoped(reason="list spaces of vectors to be filled"):
        always = list(
            EmbeddingSpace.objects.filter(Q(state=state.BUILDING) | kept | recent)
            .order_by("?")
            .values_list("tenant_id", "pk")
        )
        rows = EmbeddingSpace.objects.filter(~recent, state=state.ACTIVE).order_by("?")
        searched = list(rows.values_list("tenant_id", "pk"))
    whole = cache.get_many([_whole_key(pk) for _, pk in searched])
    return always + [(tenant_id, pk) for tenant_id, pk in searched if _whole_key(pk) not in whole]


def keep_filled(space: EmbeddingSpace, *, seconds: float) -> None:
    """Embeds what the space is missing, for about so long, unless its model has failed just before.

    What may pass by itself is everybody's who uses the model; what will not is this space's alone.
    """
    whole, rests = _whole_key(space.pk), [_rest_key(space.model), _rest_key(space.pk)]
    version, begun = Corpus.current_version(), time.monotonic()
    found = cache.get_many([whole, *rests])
    # Of one that is not searched nothing is missing until documents change.
    unchanged = space.state != EmbeddingSpace.State.ACTIVE and found.get(whole) == version
    if unchanged or any(key in found for key in rests):
        return
    try:
        is_whole = build_space(space, seconds=seconds)
    except EmbeddingError as error:
        rest = max(REST_SECONDS, REST_TIMES * (time.monotonic() - begun))
        cache.set(_rest_key(space.pk if error.permanent else space.model), 1, rest)
        logger.warning("space not filled", model=space.model, reason=error.reason, rests=round(rest))
        return
    if is_whole:
        cache.set(whole, version, WHOLE_SECONDS)


def have_missing_vectors_made() -> None:
    """To be called in the transaction that brings back what may have no vector in the space that is searched: the worker
    looks at it with its next round."""
    for pk in EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.ACTIVE).values_list("pk", flat=True):
        on_commit(partial(cache.delete, _whole_key(pk)))


def _whole_key(pk: UUID) -> str:
    return f"space-whole:{pk}"


def _rest_key(what: object) -> str:
    return f"embedding-rests:{what}"


def comparison_of(space: EmbeddingSpace) -> EvaluationRun | None:
    """The last measurement of this space beside another; ``compared_with`` is that of the other."""
    runs = EvaluationRun.objects.filter(
        trial=True, embedder=space.model, created_at__gte=space.created_at, compared_with__isnull=False
    )
    found: EvaluationRun | None = runs.select_related("evaluation_set", "compared_with").first()
    return found


def is_compared(space: EmbeddingSpace) -> Compared:
    """Whether the space was measured beside the one that is searched now, where the tenant has questions for that."""
    active = active_model()
    if space.state != EmbeddingSpace.State.BUILDING or not active:
        return Compared.NOT_ASKED
    if not EvaluationCase.objects.exists():
        return Compared.NO_QUESTIONS
    run = comparison_of(space)
    other = run.compared_with if run else None
    return Compared.MADE if other is not None and other.embedder == active else Compared.MISSING


def switch_space(
    *, space: EmbeddingSpace, principal: Principal | None = None, without_comparison: bool = False
) -> Compared:
    """Searches the tenant in this space from now on; the one before stays for a while, so that one can switch back.

    Args:
        without_comparison: switch although the tenant has questions and the space was not measured with them.

    Returns:
        Whether it was compared; ``MISSING`` only where that was waived.

    Raises:
        Problem: 409 while vectors are missing in it, or it was not compared.
    """
    with atomic():
        # First: whoever swaps chunks waits here, so that none comes in between looking and switching.
        Corpus.raise_version()
        space.refresh_from_db()
        missing = count_missing(space)
        if missing:
            raise Problem(
                409,
                "not-built",
                f"{missing} texts have no vector in {space.model} yet: let it be built first.",
            )
        compared = is_compared(space)
        if compared == Compared.MISSING and not without_comparison:
            raise Problem(
                409,
                "not-compared",
                f"{space.model} was not compared with {active_model()} on an evaluation set of this tenant:"
                " compare them first, or switch without a comparison.",
            )
        now, state = timezone.now(), EmbeddingSpace.State
        before = EmbeddingSpace.objects.filter(state=state.ACTIVE).exclude(pk=space.pk)
        old = list(before.values_list("model", flat=True))
        before.update(state=state.RETIRED, retired_at=now)
        EmbeddingSpace.objects.filter(pk=space.pk).update(
            state=state.ACTIVE, activated_at=now, retired_at=None
        )
        record_by(
            principal,
            "embedding.switch",
            space,
            {"from": old, "to": space.model, "compared": compared.value},
        )
    space.refresh_from_db()
    return compared


def drop_space(*, space: EmbeddingSpace, principal: Principal | None = None) -> None:
    """Removes a space with its vectors.

    Raises:
        Problem: 409 for the one that is searched.
    """
    with atomic():
        if not EmbeddingSpace.objects.filter(pk=space.pk).exclude(state=EmbeddingSpace.State.ACTIVE).exists():
            raise Problem(409, "in-use", "The tenant is searched in this space: switch to another one first.")
        record_by(principal, "embedding.drop", space, {"model": space.model})
        Embedding.objects.filter(space=space)._raw_delete("default")
        space.delete()


def drop_retired_spaces(*, now: datetime) -> int:
    """Drops the spaces that nothing was searched in for ``KEPT_FOR``; returns how many."""
    retired = EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.RETIRED)
    retired.filter(retired_at__isnull=True).update(retired_at=now)  # by a version that kept no time
    dropped = 0
    for space in retired.filter(retired_at__lt=now - KEPT_FOR):
        drop_space(space=space)
        dropped += 1
    return dropped


def _missing(space: EmbeddingSpace) -> Any:
    held = Embedding.objects.filter(
        tenant_id=require_tenant_id(), space=space, text_hash=OuterRef("embedding_hash")
    )
    return Chunk.objects.filter(
        ~Exists(held), embedding_hash__isnull=False, document__deleted_at__isnull=True
    )
