"""Figures of a ranking, and whether two systems differ by more than chance. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import log2

import numpy as np

CUTOFF = 10
METRICS = (f"ndcg@{CUTOFF}", f"recall@{CUTOFF}", f"mrr@{CUTOFF}")
# With this many differing questions every assignment of signs is looked at (2^14); with more, a sample of that size.
_EXACT_UP_TO = 14
_SAMPLES = 20_000


def ndcg(ranked: Sequence[str], grades: Mapping[str, int], *, k: int = CUTOFF) -> float:
    """``DCG / ideal DCG`` with ``DCG = Σ grade_i / log2(i + 1)`` over the first ``k`` places.

    Järvelin & Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002), with the linear gain and the
    discount that trec_eval uses.

    Args:
        ranked: ids, best first, each once.
        grades: of the judged ids; 0 and less count as not relevant.
    """
    ideal = _dcg(sorted((max(grade, 0) for grade in grades.values()), reverse=True)[:k])
    if ideal == 0:
        return 0.0
    return _dcg([max(grades.get(each, 0), 0) for each in ranked[:k]]) / ideal


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / log2(place + 2) for place, gain in enumerate(gains))


def recall(ranked: Sequence[str], grades: Mapping[str, int], *, k: int = CUTOFF) -> float:
    """The share of the relevant ids that is among the first ``k``."""
    relevant = {each for each, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranked[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[str], grades: Mapping[str, int], *, k: int = CUTOFF) -> float:
    """``1 / place`` of the first relevant id, 0 when none is among the first ``k``; its mean over questions is MRR@k.

    Voorhees, "The TREC-8 question answering track report" (1999).
    """
    for place, each in enumerate(ranked[:k], start=1):
        if grades.get(each, 0) > 0:
            return 1 / place
    return 0.0


def score_ranking(ranked: Sequence[str], grades: Mapping[str, int]) -> dict[str, float]:
    """All of ``METRICS`` for one question."""
    values = (ndcg(ranked, grades), recall(ranked, grades), reciprocal_rank(ranked, grades))
    return dict(zip(METRICS, values, strict=True))


def average(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each of ``METRICS`` over questions, to four digits."""
    return {
        name: round(sum(score[name] for score in scores) / len(scores), 4) if scores else 0.0
        for name in METRICS
    }


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same questions.

    Attributes:
        questions: how many were compared.
        better, worse: on how many the new one is above or below the old one.
        difference: mean of new minus old.
        low, high: the 95 % interval of that mean.
        p: how often chance alone would give a mean as far from 0.
    """

    questions: int
    better: int
    worse: int
    difference: float
    low: float
    high: float
    p: float

    @property
    def is_significant(self) -> bool:
        """At the usual 5 %."""
        return self.p < 0.05

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def compare_paired(old: Sequence[float], new: Sequence[float], *, seed: int = 7) -> Comparison:
    """A two-sided paired randomisation test of the mean difference, and its bootstrap interval.

    Under "no difference" each question's difference might as well have the other sign: ``p`` is the share of sign
    assignments whose mean is at least as far from 0, exact where few questions differ, otherwise
    ``(1 + hits) / (1 + samples)`` of a sample. Smucker, Allan & Carterette, "A comparison of statistical significance
    tests for information retrieval evaluation" (2007); Efron's percentile bootstrap (1979) over questions.

    Args:
        old, new: one figure a question, in the same order.
        seed: of the samples, so that the same figures give the same answer.

    Raises:
        ValueError: the lists differ in length.
    """
    if len(old) != len(new):
        raise ValueError(f"{len(old)} figures against {len(new)}: compare the same questions.")
    differences = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    if not len(differences):
        return Comparison(0, 0, 0, 0.0, 0.0, 0.0, 1.0)
    differing = differences[np.abs(differences) > 1e-12]
    random = np.random.default_rng(seed)
    means = np.array([differences[each].mean() for each in _resamples(random, len(differences))])
    return Comparison(
        questions=len(differences),
        better=int((differing > 0).sum()),
        worse=int((differing < 0).sum()),
        difference=float(differences.mean()),
        low=float(np.quantile(means, 0.025)),
        high=float(np.quantile(means, 0.975)),
        p=_randomisation_p(differing, random),
    )


def _resamples(random: np.random.Generator, size: int, count: int = 2000) -> np.ndarray:
    return random.integers(0, size, size=(count, size))


def _randomisation_p(differing: np.ndarray, random: np.random.Generator) -> float:
    if not len(differing):
        return 1.0
    observed = abs(differing.sum()) - 1e-12
    if len(differing) <= _EXACT_UP_TO:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(differing))))
        return float((np.abs(signs @ differing) >= observed).mean())
    hits = 0
    for _ in range(_SAMPLES // 1000):  # a thousand at a time: thousands of questions fit in memory
        signs = random.choice((-1.0, 1.0), size=(1000, len(differing)))
        hits += int((np.abs(signs @ differing) >= observed).sum())
    return (1 + hits) / (1 + _SAMPLES)
