"""The rows of ``bench retrieval-scale``: many tenants of Zipf sizes, written past the application in bulk."""

import json
import random
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import CommandError
from django.db import connections
from numpy.typing import NDArray
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector

from knowledge.embedding.factory import embedder
from knowledge.ingestion.index import note_tags
from knowledge.models import Collection, Corpus, Document, EmbeddingSpace
from knowledge.retrieval.analysis import count_forms, count_terms, pack_terms
from ragsite.bench import Say
from tenants.models import Membership, Role, Tenant, User
from tenants.people import add_member, create_tenant, create_user
from tenants.removal import remove_tenant
from tenants.scope import scope, unscoped

TAGS = [f"tag{number:02}" for number in range(20)]
# What a role of that selectivity reads: one document in a hundred has the first tag, one in ten the second.
ROLES = {"1%": [TAGS[0]], "10%": [TAGS[1]], "100%": None}
SAMPLE = 2000
CHUNKS_PER_DOCUMENT = 8
NOISE = 0.9
PLAIN = "bench_plain"


@dataclass(frozen=True)
class Piece:
    """Half a passage of the corpus."""

    text: str
    terms: Counter[str]
    forms: Counter[str]


def zipf_sizes(*, chunks: int, tenants: int, fixed: list[int]) -> list[int]:
    """Sizes of tenants, largest first; the last ones are of ``fixed`` chunks whatever the total."""
    weights = 1 / np.arange(1, tenants - len(fixed) + 1)
    sizes = np.maximum(8, np.round((chunks - sum(fixed)) * weights / weights.sum())).astype(int)
    return [*(int(size) for size in sizes), *fixed]


