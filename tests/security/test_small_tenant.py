"""The smallest tenant among large ones gets its k results, in both arms, for a role with a rare tag."""

from typing import Any

import numpy as np
import pytest
from django.contrib.postgres.search import SearchVector
from django.db import connections
from django.db.models import Value

from knowledge.config import RetrievalConfig
from knowledge.embedding.factory import embedder
from knowledge.models import Chunk, Collection, Document
from knowledge.retrieval.base import Filters
from knowledge.retrieval.keyword import question_lexemes, search_keywords
from knowledge.retrieval.search import search_passages
from knowledge.retrieval.vector import search_vectors
from tenants.access import Principal
from tenants.models import Membership, Role
from tenants.people import add_member, create_tenant, create_user, save_role
from tenants.scope import enter, require_tenant_id, scope

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

QUESTION = "maximum prefix limit of the transit session"
LARGE, ROWS = 4, 1500
TEXT = "The maximum prefix limit of the transit session is 9000 in this place."


def add_chunk(*, tags: list[str], embedding: Any) -> Chunk:
    """A document with one chunk that matches the words of the question, in the tenant in force."""
    collection, _ = Collection.objects.get_or_create(tenant_id=require_tenant_id(), slug="all")
    document = Document.objects.create(
        collection=collection,
        title="Limits",
        uri="limits",
        tags=tags,
        text=TEXT,
        status="indexed",
        chunk_count=1,
    )
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
        search=SearchVector(Value(TEXT), config="english"),
        embedding=embedding,
    )
    chunk.save(force_insert=True)
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
    lexemes_of = {"question": QUESTION, "languages": ["english"]}
    expected = {chunk.document_id for chunk in own[:5]}
    with enter(principal.scope()):
        for chunks in (
            Chunk.objects.visible_to(membership),
            Chunk.objects.all(),
        ):  # both walls, the second alone
            of_chunk = dict(chunks.values_list("id", "document_id"))
            dense = search_vectors(chunks=chunks, vector=question, limit=5, deviation=0.1)
            assert {of_chunk[pk] for pk in dense.scores} == expected and len(dense.scores) == 5
            keyword = search_keywords(
                chunks=chunks, lexemes=question_lexemes(**lexemes_of), limit=5, k1=0.9, b=0.5
            )
            assert {of_chunk[pk] for pk in keyword.scores} == expected and len(keyword.scores) == 5
        passages = search_passages(
            membership=membership,
            question=QUESTION,
            vector=question,
            k=5,
            filters=Filters(),
            config=RetrievalConfig(),
        )
        assert {p.document_id for p in passages} == expected and len(passages) == 5
    with scope(tenant_id=small.pk, tags=None):
        everything = search_vectors(chunks=Chunk.objects.all(), vector=question, limit=10, deviation=0.1)
        assert len(everything.scores) == 7
