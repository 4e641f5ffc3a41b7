"""Folders as sources, and embedders that count or dawdle, for the tests of syncs."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from knowledge.embedding.base import Vectors
from knowledge.embedding.factory import embedder
from knowledge.ingestion.jobs import start_sync_job
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Collection, Document, Job, Source
from knowledge.sources import delete_source, source_of_folder
from ragsite.celery import app as _app  # noqa: F401  messages go to our broker, whichever test ran before
from tenants.scope import scope


@pytest.fixture(autouse=True)
def sources_of_its_own(shared: Any) -> Iterator[None]:
    """Where it is imported each test is in acme's scope, and the sources that it has made go behind it."""
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield
        for source in Source.objects.all():
            delete_source(source=source)


class CountingEmbedder:
    """Vectors of the right shape from hashes; remembers every text that reaches it."""

    dimensions = 384

    def __init__(self, before_batch: Callable[[], None] = lambda: None) -> None:
        self.name = embedder().name  # of the space that is there: another's texts would not come here
        self.texts: list[str] = []
        self._before_batch = before_batch

    def embed(self, texts: Sequence[str]) -> Vectors:
        self._before_batch()
        self.texts += texts
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row, int.from_bytes(hashlib.md5(text.encode()).digest()[:2], "big") % 384] = 1
        return vectors

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def make_source(
    folder: Path, *, collection: Collection | None = None, tags: Sequence[str] = ("faq",)
) -> Source:
    """In the scope of the tenant."""
    collection = collection or Collection.objects.get(slug="handbook")
    return source_of_folder(directory=str(folder), collection=collection, tags=list(tags), trusted=True)


def sync(source: Source, embedder: Any = None, **options: Any) -> Job:
    """A job that brings the source up to date, done here and now."""
    job, _ = start_sync_job(source=source)
    run_claimed_job(job_id=job.pk, embedder=embedder or CountingEmbedder(), **options)
    job.refresh_from_db()
    return job


def write(path: Path, text: str, *, age: float = 60) -> Path:
    """A file that was last changed some seconds ago, as far as its time tells: old enough to be trusted by tests of that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    moment = time.time() - age
    os.utime(path, (moment, moment))
    return path


def documents_of(source: Source) -> dict[str, Document]:
    return {row.uri: row for row in Document.objects.filter(source=source, deleted_at__isnull=True)}


def long(about: str) -> str:
    """Enough for a chunk of its own."""
    return " ".join(f"{about}, told in sentence number {n} of this section." for n in range(9))
