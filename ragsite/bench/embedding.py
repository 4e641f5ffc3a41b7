"""Embedding: texts a second and one question's time, beside sentence-transformers' defaults, and what 8 bits cost in nDCG.

Both sides run in this process in turn (ours, theirs, ours …), so that a busy machine slows both; the ratio of each
round counts. With ``--corpus FOLDER`` (corpus.jsonl, queries.jsonl, qrels/test.tsv) its texts are used, and exact
dense search over both kinds of vectors is judged.
"""

import json
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import CommandError

from knowledge.embedding.base import Embedder, Vectors
from ragsite.bench import Figures, Say

REFERENCE = "all-MiniLM-L6-v2"
TOKENS = 256
QUESTIONS = 20
TOP = 10
_FILLER = (
    "A neighbour that stays in Active has no TCP session: check the route, the filters on port 179, the source "
    "address and the password on both sides before the timers. "
)


@dataclass(frozen=True)
class Corpus:
    """A BEIR folder; ``relevant`` has the grade of a document by question."""

    ids: list[str]
    texts: list[str]
    questions: dict[str, str]
    relevant: dict[str, dict[str, float]]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, help="a BEIR folder, for real texts and nDCG@10")
    parser.add_argument(
        "--documents",
        type=int,
        default=0,
        help="judge on so many documents, the relevant ones among them; 0: all",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=64, help="in one round")


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    """Figures of both sides, medians over the rounds, and the medians of each round's ratios.

    Raises:
        CommandError: the folder is no BEIR folder, or nothing is to be measured.
    """
    if options["rounds"] < 1 or options["texts"] < 1:
        raise CommandError("--rounds and --texts must be 1 or more.")
    from knowledge.embedding.factory import embedder, embedder_for

    corpus = read_corpus(options["corpus"], documents=options["documents"]) if options["corpus"] else None
    ours, theirs = embedder(), embedder_for(REFERENCE)
    texts = _texts_of(TOKENS, embedder=ours, count=options["texts"], corpus=corpus)
    questions = list(corpus.questions.values())[:QUESTIONS] if corpus else _questions()
    figures: Figures = {"model": ours.name, "reference": theirs.name, "rounds": options["rounds"]}
    figures |= _compare_speed(
        ours, theirs, texts=texts, questions=questions, rounds=options["rounds"], say=say
    )
    if corpus:
        figures |= _compare_quality(ours, theirs, corpus=corpus, say=say)
    return figures


def render(figures: Figures) -> Iterable[str]:
    yield f"{'':24} {figures['model'][:28]:>28} {figures['reference'][:20]:>20} {'ratio':>7}"
    names = {
        "texts_per_s": "texts/s",
        "query_ms": "one question, ms",
        "cpu_ms_per_text": "CPU ms a text",
        "ndcg@10": "nDCG@10",
    }
    for key, name in names.items():
        if key in figures:
            found = figures[key]
            yield f"{name:24} {found['ours']:28.4g} {found['theirs']:20.4g} {found['ratio']:7.3f}"


def _compare_speed(
    ours: Embedder, theirs: Embedder, *, texts: list[str], questions: list[str], rounds: int, say: Say
) -> Figures:
    sides = {"ours": ours, "theirs": theirs}
    for side in sides.values():
        side.embed(texts[:2])
        side.embed_queries(questions[:1])
    bulk: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    query: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            began = time.process_time()
            bulk[name].append(len(texts) / _seconds(lambda side=side: side.embed(texts)))  # type: ignore[misc]
            cpu[name].append((time.process_time() - began) / len(texts) * 1000)
        for name, side in sides.items():
            each = [_seconds(lambda side=side, text=text: side.embed_queries([text])) for text in questions]  # type: ignore[misc]
            query[name].append(statistics.median(each) * 1000)
        say(f"round {number + 1}: {bulk['ours'][-1]:.1f} and {bulk['theirs'][-1]:.1f} texts/s")
    return {
        "texts_per_s": _summary(bulk, invert=False),
        "cpu_ms_per_text": _summary(cpu, invert=True),
        "query_ms": _summary(query, invert=True),
    }


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _summary(rounds: dict[str, list[float]], *, invert: bool) -> dict[str, float]:
    """Medians of both sides and of the rounds' ratios; above 1 ours is better."""
    pairs = zip(rounds["ours"], rounds["theirs"], strict=True)
    ratios = [theirs / ours if invert else ours / theirs for ours, theirs in pairs]
    return {
        "ours": round(statistics.median(rounds["ours"]), 3),
        "theirs": round(statistics.median(rounds["theirs"]), 3),
        "ratio": round(statistics.median(ratios), 3),
    }


