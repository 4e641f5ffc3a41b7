"""The keyword arm: BM25 over PostgreSQL's lexemes, filtered by tenant and role before ranking.

The statistics (how many chunks hold a word, how long chunks are) are those of what the asker may read, so a score tells
nothing of what they may not. Any word may match (OR): long questions rarely have all their words in one passage.
"""

import math
from collections import defaultdict
from typing import Any
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.search import SearchQuery
from django.db import connection
from django.db.models import Avg, Count, F, Func, QuerySet, TextField, Value

from knowledge.retrieval.base import Arm

MAX_LEXEMES = 60


def question_lexemes(*, question: str, languages: list[str]) -> list[str]:
    """The question's words as PostgreSQL stems them in each language, without stop words."""
    found: dict[str, None] = {}
    with connection.cursor() as cursor:
        for language in languages:
            cursor.execute("SELECT tsvector_to_array(to_tsvector(%s::regconfig, %s))", [language, question])
            found |= dict.fromkeys(cursor.fetchone()[0])
    return list(found)[:MAX_LEXEMES]


class _MatchingTerms(Func):
    """``lexeme:count`` of the question's words in a vector, so that no whole vector crosses the wire."""

    template = (
        "(SELECT array_agg(u.lexeme || ':' || coalesce(array_length(u.positions, 1), 1))"
        " FROM unnest(%(expressions)s::text[]))"
    )
    arg_joiner = ") u WHERE u.lexeme = ANY("


def _quote(lexeme: str) -> str:
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"


def search_keywords(*, chunks: "QuerySet[Any]", lexemes: list[str], limit: int, k1: float, b: float) -> Arm:
    """The ``limit`` best chunks by BM25 with Lucene's idf, ``log(1 + (N - n + 0.5) / (n + 0.5))``.

    Args:
        chunks: what the asker may read.
        lexemes: of ``question_lexemes``.
        k1, b: saturation and length normalisation.
    """
    if not lexemes:
        return Arm(scores={}, deviation=0.0)
    corpus = chunks.aggregate(total=Count("id"), length=Avg("tokens"))
    total, mean_length = corpus["total"], float(corpus["length"] or 1)
    query = SearchQuery(" | ".join(_quote(lexeme) for lexeme in lexemes), search_type="raw", config="simple")
    rows = (
        chunks.filter(search=query)
        .annotate(
            terms=_MatchingTerms(
                F("search"),
                Value(lexemes, output_field=ArrayField(TextField())),
                output_field=ArrayField(TextField()),
            )
        )
        .values_list("id", "tokens", "terms")
    )
    return _score(
        rows=list(rows), lexemes=lexemes, total=total, mean_length=mean_length, limit=limit, k1=k1, b=b
    )


def _score(
    *,
    rows: list[tuple[UUID, int, list[str]]],
    lexemes: list[str],
    total: int,
    mean_length: float,
    limit: int,
    k1: float,
    b: float,
) -> Arm:
    counts: list[tuple[UUID, int, dict[str, int]]] = []
    holding: defaultdict[str, int] = defaultdict(int)
    for pk, tokens, terms in rows:
        of_chunk: dict[str, int] = {}
        for term in terms:
            lexeme, _, count = term.rpartition(":")
            of_chunk[lexeme] = int(count)
            holding[lexeme] += 1
        counts.append((pk, tokens, of_chunk))
    # A word that no chunk holds is the most telling one: it counts in what a chunk could have covered.
    idf = {w: math.log(1 + (total - holding[w] + 0.5) / (holding[w] + 0.5)) for w in lexemes}
    most = sum(idf.values()) or 1.0
    scores = {
        pk: sum(idf[w] * tf / (tf + k1 * (1 - b + b * tokens / mean_length)) for w, tf in of_chunk.items())
        for pk, tokens, of_chunk in counts
    }
    # Over all that the asker reads: what does not match scores zero.
    mean = sum(scores.values()) / max(total, 1)
    square = sum(score * score for score in scores.values()) / max(total, 1)
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:limit]
    chosen = dict(best)
    return Arm(
        scores=chosen,
        deviation=math.sqrt(max(0.0, square - mean * mean)),
        coverage={pk: sum(idf[w] for w in terms) / most for pk, _, terms in counts if pk in chosen},
    )
