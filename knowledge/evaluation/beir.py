"""Data sets in the form of BEIR: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/test.tsv``.

Thakur et al., "BEIR: A heterogeneous benchmark for zero-shot evaluation of information retrieval models" (2021).
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", Path("qrels") / "test.tsv"


class DataSetError(Exception):
    """The folder cannot be used; the message names the file, the line and what to do."""


@dataclass(frozen=True)
class Entry:
    """A document of the corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class DataSet:
    """``qrels`` holds, by query id, the grade of each judged document; only queries with a relevant one are kept.

    ``corpus_hash`` tells corpora apart, ``hash`` data sets with their questions too (SHA-256, hex).
    """

    name: str
    corpus: tuple[Entry, ...]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    corpus_hash: str
    hash: str


def read_data_set(*, folder: Path, queries: Path | None = None) -> DataSet:
    """Reads a folder whole.

    Args:
        queries: another file of questions, with the same ids.

    Raises:
        DataSetError: for the first thing that is wrong.
    """
    if not folder.is_dir():
        raise DataSetError(
            f"There is no folder {folder}: give one that holds {CORPUS}, {QUERIES} and {QRELS}."
        )
    corpus = read_corpus(folder=folder)
    asked = queries or folder / QUERIES
    texts = {row["_id"]: _text(row, "text", where) for row, where in _read_jsonl(asked)}
    qrels = _read_qrels(
        folder / QRELS, documents={entry.id for entry in corpus}, queries=set(texts), asked=asked
    )
    kept = {key: grades for key, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    if not kept:
        raise DataSetError(
            f"{folder / QRELS} calls no document relevant to any question: nothing to measure."
        )
    for key in kept:
        if not texts[key].strip():
            raise DataSetError(f"{asked}: the question {key} is empty.")
    digest = hashlib.sha256()
    for entry in corpus:
        digest.update(json.dumps([entry.id, entry.title, entry.text]).encode())
    corpus_hash = digest.hexdigest()
    used = {key: texts[key] for key in kept}
    digest.update(json.dumps([used, kept], sort_keys=True).encode())
    return DataSet(
        name=folder.resolve().name + (f"/{queries.stem}" if queries else ""),
        corpus=corpus,
        queries=used,
        qrels=kept,
        corpus_hash=corpus_hash,
        hash=digest.hexdigest(),
    )


def read_corpus(*, folder: Path) -> tuple[Entry, ...]:
    """The documents alone.

    Raises:
        DataSetError: for the first thing that is wrong.
    """
    return tuple(
        Entry(id=row["_id"], title=_text(row, "title", where, default=""), text=_text(row, "text", where))
        for row, where in _read_jsonl(folder / CORPUS)
    )


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, blank ones left out.

    Raises:
        DataSetError: it is missing, or not UTF-8.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataSetError(f"{path} is not UTF-8 ({error.reason}): convert it.") from None
    except OSError as error:
        raise DataSetError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read_jsonl(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each object with the place that it stands at, for messages; ``_id`` is a text, and each once."""
    seen: set[str] = set()
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataSetError(f"{where} is not JSON: {error}.") from None
        if not isinstance(row, dict) or not isinstance(row.get("_id"), str | int) or row["_id"] == "":
            raise DataSetError(f'{where}: write an object with "_id" and "text".')
        row["_id"] = str(row["_id"])
        if row["_id"] in seen:
            raise DataSetError(f"{where}: the id {row['_id']} has occurred before.")
        seen.add(row["_id"])
        yield row, where
    if not seen:
        raise DataSetError(f"{path} is empty.")


def _text(row: dict[str, Any], name: str, where: str, *, default: str | None = None) -> str:
    value = row.get(name, default)
    if value is None and name in row and default is not None:
        return default
    if not isinstance(value, str):
        raise DataSetError(f'{where}: "{name}" is missing or not a text.')
    return value


def _read_qrels(
    path: Path, *, documents: set[str], queries: set[str], asked: Path
) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        row = next(csv.reader([line.rstrip("\r\n")], delimiter="\t", quoting=csv.QUOTE_NONE))
        if number == 1 and row[0].lower() in ("query-id", "query_id"):
            continue
        try:
            if len(row) not in (3, 4):
                raise ValueError
            grade = int(row[-1])
        except ValueError:
            raise DataSetError(
                f"{where}: write the query's id, the document's id and a whole number, parted by tabs."
            ) from None
        query, document = row[0], row[-2]
        if query not in queries:
            raise DataSetError(f"{where}: there is no query “{query}” in {asked}.")
        if document not in documents:
            raise DataSetError(f"{where}: there is no document “{document}” in {CORPUS}.")
        qrels.setdefault(query, {})[document] = grade
    if not qrels:
        raise DataSetError(f"{path} holds no judgement.")
    return qrels
