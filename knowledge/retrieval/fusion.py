"""Two arms into one list."""

from uuid import UUID

from knowledge.retrieval.base import Arm


def fuse_arms(*, dense: Arm, keyword: Arm, keyword_weight: float) -> list[tuple[UUID, float]]:
    """``w·keyword/sd_k + (1-w)·dense/sd_d``, best first: each arm counts by how far it stands out of its own scores.

    Every chunk must have its dense score. An arm whose scores do not vary says nothing and is left out.
    """

    def standardised(arm: Arm, pk: UUID) -> float:
        return arm.scores.get(pk, 0.0) / arm.deviation if arm.deviation > 0 else 0.0

    fused = {
        pk: keyword_weight * standardised(keyword, pk) + (1 - keyword_weight) * standardised(dense, pk)
        for pk in dense.scores.keys() | keyword.scores.keys()
    }
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))
