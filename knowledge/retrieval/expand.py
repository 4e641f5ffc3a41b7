"""From the chunk that was found to the passage that is shown: its section, within a budget."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet


@dataclass(frozen=True)
class Span:
    """A stretch of a document's text around one found chunk."""

    start: int
    end: int


@dataclass(frozen=True)
class Neighbour:
    pk: UUID
    document_id: UUID
    ordinal: int
    start: int
    end: int
    tokens: int
    heading_path: tuple[str, ...]


NEIGHBOURS = 3  # on either side


def expand_spans(
    *, chunks: "QuerySet[Any]", found: Sequence[Any], section_tokens: int, context_tokens: int
) -> dict[UUID, Span]:
    """Grows each found chunk into neighbours of its own section, nearest first.

    A neighbour that was found itself is not swallowed: it stays a passage of its own. Better places grow first; when
    the budget of all is spent, the rest stay as they were found.

    Args:
        chunks: what the asker may read; nothing else joins the context.
        found: chunk rows, best first.
        section_tokens: budget of one passage, context_tokens: of all together.
    """
    nearby = Q(pk__in=[])
    for chunk in found:
        nearby |= Q(
            document_id=chunk.document_id,
            ordinal__range=(max(0, chunk.ordinal - NEIGHBOURS), chunk.ordinal + NEIGHBOURS),
        )
    rows = (
        chunks.filter(nearby)
        .order_by()
        .values_list("pk", "document_id", "ordinal", "start", "end", "tokens", "heading_path")
    )
    by_place: defaultdict[UUID, dict[int, Neighbour]] = defaultdict(dict)
    for pk, document_id, ordinal, start, end, tokens, heading_path in rows:
        neighbour = Neighbour(pk, document_id, ordinal, start, end, tokens, tuple(heading_path))
        by_place[neighbour.document_id][neighbour.ordinal] = neighbour
    taken = {(chunk.document_id, chunk.ordinal) for chunk in found}
    left = context_tokens - sum(chunk.tokens for chunk in found)
    spans: dict[UUID, Span] = {}
    for chunk in found:
        start, end, size = chunk.start, chunk.end, chunk.tokens
        open_sides = {-1: chunk.ordinal, 1: chunk.ordinal}
        while open_sides:
            for side in list(open_sides):
                place = open_sides[side] + side
                neighbour_ = by_place[chunk.document_id].get(place)
                fits = (
                    neighbour_ is not None
                    and abs(place - chunk.ordinal) <= NEIGHBOURS
                    and (chunk.document_id, place) not in taken
                    and neighbour_.heading_path == tuple(chunk.heading_path)
                    and size + neighbour_.tokens <= section_tokens
                    and neighbour_.tokens <= left
                )
                if not fits or neighbour_ is None:
                    del open_sides[side]
                    continue
                taken.add((chunk.document_id, place))
                size += neighbour_.tokens
                left -= neighbour_.tokens
                start, end = min(start, neighbour_.start), max(end, neighbour_.end)
                open_sides[side] = place
        spans[chunk.pk] = Span(start, end)
    return spans