def _compare_quality(ours: Embedder, theirs: Embedder, *, corpus: Corpus, say: Say) -> Figures:
    scores = {}
    for name, side in (("ours", ours), ("theirs", theirs)):
        say(f"embedding {len(corpus.texts)} documents with {side.name}")
        documents = side.embed(corpus.texts)
        scores[name] = ndcg(documents, side.embed_queries(list(corpus.questions.values())), corpus=corpus)
    return {
        "documents": len(corpus.texts),
        "queries": len(corpus.questions),
        "ndcg@10": {
            "ours": round(scores["ours"], 4),
            "theirs": round(scores["theirs"], 4),
            "ratio": round(scores["ours"] / scores["theirs"], 4) if scores["theirs"] else 0.0,
        },
    }


def ndcg(documents: Vectors, questions: Vectors, *, corpus: Corpus) -> float:
    """The mean nDCG@10 of exact search by cosine (Järvelin and Kekäläinen 2002, with linear gains as in trec_eval)."""
    found = []
    for question, relevant in zip(questions, corpus.relevant.values(), strict=True):
        best = np.argsort(-(documents @ question), kind="stable")[:TOP]
        gained = _discounted([relevant.get(corpus.ids[place], 0) for place in best])
        ideal = _discounted(sorted(relevant.values(), reverse=True)[:TOP])
        found.append(gained / ideal if ideal else 0.0)
    return float(np.mean(found))


def _discounted(grades: Sequence[float]) -> float:
    return float(sum(grade / np.log2(rank + 2) for rank, grade in enumerate(grades)))


def read_corpus(folder: Path, *, documents: int = 0) -> Corpus:
    """Reads a BEIR folder.

    Args:
        folder: with corpus.jsonl, queries.jsonl and qrels/test.tsv.
        documents: keep so many, every relevant one and then the first ones; 0 keeps all.

    Raises:
        CommandError: a file is missing or cannot be read.
    """
    try:
        rows = [json.loads(line) for line in (folder / "corpus.jsonl").open()]
        asked = {row["_id"]: row["text"] for row in map(json.loads, (folder / "queries.jsonl").open())}
        relevant: dict[str, dict[str, float]] = {}
        for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]:
            question, document, grade = line.split("\t")
            relevant.setdefault(question, {})[document] = float(grade)
        relevant = {question: grades for question, grades in relevant.items() if question in asked}
        if documents:
            judged = {document for grades in relevant.values() for document in grades}
            rows.sort(key=lambda row: row["_id"] not in judged)
            rows = rows[: max(documents, sum(row["_id"] in judged for row in rows))]
        return Corpus(
            ids=[row["_id"] for row in rows],
            texts=[f"{row.get('title') or ''}\n{row['text']}".strip() for row in rows],
            questions={question: asked[question] for question in relevant},
            relevant=relevant,
        )
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(
            f"{folder} is no BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv): {error}"
        ) from error


def _questions() -> list[str]:
    words = _FILLER.split()
    return [" ".join((words[begin:] + words[:begin])[:12]) + "?" for begin in range(QUESTIONS)]


def _texts_of(tokens: int, *, embedder: Embedder, count: int, corpus: Corpus | None) -> list[str]:
    """Texts of about so many tokens, special ones included: consecutive words of the corpus, or of a filler."""
    words = " ".join(corpus.texts if corpus else [_FILLER * 20] * count).split()
    texts: list[str] = []
    begin = 0
    size = int(tokens / max(1.0, embedder.count_tokens(" ".join(words[:2000])) / min(2000, len(words))))
    while len(texts) < count:
        texts.append(" ".join(words[begin : begin + size]))
        begin = (begin + size) % max(1, len(words) - size)
    return texts
