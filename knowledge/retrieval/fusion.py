"""Two arms into one score."""

from knowledge.retrieval.segment import Vectors


def fuse_scores(
    *,
    cosines: Vectors,
    keywords: Vectors,
    dense_deviation: float,
    keyword_deviation: float,
    keyword_weight: float,
) -> Vectors:
    """``w·keyword/sd_k + (1-w)·cosine/sd_d`` for each row: an arm counts by how far it stands out of its own scores.

    An arm whose scores do not vary says nothing and is left out.
    """
    fused = (1 - keyword_weight) / dense_deviation * cosines
    if keyword_deviation > 0:
        fused = fused + keyword_weight / keyword_deviation * keywords
    return fused
