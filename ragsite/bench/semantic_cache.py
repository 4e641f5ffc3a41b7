"""how many paraphrases the semantic cache finds, and how many different questions it takes for the same

The questions are of the demonstration data: 400 paraphrases, and thousands of pairs that differ in a word, digit or name.
"""

import time
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from ragsite.bench import Figures, Say

THRESHOLDS = (0.90, 0.92, 0.95, 0.97, 0.99)
WRONG_AT_MOST, HITS_AT_LEAST = 0.001, 0.4


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--each", type=int, default=1, help="every so many pairs only, for a quick look")
    parser.add_argument(
        "--examples", type=int, default=0, help="show so many pairs that are judged wrongly, each way"
    )


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    import numpy as np

    from knowledge.answering.threshold import START
    from knowledge.answering.wording import read_wording, same_question
    from knowledge.embedding.factory import embedder
    from knowledge.evaluation.wordings import adversarial_pairs, paraphrase_pairs

    same, different = (pairs[:: options["each"]] for pairs in (paraphrase_pairs(), adversarial_pairs()))
    texts = list(dict.fromkeys(text for pair in same + different for text in (pair.first, pair.second)))
    say(f"{len(same)} paraphrases, {len(different)} pairs of different questions, {len(texts)} texts")
    vectors = dict(zip(texts, embedder().embed_queries(texts), strict=True))
    alike = [
        np.array([float(vectors[p.first] @ vectors[p.second]) for p in pairs]) for pairs in (same, different)
    ]
    read_wording.cache_clear()
    begun = time.perf_counter()
    guarded = [np.array([same_question(p.first, p.second) for p in pairs]) for pairs in (same, different)]
    seconds = time.perf_counter() - begun
    tuned = np.array([pair.tuned for pair in same])

    def rates(threshold: float, *, guards: bool) -> dict[str, float]:
        hits, wrong = (
            (cosines >= threshold) & (passed if guards else True)
            for cosines, passed in zip(alike, guarded, strict=True)
        )
        found = {"hits": hits.mean(), "hits_unseen": hits[~tuned].mean(), "wrong": wrong.mean()}
        return {"threshold": round(threshold, 4)} | {
            name: round(float(value), 5) for name, value in found.items()
        }

    lowest = np.sort(alike[1])[::-1][int(WRONG_AT_MOST * len(different))]
    examples = options["examples"]
    missed = [
        p
        for p, cosine, passed in zip(same, alike[0], guarded[0], strict=True)
        if not passed or cosine < START
    ]
    taken = [
        p
        for p, cosine, passed in zip(different, alike[1], guarded[1], strict=True)
        if passed and cosine >= START
    ]
    return {
        "paraphrases": len(same),
        "different": len(different),
        "start": START,
        "guarded": [rates(threshold, guards=True) for threshold in THRESHOLDS],
        "cosine_alone": [rates(threshold, guards=False) for threshold in THRESHOLDS],
        "cosine_alone_as_safe": rates(float(np.nextafter(lowest, 2)), guards=False),
        "cosine_alone_as_useful": rates(float(np.quantile(alike[0], 1 - HITS_AT_LEAST)), guards=False),
        "by_kind": {
            kind: round(
                float(
                    np.mean(
                        [
                            c >= START and g
                            for p, c, g in zip(same, alike[0], guarded[0], strict=True)
                            if p.kind == kind
                        ]
                    )
                ),
                4,
            )
            for kind in dict.fromkeys(pair.kind for pair in same)
        },
        "microseconds_a_wording": round(1e6 * seconds / len(texts), 1),
        "missed": [[pair.first, pair.second] for pair in missed[:examples]],
        "taken": [[pair.first, pair.second] for pair in taken[:examples]],
    }


def render(figures: Figures) -> Iterable[str]:
    yield f"{figures['paraphrases']} paraphrases, {figures['different']} pairs of different questions"
    yield f"{'':28} {'threshold':>9} {'hits':>8} {'unseen':>8} {'wrong':>9}"
    for name, rows in (
        ("words and cosine", figures["guarded"]),
        ("cosine alone", figures["cosine_alone"]),
        ("… as safe as 0.1 %", [figures["cosine_alone_as_safe"]]),
        ("… as useful as 40 %", [figures["cosine_alone_as_useful"]]),
    ):
        for row in rows:
            yield f"{name:28} {row['threshold']:9.4f} {row['hits']:8.1%} {row['hits_unseen']:8.1%} {row['wrong']:9.3%}"
    kinds = ", ".join(f"{kind} {rate:.0%}" for kind, rate in figures["by_kind"].items())
    yield f"hits at {figures['start']} by kind of paraphrase: {kinds}"
    yield f"reading a question's wording: {figures['microseconds_a_wording']:.0f} µs"
    for title in ("missed", "taken"):
        yield from (f"{title}: {first} | {second}" for first, second in figures[title])
