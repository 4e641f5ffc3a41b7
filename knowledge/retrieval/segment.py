"""An immutable part of a tenant's search index: vectors and postings of some documents, as arrays.

Segments are made from rows, merged with one another (as Lucene does), and kept in files that every process of a machine
maps. Nothing here knows of tenants, roles or the database: who may be shown which row is decided by the mask that each
search is given (``tenant_index.py``).
"""

import json
import mmap
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from knowledge.retrieval.analysis import FORM, MAX_COUNT, TERM, unpack_terms

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

# Chunks on either side that tell what a chunk is about.
REACH = 3
# Components of vectors of length 1, as 16-bit integers.
SCALE = 32767.0
_MAGIC = b"ragsite segment 3\n"
_ALIGN = 64


@dataclass(frozen=True)
class SegmentRow:
    """A chunk as it enters a segment; ids are a UUID's 16 bytes, ``terms`` as ``pack_terms`` makes them."""

    chunk: bytes
    document: bytes
    collection: bytes
    tag_set: bytes
    terms: bytes


@dataclass(frozen=True)
class Segment:
    """``n`` chunks of ``m`` documents, whose rows stand together, documents in the order of their ids.

    Attributes:
        chunks: ids, uint8, shape ``(n, 16)``.
        documents: ids, uint8, ``(m, 16)``; document ``i`` has the rows ``starts[i]`` to ``starts[i + 1]``.
        tag_sets, collections: ids, uint8, ``(·, 16)``; ``tag_set`` and ``collection`` tell each row's place in them.
        lengths: terms of each chunk, repeated ones too, forms not.
        vectors: int16, ``(n, dimensions)``, components times ``SCALE``, of length 1 or less (``with_surroundings``);
            zeros where a chunk has no vector yet.
        bits: the vectors' signs, uint64, ``(dimensions / 64, n)``.
        terms: the hashes that occur, of terms and forms, uint32, ascending; term ``i`` has the postings
            ``term_starts[i]`` to ``term_starts[i + 1]``: the rows that hold it, ascending, and how often.
    """

    chunks: NDArray[np.uint8]
    documents: NDArray[np.uint8]
    starts: NDArray[np.int64]
    tag_sets: NDArray[np.uint8]
    tag_set: NDArray[np.int32]
    collections: NDArray[np.uint8]
    collection: NDArray[np.int32]
    lengths: NDArray[np.int32]
    vectors: NDArray[np.int16]
    bits: NDArray[np.uint64]
    terms: NDArray[np.uint32]
    term_starts: NDArray[np.int64]
    posting_rows: NDArray[np.int32]
    posting_counts: NDArray[np.uint8]

    @property
    def size(self) -> int:
        return len(self.chunks)

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def rows_of_document(self, document: bytes) -> slice:
        """The rows of a document; an empty slice if it is not here."""
        place = _find(self.documents, document)
        if place is None:
            return slice(0, 0)
        return slice(int(self.starts[place]), int(self.starts[place + 1]))

    def document_of(self, rows: Rows) -> "NDArray[np.intp]":
        """The places of the rows' documents in ``documents``."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def postings(self, term: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """The rows that hold a term (its hash), and how often."""
        place = int(np.searchsorted(self.terms, np.uint32(term)))
        if place == len(self.terms) or self.terms[place] != term:
            return self.posting_rows[:0], self.posting_counts[:0]
        begin, end = int(self.term_starts[place]), int(self.term_starts[place + 1])
        return self.posting_rows[begin:end], self.posting_counts[begin:end]

    @cached_property
    def neighbours(self) -> "NDArray[np.uint8]":
        """How many rows of its document stand before and behind each row, ``REACH`` at most; shape ``(2, n)``."""
        rows, sizes = np.arange(self.size), np.diff(self.starts)
        before = rows - np.repeat(self.starts[:-1], sizes)
        behind = np.repeat(self.starts[1:], sizes) - 1 - rows
        return np.minimum([before, behind], REACH).astype(np.uint8)

    @cached_property
    def window_lengths(self) -> "NDArray[np.int32]":
        """Terms of each chunk and its neighbours."""
        total = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        rows = np.arange(self.size)
        begin, end = rows - self.neighbours[0], rows + self.neighbours[1] + 1
        return np.asarray(total[end] - total[begin], dtype=np.int32)

    def windows(self, rows: NDArray[np.int32], counts: NDArray[np.uint8]) -> "tuple[Rows | slice, Vectors]":
        """From the rows that hold a term to the rows that hold it themselves or in a neighbour, and how often they do;
        of a common term all rows, in many 0 times."""
        before, behind = self.neighbours[:, rows]
        # Each row adds its count to a stretch of rows: up where it begins, down behind its end.
        first, behind_last = rows - before, rows + behind + np.int32(1)
        if 16 * len(rows) > self.size:
            steps = np.bincount(first, weights=counts, minlength=self.size + 1)
            steps -= np.bincount(behind_last, weights=counts, minlength=self.size + 1)
            return slice(None), np.cumsum(steps[:-1]).astype(np.float32)
        edges = np.concatenate([first, behind_last]).astype(np.int64)
        order = np.argsort(edges, kind="stable")
        edges, up = edges[order], counts.astype(np.int32)
        levels = np.cumsum(np.concatenate([up, -up])[order])[:-1]
        widths = np.diff(edges)
        kept = (levels > 0) & (widths > 0)
        starts, widths, levels = edges[:-1][kept], widths[kept], levels[kept]
        ends = np.cumsum(widths)
        found = np.repeat(starts - ends + widths, widths) + np.arange(ends[-1] if len(ends) else 0)
        return found, np.repeat(levels, widths).astype(np.float32)

    def scaled(self, rows: "NDArray[Any] | slice") -> Vectors:
        """The vectors of some rows times ``SCALE``, float32. Dividing thousands takes a third as long as all else."""
        return self.vectors[rows].astype(np.float32)

    def select(self, tag_sets: set[bytes], collections: set[bytes] | None) -> Mask:
        """The rows of these tag sets, and of these collections (``None``: of all)."""
        mask = _among(self.tag_sets, tag_sets)[self.tag_set]
        if collections is not None:
            mask &= _among(self.collections, collections)[self.collection]
        return mask

    # Files

    def save(self, path: Path) -> None:
        """Writes the segment whole or not at all."""
        arrays = [np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)]
        places, offset = [], 0
        for array in arrays:
            places.append({"dtype": array.dtype.str, "shape": array.shape, "offset": offset})
            offset += -(-array.nbytes // _ALIGN) * _ALIGN
        header = json.dumps({"size": offset, "arrays": places}).encode()
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        try:
            with partial.open("wb") as file:
                file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
                file.write(b"\0" * (-file.tell() % _ALIGN))
                for array in arrays:
                    file.write(array.data)
                    file.write(b"\0" * (-array.nbytes % _ALIGN))
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Maps a file: nothing is read until it is searched, and processes share what is.

        Raises:
            OSError, ValueError: gone, cut short, or not a segment.
        """
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if mapped[: len(_MAGIC)] != _MAGIC:
            raise ValueError(f"{path.name} is no segment.")
        begin = len(_MAGIC) + 8
        end = begin + int.from_bytes(mapped[len(_MAGIC) : begin], "little")
        header = json.loads(mapped[begin:end])
        base = -(-end // _ALIGN) * _ALIGN
        if len(mapped) != base + header["size"]:
            raise ValueError(f"{path.name} is cut short.")
        arrays = []
        for place in header["arrays"]:
            shape, dtype = tuple(place["shape"]), np.dtype(place["dtype"])
            count = int(np.prod(shape))
            array: NDArray[Any] = np.frombuffer(mapped, dtype, count=count, offset=base + place["offset"])
            arrays.append(array.reshape(shape))
        return cls(*arrays)


def build_segment(rows: Sequence[SegmentRow], vectors: Vectors) -> Segment:
    """A segment of rows that are ordered by document.

    Args:
        vectors: shape ``(len(rows), dimensions)``, of length 1 at most, or zeros for a row that has none.
    """
    documents, document = _distinct([row.document for row in rows])
    tag_sets, tag_set = _distinct([row.tag_set for row in rows])
    collections, collection = _distinct([row.collection for row in rows])
    order = np.argsort(document, kind="stable")
    counts = np.array([len(row.terms) // TERM.itemsize for row in rows], dtype=np.int64)
    packed = unpack_terms(row.terms for row in rows)
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows))
    posting_rows, posting_counts = np.repeat(place, counts), packed["count"] & np.uint8(MAX_COUNT)
    is_form = packed["count"] & np.uint8(FORM) > 0
    lengths = np.bincount(posting_rows, weights=np.where(is_form, 0, posting_counts), minlength=len(rows))
    return _assemble(
        chunks=_ids([row.chunk for row in rows])[order],
        documents=documents,
        document=document[order],
        tag_sets=tag_sets,
        tag_set=tag_set[order],
        collections=collections,
        collection=collection[order],
        vectors=np.rint(vectors * SCALE).astype(np.int16)[order],
        lengths=lengths.astype(np.int32),
        posting_terms=packed["hash"].astype(np.uint32),
        posting_rows=posting_rows,
        posting_counts=posting_counts,
    )


def merge_segments(parts: Sequence[tuple[Segment, Mask]]) -> Segment:
    """One segment of the rows of several that are still alive."""
    documents, document = _distinct_of([(s.documents, _document_of_rows(s)[alive]) for s, alive in parts])
    tag_sets, tag_set = _distinct_of([(s.tag_sets, s.tag_set[alive]) for s, alive in parts])
    collections, collection = _distinct_of([(s.collections, s.collection[alive]) for s, alive in parts])
    order = np.argsort(document, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    terms, rows, counts, base = [], [], [], 0
    for segment, alive in parts:
        kept = alive[segment.posting_rows]
        numbers = np.cumsum(alive) - 1 + base
        terms.append(np.repeat(segment.terms, np.diff(segment.term_starts))[kept])
        rows.append(place[numbers[segment.posting_rows[kept]]])
        counts.append(segment.posting_counts[kept])
        base += int(alive.sum())
    return _assemble(
        chunks=np.concatenate([s.chunks[alive] for s, alive in parts])[order],
        documents=documents,
        document=document[order],
        tag_sets=tag_sets,
        tag_set=tag_set[order],
        collections=collections,
        collection=collection[order],
        lengths=np.concatenate([s.lengths[alive] for s, alive in parts])[order],
        vectors=np.concatenate([s.vectors[alive] for s, alive in parts])[order],
        posting_terms=np.concatenate(terms),
        posting_rows=np.concatenate(rows),
        posting_counts=np.concatenate(counts),
    )


def _assemble(
    *,
    document: NDArray[np.int32],
    posting_terms: NDArray[np.uint32],
    posting_rows: NDArray[np.int64],
    posting_counts: NDArray[np.uint8],
    documents: NDArray[np.uint8],
    **given: Any,
) -> Segment:
    # By term, then by row: one sort of one number each.
    keys = (posting_terms.astype(np.uint64) << np.uint64(32)) | posting_rows.astype(np.uint64)
    order = np.argsort(keys)
    sorted_terms = posting_terms[order]
    terms, first = np.unique(sorted_terms, return_index=True)
    rows = posting_rows[order].astype(np.int32)
    counts = posting_counts[order]
    return Segment(
        documents=documents,
        starts=np.searchsorted(document, np.arange(len(documents) + 1)).astype(np.int64),
        bits=sign_bits(given["vectors"]),
        terms=terms.astype(np.uint32),
        term_starts=np.append(first, len(sorted_terms)).astype(np.int64),
        posting_rows=rows,
        posting_counts=counts,
        **given,
    )


def sign_bits(vectors: NDArray[Any]) -> NDArray[np.uint64]:
    """One bit for each component, 1 where it is positive; shape ``(words, n)``, so that each word lies in one piece."""
    packed = np.packbits(vectors > 0, axis=1)
    words = -(-packed.shape[1] // 8)
    padded = np.zeros((len(vectors), words * 8), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _ids(values: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(values), dtype=np.uint8).reshape(-1, 16)


def _unique_ids(ids: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The distinct ids, ascending, and each one's place among them."""
    halves = np.ascontiguousarray(ids).view(">u8").astype(np.uint64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    is_new = np.ones(len(ids), dtype=np.bool_)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    places = np.empty(len(ids), dtype=np.int32)
    places[order] = np.cumsum(is_new) - 1
    return ids[order[is_new]], places


def _distinct(values: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The distinct ids, ascending, and each value's place among them."""
    return _unique_ids(_ids(values))


def _distinct_of(
    parts: Sequence[tuple[NDArray[np.uint8], NDArray[np.int32]]],
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The ids that the rows of several parts use, ascending, and each row's place among them."""
    used = [np.unique(places) for _, places in parts]
    merged, place = _unique_ids(
        np.concatenate([ids[kept] for (ids, _), kept in zip(parts, used, strict=True)])
    )
    columns, base = [], 0
    for (_, places), kept in zip(parts, used, strict=True):
        columns.append(place[base + np.searchsorted(kept, places)])
        base += len(kept)
    return merged, np.concatenate(columns)


def _find(ids: NDArray[np.uint8], wanted: bytes) -> int | None:
    """The place of an id among ascending ones."""
    high = np.ascontiguousarray(ids[:, :8]).view(">u8").reshape(-1)
    place = int(np.searchsorted(high, np.frombuffer(wanted[:8], ">u8")[0]))
    while place < len(ids) and ids[place].tobytes() < wanted:
        place += 1
    return place if place < len(ids) and ids[place].tobytes() == wanted else None


def _document_of_rows(segment: Segment) -> NDArray[np.int32]:
    return np.repeat(np.arange(len(segment.documents), dtype=np.int32), np.diff(segment.starts))


def _among(ids: NDArray[np.uint8], wanted: set[bytes]) -> Mask:
    return np.fromiter((each.tobytes() in wanted for each in ids), dtype=np.bool_, count=len(ids))
