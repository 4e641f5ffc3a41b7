"""How long what was withdrawn can still be found, measured on what is really withdrawn.

Whoever deletes a document, or takes tags from it, does so in one transaction that raises the corpus version, and each
search looks at that version before it ranks (``retrieval/tenant_index.py``). So it ought to hold from the next question
on. Whether it does is looked at from outside: another process, a worker, asks for a passage of the document in its own
words and by its own vector, the best question there could be, with the eyes of those who have lost it, until it is not
found. The time from before the commit to the end of the first search without it is an upper bound: it includes the wait
for a free worker. A worker that comes late and does not find the document has measured its own queue, and that figure is
left out; one that comes late and finds it is not. What is being answered at the moment of the withdrawal is not in it
either: an answer that has its passages goes on.
"""

import time
from datetime import timedelta
from uuid import UUID

import numpy as np
import structlog
from django.core.cache import cache
from django.db.models import F, Func, Value
from django.utils import timezone
from redis.exceptions import RedisError

from knowledge.config import answer_config
from knowledge.embedding.base import Vectors
from knowledge.index_figures import note_index_day
from knowledge.models import Chunk, Document, Embedding, EmbeddingSpace, IndexDay
from knowledge.retrieval.base import Filters
from knowledge.retrieval.search import rank_chunks
from tenants.models import Membership, Role, User
from tenants.scope import on_commit, require_tenant_id, scope

logger = structlog.get_logger(__name__)

# Of many withdrawals at once one is measured.
EVERY_SECONDS = 10
LOOKS, PAUSE_SECONDS = 20, 0.1
LATE_SECONDS = 5.0
AMONG = 50  # passages of each arm
KEPT_OF_A_DAY = 500


def have_withdrawal_measured(*, document_id: UUID, lost_tags: list[str] | None = None) -> None:
    """To be called in the transaction of the withdrawal: a worker measures it, unless one was measured just before.

    Args:
        lost_tags: those whose readers have lost it; ``None``: everybody has.
    """
    from knowledge.tasks import measure_withdrawal_of

    tenant_id, begun = require_tenant_id(), time.time()

    def send() -> None:
        try:
            is_turn = cache.add(f"withdrawal-measured:{tenant_id}", 1, EVERY_SECONDS)
        except (RedisError, OSError):
            return
        if is_turn:
            with scope(tenant_id=tenant_id, tags=None):
                measure_withdrawal_of.enqueue_on_commit(
                    document_id=str(document_id), lost_tags=lost_tags, begun=begun
                )

    on_commit(send)


def measure_withdrawal(*, document_id: str, lost_tags: list[str] | None, begun: float) -> float | None:
    """Looks for the document until it is not found, and notes the milliseconds since ``begun`` with the day.

    Args:
        begun: seconds since 1970, before the withdrawal was committed.

    Returns:
        The milliseconds; ``None`` where nothing was measured: it is back, held no passage with a vector, it is too late
        to tell, or it is still found.
    """
    question = _question_of(document_id=document_id, lost_tags=lost_tags)
    if question is None:
        return None
    text, vector, model = question
    role = Role(name="withdrawal", reads_everything=lost_tags is None, tags=lost_tags or [], abilities=[])
    reader = Membership(tenant_id=require_tenant_id(), user=User(username="withdrawal"), role=role)
    is_late = time.time() - begun > LATE_SECONDS
    for look in range(LOOKS):
        with scope(tenant_id=reader.tenant_id, tags=role.readable_tags):
            found = rank_chunks(
                membership=reader,
                question=text,
                vector=vector,
                model=model,
                limit=AMONG,
                filters=Filters(),
                config=answer_config().retrieval,
            )
        if all(str(each.document_id) != document_id for each in found.fused):
            if is_late and look == 0:
                return None
            taken = max(0.0, (time.time() - begun) * 1000)
            _note(taken=round(taken, 1))
            return taken
        time.sleep(PAUSE_SECONDS)
    _note(taken=None)
    logger.error("a withdrawn document is still found", document=document_id)
    return None


def _question_of(*, document_id: str, lost_tags: list[str] | None) -> tuple[str, Vectors, str] | None:
    """The text of a passage, its vector, and the vector's model."""
    document = Document.objects.filter(pk=document_id).values_list("deleted_at", "tags").first()
    if document is None:
        return None
    deleted_at, tags = document
    if deleted_at is None and (lost_tags is None or set(lost_tags) & set(tags)):
        return None
    space = EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.ACTIVE).first()
    chunk = Chunk.objects.filter(document_id=document_id, embedding_hash__isnull=False).first()
    if space is None or chunk is None:
        return None
    row = Embedding.objects.filter(space=space, text_hash=chunk.embedding_hash).first()
    return (chunk.text[:1000], np.asarray(row.vector, dtype=np.float32), space.model) if row else None


def _note(*, taken: float | None) -> None:
    now = timezone.now()
    note_index_day(now=now)
    today = IndexDay.objects.filter(day=now.date())
    if taken is None:
        today.update(still_found=F("still_found") + 1)
    else:
        today.filter(withdrawal_ms__len__lt=KEPT_OF_A_DAY).update(
            withdrawal_ms=Func(F("withdrawal_ms"), Value(taken), function="array_append")
        )


def read_withdrawals(*, days: int = 30) -> tuple[list[float], int]:
    """The milliseconds measured in the last days, shortest first, and how many withdrawn documents were still found."""
    since = timezone.now().date() - timedelta(days=days)
    rows = IndexDay.objects.filter(day__gt=since).values_list("withdrawal_ms", "still_found")
    measured = sorted(each for figures, _ in rows for each in figures)
    return measured, sum(still for _, still in rows)
