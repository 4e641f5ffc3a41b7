"""Which chunks of a new version need embedding, and which keep the vectors they have."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Generic, TypeVar

from knowledge.ingestion.chunk import ChunkSpan

Id = TypeVar("Id")

# Title and headings share the model's 256 tokens with a chunk of 220: about 30 tokens.
_PREFIX_CHARACTERS = 100
_WORD = re.compile(r"\w+")


def embedded_text(*, title: str, heading_path: Sequence[str], text: str) -> str:
    """What is embedded for a chunk: "title > section > subsection", then its text.

    The title is not repeated where it is the outermost heading, nor a heading with which the text itself
    begins. Of a long path the title and the innermost headings that fit in 100 characters remain.
    """
    first_line = text.split("\n", 1)[0].strip(" #\t")
    path = [name for name in heading_path if name and name != title]
    if path and path[-1] == first_line:
        path.pop()
    if title == first_line and not path:
        return text
    head = title[:_PREFIX_CHARACTERS]
    left = _PREFIX_CHARACTERS - len(head)
    kept: list[str] = []
    for name in reversed(path):
        left -= len(name) + 3
        if left < 0:
            break
        kept.insert(0, name)
    if path and not kept:  # a long title and a long heading: the heading says more about this chunk
        head, kept = title[: _PREFIX_CHARACTERS // 2], [path[-1][: _PREFIX_CHARACTERS // 2]]
    prefix = " > ".join(part for part in (head, *kept) if part)
    return f"{prefix}\n{text}" if prefix else text


def hash_chunk(*, embedded_text: str) -> str:
    """SHA-256 in hex of the text that is embedded: equal hashes have equal vectors, under one model."""
    return sha256(embedded_text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_words(text: str) -> str:
    """SHA-256 in hex of a text's words alone: whatever their case, blanks and punctuation; empty for none."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return sha256(" ".join(words).encode("utf-8", "surrogatepass")).hexdigest() if words else ""


@dataclass(frozen=True)
class ChunkDiff(Generic[Id]):
    """`added`: spans to embed; `kept`: (new span, id of the old chunk whose vector it takes over);
    `removed`: old ids.
    """

    added: tuple[ChunkSpan, ...]
    kept: tuple[tuple[ChunkSpan, Id], ...]
    removed: tuple[Id, ...]


def diff_chunks(*, old: Sequence[tuple[Id, str]], new: Sequence[tuple[ChunkSpan, str]]) -> ChunkDiff[Id]:
    """Pair new chunks with old ones of the same hash, one to one and in order, so that duplicates are kept
    singly.

    `old` holds (id, hash), `new` (span, hash), both in document order.
    """
    waiting: defaultdict[str, deque[Id]] = defaultdict(deque)
    for identifier, digest in old:
        waiting[digest].append(identifier)
    added: list[ChunkSpan] = []
    kept: list[tuple[ChunkSpan, Id]] = []
    for span, digest in new:
        if waiting[digest]:
            kept.append((span, waiting[digest].popleft()))
        else:
            added.append(span)
    taken = {identifier for _, identifier in kept}
    removed = tuple(identifier for identifier, _ in old if identifier not in taken)
    return ChunkDiff(tuple(added), tuple(kept), removed)
