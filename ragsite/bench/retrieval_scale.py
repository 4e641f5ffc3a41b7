"""Search over many tenants of Zipf sizes: recall and time by tenant size and by how much the role reads.

The rows are made once and kept; ``--corpus`` names a BEIR folder whose passages are the clusters' centres and whose halves
are put together anew. Everything is searched as the application role under row-level security, beside pgvector as it comes:
exact, and with ``--hnsw`` one shared index with its default settings.
"""

import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import CommandError
from django.db import connection, connections
from pgvector import Vector

from knowledge.config import RetrievalConfig
from knowledge.embedding.factory import embedder
from knowledge.models import Chunk, Embedding
from knowledge.retrieval.analysis import (
    FORM,
    MAX_COUNT,
    TERM,
    hash_term,
    question_forms,
    question_terms,
    unpack_terms,
)
from knowledge.retrieval.base import Filters
from knowledge.retrieval.keyword import own_share_of, search_keywords
from knowledge.retrieval.search import readable_rows, search_passages
from knowledge.retrieval.segment import REACH
from knowledge.retrieval.tenant_index import indexes
from knowledge.retrieval.vector import search_vectors
from ragsite.bench import Figures, Say
from ragsite.bench._scale import PLAIN, ROLES, build, members_of
from tenants.models import Membership, Tenant
from tenants.scope import atomic, scope

K = 10


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, required=True, help="a BEIR folder")
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument(
        "--fixed", type=int, nargs="+", default=[5_000, 64_000], help="sizes of tenants, whatever the total"
    )
    parser.add_argument("--questions", type=int, default=20, help="for each tenant and role")
    parser.add_argument("--plain", action="store_true", help="pgvector exact beside it")
    parser.add_argument(
        "--hnsw", action="store_true", help="pgvector's shared HNSW index beside it (slow to build)"
    )
    parser.add_argument(
        "--churn", action="store_true", help="rewrite 30 %% of the first fixed tenant and look again"
    )


def measure(options: dict[str, Any], *, say: Say) -> Figures:
    """Figures by tenant and role; times in milliseconds.

    Raises:
        CommandError: fewer than ten tenants, no questions, or no corpus.
    """
    fixed_sizes = options["fixed"]
    if options["tenants"] < 10 + len(fixed_sizes) or options["questions"] < 1 or min(fixed_sizes) < 100:
        raise CommandError(
            f"--tenants must be {10 + len(fixed_sizes)} or more, --questions 1 or more, --fixed 100 or more."
        )
    if sum(fixed_sizes) >= options["chunks"]:
        raise CommandError("--fixed leaves nothing of --chunks for the other tenants.")
    tenants = build(
        corpus=options["corpus"],
        chunks=options["chunks"],
        tenants=options["tenants"],
        fixed=fixed_sizes,
        say=say,
    )
    if options["hnsw"]:
        say("building the shared HNSW index")
        with connections["owner"].cursor() as cursor:
            # The graph has to fit, or building it takes hours.
            cursor.execute("SET maintenance_work_mem = '4GB'")
            cursor.execute(
                f"CREATE INDEX IF NOT EXISTS {PLAIN}_hnsw ON {PLAIN} USING hnsw (embedding vector_cosine_ops)"
            )
            cursor.execute("RESET maintenance_work_mem")
    sized, fixed = tenants[: -len(fixed_sizes)], tenants[-len(fixed_sizes) :]
    step = len(sized) / 10
    chosen = {f"decile {n + 1}": sized[int((n + 0.5) * step)] for n in range(10)}
    chosen = {"largest": sized[0], **chosen}
    chosen |= {f"fixed {size}": tenant for size, tenant in zip(fixed_sizes, fixed, strict=True)}
    cells = []
    for name, tenant in chosen.items():
        for role, member in members_of(tenant).items():
            cell = _measure_cell(tenant, member, options=options)
            say(f"{name:11} {role:>4} " + " ".join(f"{key}={value}" for key, value in cell.items()))
            cells.append({"tenant": name, "role": role, **cell})
    figures: Figures = {"chunks": options["chunks"], "tenants": len(tenants), "cells": cells}
    if options["churn"]:
        figures["churn"] = _churn(fixed[0], options=options, say=say)
    return figures


