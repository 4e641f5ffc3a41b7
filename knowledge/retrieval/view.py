"""A tenant's index as one search sees it: segments, what is alive of them, and the rows that the asker may be shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from knowledge.retrieval.segment import SCALE, Mask, Rows, Segment, Vectors


@dataclass(frozen=True)
class Part:
    """A segment and which of its rows are alive."""

    segment: Segment
    alive: Mask


@dataclass(frozen=True)
class Selection:
    """The rows that a search may look at: filtered by tag set and collection before anything is scored.

    Attributes:
        masks: of each part's rows.
        rows: of each part, the rows of its mask.
        total: how many rows these are.
        mean_length: of these rows, in terms; every figure of a search is of these alone.
        mean_window: the same with each row's neighbours.
    """

    masks: tuple[Mask, ...]
    rows: tuple[NDArray[np.int64], ...]
    total: int
    mean_length: float
    mean_window: float


@dataclass(frozen=True)
class Neighbourhoods:
    """What stands beside rows.

    Attributes:
        rows: ascending.
        first, last: of each row, the first and the last one of its neighbours, itself among them.
        documents: a number that the rows of one document share.
    """

    rows: Rows
    first: Rows
    last: Rows
    documents: Rows


@dataclass(frozen=True)
class IndexView:
    """The index at one corpus version; never changed, so a search works on what it began with.

    A row is named by one number: its place in its segment, after all rows of the segments before.
    """

    version: int
    parts: tuple[Part, ...]
    _selections: dict[tuple[frozenset[bytes], frozenset[bytes] | None], Selection] = field(
        default_factory=dict, compare=False, repr=False
    )

    @cached_property
    def bases(self) -> tuple[int, ...]:
        """The number of each part's first row."""
        sizes = [part.segment.size for part in self.parts]
        return tuple(int(each) for each in np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(int))

    @property
    def size(self) -> int:
        """How many rows are alive."""
        return sum(int(part.alive.sum()) for part in self.parts)

    def select(self, *, tag_sets: frozenset[bytes], collections: frozenset[bytes] | None) -> Selection:
        """The rows of the tag sets that the asker reads, in these collections (``None``: in all)."""
        key = (tag_sets, collections)
        found = self._selections.get(key)
        if found is None:
            found = self._make_selection(set(tag_sets), None if collections is None else set(collections))
            if len(self._selections) >= 64:  # a role has one; many filters make many
                self._selections.clear()
            self._selections[key] = found
        return found

    def _make_selection(self, tag_sets: set[bytes], collections: set[bytes] | None) -> Selection:
        masks = tuple(part.alive & part.segment.select(tag_sets, collections) for part in self.parts)
        rows = tuple(np.flatnonzero(mask) for mask in masks)
        total = sum(len(each) for each in rows)

        def mean(lengths: Sequence[NDArray[np.int32]]) -> float:
            found = sum(int(each[mask].sum()) for each, mask in zip(lengths, masks, strict=True))
            return found / total if total else 1.0

        return Selection(
            masks=masks,
            rows=rows,
            total=total,
            mean_length=mean([part.segment.lengths for part in self.parts]),
            mean_window=mean([part.segment.window_lengths for part in self.parts]),
        )

    def split(self, rows: Rows) -> list[tuple[int, NDArray[np.intp], NDArray[np.int64]]]:
        """``(part, places in rows, rows of that part)`` of row numbers."""
        number = np.searchsorted(np.asarray(self.bases), rows, side="right") - 1
        found = []
        for part in np.unique(number):
            places = np.flatnonzero(number == part)
            found.append((int(part), places, rows[places] - self.bases[part]))
        return found

    def vectors(self, rows: Rows) -> Vectors:
        """The vectors of rows, float32, shape ``(len(rows), dimensions)``."""
        out = np.zeros((len(rows), self.parts[0].segment.vectors.shape[1]), dtype=np.float32)
        for part, places, own in self.split(rows):
            out[places] = self.parts[part].segment.scaled(own) / np.float32(SCALE)
        return out

    def neighbourhoods(self, rows: Rows) -> Neighbourhoods:
        """What stands beside rows, and which of them are of one document."""
        first, last, documents = rows.copy(), rows.copy(), rows.copy()
        for part, places, own in self.split(rows):
            segment = self.parts[part].segment
            before, behind = segment.neighbours[:, own].astype(np.int64)
            first[places] -= before
            last[places] += behind
            documents[places] = self.bases[part] + segment.starts[segment.document_of(own)]
        return Neighbourhoods(rows, first, last, documents)

    def beside(self, rows: Rows, *, reach: int) -> Rows:
        """These rows and up to ``reach`` of their documents on either side, each once."""
        found = [rows[:0]]
        for part, _, own in self.split(rows):
            segment, base = self.parts[part].segment, self.bases[part]
            document = segment.document_of(own)
            first = np.maximum(segment.starts[document], own - reach)
            behind = np.minimum(segment.starts[document + 1], own + reach + 1)
            found += [np.arange(*ends) + base for ends in zip(first, behind, strict=True)]
        return np.unique(np.concatenate(found))

    def chunk_ids(self, rows: Rows) -> list[UUID]:
        return self._ids(rows, chunks=True)

    def document_ids(self, rows: Rows) -> list[UUID]:
        return self._ids(rows, chunks=False)

    def _ids(self, rows: Rows, *, chunks: bool) -> list[UUID]:
        out = np.zeros((len(rows), 16), dtype=np.uint8)
        for part, places, own in self.split(rows):
            segment = self.parts[part].segment
            if chunks:
                out[places] = segment.chunks[own]
            else:
                out[places] = segment.documents[segment.document_of(own)]
        return [UUID(bytes=each.tobytes()) for each in out]


EMPTY = IndexView(version=0, parts=())
