"""Documents that are pushed to a source, under the source's own tags and no others."""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from django.utils import timezone

from knowledge.documents import MAX_URI, problem_of_parse_error
from knowledge.ingestion.index import check_file, note_changes, retag_chunks
from knowledge.ingestion.jobs import create_job
from knowledge.ingestion.names import ending_of, file_name, media_type_name
from knowledge.ingestion.parse import SUPPORTED_EXTENSIONS, ParseError
from knowledge.ingestion.source_tags import effective_tags, give_source_tags, lock_source
from knowledge.ingestion.storage import delete_original, store_original
from knowledge.models import Document, Job, Source
from ragsite.core.problems import FieldProblem, Problem
from tenants.audit import record_event
from tenants.scope import atomic, on_commit

MAX_TITLE = 500


@dataclass(frozen=True)
class PushedDocument:
    """A document as it was sent.

    Attributes:
        tags: ``None``: the source's.
    """

    uri: str
    data: bytes
    media_type: str = ""
    title: str = ""
    tags: tuple[str, ...] | None = None

    @property
    def filename(self) -> str:
        return file_name(self.uri, self.media_type)


def read_uri(data: Mapping[str, Any]) -> str:
    """Raises Problem: 400."""
    uri = data.get("uri")
    if not isinstance(uri, str) or not uri.strip() or len(uri) > MAX_URI or not uri.isprintable():
        raise _wrong("uri", f"Give the document's own address or path, at most {MAX_URI} characters.")
    return uri.strip()


def read_document(data: Mapping[str, Any]) -> PushedDocument:
    """The document of ``document.upsert``.

    Raises:
        Problem: 400 that names the field.
    """
    uri, title, tags, media_type = (
        read_uri(data),
        data.get("title", ""),
        data.get("tags"),
        data.get("media_type", ""),
    )
    if not isinstance(title, str) or len(title) > MAX_TITLE or not (title.isprintable() or not title):
        raise _wrong("title", f"Give one line of at most {MAX_TITLE} characters, or leave it out.")
    if tags is not None and not (
        isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) and tags
    ):
        raise _wrong("tags", "Give a list of tags, or leave it out: the source's own tags hold then.")
    if not isinstance(media_type, str) or (media_type and not ending_of(media_type)):
        raise _wrong("media_type", "Give a media type such as text/markdown, text/html or application/pdf.")
    text, packed = data.get("content"), data.get("content_base64")
    if (text is None) == (packed is None):
        raise _wrong("content", "Give either content (text) or content_base64.")
    if text is not None:
        if not isinstance(text, str):
            raise _wrong("content", "Must be a string.")
        body = text.encode("utf-8", "replace")
    else:
        try:
            body = base64.b64decode(packed if isinstance(packed, str) else "*", validate=True)
        except (binascii.Error, ValueError):
            raise _wrong("content_base64", "Must be base64.") from None
    if text is not None and not media_type and not _has_known_ending(uri):
        media_type = "text/markdown"  # which plain text is as well
    return PushedDocument(
        uri=uri,
        data=body,
        media_type=media_type_name(media_type),
        title=title.strip(),
        tags=None if tags is None else tuple(tags),
    )


def _has_known_ending(uri: str) -> bool:
    return PurePath(file_name(uri)).suffix.lower() in SUPPORTED_EXTENSIONS


def _wrong(field: str, words: str) -> Problem:
    return Problem(
        400,
        "invalid",
        "Some values cannot be used; see errors.",
        errors=[FieldProblem(f"data.{field}", words)],
    )


def _check_tags(source: Source, tags: Sequence[str] | None) -> list[str]:
    allowed = effective_tags(source)
    if tags is None:
        return allowed
    if beyond := sorted(set(tags) - set(allowed)):
        may = ", ".join(allowed) or "none: only admins read it"
        raise _wrong("tags", f"This source may not give {', '.join(beyond)[:200]}; it may give {may}.")
    return sorted(set(tags))


