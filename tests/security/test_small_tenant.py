"""The smallest tenant among large ones gets its k results, in both arms, for a role with a rare tag."""

import uuid
from typing import Any

import pytest
from django.db import connections
from pgvector import Vector

from knowledge.config import RetrievalConfig
from knowledge.embedding.sentence_transformers import embedder
from knowledge.models import Chunk
from knowledge.retrieval.base import Filters
from knowledge.retrieval.keyword import question_lexemes, search_keywords
from knowledge.retrieval.search import search_passages
from knowledge.retrieval.vector import search_vectors
from tenants.access import Principal
from tenants.models import Membership
from tenants.people import add_member, create_tenant, create_user, save_role
from tenants.models import Role
from tenants.scope import enter, scope

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

QUESTION = "maximum prefix limit of the transit session"
LARGE, ROWS = 4, 1500
SENTENCE = "The maximum prefix limit of the transit session is {} in this place."


def fill(cursor: Any, tenant_id: uuid.UUID, *, rows: int, tags: list[list[str]], near: Any) -> list[uuid.UUID]:
    """Documents with one chunk each, in bulk, past both walls; every chunk matches the words of the question.

    Args:
        tags: given in turn.
        near: a vector that all of them lie beside, nearer than anything of the small tenant; ``None``: at random.
    """
    collection = uuid.uuid4()
    cursor.execute(
        "INSERT INTO knowledge_collection (id, tenant_id, slug, name, description, default_tags, language,"
        " content_class, created_at) VALUES (%s, %s, 'all', 'All', '', '{}', 'english', 'reference', now())",
        [collection, tenant_id],
    )
    cursor.execute("SELECT array_agg(gen_random_uuid()) FROM generate_series(1, %s)", [rows])
    ids: list[uuid.UUID] = cursor.fetchone()[0]
    labels = [",".join(tags[n % len(tags)]) for n in range(rows)]
    cursor.execute(
        "INSERT INTO knowledge_document (id, tenant_id, collection_id, title, given_title, uri, tags, media_type,"
        " size, sha256, stored_name, pending_name, version, status, error, text, pages, chunk_count, created_at,"
        " updated_at) SELECT id, %(tenant)s, %(collection)s, 'D' || n, '', 'd' || n, string_to_array(t, ','),"
        " 'text/plain', 1, '', '', '', 1, 'indexed', '', replace(%(text)s, '{}', n::text), '{}', 1, now(), now()"
        " FROM unnest(%(ids)s::uuid[], %(labels)s::text[]) WITH ORDINALITY AS u(id, t, n)",
        {"tenant": tenant_id, "collection": collection, "ids": ids, "labels": labels, "text": SENTENCE},
    )
    vector = (
        "(SELECT array_agg(random() - 0.5) FROM generate_series(1, 384) WHERE n > 0)::vector"
        if near is None
        else "%(near)s::vector"
    )
    cursor.execute(
        "INSERT INTO knowledge_chunk (id, tenant_id, document_id, collection_id, tags, ordinal, start, \"end\","
        " heading_path, text, tokens, content_hash, search, embedding)"
        " SELECT gen_random_uuid(), tenant_id, d.id, collection_id, tags, 0, 0, length(text), '{}', text, 12, '',"
        f" to_tsvector('english', text), {vector}"
        " FROM (SELECT *, row_number() OVER () AS n FROM knowledge_document WHERE tenant_id = %(tenant)s) d",
        {"tenant": tenant_id, "near": near},
    )
    return ids


def test_the_smallest_tenant_gets_its_k_results(transactional_db: None) -> None:
    question = embedder().embed([QUESTION])[0]
    small = create_tenant(slug="small", name="Small")
    with connections["platform"].cursor() as cursor:
        for n in range(LARGE):
            large = create_tenant(slug=f"large-{n}", name="Large")
            # As near as can be: without a filter in the search itself they would fill every list of candidates.
            fill(cursor, large.pk, rows=ROWS, tags=[["rare"], ["common"]], near=Vector(question.tolist()).to_text())
        rare_first = [["rare"]] * 5 + [["common"]] + [[]]
        own = fill(cursor, small.pk, rows=7, tags=rare_first, near=None)
        cursor.execute("ANALYZE knowledge_chunk")
    with scope(tenant_id=small.pk, tags=None):
        role = save_role(role=Role(), changes={"name": "specialist", "tags": ["rare"], "abilities": ["ask"]})
        user = create_user(username="solo")
        pk = add_member(user=user, role=role).pk
        membership = Membership.objects.select_related("user", "role", "tenant").get(pk=pk)
    principal = Principal(membership=membership, method="jwt", abilities=frozenset({"ask"}))
    lexemes_of = {"question": QUESTION, "languages": ["english"]}
    expected = set(own[:5])
    with enter(principal.scope()):
        for chunks in (Chunk.objects.visible_to(membership), Chunk.objects.all()):  # both walls, the second alone
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
