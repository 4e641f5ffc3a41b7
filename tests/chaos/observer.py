"""Looks at the index from a process that nobody kills: one command a line on stdin, one JSON answer a line on stdout."""

import json
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

from tests.chaos.app import HashEmbedder

# isort: split
from django.db import connections

from knowledge.config import RetrievalConfig
from knowledge.ingestion.jobs import start_sync_job
from knowledge.models import Chunk, Collection, DeadLetter, Document, Embedding, Job, Source
from knowledge.retrieval.base import Filters
from knowledge.retrieval.search import search_passages
from knowledge.sources import source_of_folder
from knowledge.tasks import recover_jobs
from tenants.models import Membership, Role
from tenants.people import add_member, create_tenant, create_user
from tenants.scope import scope


def prepare(slug: str, folder: str) -> dict[str, str]:
    tenant = create_tenant(slug=slug, name=slug)
    with scope(tenant_id=tenant.pk, tags=None):
        user = create_user(
            username=slug, email=f"{slug}@x.example", password="demo-ragsite", check_password=False
        )
        add_member(user=user, role=Role.objects.get(name="admin"))
        collection = Collection.objects.create(slug="all", name="All")
        source = source_of_folder(directory=folder, collection=collection, tags=["faq"], trusted=True)
    return {"tenant": str(tenant.pk), "source": str(source.pk)}


def start(tenant: str, source: str) -> str:
    with scope(tenant_id=UUID(tenant), tags=None):
        return str(start_sync_job(source=Source.objects.get(pk=source))[0].pk)


def job(tenant: str, pk: str) -> dict[str, Any]:
    with scope(tenant_id=UUID(tenant), tags=None):
        row = Job.objects.get(pk=pk)
    names = ("state", "attempts", "seen", "changed", "unchanged", "failed", "progress", "error")
    return {name: getattr(row, name) for name in names}


def recover() -> None:
    """What beat does every five seconds."""
    recover_jobs()


def digest(tenant: str, *questions: str) -> dict[str, Any]:
    """Everything that a reader could notice of an index, without ids and times."""
    with scope(tenant_id=UUID(tenant), tags=None):
        documents = list(
            Document.objects.filter(deleted_at__isnull=True)
            .order_by("uri")
            .values_list("uri", "status", "sha256", "text_sha256", "chunk_count", "title")
        )
        chunks = list(
            Chunk.objects.filter(document__deleted_at__isnull=True)
            .order_by("document__uri", "ordinal")
            .values_list("document__uri", "ordinal", "start", "end", "content_hash")
        )
        wanted = {bytes(each) for each in Chunk.objects.values_list("embedding_hash", flat=True)}
        held = {bytes(each) for each in Embedding.objects.values_list("text_hash", flat=True)}
        membership = Membership.objects.select_related("role", "user").get()
        found = {}
        for question in questions:
            passages = search_passages(
                membership=membership,
                question=question,
                vector=HashEmbedder().embed([question])[0],
                k=1,
                filters=Filters(),
                config=RetrievalConfig(),
            )
            # Equal ones stand in the order of their ids, which are made by chance.
            found[question] = sorted([each.uri, each.start, each.end] for each in passages)
        return {
            "documents": documents,
            "chunks": chunks,
            "vectors missing": len(wanted - held),
            "found": found,
            "dead letters": list(DeadLetter.objects.values_list("uri", "reason")),
        }


COMMANDS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (prepare, start, job, recover, digest)
}


def main() -> None:
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"ok": COMMANDS[name](*arguments)}
        except Exception as error:  # a server may be dead: the test asks again
            answer = {"error": f"{type(error).__name__}: {error}"}
            connections.close_all()
        print(json.dumps(answer, default=str), flush=True)


main()
