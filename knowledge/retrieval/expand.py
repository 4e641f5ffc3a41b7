"""From the chunk that was found to the passage that is shown: its section, within a budget."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID


@dataclass(frozen=True)
class Span:
    """A stretch of a document's text around one found chunk."""

    start: int
    end: int


class Place(NamedTuple):
    """A chunk and where it stands."""

    pk: UUID
    document_id: UUID
    ordinal: int
    start: int
    end: int
    tokens: int
    heading_path: Sequence[str]
    text: str


NEIGHBOURS = 5  # on either side


def expand_spans(
    *, places: Iterable[Place], found: Sequence[Place], section_tokens: int, context_tokens: int
) -> dict[UUID, Span]:
    """Grows each found chunk into neighbours of its own section, nearest first.

    A neighbour that was found itself is not swallowed: it stays a passage of its own. Better places grow first; when
    the budget of all is spent, the rest stay as they were found.

    Args:
        places: what the asker may read of the found chunks' documents; nothing else joins the context.
        found: best first.
        section_tokens: budget of one passage, context_tokens: of all together.
    """
    by_place: defaultdict[UUID, dict[int, Place]] = defaultdict(dict)
    for each in places:
        by_place[each.document_id][each.ordinal] = each
    taken = {(chunk.document_id, chunk.ordinal) for chunk in found}
    left = context_tokens - sum(chunk.tokens for chunk in found)
    spans: dict[UUID, Span] = {}
    for chunk in found:
        start, end, size = chunk.start, chunk.end, chunk.tokens
        open_sides = {-1: chunk.ordinal, 1: chunk.ordinal}
        while open_sides:
            for side in list(open_sides):
                place = open_sides[side] + side
                neighbour = by_place[chunk.document_id].get(place)
                fits = (
                    neighbour is not None
                    and abs(place - chunk.ordinal) <= NEIGHBOURS
                    and (chunk.document_id, place) not in taken
                    and neighbour.heading_path == chunk.heading_path
                    and size + neighbour.tokens <= section_tokens
                    and neighbour.tokens <= left
                )
                if not fits or neighbour is None:
                    del open_sides[side]
                    continue
                taken.add((chunk.document_id, place))
                size += neighbour.tokens
                left -= neighbour.tokens
                start, end = min(start, neighbour.start), max(end, neighbour.end)
                open_sides[side] = place
        spans[chunk.pk] = Span(start, end)
    return spans
