"""An index of a few chunks, made by hand."""

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from knowledge.retrieval.analysis import count_terms, pack_terms, pack_texts
from knowledge.retrieval.segment import Segment, SegmentRow, build_segment
from knowledge.retrieval.view import IndexView, Part

PUBLIC, SECRET, COLLECTION = (uuid.UUID(int=n).bytes for n in (1, 2, 3))


def make_segment(
    texts: Sequence[str],
    *,
    vectors: Any = None,
    tag_sets: Sequence[bytes] | None = None,
    documents: Sequence[bytes] | None = None,
    language: str = "english",
) -> Segment:
    """A segment of these chunks, each a document of its own, in their order.

    Args:
        language: without stop words, ``simple``, they have their forms as well; of the others a database knows them.
    """
    if language == "simple":
        packed = pack_texts(texts, language=language)
    else:
        packed = [pack_terms(count_terms(text, language=language)) for text in texts]
    rows = [
        SegmentRow(
            chunk=uuid.UUID(int=100 + number).bytes,
            document=documents[number] if documents else uuid.UUID(int=1000 + number).bytes,
            collection=COLLECTION,
            tag_set=tag_sets[number] if tag_sets else PUBLIC,
            terms=terms,
        )
        for number, terms in enumerate(packed)
    ]
    if vectors is None:
        vectors = np.eye(len(texts), 384)
    return build_segment(rows, np.asarray(vectors, dtype=np.float32))


def make_view(*segments: Segment) -> IndexView:
    return IndexView(
        version=1, parts=tuple(Part(each, np.ones(each.size, dtype=np.bool_)) for each in segments)
    )
