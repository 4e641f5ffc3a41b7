"""Answers of questions that were asked in other words before.

Of a question is kept what it said and its vector. Its answer lies in the exact cache alone, under the key that its words
give under the asker's own rights: it is forgotten when that forgets it, and whatever is kept in a place, nothing of another
tenant or of other rights is found by it. An answer is shown for other words when

1. the cosine of both questions reaches the tenant's threshold (``threshold.py``),
2. both ask the same by their words (``wording.py``): a cosine cannot tell numbers, names and negations apart,
3. no reader has called an answer to either a bad one,
4. the passages that are found for the new words are those that the answer rests on, and
5. all that it shows is as it was, and the asker may read it.

What is saved is the model's call, not the search. docs/decisions/0010 has the figures.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np
import structlog
from numpy.typing import NDArray
from redis.exceptions import RedisError

from knowledge.answering.cache import CachedAnswer, answer_key, normalise_question, read_answer
from knowledge.answering.copies import Copies
from knowledge.answering.layers import acl_signature, count_lookup, digest_of, tenant_prefix
from knowledge.answering.prompt import PROMPT_VERSION
from knowledge.answering.recall import still_holds
from knowledge.answering.wording import same_question
from knowledge.config import AnswerConfig
from knowledge.embedding.base import EmbeddingError, Vectors
from knowledge.embedding.batching import embed_question
from knowledge.embedding.factory import load_embedder
from knowledge.retrieval.base import Filters, FoundPassage
from ragsite.core.hops import run_db
from ragsite.core.redis import redis_client, redis_connection
from tenants.models import Membership

logger = structlog.get_logger(__name__)

MOST_QUESTIONS = 500  # of one place, the newest
KEPT_SECONDS = 7 * 86400  # no answer lives longer
MOST_LOOKED_AT = 20  # of those that are alike enough, the most alike
REFUSED_SECONDS = 30 * 86400

# KEYS: the questions, whether this one was refused. ARGV: from which entry on.
_LOOK = """
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
return redis.call('XRANGE', KEYS[1], ARGV[1], '+')
"""


@dataclass(frozen=True)
class Place:
    """Where questions are kept that may have each other's answers: of one tenant, one set of rights, one configuration.

    Attributes:
        config: before a model is chosen for the question.
        model: the name of the embedder.
    """

    membership: Membership
    k: int
    filters: Filters
    config: AnswerConfig
    model: str

    @cached_property
    def key(self) -> str:
        parts = [
            self.k,
            *self.filters.as_key(),
            self.config.fingerprint(),
            PROMPT_VERSION,
            self.model,
        ]
        prefix = f"{tenant_prefix(self.membership.tenant_id)}semantic:{acl_signature(self.membership)}"
        return f"{prefix}:{digest_of(json.dumps(parts))}"

    def answer_key(self, text: str) -> str:
        """Where the exact cache has the answer of a question that is kept here."""
        return answer_key(
            membership=self.membership, question=text, k=self.k, filters=self.filters, config=self.config
        )


@dataclass(frozen=True)
class Kept:
    """The questions of a place, as this process has read them; their vectors, shape ``(n, dimensions)``."""

    texts: tuple[str, ...]
    vectors: NDArray[np.float16]


kept = Copies(most=64, seconds=60)


async def find_same(
    place: Place, *, text: str, passages: Sequence[FoundPassage], corpus_version: int
) -> CachedAnswer | None:
    """The answer of a question that asks the same as ``text``; without Redis there is none.

    Args:
        passages: found for the text, as its asker may read them.
    """
    found = None
    try:
        for other in await _alike(place, text=text) if passages else []:
            found = await _read(place, other, passages=passages, corpus_version=corpus_version)
            if found is not None:
                break
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("semantic cache not read", error=type(error).__name__)
    await count_lookup(tenant_id=place.membership.tenant_id, layer="semantic", is_hit=found is not None)
    return found


async def _alike(place: Place, *, text: str) -> list[str]:
    """The kept questions that ask the same, the most alike first."""
    stamp, known = kept.get(place.key) or (b"", None)
    keys = (place.key, _refused_key(place.membership.tenant_id, text))
    told: Any = await redis_client().eval(_LOOK, 2, *keys, b"(" + stamp if stamp else b"-")
    vector = await _embed(place, text) if told or (known and told is not None) else None
    if vector is None:
        return []
    if told:
        new = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in told]
        known = _join(known, new, dimensions=len(vector))
        kept.put(place.key, stamp=told[-1][0], value=known, size=known.vectors.nbytes)
    if known is None or not known.texts:
        return []
    similarities = known.vectors.astype(np.float32) @ vector
    best = np.argsort(-similarities, kind="stable")[:MOST_LOOKED_AT]
    near = [known.texts[at] for at in best if similarities[at] >= place.config.semantic_threshold]
    return [other for other in near if same_question(text, other)]


def _join(known: Kept | None, new: Sequence[dict[bytes, bytes]], *, dimensions: int) -> Kept:
    """What was known and what is new; of a question that is in both the new one."""
    rows: dict[str, NDArray[np.float16]] = {}
    for each in new:
        text, vector = each[b"text"].decode(), np.frombuffer(each[b"vector"], dtype=np.float16)
        if len(vector) == dimensions:
            rows.pop(text, None)
            rows[text] = vector
    texts: tuple[str, ...] = ()
    vectors = np.zeros((0, dimensions), np.float16)
    if known:
        stays = np.array([text not in rows for text in known.texts], dtype=bool)
        texts = tuple(itertools.compress(known.texts, stays))
        vectors = known.vectors if stays.all() else known.vectors[stays]
    if rows:
        texts, vectors = (*texts, *rows), np.vstack([vectors, *rows.values()])
    return Kept(texts=texts[-MOST_QUESTIONS:], vectors=vectors[-MOST_QUESTIONS:])


async def _read(
    place: Place, text: str, *, passages: Sequence[FoundPassage], corpus_version: int
) -> CachedAnswer | None:
    """The answer to a kept question, if it may be shown to who asks the same and has found these passages."""
    if await redis_client().exists(_refused_key(place.membership.tenant_id, text)):
        return None
    tenant_id = place.membership.tenant_id
    found = await read_answer(
        key=place.answer_key(text), tenant_id=tenant_id, corpus_version=corpus_version, is_counted=False
    )
    if found is None or found.is_stale or found.corpus_version != corpus_version:
        return None
    if not rests_on(found.payload, passages=passages):
        return None
    return found if await run_db(still_holds, found, membership=place.membership) else None


def rests_on(payload: dict[str, Any], *, passages: Sequence[FoundPassage]) -> bool:
    """Whether a cached answer rests on the passages that were found: it cites some of them and no others, and the best one
    of each is among the three best of the other."""
    cited = {citation["source"] for citation in payload["citations"]}
    sources = [source["chunk_id"] for source in payload["sources"]]
    found = [str(passage.chunk_id) for passage in passages]
    if not cited or not found or not sources:
        return False
    rests = {source["chunk_id"] for source in payload["sources"] if source["n"] in cited}
    return rests <= set(found) and found[0] in sources[:3] and sources[0] in found[:3]


async def _embed(place: Place, text: str) -> Vectors | None:
    """The vector that the text was searched with, which the process remembers."""
    try:
        return await embed_question(text, embedder=await load_embedder(place.model))
    except EmbeddingError as error:
        logger.warning("question not embedded", reason=error.reason)
        return None


async def keep_question(place: Place, *, text: str) -> None:
    """Keeps a question that the exact cache has the answer to; a failure costs nothing but later hits."""
    vector = await _embed(place, text)
    if vector is None:
        return
    fields: Any = {"text": text.encode("utf-8", "replace"), "vector": vector.astype(np.float16).tobytes()}
    try:
        pipeline = redis_client().pipeline(transaction=False)
        pipeline.xadd(place.key, fields, maxlen=MOST_QUESTIONS, approximate=False)
        pipeline.expire(place.key, KEPT_SECONDS)
        await pipeline.execute()
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("question not kept", error=type(error).__name__)


def heed_ratings(*, tenant_id: UUID, question: str, is_bad: bool) -> None:
    """After an answer was rated: one that a reader calls bad is shown for no other words, and no other's answer for its."""
    key = _refused_key(tenant_id, question)
    try:
        if is_bad:
            redis_connection().set(key, 1, ex=REFUSED_SECONDS)
        else:
            redis_connection().delete(key)
    except (RedisError, OSError) as error:
        logger.warning("rating not heeded", error=type(error).__name__)


def _refused_key(tenant_id: UUID, question: str) -> str:
    return f"{tenant_prefix(tenant_id)}refused:{digest_of(normalise_question(question))}"
