"""The smallest tenant among large ones gets its k results, in both arms, for a role with a rare tag."""

from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from django.db import connections

from knowledge.config import RetrievalConfig
from knowledge.embedding.factory import embedder
from knowledge.embedding.store import active_space
from knowledge.ingestion.index import note_changes, note_tags
from knowledge.models import Chunk, Collection, Document, Embedding
from knowledge.retrieval.analysis import count_terms, pack_terms
from knowledge.retrieval.base import Filters
from knowledge.retrieval.search import rank_chunks, search_passages
from tenants.access import Principal
from tenants.models import Membership, Role
from tenants.people import add_member, create_tenant, create_user, save_role
from tenants.scope import atomic, enter, require_tenant_id, scope

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

QUESTION = "maximum prefix limit of the transit session"
LARGE, ROWS = 4, 1500
TEXT = "The maximum prefix limit of the transit session is 9000 in this place."


def add_chunk(*, tags: list[str], embedding: Any) -> Chunk:
    """A document with one chunk that matches the words of the question, in the tenant in force."""
    collection, _ = Collection.objects.get_or_create(tenant_id=require_tenant_id(), slug="all")
    with atomic():
        document = Document.objects.create(
            collection=collection,
            title="Limits",
            uri="limits",
            tags=tags,
            text=TEXT,
            status="indexed",
            chunk_count=1,
        )
        key = sha256(np.asarray(embedding, dtype=np.float32).tobytes()).digest()
        chunk = Chunk(
            document=document,
            collection=collection,
            tags=tags,
            ordinal=0,
            start=0,
            end=len(TEXT),
            text=TEXT,
            tokens=12,
            content_hash="",
            embedding_hash=key,
            terms=pack_terms(count_terms(TEXT, language="english")),
        )
        chunk.save(force_insert=True)
        Embedding.objects.create(space=active_space(embedder=embedder()), text_hash=key, vector=embedding)
        note_tags(tags)
        note_changes(documents=[document.pk])
    return chunk


def multiply(cursor: Any, *, chunk: Chunk, copies: int) -> None:
    """Copies of a chunk in bulk, past both walls; every other one has another tag."""
    cursor.execute(
        "INSERT INTO knowledge_chunk SELECT copy.* FROM knowledge_chunk c, generate_series(1, %s) n,"
        " LATERAL jsonb_populate_record(c, jsonb_build_object('id', gen_random_uuid(), 'ordinal', n,"
        " 'tags', CASE n %% 2 WHEN 0 THEN c.tags ELSE ARRAY['common'] END)) copy WHERE c.id = %s",
        [copies, chunk.pk],
    )


def test_the_smallest_tenant_gets_its_k_results(transactional_db: None) -> None:
    question = embedder().embed([QUESTION])[0]
    small = create_tenant(slug="small", name="Small")
    generator = np.random.default_rng(7)
    with scope(tenant_id=small.pk, tags=None):
        own = [
            add_chunk(tags=tags, embedding=generator.normal(size=question.shape).tolist())
            for tags in [["rare"]] * 5 + [["common"]] + [[]]
        ]
    for n in range(LARGE):
        with scope(tenant_id=create_tenant(slug=f"large-{n}", name="Large").pk, tags=None):
            # As near as can be: without a filter in the search itself they would fill every list of candidates.
            chunk = add_chunk(tags=["rare"], embedding=question.tolist())
            note_tags(["common"])
        with connections["platform"].cursor() as cursor:
            multiply(cursor, chunk=chunk, copies=ROWS)
    with connections["owner"].cursor() as cursor:
        cursor.execute("ANALYZE knowledge_chunk")
    with connections["platform"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM knowledge_chunk")
        assert cursor.fetchone()[0] == LARGE * (ROWS + 1) + 7
    with scope(tenant_id=small.pk, tags=None):
        role = save_role(role=Role(), changes={"name": "specialist", "tags": ["rare"], "abilities": ["ask"]})
        user = create_user(username="solo")
        pk = add_member(user=user, role=role).pk
        membership = Membership.objects.select_related("user", "role", "tenant").get(pk=pk)
    principal = Principal(membership=membership, method="jwt", abilities=frozenset({"ask"}))
    expected = {chunk.document_id for chunk in own[:5]}
    asked: dict[str, Any] = {
        "question": QUESTION,
        "vector": question,
        "filters": Filters(),
        "config": RetrievalConfig(),
    }
    with scope(tenant_id=small.pk, tags=None):
        everybody = Role(name="all", reads_everything=True, abilities=["ask"])
        reads_all = Membership(tenant=small, user=user, role=everybody, status=Membership.Status.ACTIVE)
    with enter(principal.scope()):
        for member in (membership, reads_all):  # both walls, the second alone
            ranking = rank_chunks(membership=member, limit=5, **asked)
            assert {each.document_id for each in ranking.dense} == expected and len(ranking.dense) == 5
            assert {each.document_id for each in ranking.keyword} == expected and len(ranking.keyword) == 5
        passages = search_passages(membership=membership, k=5, **asked)
        assert {p.document_id for p in passages} == expected and len(passages) == 5
    with scope(tenant_id=small.pk, tags=None):
        everything = rank_chunks(membership=reads_all, limit=10, **asked)
        assert len(everything.dense) == 7