def upsert_document(*, source: Source, pushed: PushedDocument, address: str | None = None) -> Job | None:
    """Takes a pushed document in; a job indexes it. ``None``: it is as it was.

    Raises:
        Problem: 400, 413 or 415 for content or tags that cannot be taken; 507 when the disk is full.
    """
    _check_tags(source, pushed.tags)
    try:
        check_file(data=pushed.data, filename=pushed.filename)
    except ParseError as error:
        raise problem_of_parse_error(error) from None
    sha256 = hashlib.sha256(pushed.data).hexdigest()
    stored = store_original(tenant_id=source.tenant_id, data=pushed.data)
    try:
        with atomic():
            # One writer of a source's documents at a time, and the tags that it may give by then.
            source = lock_source(source.pk) or source
            tags = _check_tags(source, pushed.tags)
            document = _row(source, pushed, tags)
            same = document.sha256 == sha256 and document.status == Document.Status.INDEXED
            job = None if same and not document.pending_name else _index(document, pushed, source, stored)
            if job is not None:
                record_event(
                    action="document.push",
                    method="webhook",
                    target=document,
                    detail={"title": document.title, "source": source.name, "tags": document.tags},
                    address=address,
                )
    except BaseException:
        delete_original(tenant_id=source.tenant_id, stored_name=stored)
        raise
    if job is None:
        delete_original(tenant_id=source.tenant_id, stored_name=stored)
    return job


def _row(source: Source, pushed: PushedDocument, tags: list[str]) -> Document:
    """The document's row, made or brought in line with what was sent beside the content; tags set by hand stay."""
    rows = Document.objects.filter(source=source, uri=pushed.uri, deleted_at__isnull=True).without_text()
    found: Document | None = rows.select_for_update().first()
    tagged_by = Document.TaggedBy.SOURCE if pushed.tags is None else Document.TaggedBy.SENDER
    if found is None:
        made = Document(
            source=source,
            collection=source.collection,
            uri=pushed.uri,
            title=pushed.title or PurePath(pushed.filename).stem[:MAX_TITLE],
            given_title=pushed.title,
        )
        give_source_tags([made])
        if not made.own_tags:
            made.tags, made.tagged_by = tags, tagged_by
        made.save(force_insert=True)
        return made
    if found.own_tags:
        tags, tagged_by = sorted(found.tags), Document.TaggedBy.HAND
    retitled = bool(pushed.title) and pushed.title != found.given_title
    stands = (sorted(found.tags), found.tagged_by, found.collection_id)
    if retitled or stands != (tags, tagged_by, source.collection_id):
        found.tags, found.tagged_by, found.collection = tags, tagged_by, source.collection
        if retitled:
            found.title = found.given_title = pushed.title
        found.save(update_fields=["title", "given_title", "tags", "tagged_by", "collection", "updated_at"])
        retag_chunks(document=found)
    return found


def _index(document: Document, pushed: PushedDocument, source: Source, stored: str) -> Job:
    abandoned = document.pending_name
    document.pending_name, document.pending_uri = stored, pushed.uri
    document.media_type = pushed.media_type[:100]  # tells the format where the URI does not
    document.save(update_fields=["pending_name", "pending_uri", "media_type", "updated_at"])
    if abandoned not in ("", document.stored_name):
        tenant_id = document.tenant_id
        on_commit(lambda: delete_original(tenant_id=tenant_id, stored_name=abandoned))
    return create_job(kind=Job.Kind.DOCUMENT, document=document, source=source)


def remove_document(*, source: Source, uri: str, address: str | None = None) -> bool:
    """Takes a pushed document out of every answer at once; says whether there was one."""
    with atomic():
        document = (
            Document.objects.select_for_update(of=("self",))
            .filter(source=source, uri=uri, deleted_at__isnull=True)
            .without_text()
            .first()
        )
        if document is None:
            return False
        Document.objects.filter(pk=document.pk).update(deleted_at=timezone.now())
        note_changes(documents=[document.pk], withdrawn=True)
        record_event(
            action="document.delete",
            method="webhook",
            target=document,
            detail={"title": document.title, "source": source.name},
            address=address,
        )
    return True
