"""What a process of the version before writes beside this one is found without a hand."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from knowledge.ingestion.adopt import AGAIN_AFTER, adopt_documents, adopt_tags
from knowledge.models import Chunk, Document, Job, TagSet
from knowledge.tasks import adopt_what_others_wrote
from tenants.scope import atomic, scope
from tests.cast import add_indexed
from tests.knowledge.helpers import ask, run_job
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast

QUESTION = "What colour is the mast of the lugger?"


@pytest.fixture(autouse=True)
def inside(shared: Any) -> Any:
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield


def write_as_before(shared: Any) -> Document:
    """A document as the version before left it: vector and lexemes with the chunk, and the corpus version raised."""
    collection = shared.collections["acme"]
    text = "# Lugger\n\nThe mast of the lugger is green.\n"
    document = add_indexed(collection=collection, name="lugger.md", tags=["runbooks"], text=text)
    Document.objects.filter(pk=document.pk).update(revision=0)
    with atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE knowledge_chunk SET embedding_hash = NULL, terms = NULL, content_hash = repeat('0', 64),"
            " search = to_tsvector('english', text),"
            " embedding = (SELECT vector::vector(384) FROM knowledge_embedding WHERE text_hash = embedding_hash LIMIT 1)"
            " WHERE document_id = %s",
            [document.pk],
        )
        cursor.execute("UPDATE knowledge_corpus SET version = version + 1")
    return document


def test_chunks_of_the_version_before_are_indexed_again(shared: Any) -> None:
    ask(shared.nina, cache=False)  # the index is there, and up to date
    document = write_as_before(shared)
    assert "green" not in ask(shared.nina, QUESTION, cache=False)["answer"]
    adopt_what_others_wrote()
    job = Job.objects.get(document=document)
    assert adopt_documents() == 0  # its job waits
    assert run_job(shared.ada, str(job.pk))["state"] == "SUCCESS"
    chunk = Chunk.objects.get(document=document)
    assert chunk.embedding_hash is not None and chunk.terms is not None
    assert "green" in ask(shared.nina, QUESTION, cache=False)["answer"]
    assert adopt_documents(now=timezone.now() + AGAIN_AFTER) == 0


def test_one_that_cannot_be_indexed_is_tried_once_an_hour(shared: Any) -> None:
    document = write_as_before(shared)
    assert adopt_documents() == 1 and adopt_documents() == 0
    assert adopt_documents(now=timezone.now() + AGAIN_AFTER + timedelta(seconds=1)) == 1
    Document.objects.filter(pk=document.pk).update(stored_name="")
    Job.objects.filter(document=document).delete()
    assert adopt_documents() == 0  # there is nothing to index it from


def test_tags_that_search_does_not_know_are_noticed(shared: Any) -> None:
    document = shared.documents["acme"]["vpn-faq.md"]
    ask(shared.nina, cache=False)
    Document.objects.filter(pk=document.pk).update(tags=["topology"])
    Chunk.objects.filter(document=document).update(tags=["topology"])
    question = "Which service do I restart for code 809?"
    assert str(document.pk) not in str(ask(shared.nina, question, cache=False)["sources"])
    assert adopt_tags() == 1 and TagSet.objects.filter(tags=["topology"]).exists()
    assert str(document.pk) in str(ask(shared.nina, question, cache=False)["sources"])
    assert adopt_tags() == 0
