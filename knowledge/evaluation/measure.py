"""Questions put to a search, and the figures of what came back."""

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from knowledge.config import RetrievalConfig
from knowledge.evaluation.metrics import METRICS, average, compare_paired, score_ranking

# Chunks taken from each arm: enough that ten documents are among them, however many chunks each has.
DEPTH = 100
ARMS = ("dense", "keyword", "fused")

# {key of the question: {arm: {metric: value}}}
Results = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Question:
    """``grades`` are those of the relevant documents, by whatever names the search calls them."""

    key: str
    text: str
    grades: Mapping[str, int]


@dataclass(frozen=True)
class Measured:
    """What came of a set of questions; ``times_ms`` are of one whole search each, in order."""

    results: Results
    times_ms: tuple[float, ...]

    @property
    def arms(self) -> dict[str, dict[str, float]]:
        """The mean of every metric, arm by arm."""
        names = next(iter(self.results.values()), {}) or ARMS
        return {arm: average([each[arm] for each in self.results.values()]) for arm in names}

    @property
    def p50_ms(self) -> float:
        return round(statistics.median(self.times_ms), 2) if self.times_ms else 0.0

    @property
    def p95_ms(self) -> float:
        ordered = sorted(self.times_ms)
        return round(ordered[max(0, round(0.95 * len(ordered)) - 1)], 2) if ordered else 0.0


def measure_questions(
    *,
    questions: Sequence[Question],
    search: Callable[[str], Mapping[str, Sequence[str]]],
    on_progress: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Asks each question once.

    Args:
        search: a question's documents, best first and each once, for every arm.
    """
    results: Results = {}
    times = []
    for number, question in enumerate(questions, start=1):
        begun = time.perf_counter()
        found = search(question.text)
        times.append((time.perf_counter() - begun) * 1000)
        results[question.key] = {arm: score_ranking(ranked, question.grades) for arm, ranked in found.items()}
        on_progress(number)
    return Measured(results=results, times_ms=tuple(times))


def rank_documents(names: Iterable[str]) -> list[str]:
    """The documents of a ranking of chunks: each stands where its best chunk does."""
    return list(dict.fromkeys(names))


def compare_results(*, old: Results, new: Results) -> dict[str, dict[str, dict[str, float]]]:
    """``{arm: {metric: Comparison}}`` over the questions that both hold; empty when they share none."""
    shared = [key for key in new if key in old]
    if not shared:
        return {}
    arms = [arm for arm in new[shared[0]] if arm in old[shared[0]]]
    return {
        arm: {
            name: compare_paired(
                [old[key][arm][name] for key in shared], [new[key][arm][name] for key in shared]
            ).as_dict()
            for name in METRICS
        }
        for arm in arms
    }


def describe_config(config: RetrievalConfig) -> dict[str, Any]:
    return asdict(config)


def fingerprint_of(config: RetrievalConfig) -> str:
    """SHA-256 of the configuration, in hex: equal configurations have equal fingerprints."""
    return hashlib.sha256(json.dumps(describe_config(config), sort_keys=True).encode()).hexdigest()
