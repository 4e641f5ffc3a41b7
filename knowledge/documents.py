"""What can be done with collections and documents; each audited in its own transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import ProtectedError
from django.utils import timezone
from django.utils.text import slugify

from knowledge.embedding.spaces import have_missing_vectors_made
from knowledge.exclusions import exclude_document
from knowledge.ingestion.following import follow_collection
from knowledge.ingestion.index import check_file, note_changes, retag_chunks
from knowledge.ingestion.jobs import UNFINISHED, create_job
from knowledge.ingestion.parse import ParseError
from knowledge.ingestion.source_tags import effective_tags, lock_source
from knowledge.ingestion.storage import delete_original, store_original
from knowledge.models import Chunk, Collection, Corpus, Document, ExpiredItem, Job, Source
from knowledge.schedules import wrong
from knowledge.tags import check_added_tags, check_tags
from knowledge.withdrawals import have_withdrawal_measured
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Membership
from tenants.people import invalid
from tenants.scope import atomic, on_commit, require_tenant_id

UPLOADS = "uploads"
MAX_URI = 1000
ERASED_AT_ONCE = 1000
CHANGED = ["title", "given_title", "tags", "tagged_by", "collection"]
_STATUS_OF_PARSE_ERROR = {"too_large": 413, "unsupported_type": 415, "wrong_type": 415}


@dataclass(frozen=True)
class Upload:
    """A file as a client sent it; its name tells its kind and nothing else."""

    filename: str
    data: bytes


def default_collection() -> Collection:
    """Where uploads go that name no collection."""
    collection, _ = Collection.objects.get_or_create(
        tenant_id=require_tenant_id(), slug=UPLOADS, defaults={"name": "Uploads"}
    )
    found: Collection = collection
    return found


def save_collection(
    *, collection: Collection, changes: dict[str, Any], principal: Principal | None = None
) -> Collection:
    """Creates or changes a collection.

    Its default tags hold for documents that come later, and at once for those of sources that name no tags of their own.

    Raises:
        Problem: 400 for values that cannot be used, 409 for a slug that is taken.
    """
    creating = collection._state.adding
    for name, value in changes.items():
        setattr(collection, name, value)
    collection.slug = collection.slug or slugify(collection.name)[:60]
    try:
        collection.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        raise invalid(error) from None
    with atomic():
        if Collection.objects.filter(slug=collection.slug).exclude(pk=collection.pk).exists():
            raise Problem(409, "conflict", f"A collection named {collection.slug} exists already.")
        stored = None if creating else Collection.objects.select_for_update(no_key=True).get(pk=collection.pk)
        collection.save()
        if stored is not None:
            follow_collection(collection=collection, before=sorted(set(stored.default_tags)))
            Corpus.raise_version()
        if stored is not None and stored.language != collection.language:
            # Words are stemmed by the language: its documents' terms are made again, their vectors are kept.
            user = principal.membership.user if principal else None
            create_job(kind=Job.Kind.REINDEX, collection=collection, user=user)
        record_by(
            principal,
            "collection.create" if creating else "collection.change",
            collection,
            {"slug": collection.slug, "default_tags": collection.default_tags},
        )
    return collection


def delete_collection(*, collection: Collection, principal: Principal | None = None) -> None:
    """Removes an empty collection.

    Raises:
        Problem: 409 while it holds documents (deleted ones that can be restored too) or sources.
    """
    try:
        with atomic():
            record_by(principal, "collection.delete", collection, {"slug": collection.slug})
            collection.delete()
    except ProtectedError:
        raise Problem(
            409,
            "not-empty",
            "The collection holds documents or sources, or deleted documents that can still be restored: "
            "move or delete them first.",
        ) from None


def problem_of_parse_error(error: ParseError) -> Problem:
    return Problem(
        _STATUS_OF_PARSE_ERROR.get(error.code, 400),
        error.code.replace("_", "-"),
        str(error),
        errors=[FieldProblem("file", str(error))],
    )


def clean_name(filename: str) -> str:
    """The name of an uploaded file, without the folders that some clients put before it."""
    return PurePath(filename.replace("\\", "/")).name.replace("\0", "")[:255] or "document"


def clean_path(path: str, *, filename: str) -> str:
    """The path of an upload below the folder it came from, to be shown and searched: it never names a file of ours.

    Args:
        path: as a browser tells it, for instance ``handbook/routing/ospf.md``; its folders count, its last part does not.
        filename: the clean name of the file, which is the last part of what is returned.
    """
    folders = path.replace("\\", "/").split("/")[:-1]
    kept = [
        "".join(character for character in folder if character.isprintable()).strip()[:255]
        for folder in folders
    ]
    shown = "/".join([*(folder for folder in kept if folder not in ("", ".", "..")), filename])
    return shown if len(shown) <= MAX_URI else filename


def _take(upload: Upload) -> tuple[str, str]:
    """Checks and stores an upload; returns its clean name and where it is stored."""
    filename = clean_name(upload.filename)
    try:
        check_file(data=upload.data, filename=filename)
    except ParseError as error:
        raise problem_of_parse_error(error) from None
    return filename, store_original(tenant_id=require_tenant_id(), data=upload.data)


def add_document(
    *,
    upload: Upload,
    collection: Collection | None = None,
    tags: Sequence[str] | None = None,
    title: str = "",
    uri: str = "",
    principal: Principal | None = None,
) -> tuple[Document, Job]:
    """Takes a new document in; a job indexes it.

    Args:
        tags: who may read it; ``None`` or empty: the collection's default tags, and where there are none, admins only.
        uri: its path in the folder that it was uploaded with, as the browser tells it; empty: the file's name.

    Raises:
        Problem: 400, 413 or 415 for a file or tags that cannot be taken; 507 when the disk is full.
    """
    collection = collection or default_collection()
    chosen = check_tags(tags=tags or collection.default_tags, principal=principal)
    filename, stored = _take(upload)
    user = principal.membership.user if principal else None
    with atomic():
        document = Document.objects.create(
            collection=collection,
            title=title or PurePath(filename).stem,
            given_title=title,
            uri=clean_path(uri, filename=filename),
            tags=chosen,
            size=len(upload.data),
            pending_name=stored,
            created_by=user,
        )
        job = create_job(kind=Job.Kind.DOCUMENT, document=document, user=user)
        record_by(
            principal,
            "document.upload",
            document,
            {"title": document.title, "file": filename, "tags": chosen, "collection": collection.slug},
        )
    return document, job


def find_upload(*, membership: Membership, collection: Collection, path: str) -> Document | None:
    """The document that was uploaded into a collection under a path, if the member reads one; the newest of several."""
    found: Document | None = (
        Document.objects.visible_to(membership)
        .filter(collection=collection, source__isnull=True, uri=path)
        .without_text()
        .order_by("-created_at", "-id")
        .first()
    )
    return found


def replace_content(*, document: Document, upload: Upload, principal: Principal | None = None) -> Job:
    """New content for a document; the old one answers until the new one is indexed.

    Raises:
        Problem: as ``add_document``; 409 for a document that its source keeps.
    """
    if document.source_id:
        raise Problem(
            409, "of-a-source", "This document comes from a source: change it there and synchronise."
        )
    filename, stored = _take(upload)
    user = principal.membership.user if principal else None
    with atomic():
        row = Document.objects.select_for_update().without_text().get(pk=document.pk)
        abandoned = row.pending_name
        row.pending_name, row.pending_uri = stored, clean_path(row.uri, filename=filename)
        row.save(update_fields=["pending_name", "pending_uri", "updated_at"])
        job = create_job(kind=Job.Kind.DOCUMENT, document=row, user=user)
        record_by(principal, "document.replace", row, {"title": row.title, "file": filename})
        if abandoned not in ("", row.stored_name):
            on_commit(lambda: delete_original(tenant_id=row.tenant_id, stored_name=abandoned))
    return job


def change_document(
    *,
    document: Document,
    principal: Principal | None = None,
    title: str | None = None,
    tags: Sequence[str] | None = None,
    collection: Collection | None = None,
    own_tags: bool | None = None,
) -> Document:
    """Another title, other tags or another collection. Tags hold for search from this transaction on.

    Tags that are given to a source's document are its own from then on: its source's go past it.

    Args:
        own_tags: of a source's document: ``False`` gives it its source's tags again, ``True`` keeps those that it has.

    Raises:
        Problem: 400 for tags that cannot be used.
    """
    with atomic():
        source = lock_source(document.source_id) if document.source_id else None
        now = Document.objects.select_for_update(of=("self",)).select_related("collection")
        document.refresh_from_db(fields=CHANGED, from_queryset=now)
        before = _readers(document)
        if title is not None:
            document.title = document.given_title = title
        tags = _chosen_tags(document=document, source=source, tags=tags, own_tags=own_tags)
        if tags is not None:
            chosen = check_tags(tags=tags, principal=principal)
            check_added_tags(added=set(chosen) - set(document.tags), principal=principal)
            document.tags = chosen
        if collection is not None:
            document.collection = collection
        document.save(update_fields=[*CHANGED, "updated_at"])
        retag_chunks(document=document)
        if lost := sorted(set(before["tags"]) - set(document.tags)):
            have_withdrawal_measured(document_id=document.pk, lost_tags=lost)
        record_by(principal, "document.change", document, {"before": before, "after": _readers(document)})
    return document


def _readers(document: Document) -> dict[str, Any]:
    """What the audit log says of a document before and after a change."""
    of_a_source = {"own_tags": document.own_tags} if document.source_id else {}
    return {
        "title": document.title,
        "tags": document.tags,
        "collection": document.collection.slug,
        **of_a_source,
    }


def _chosen_tags(
    *, document: Document, source: Source | None, tags: Sequence[str] | None, own_tags: bool | None
) -> Sequence[str] | None:
    """The tags that a document gets, and notes whose they are; ``None``: those that it has."""
    if own_tags is not None and source is None:
        raise wrong("own_tags", "This document comes from no source: it has no other tags than its own.")
    if own_tags is False and tags is not None:
        raise wrong("own_tags", "Give either tags, or own_tags: false for those of its source.")
    if source is None or (tags is None and own_tags is None):
        return tags
    document.tagged_by = Document.TaggedBy.SOURCE if own_tags is False else Document.TaggedBy.HAND
    return effective_tags(source) if own_tags is False else tags


def delete_document(*, document: Document, principal: Principal | None = None) -> None:
    """Takes a document out of every answer at once; it can be restored for 30 days. Its source does not bring it back."""
    with atomic():
        Document.objects.filter(pk=document.pk).update(deleted_at=timezone.now())
        exclude_document(document)
        note_changes(documents=[document.pk], withdrawn=True)
        record_by(principal, "document.delete", document, {"title": document.title})


def restore_document(*, document: Document, principal: Principal | None = None) -> Document:
    """Brings a deleted document back.

    Raises:
        Problem: 409 when its source holds another one of the same path by now.
    """
    with atomic():
        if (
            document.source_id
            and Document.objects.filter(
                source_id=document.source_id, uri=document.uri, deleted_at__isnull=True
            ).exists()
        ):
            raise Problem(409, "conflict", "Its source holds another document of this path by now.")
        # From now on it is kept as long as its collection says.
        Document.objects.filter(pk=document.pk).update(deleted_at=None, current_since=timezone.now())
        waits = Job.objects.filter(document=document, state__in=UNFINISHED).exists()
        if document.pending_name and not waits:
            # Its job came while it was deleted, and let it be.
            create_job(
                kind=Job.Kind.DOCUMENT,
                document=document,
                user=principal.membership.user if principal else None,
            )
        ExpiredItem.objects.filter(source_id=document.source_id, uri=document.uri).delete()
        note_changes(documents=[document.pk])
        have_missing_vectors_made()  # the tenant may have been switched to another model meanwhile
        record_by(principal, "document.restore", document, {"title": document.title})
    document.deleted_at = None
    return document


def start_reindex(
    *, principal: Principal, document: Document | None = None, collection: Collection | None = None
) -> Job:
    """A job that indexes a document or a collection again, from what is stored of it."""
    about = {"document": document} if document is not None else {"collection": collection}
    with atomic():
        job = create_job(
            kind=Job.Kind.REINDEX,
            user=principal.membership.user,
            document=document,
            collection=collection,
        )
        # Of one document it is the document's, whose title not everybody may read.
        told = {name: str(row) for name, row in about.items()} | {"task": str(job.pk)}
        record_by(principal, "index.rebuild", document or job, told)
    return job


def erase_deleted(*, before: datetime) -> int:
    """Erases what was deleted before that time: rows, chunks, originals. Returns how many documents."""
    erased = 0
    due = Document.objects.filter(deleted_at__lt=before).order_by("deleted_at")
    while ids := list(due.values_list("pk", flat=True)[:ERASED_AT_ONCE]):
        for pk in ids:
            erased += _erase(pk, before=before)
    return erased


def _erase(pk: UUID, *, before: datetime) -> bool:
    """Says whether the document was still to be erased: somebody may have restored it meanwhile."""
    with atomic():
        document = (
            Document.objects.select_for_update(of=("self",))
            .without_text()
            .filter(pk=pk, deleted_at__lt=before)
            .first()
        )
        if document is None:
            return False
        record_by(None, "document.erase", document, {"title": document.title})
        # An index that is older than its deletion could learn of that from no row any more.
        Corpus.objects.filter(floor__lt=document.revision).update(floor=document.revision)
        Chunk.objects.filter(document=document).delete()
        names = [document.stored_name, document.pending_name]
        document.delete()
    for name in names:
        delete_original(tenant_id=document.tenant_id, stored_name=name)
    return True