def _measure_cell(tenant: Tenant, member: Membership, *, options: dict[str, Any]) -> dict[str, Any]:
    with scope(tenant_id=tenant.pk, tags=member.role.readable_tags):
        begun = time.perf_counter()
        with atomic():
            view, selection, _ = readable_rows(membership=member, filters=Filters())
        opened = time.perf_counter() - begun
        questions = _questions(tenant, selection, view, count=options["questions"])
        truth = [_brute_force(view, selection, vector) for _, vector in questions]
        dense = _timed(
            lambda text, vector: search_vectors(view=view, selection=selection, vector=vector, limit=100),
            questions,
        )
        found = [view.chunk_ids(rows[:K]) for rows, _ in dense.results]
        config = RetrievalConfig()

        def by_words(text: str, vector: Any) -> Any:
            terms = question_terms(text, languages=["english"])
            forms = question_forms(text, languages=["english"])
            return search_keywords(
                view=view, selection=selection, terms=terms, forms=forms, k1=config.bm25_k1, b=config.bm25_b
            ).best(view=view, limit=100)

        def whole(text: str, vector: Any) -> Any:
            return search_passages(
                membership=member,
                question=text,
                vector=embedder().embed([text])[0],
                k=K,
                filters=Filters(),
                config=config,
            )

        keyword, all_of_it = _timed(by_words, questions), _timed(whole, questions)
        words = _read_words()
        keyword_recall = statistics.fmean(
            _word_recall(words, view.chunk_ids(rows[:K]), text, config=config)
            for (rows, _), (text, _) in zip(keyword.results, questions, strict=True)
        )
        cell: dict[str, Any] = {
            "chunks": view.size,
            "read": selection.total,
            "open_ms": round(opened * 1000, 1),
            "recall": _recall(found, truth),
            "dense_p50": dense.p50,
            "dense_p95": dense.p95,
            "kw_recall": round(keyword_recall, 4),
            "keyword_p50": keyword.p50,
            "keyword_p95": keyword.p95,
            "whole_p50": all_of_it.p50,
            "whole_p95": all_of_it.p95,
        }
        if options["plain"] or options["hnsw"]:
            exact = _timed(partial(_search_plain, tenant, member, "exact"), questions)
            cell["exact_p50"] = exact.p50
            if options["hnsw"]:
                # Its own truth: there, vectors are not mixed with those beside.
                hnsw = _timed(partial(_search_plain, tenant, member, "hnsw"), questions)
                cell |= {"hnsw_p50": hnsw.p50, "hnsw_recall": _recall(hnsw.results, exact.results)}
    return cell


class _Timed:
    """Results and milliseconds of a function over questions, each asked three times after a warm-up."""

    def __init__(self, function: Callable[[str, Any], Any], questions: list[tuple[str, Any]]) -> None:
        function(*questions[0])
        self.results: list[Any] = []
        times = []
        for _ in range(3):
            self.results = []
            for text, vector in questions:
                begun = time.perf_counter()
                self.results.append(function(text, vector))
                times.append((time.perf_counter() - begun) * 1000)
        times.sort()
        self.p50 = round(statistics.median(times), 2)
        self.p95 = round(times[min(len(times) - 1, round(0.95 * len(times)))], 2)


_timed = _Timed