def read_pieces(path: Path) -> tuple[list[str], list[Piece]]:
    """Passages of a BEIR folder, and their halves with terms.

    Raises:
        CommandError: there is no corpus.
    """
    try:
        lines = (path / "corpus.jsonl").read_text().splitlines()
    except OSError as error:
        raise CommandError(f"{path} holds no corpus.jsonl ({error.strerror}): give a BEIR folder.") from None
    rows = [json.loads(line) for line in lines]
    random.Random(7).shuffle(rows)  # noqa: S311
    texts = [f"{row.get('title', '')}\n{row['text']}".strip() for row in rows[:SAMPLE]]
    pieces = []
    for text in texts:
        sentences = re.split(r"(?<=[.!?])\s+", text)
        half = max(1, len(sentences) // 2)
        for part in (" ".join(sentences[:half])[:900], " ".join(sentences[half:])[:900]):
            pieces.append(_piece(part))
    return texts, pieces


def _piece(text: str) -> Piece:
    forms = count_forms([text], language="english")[0]
    return Piece(text, count_terms(text, language="english"), forms)


def build(*, corpus: Path, chunks: int, tenants: int, fixed: list[int], say: Say) -> list[Tenant]:
    """Makes the tenants where they are missing; largest first, the fixed ones last."""
    # The number tells what chunks hold: tenants that were made with less stay out of it.
    prefix = f"scale2-{chunks}-{tenants}"
    with unscoped(reason="bench: find tenants"):
        rows = list(Tenant.objects.filter(slug__startswith=f"{prefix}-").order_by("slug"))
    found = {tenant.slug: tenant for tenant in rows if _is_filled(tenant)}
    if len(found) == tenants:
        return list(found.values())
    texts, pieces = read_pieces(corpus)
    say(f"embedding {len(texts)} passages")
    centres = embedder().embed(texts)
    _make_plain_table()
    for tenant in rows:
        if tenant.slug not in found:
            remove_tenant(tenant=tenant)
    for number, size in enumerate(zipf_sizes(chunks=chunks, tenants=tenants, fixed=fixed)):
        slug = f"{prefix}-{number:03}"
        if slug in found:
            continue
        found[slug] = create_tenant(slug=slug, name=f"Scale {number}")
        say(f"{slug}: {size} chunks")
        _fill(tenant=found[slug], size=size, centres=centres, pieces=pieces, seed=number)
    say("analysing")
    with connections["owner"].cursor() as cursor:
        cursor.execute("ANALYZE knowledge_chunk, knowledge_document, knowledge_embedding")
    return [found[slug] for slug in sorted(found)]


def _is_filled(tenant: Tenant) -> bool:
    """Its documents come in one transaction; one that was being made when the run was ended has none."""
    with scope(tenant_id=tenant.pk, tags=None):
        return bool(Document.objects.exists())


def _make_plain_table() -> None:
    """The vectors as tutorials keep them: of 32 bits, beside tenant and tags."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {PLAIN} (id uuid, tenant_id uuid, tags text[], embedding vector(384))"
        )
        cursor.execute(f"GRANT ALL ON {PLAIN} TO PUBLIC")
        cursor.execute(f"CREATE INDEX IF NOT EXISTS {PLAIN}_tenant ON {PLAIN} (tenant_id)")


def _fill(*, tenant: Tenant, size: int, centres: NDArray[np.float32], pieces: list[Piece], seed: int) -> None:
    with scope(tenant_id=tenant.pk, tags=None):
        for name, tags in ROLES.items():
            role = Role.objects.create(
                name=name, tags=tags or [], reads_everything=tags is None, abilities=["ask"]
            )
            add_member(user=_user(f"{tenant.slug}-{name.strip('%')}"), role=role)
        collection = Collection.objects.create(slug="all", name="All")
        for tag in TAGS:
            note_tags([tag])
        space = EmbeddingSpace.objects.create(
            model=embedder().name, dimensions=centres.shape[1], state=EmbeddingSpace.State.ACTIVE
        )
        version = Corpus.raise_version()
    made = list(_make_documents(size=size, centres=centres, pieces=pieces, seed=seed, place=tenant.pk))
    copy = {"tenant": tenant.pk, "collection": collection.pk, "space": space.pk, "version": version}
    write_documents(made, **copy)


def _user(name: str) -> User:
    return User.objects.filter(username=name).first() or create_user(username=name)


@dataclass(frozen=True)
class MadeChunk:
    pk: uuid.UUID
    text: str
    terms: bytes
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class MadeDocument:
    pk: uuid.UUID
    tag: str
    chunks: list[MadeChunk]


def _make_documents(
    *, size: int, centres: NDArray[np.float32], pieces: list[Piece], seed: int, place: uuid.UUID
) -> Iterator[MadeDocument]:
    """The same texts and vectors for the same seed, under ids that differ with the tenant ``place``."""
    chance = random.Random(seed)  # noqa: S311
    generator = np.random.default_rng(seed)
    left, number = size, 0
    while left:
        count = min(left, CHUNKS_PER_DOCUMENT)
        # The first two documents of a tenant make sure that every role reads something.
        draw = number if number < 2 else chance.choices(range(3), (1, 10, 89))[0]
        tag = TAGS[draw] if draw < 2 else chance.choice(TAGS[2:])
        about = generator.integers(0, len(centres), count)
        noise = generator.normal(size=(count, centres.shape[1])) / np.sqrt(centres.shape[1])
        vectors = centres[about] + NOISE * noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        chunks = []
        for at, centre in enumerate(about):
            first, second = pieces[2 * int(centre)], chance.choice(pieces)
            port = f"ge-{chance.randrange(8)}/{chance.randrange(4)}/{chance.randrange(48)}"
            device = _piece(f"Interface {port} of rtr-{seed}-{number:05}.")
            terms = pack_terms(
                first.terms + second.terms + device.terms, forms=first.forms + second.forms + device.forms
            )
            text = f"{first.text} {second.text} {device.text}"
            chunks.append(MadeChunk(uuid.uuid5(place, generator.bytes(16).hex()), text, terms, vectors[at]))
        yield MadeDocument(uuid.uuid5(place, generator.bytes(16).hex()), tag, chunks)
        left, number = left - count, number + 1


def write_documents(
    documents: list[MadeDocument], *, tenant: uuid.UUID, collection: uuid.UUID, space: uuid.UUID, version: int
) -> None:
    """Rows of documents, chunks and vectors, and the same vectors in a table as tutorials have it."""
    connection = connections["platform"]
    connection.ensure_connection()
    register_vector(connection.connection)
    with connection.connection.cursor() as cursor, connection.connection.transaction():
        cursor.execute("SET LOCAL statement_timeout = 0")
        _insert(
            cursor,
            "knowledge_document (id, tenant_id, collection_id, title, given_title, uri, tags, media_type, size, sha256,"
            " stored_name, pending_name, pending_uri, version, status, error, text, pages, chunk_count, created_at,"
            " updated_at, revision, fingerprint)",
            (
                (
                    made.pk, tenant, collection, "Made", "", str(made.pk), [made.tag], "text/plain", 1, "", "", "", "",
                    1, "indexed", "", "\n\n".join(each.text for each in made.chunks), [], len(made.chunks),
                    "2026-01-01", "2026-01-01", version, "",
                )
                for made in documents
            ),
        )  # fmt: skip
        _insert(
            cursor,
            "knowledge_chunk (id, tenant_id, document_id, collection_id, tags, ordinal, start, \"end\", heading_path, text,"
            " tokens, content_hash, embedding_hash, terms)",
            (
                (
                    each.pk, tenant, made.pk, collection, [made.tag], place, begin, begin + len(each.text), [], each.text,
                    200, "", each.pk.bytes * 2, each.terms,
                )
                for made in documents
                for place, (begin, each) in enumerate(_with_offsets(made.chunks))
            ),
        )  # fmt: skip
        chunks = [(made, each) for made in documents for each in made.chunks]
        _insert(
            cursor,
            "knowledge_embedding (id, tenant_id, space_id, text_hash, vector, created_at)",
            (
                (each.pk, tenant, space, each.pk.bytes * 2, HalfVector(each.vector), "2026-01-01")
                for _, each in chunks
            ),
        )
        _insert(
            cursor,
            f"{PLAIN} (id, tenant_id, tags, embedding)",
            ((each.pk, tenant, [made.tag], Vector(each.vector)) for made, each in chunks),
        )


def _with_offsets(chunks: list[MadeChunk]) -> Iterator[tuple[int, MadeChunk]]:
    begin = 0
    for each in chunks:
        yield begin, each
        begin += len(each.text) + 2


def _insert(cursor: Any, target: str, rows: Iterator[tuple[Any, ...]]) -> None:
    """By way of a temporary table: COPY is not for tables under row-level security."""
    table, _, columns = target.removesuffix(")").partition(" (")
    cursor.execute(
        f"CREATE TEMP TABLE made ON COMMIT DROP AS SELECT {columns} FROM {table} LIMIT 0"  # noqa: S608
    )
    with cursor.copy("COPY made FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    cursor.execute(f"INSERT INTO {table} ({columns}) SELECT * FROM made")  # noqa: S608
    cursor.execute("DROP TABLE made")


def members_of(tenant: Tenant) -> dict[str, Membership]:
    """The member of each role, by selectivity."""
    with unscoped(reason="bench: find members"):
        rows = Membership.objects.filter(tenant=tenant).select_related("role", "tenant", "user")
        return {row.role.name: row for row in rows if row.role.name in ROLES}
