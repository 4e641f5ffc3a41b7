"""Whether what was found answers the question at all."""

import math
from collections.abc import Sequence

from knowledge.config import RetrievalConfig
from knowledge.retrieval.base import FoundPassage


def judge_evidence(*, passages: Sequence[FoundPassage], config: RetrievalConfig) -> float:
    """The confidence, 0–1, that the passages hold an answer.

    ``1 / (1 + exp(-(c + w·v - m) / s))`` of the best cosine ``c`` and the best idf-weighted coverage ``v`` of the question's
    words: closeness in meaning alone is not evidence (everything in a team's documents is near its own trade), nor are
    shared words alone. Weight, midpoint and slope were set on the questions of the demo data, answerable or not.
    """
    if not passages:
        return 0.0
    closeness = max(passage.cosine for passage in passages)
    coverage = max(passage.coverage for passage in passages)
    evidence = closeness + config.coverage_weight * coverage
    return 1 / (1 + math.exp(-(evidence - config.evidence_midpoint) / config.evidence_slope))
