"""how well our chunks fit answers that are exact spans, beside fixed-size and recursive chunks

PATH is a folder with ``corpora/*.md`` and ``questions.jsonl``, lines of
``{"question", "corpus", "references": [{"content", "start_index", "end_index"}]}``.
"""

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from ragsite.bench import Figures, Say

BASELINES = ((200, 0), (200, 100), (400, 0), (400, 200))


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path)
    parser.add_argument("--k", type=int, default=5, help="chunks retrieved for each question")
    parser.add_argument("--corpora", nargs="*", help="names of the texts to use; default: all")
    parser.add_argument("--only-ours", action="store_true", help="leave the other chunkers out")


@dataclass(frozen=True)
class _Question:
    text: str
    answers: tuple[Any, ...]


@dataclass(frozen=True)
class _Chunk:
    """``embedded`` is the text that its vector is made from."""

    piece: Any
    embedded: str


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    from knowledge.embedding.factory import embedder
    from knowledge.evaluation.baselines import cut_fixed, cut_recursively
    from knowledge.evaluation.metrics import compare_paired
    from knowledge.evaluation.spans import Piece

    if not 1 <= options["k"] <= 100:
        raise CommandError("--k must be 1 to 100.")
    texts, questions = _read(options["path"], options["corpora"])
    model = embedder()

    def plain(cut: Callable[..., list[tuple[int, int]]], size: int, overlap: int) -> list[_Chunk]:
        return [
            _Chunk(Piece(name, start, end), text[start:end])
            for name, text in texts.items()
            for start, end in cut(text, count_tokens=model.count_tokens, size=size, overlap=overlap)
        ]

    makers: dict[str, Callable[[], list[_Chunk]]] = {"ours": lambda: _ours(texts, model.count_tokens)}
    if not options["only_ours"]:
        for size, overlap in BASELINES:
            makers[f"fixed {size}/{overlap}"] = lambda s=size, o=overlap: plain(cut_fixed, s, o)  # type: ignore[misc]
        for size, overlap in BASELINES:
            makers[f"recursive {size}/{overlap}"] = lambda s=size, o=overlap: plain(cut_recursively, s, o)  # type: ignore[misc]
    asked = model.embed([question.text for question in questions])
    chunkers, ious = {}, {}
    for name, make in makers.items():
        begun = time.perf_counter()
        chunks = make()
        seconds = time.perf_counter() - begun
        say(f"{name}: {len(chunks)} chunks")
        scores = _score(chunks, questions, asked, model, options["k"])
        chunkers[name] = {
            "chunks": len(chunks),
            "mean_characters": round(sum(chunk.piece.length for chunk in chunks) / len(chunks), 1),
            "cut_seconds": round(seconds, 2),
            **{key: round(sum(score[key] for score in scores) / len(scores), 4) for key in scores[0]},
        }
        ious[name] = [score["iou"] for score in scores]
    comparison = {
        name: compare_paired(values, ious["ours"]).as_dict()
        for name, values in ious.items()
        if name != "ours"
    }
    return {
        "k": options["k"],
        "questions": len(questions),
        "chunkers": chunkers,
        "iou_ours_against": comparison,
    }


def render(figures: Figures) -> Iterable[str]:
    yield f"{figures['questions']} questions, {figures['k']} chunks each; in characters"
    names = ("recall", "precision", "precision_omega", "iou")
    yield f"{'chunker':20} {'chunks':>7} {'length':>7} " + " ".join(f"{name:>15}" for name in names)
    for name, found in figures["chunkers"].items():
        yield (
            f"{name:20} {found['chunks']:7} {found['mean_characters']:7.0f} "
            + " ".join(f"{found[key]:15.4f}" for key in names)
        )
    for name, each in figures["iou_ours_against"].items():
        yield (
            f"IoU of ours - {name}: {each['difference']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}] p={each['p']:.4f}"
        )


def _ours(texts: dict[str, str], count_tokens: Callable[[str], int]) -> list[_Chunk]:
    """The chunks that the product would make of the files, with the text that it would embed."""
    from knowledge.evaluation.spans import Piece
    from knowledge.ingestion.chunk import chunk_document
    from knowledge.ingestion.diff import embedded_text
    from knowledge.ingestion.parse import parse_document

    chunks = []
    for name, text in texts.items():
        parsed = parse_document(data=text.encode(), filename=f"{name}.md")
        if parsed.text != text:  # the questions' offsets would not be those of the chunks
            raise CommandError(f"{name}.md is changed by its parser: give plain lines that end in \\n.")
        for span in chunk_document(parsed, count_tokens=count_tokens):
            chunks.append(
                _Chunk(
                    Piece(name, span.start, span.end),
                    embedded_text(title=parsed.title, heading_path=span.heading_path, text=span.text),
                )
            )
    return chunks


def _score(
    chunks: Sequence[_Chunk], questions: Sequence[_Question], asked: Any, model: Any, k: int
) -> list[dict[str, float]]:
    import numpy as np

    from knowledge.evaluation.spans import score_spans

    order = sorted(range(len(chunks)), key=lambda place: len(chunks[place].embedded))
    vectors = np.zeros((len(chunks), model.dimensions), dtype=np.float32)
    for begin in range(0, len(order), 256):
        batch = order[begin : begin + 256]
        vectors[batch] = model.embed([chunks[place].embedded for place in batch])
    pieces = [chunk.piece for chunk in chunks]
    best = np.argsort(-(asked @ vectors.T), axis=1, kind="stable")[:, :k]
    return [
        asdict(
            score_spans(answers=question.answers, retrieved=[pieces[place] for place in row], chunks=pieces)
        )
        for question, row in zip(questions, best, strict=True)
    ]


def _read(folder: Path, wanted: Sequence[str] | None) -> tuple[dict[str, str], list[_Question]]:
    from knowledge.evaluation.beir import DataSetError, read_lines
    from knowledge.evaluation.spans import Piece

    paths = [path for path in sorted((folder / "corpora").glob("*.md")) if not wanted or path.stem in wanted]
    try:
        texts = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    except ValueError as error:
        raise CommandError(f"The texts must be UTF-8: {error}.") from None
    if not texts or (wanted and set(wanted) - set(texts)):
        missing = ", ".join(sorted(set(wanted or ()) - set(texts))) or "*.md"
        raise CommandError(f"There is no {missing} in {folder / 'corpora'}.")
    questions = []
    try:
        for number, line in read_lines(folder / "questions.jsonl"):
            try:
                row = json.loads(line)
                answers = tuple(
                    Piece(row["corpus"], int(each["start_index"]), int(each["end_index"]))
                    for each in row["references"]
                )
                question = _Question(str(row["question"]), answers)
            except (ValueError, KeyError, TypeError) as error:
                raise CommandError(
                    f"questions.jsonl, line {number}: {error!r}; write question, corpus and references."
                ) from None
            if row["corpus"] in texts:
                questions.append(question)
    except DataSetError as error:
        raise CommandError(str(error)) from None
    if not questions:
        raise CommandError("There is no question about these texts.")
    return texts, questions