def _questions(tenant: Tenant, selection: Any, view: Any, *, count: int) -> list[tuple[str, Any]]:
    """Some words of chunks that the role reads, and a vector at a question's distance from each."""
    generator = np.random.default_rng(11)
    rows = np.concatenate([base + own for base, own in zip(view.bases, selection.rows, strict=True)])
    chosen = generator.choice(rows, size=count)
    vectors = view.vectors(chosen) + generator.normal(size=(count, embedder().dimensions)) / np.sqrt(
        embedder().dimensions
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with scope(tenant_id=tenant.pk, tags=None):
        texts = dict(Chunk.objects.filter(pk__in=view.chunk_ids(chosen)).values_list("pk", "text"))
    found = []
    for pk, vector in zip(view.chunk_ids(chosen), vectors, strict=True):
        words = texts[pk].split()
        begin = int(generator.integers(0, max(1, len(words) - 9)))
        found.append((" ".join(words[begin : begin + 9])[:900], vector.astype(np.float32)))
    return found


def _brute_force(view: Any, selection: Any, vector: Any) -> list[Any]:
    rows = np.concatenate([base + own for base, own in zip(view.bases, selection.rows, strict=True)])
    best = rows[np.argsort(-(view.vectors(rows) @ vector), kind="stable")[:K]]
    return list(view.chunk_ids(best))


@dataclass(frozen=True)
class _Words:
    """Terms of the chunks that the database shows in this scope, read past the index: ``chunk[i]`` holds ``terms[i]``.

    ``near`` are the pairs of chunks that are searched as one text: each with itself and its neighbours in the document.
    """

    ids: list[Any]
    terms: Any
    chunk: Any
    lengths: Any
    near: tuple[Any, Any]


def _read_words() -> _Words:
    rows = list(Chunk.objects.order_by("document_id", "ordinal").values_list("pk", "document_id", "terms"))
    terms = unpack_terms(bytes(row[2]) for row in rows)
    chunk = np.repeat(np.arange(len(rows)), [len(row[2]) // TERM.itemsize for row in rows])
    pairs = [
        (place, other)
        for place, row in enumerate(rows)
        for other in range(max(0, place - REACH), min(len(rows), place + REACH + 1))
        if rows[other][1] == row[1]
    ]
    of_chunk, neighbour = np.array(pairs).T
    counts = np.where(terms["count"] & FORM, 0, terms["count"])
    lengths = np.bincount(chunk, weights=counts, minlength=len(rows))
    return _Words([row[0] for row in rows], terms, chunk, lengths, (of_chunk, neighbour))


def _word_recall(words: _Words, found: list[Any], text: str, *, config: RetrievalConfig) -> float:
    """The share of the best chunks by BM25 that was found; among equal ones any will do."""
    total, (of_chunk, neighbour) = len(words.ids), words.near
    window = np.bincount(of_chunk, weights=words.lengths[neighbour], minlength=total)
    scores, languages = np.zeros(total), ["english"]
    asked = [
        (term, own * times, (1 - own) * times)
        for term, times in question_terms(text, languages=languages).items()
        for own in [own_share_of(term)]
    ]
    asked += [(form, 0.0, weight) for form, weight in question_forms(text, languages=languages).items()]
    for term, alone, together in asked:
        holding = np.flatnonzero(words.terms["hash"] == hash_term(term))
        own = np.zeros(total)
        own[words.chunk[holding]] = words.terms["count"][holding] & MAX_COUNT
        around = np.bincount(of_chunk, weights=own[neighbour], minlength=total)
        for share, counts, lengths in ((alone, own, words.lengths), (together, around, window)):
            n = np.count_nonzero(counts)
            norm = config.bm25_k1 * (1 - config.bm25_b + config.bm25_b * lengths / lengths.mean())
            scores += share * np.log(1 + (total - n + 0.5) / (n + 0.5)) * counts / (counts + norm)
    matching = np.sort(scores[scores > 0])[::-1][:K]
    if not len(matching):
        return 1.0
    score_of = dict(zip(words.ids, scores, strict=True))
    best = [each for each in found if score_of[each] >= matching[-1] * (1 - 1e-4)]
    return len(best) / len(matching)


def _search_plain(tenant: Tenant, member: Membership, kind: str, text: str, vector: Any) -> list[Any]:
    tags = member.role.readable_tags
    with atomic(), connection.cursor() as cursor:
        if kind == "exact":
            # Not the vectors' index: the tenant's rows by a bitmap.
            cursor.execute("SET LOCAL enable_indexscan = off")
        of_role = "" if tags is None else " AND tags && %s"
        cursor.execute(
            f"SELECT id FROM {PLAIN} WHERE tenant_id = %s{of_role} ORDER BY embedding <=> %s::vector LIMIT 10",  # noqa: S608
            [tenant.pk, *([] if tags is None else [list(tags)]), Vector(vector).to_text()],
        )
        return [row[0] for row in cursor.fetchall()]


def _recall(found: list[list[Any]], truth: list[list[Any]]) -> float:
    hits = sum(len(set(mine) & set(exact)) for mine, exact in zip(found, truth, strict=True))
    return round(hits / max(1, sum(len(exact) for exact in truth)), 4)


def _churn(tenant: Tenant, *, options: dict[str, Any], say: Say) -> dict[str, Any]:
    """30 % of a tenant's chunks get other vectors, document by document, as a re-index would write them."""
    from knowledge.ingestion.index import note_changes
    from knowledge.models import Document

    generator = np.random.default_rng(23)
    begun = time.perf_counter()
    with scope(tenant_id=tenant.pk, tags=None):
        documents = list(Document.objects.order_by("id").values_list("pk", flat=True))
        changed = documents[: max(1, round(0.3 * len(documents)))]
        for pk in changed:
            with atomic():
                hashes = list(Chunk.objects.filter(document_id=pk).values_list("embedding_hash", flat=True))
                rows = list(Embedding.objects.filter(text_hash__in=hashes))
                for row in rows:
                    moved = np.asarray(row.vector) + 0.3 * generator.normal(size=len(row.vector)) / np.sqrt(
                        len(row.vector)
                    )
                    row.vector = moved / np.linalg.norm(moved)
                Embedding.objects.bulk_update(rows, ["vector"])
                note_changes(documents=[pk])
    written = time.perf_counter() - begun
    figures: dict[str, Any] = {"documents": len(changed), "write_s": round(written, 1)}
    for role, member in members_of(tenant).items():
        figures[role] = _measure_cell(tenant, member, options={**options, "plain": False, "hnsw": False})
    indexes.forget()
    figures["from file"] = _measure_cell(
        tenant, members_of(tenant)["100%"], options={**options, "plain": False, "hnsw": False}
    )
    say(f"churn: {figures}")
    return figures


def render(figures: Figures) -> Iterable[str]:
    cells = figures["cells"]
    keys = list(cells[0])
    yield " ".join(f"{key:>11}" for key in keys)
    for cell in cells:
        yield " ".join(f"{cell[key]!s:>11}" for key in keys)
    worst = {arm: min(cell[arm] for cell in cells) for arm in ("recall", "kw_recall")}
    yield f"worst recall@10: vectors {worst['recall']}, words {worst['kw_recall']}; roles {', '.join(ROLES)}"
