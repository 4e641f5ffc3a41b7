"""Whether a cached answer may be shown again.

At the corpus version that it was made at it may. When the corpus has moved on since it may be shown as stale while it is
made again, as long as every document that it shows is as it was and the asker may read it: most changes of a corpus
concern other documents. One that says that the documents do not say is looked up again: a new document may be the one
that was missing.
"""

from dataclasses import replace
from uuid import UUID

from knowledge.answering.cache import CachedAnswer, read_answer
from knowledge.answering.layers import count_lookup
from knowledge.models import Document
from ragsite.core.hops import run_db
from tenants.models import Membership


async def recall_answer(*, key: str, membership: Membership, corpus_version: int) -> CachedAnswer | None:
    """The cached answer, if the member may be shown it; ``is_stale`` where it is to be made again."""
    tenant_id = membership.tenant_id
    found = await read_answer(key=key, tenant_id=tenant_id, corpus_version=corpus_version)
    if found is None or found.corpus_version == corpus_version:
        return found
    holds = await run_db(still_holds, found, membership=membership)
    await count_lookup(tenant_id=tenant_id, layer="exact", is_hit=holds)
    return replace(found, old_at=0.0) if holds else None


def still_holds(answer: CachedAnswer, *, membership: Membership) -> bool:
    """Whether nothing that it shows has changed since it was made, and the member may read all of it."""
    shown = {UUID(source["document_id"]) for source in answer.payload["sources"]}
    if not answer.payload["answered"] or not shown:
        return False
    unchanged = Document.objects.visible_to(membership).filter(
        pk__in=shown, revision__lte=answer.corpus_version
    )
    return bool(unchanged.count() == len(shown))
