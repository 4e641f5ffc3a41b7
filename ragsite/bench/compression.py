"""what cutting passages down to a token budget saves, and what of the answers it keeps

PATH is a folder as ``bench chunking`` takes it: texts, and questions whose answers are exact spans of them. Passages are the
nearest chunks, each grown to about 1,800 characters as retrieval grows them to their section.
"""

import statistics
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ragsite.bench import Figures, Say

GROWN_CHARS = 1800


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path)
    parser.add_argument("--k", type=int, default=5, help="passages of a question")
    parser.add_argument("--budgets", type=int, nargs="+", default=[600, 900, 1200, 1600], help="tokens")
    parser.add_argument("--corpora", nargs="*", help="names of the texts to use; default: all")


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    import numpy as np

    from knowledge.answering.compress import compress_passages, count_passage_tokens
    from knowledge.embedding.factory import embedder
    from knowledge.llm.base import Passage
    from ragsite.bench import chunking

    texts, questions = chunking._read(options["path"], options["corpora"])
    model = embedder()
    chunks = chunking._ours(texts, model.count_tokens)
    say(f"{len(chunks)} chunks, {len(questions)} questions")
    vectors = model.embed([chunk.embedded for chunk in chunks])
    asked = model.embed([question.text for question in questions])
    nearest = np.argsort(-(asked @ vectors.T), axis=1)[:, : options["k"]]
    names: list[int] = [0, *options["budgets"]]
    rows: dict[int, list[dict[str, float]]] = {budget: [] for budget in names}
    for question, places in zip(questions, nearest, strict=True):
        passages = [
            Passage(n, "", "", "", _grow(texts[chunks[at].piece.text], chunks[at].piece))
            for n, at in enumerate(places, start=1)
        ]
        whole = [texts[answer.text][answer.start : answer.end] for answer in question.answers]
        found = [part for answer in whole for part in _parts(answer) if _holds(passages, part)]
        if not found:
            continue  # retrieval has lost it already
        for budget in names:
            kept = compress_passages(passages, question=question.text, tokens=budget)
            quoted = _quote(question.text, kept)
            rows[budget].append(
                {
                    "tokens": count_passage_tokens(kept),
                    "kept": sum(len(p) for p in found if _holds(kept, p)) / sum(map(len, found)),
                    "quoted": sum(len(p) for p in found if _squeeze(p) in quoted) / sum(map(len, found)),
                }
            )
    figures = {
        str(budget or "whole"): {
            "tokens": round(statistics.mean(row["tokens"] for row in found_rows), 1),
            "kept": round(statistics.mean(row["kept"] for row in found_rows), 4),
            "quoted": round(statistics.mean(row["quoted"] for row in found_rows), 4),
        }
        for budget, found_rows in rows.items()
    }
    return {"questions": len(rows[0]), "k": options["k"], "budgets": figures}


def render(figures: Figures) -> Iterable[str]:
    yield f"{figures['questions']} questions whose answer was found, {figures['k']} passages each"
    yield f"{'budget':>8} {'tokens':>8} {'of the answer kept':>20} {'in the quoting answer':>22}"
    for name, found in figures["budgets"].items():
        yield f"{name:>8} {found['tokens']:8.0f} {found['kept']:20.4f} {found['quoted']:22.4f}"


def _grow(text: str, piece: Any) -> str:
    more = max(0, GROWN_CHARS - (piece.end - piece.start)) // 2
    start, end = max(0, piece.start - more), min(len(text), piece.end + more)
    start = text.rfind("\n", 0, start) + 1 if start - text.rfind("\n", 0, start) < 400 else start
    return text[start:end]


def _parts(answer: str) -> list[str]:
    from knowledge.llm.sentences import split_sentences

    return [answer[start:end] for start, end in split_sentences(answer)]


def _holds(passages: Iterable[Any], part: str) -> bool:
    return any(_squeeze(part) in _squeeze(passage.text) for passage in passages)


def _quote(question: str, passages: Iterable[Any]) -> str:
    """The answer that quotes, without white space."""
    from knowledge.llm.extractive import collect_candidates, score_candidates, select_candidates

    units = [collect_candidates(passage) for passage in passages]
    score_candidates(question, units)
    return _squeeze("".join(candidate.text for candidate in select_candidates(question, units)))


def _squeeze(text: str) -> str:
    return "".join(text.split())
