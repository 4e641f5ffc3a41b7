"""A model's vectors measured beside those in use, on the tenant's own questions, before they take their place."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db.models import Q
from django.utils import timezone

from knowledge.config import answer_config
from knowledge.embedding.base import EmbeddingError
from knowledge.embedding.factory import embedder_for
from knowledge.embedding.spaces import comparison_of, count_missing
from knowledge.evaluation.metrics import METRICS
from knowledge.evaluation.run import run_evaluation
from knowledge.models import EmbeddingSpace, EvaluationRun, EvaluationSet
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.scope import atomic

logger = structlog.get_logger(__name__)

# A worker that has said nothing for so long is dead: the comparison may be asked for again.
GIVEN_UP_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class MetricPair:
    """One metric of both spaces: means, the difference with its 95 % interval, and the paired ``p``."""

    name: str
    old: float
    new: float
    difference: float
    low: float
    high: float
    p: float

    @property
    def is_significant(self) -> bool:
        return self.p < 0.05


@dataclass(frozen=True)
class SpaceComparison:
    """What the last comparison of a space came to; ``old`` and ``new`` are models."""

    evaluation_set: str
    at: datetime
    old: str
    new: str
    questions: int
    metrics: tuple[MetricPair, ...]


def compare_space(
    *, space: EmbeddingSpace, evaluation_set: EvaluationSet, principal: Principal | None = None
) -> EvaluationRun:
    """Measures the space in use and then this one with the same questions, and stores both runs.

    To be called in the scope of the whole tenant, outside of a transaction. Returns the run of ``space``.

    Raises:
        Problem: 409 for the space in use, one whose vectors are not whole, or a set without questions.
        EmbeddingError: a model cannot be asked.
    """
    active = _check(space)
    config = answer_config().retrieval
    old = run_evaluation(
        evaluation_set=evaluation_set,
        embedder=embedder_for(active.model),
        config=config,
        principal=principal,
    )
    return run_evaluation(
        evaluation_set=evaluation_set,
        embedder=embedder_for(space.model),
        config=config,
        principal=principal,
        against=old,
    )


def read_comparison(space: EmbeddingSpace) -> SpaceComparison | None:
    """The last comparison of a space, of both arms together; ``None`` before there is any."""
    run = comparison_of(space)
    if run is None or run.compared_with is None:
        return None
    old = run.compared_with
    pairs: dict[str, dict[str, Any]] = run.comparison.get("fused", {})
    return SpaceComparison(
        evaluation_set=run.evaluation_set.name,
        at=run.created_at,
        old=old.embedder,
        new=run.embedder,
        questions=int(next(iter(pairs.values()), {}).get("questions", 0)),
        metrics=tuple(
            MetricPair(
                name=name,
                old=old.metrics["fused"][name],
                new=run.metrics["fused"][name],
                **{key: pairs[name][key] for key in ("difference", "low", "high", "p")},
            )
            for name in METRICS
            if name in pairs
        ),
    )


def request_comparison(
    *, space: EmbeddingSpace, evaluation_set: EvaluationSet, principal: Principal | None = None
) -> None:
    """Has a worker compare the space.

    Raises:
        Problem: 409 as ``compare_space``, or while that is under way.
    """
    from knowledge.tasks import compare_space_on_set

    _check(space)
    now = timezone.now()
    with atomic():
        free = Q(comparing_since__isnull=True) | Q(comparing_since__lt=now - GIVEN_UP_AFTER)
        claimed = EmbeddingSpace.objects.filter(free, pk=space.pk)
        if not claimed.update(comparing_since=now, compare_error=""):
            raise Problem(409, "conflict", f"{space.model} is being compared just now: wait for it to end.")
        record_by(principal, "embedding.compare", space, {"model": space.model, "set": evaluation_set.name})
        compare_space_on_set.enqueue_on_commit(space_id=str(space.pk), set_id=str(evaluation_set.pk))


def run_requested_comparison(*, space_id: str, set_id: str) -> None:
    """What the worker does for ``request_comparison``; why it came to nothing is kept with the space."""
    space = EmbeddingSpace.objects.filter(pk=space_id).first()
    if space is None:
        return
    reason = "It ended in an error of the program: see the worker's log."
    try:
        evaluation_set = EvaluationSet.objects.filter(pk=set_id).first()
        if evaluation_set is None:
            reason = "The evaluation set is gone: choose another."
        else:
            compare_space(space=space, evaluation_set=evaluation_set)
            reason = ""
    except Problem as problem:
        reason = problem.detail
    except EmbeddingError as error:
        logger.warning("spaces not compared", model=space.model, reason=error.reason)
        reason = "A model could not be asked: try again, or see the worker's log."
    finally:
        EmbeddingSpace.objects.filter(pk=space_id).update(comparing_since=None, compare_error=reason)


def _check(space: EmbeddingSpace) -> EmbeddingSpace:
    """The space in use, which this one may be compared with."""
    active: EmbeddingSpace | None = EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.ACTIVE).first()
    if active is None or active.pk == space.pk:
        raise Problem(409, "in-use", f"{space.model} is the one in use: compare another one with it.")
    missing = count_missing(space)
    if missing:
        raise Problem(
            409, "not-built", f"{missing} texts have no vector in {space.model} yet: let it be built first."
        )
    return active
