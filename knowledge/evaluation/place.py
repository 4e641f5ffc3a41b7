"""A tenant that holds a data set's corpus and nothing else, indexed by the product's own writer."""

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import knowledge.ingestion
from knowledge.documents import save_collection
from knowledge.embedding.base import Embedder
from knowledge.embedding.store import store_vectors, text_hash
from knowledge.evaluation.beir import DataSet, Entry
from knowledge.ingestion.chunk import chunk_document
from knowledge.ingestion.diff import embedded_text
from knowledge.ingestion.index import Original, index_document, parse_limits
from knowledge.ingestion.parse import ParseError, parse_document
from knowledge.ingestion.storage import store_original
from knowledge.models import Collection, Document
from knowledge.retrieval import analysis
from ragsite.core.config import config
from ragsite.core.problems import Problem
from tenants.models import Tenant
from tenants.people import create_tenant
from tenants.removal import remove_tenant
from tenants.scope import atomic, require_tenant_id, scope, unscoped

# Documents that are embedded together, sorted by length, and committed together.
BATCH = 256
FILE = "document.txt"


@dataclass(frozen=True)
class Place:
    """``names`` are the corpus's ids by the documents' ids; ``reused``: nothing had to be indexed."""

    tenant: Tenant
    names: dict[str, str]
    documents: int
    unreadable: int
    reused: bool


@contextmanager
def corpus_tenant(
    *,
    data: DataSet,
    embedder: Embedder,
    keep: bool,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Place]:
    """The scope of a tenant with the corpus in it; removed afterwards unless ``keep``.

    A kept one is found again by the corpus's hash. It is taken as it is while the model and the code that makes chunks
    are the same, else its documents are indexed again, and what comes out unchanged keeps its vectors.

    Raises:
        Problem: 409 when another evaluation of the same corpus is under way.
    """
    slug = f"evaluation-{data.corpus_hash[:16]}"
    with unscoped(reason="command line: find a tenant"):
        tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is not None and not keep:
        # Somebody keeps it: an evaluation that removes what it used works beside it.
        slug = f"{slug}-{threading.get_native_id():x}"
        tenant = None
    made = tenant or create_tenant(slug=slug, name=f"Evaluation of {data.name}"[:200])
    try:
        with scope(tenant_id=made.pk, tags=None):
            yield _fill(tenant=made, data=data, embedder=embedder, keep=keep, on_progress=on_progress)
    finally:
        if not keep:
            remove_tenant(tenant=made)
            shutil.rmtree(config().documents_root / str(made.pk), ignore_errors=True)


def _fill(
    *,
    tenant: Tenant,
    data: DataSet,
    embedder: Embedder,
    keep: bool,
    on_progress: Callable[[int, int], None],
) -> Place:
    stamp = f"{embedder.name} {_code_hash()}"
    collection: Collection = Collection.objects.filter(slug="corpus").first() or save_collection(
        collection=Collection(), changes={"slug": "corpus", "name": "Corpus"}
    )
    reused = collection.description == stamp
    rows: dict[str, Document] = {row.uri: row for row in Document.objects.without_text()}
    unreadable = 0
    if not reused:
        for begin in range(0, len(data.corpus), BATCH):
            batch = data.corpus[begin : begin + BATCH]
            _embed(entries=batch, embedder=embedder)
            with atomic():  # the vectors are there: nothing but the database is waited for
                for entry in batch:
                    row = rows.get(entry.id) or _add(collection=collection, entry=entry)
                    rows[entry.id] = row
                    if not _index(document=row, entry=entry, embedder=embedder, keep=keep):
                        unreadable += 1
            on_progress(begin + len(batch), len(data.corpus))
        save_collection(collection=collection, changes={"description": stamp})
    return Place(
        tenant=tenant,
        names={str(row.pk): uri for uri, row in rows.items()},
        documents=len(data.corpus),
        unreadable=unreadable,
        reused=reused,
    )


def _add(*, collection: Collection, entry: Entry) -> Document:
    if len(entry.id) > 1000:
        raise Problem(400, "invalid", f"The id {entry.id[:40]}… is longer than 1,000 characters.")
    row: Document = Document.objects.create(
        collection=collection,
        uri=entry.id,
        title=entry.title[:500] or entry.id[:500],
        given_title=entry.title[:500],
    )
    return row


def _text_of(entry: Entry) -> bytes:
    return entry.text.replace("\0", "").encode("utf-8", "replace")


def _index(*, document: Document, entry: Entry, embedder: Embedder, keep: bool) -> bool:
    """Whether the writer could read the entry; an empty one it cannot, as it could no such file."""
    content = _text_of(entry)
    stored = document.stored_name
    if keep and not stored and content:
        stored = store_original(tenant_id=require_tenant_id(), data=content)
    try:
        index_document(
            document=document,
            original=Original(data=content, filename=FILE, stored_name=stored),
            embedder=embedder,
            title=entry.title,
        )
    except ParseError:
        return False
    return True


def _embed(*, entries: Sequence[Entry], embedder: Embedder) -> None:
    """The vectors of all these entries' chunks, by the writer's own steps: in whole batches, of about equal lengths."""
    texts: list[str] = []
    for entry in entries:
        try:
            parsed = parse_document(data=_text_of(entry), filename=FILE, limits=parse_limits())
        except ParseError:
            continue
        title = (entry.title or parsed.title)[:500]
        texts += [
            embedded_text(title=title, heading_path=span.heading_path, text=span.text)
            for span in chunk_document(parsed, count_tokens=embedder.count_tokens)
        ]
    texts.sort(key=len)
    store_vectors(texts={text_hash(text): text for text in texts}, embedder=embedder)


def _code_hash() -> str:
    """Of the code that makes chunks and terms: figures of another are not to be mixed with these."""
    digest = hashlib.sha256()
    folder = Path(knowledge.ingestion.__file__).parent
    for path in [*sorted(folder.rglob("*.py")), Path(analysis.__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
