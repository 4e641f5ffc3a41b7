"""Documents."""

from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.http import FileResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.access import access_collections, access_document
from knowledge.api.shapes import (
    AcceptedShape,
    ContentForm,
    DocumentChangeForm,
    DocumentContentShape,
    DocumentForm,
    DocumentShape,
)
from knowledge.api.streaming import AnyFormat
from knowledge.documents import (
    Upload,
    add_document,
    change_document,
    delete_document,
    replace_content,
    restore_document,
)
from knowledge.duplicates import has_duplicates, with_duplicates
from knowledge.ingestion.index import too_large
from knowledge.ingestion.storage import original_path
from knowledge.models import Collection, Document, Job
from ragsite.core.config import config
from ragsite.core.problems import FieldProblem, Problem, not_found
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Ability
from tenants.rest import TenantView, list_schema

ASK, UPLOAD = Ability.ASK.value, Ability.UPLOAD.value


def accepted(*, document: Document, job: Job) -> Response:
    """202: the work goes on elsewhere, and where to look."""
    url = reverse("task", args=[job.pk])
    return Response(
        {"id": document.pk, "task_id": job.pk, "status_url": url}, status=202, headers={"Location": url}
    )


def show_document(document: Any, principal: Principal) -> Response:
    document.has_duplicates = has_duplicates(document, principal.membership)
    return Response(DocumentShape(document).data)


def read_upload(file: Any) -> Upload:
    """An uploaded file's bytes.

    Raises:
        Problem: 413 before anything of a large one is read.
    """
    name = str(file.name or "document")
    if file.size > config().max_upload_bytes:
        raise Problem(
            413,
            "too-large",
            too_large(filename=name, size=file.size),
            errors=[FieldProblem("file", too_large(filename=name, size=file.size))],
        )
    return Upload(filename=name, data=file.read())


class DocumentsView(TenantView):
    abilities = {"GET": ASK, "POST": UPLOAD}

    def get_parsers(self) -> Any:
        return [MultiPartParser()]

    @list_schema(
        DocumentShape,
        operation_id="documents_list",
        tags=["documents"],
        parameters=[
            OpenApiParameter("collection", str, description="Slug or id."),
            OpenApiParameter("tag", str),
            OpenApiParameter("status", str, enum=list(Document.Status.values)),
            OpenApiParameter("q", str, description="Part of the title or path."),
            OpenApiParameter("deleted", bool, description="Those that can be restored, instead."),
        ],
    )
    def get(self, request: Request) -> Response:
        """The documents that I may read, newest first."""
        membership = self.principal.membership
        asked = request.query_params
        if asked.get("deleted") in ("true", "1"):
            self.principal.require(UPLOAD)
            documents = Document.objects.restorable_by(membership)
        else:
            documents = Document.objects.visible_to(membership)
        if name := asked.get("collection"):
            documents = documents.filter(collection=access_collections(self.principal, [name])[0])
        if tag := asked.get("tag"):
            documents = documents.filter(tags__contains=[tag])
        if status := asked.get("status"):
            documents = documents.filter(status=status)
        if text := asked.get("q"):
            if "\0" in text:
                raise Problem(400, "invalid", "The search text holds a NUL character.")
            documents = documents.filter(title__icontains=text) | documents.filter(uri__icontains=text)
        rows = documents.without_text().select_related("collection")
        return self.page(with_duplicates(rows, membership), DocumentShape)

    @extend_schema(
        request={"multipart/form-data": DocumentForm},
        responses={202: AcceptedShape},
        operation_id="documents_create",
        tags=["documents"],
    )
    def post(self, request: Request) -> Response:
        """Upload a document; a job indexes it. Without tags it gets its collection's; without any, admins alone read it."""
        form = self.parse(DocumentForm)
        document, job = add_document(
            upload=read_upload(form["file"]),
            collection=_collection(self, form),
            tags=form.get("tags"),
            title=form.get("title", ""),
            principal=self.principal,
        )
        return accepted(document=document, job=job)


def _collection(view: TenantView, form: dict[str, Any]) -> Collection | None:
    name = form.get("collection")
    return access_collections(view.principal, [name])[0] if name else None


class DocumentView(TenantView):
    abilities = {"GET": ASK, "PATCH": UPLOAD, "PUT": UPLOAD, "DELETE": UPLOAD}

    def get_parsers(self) -> Any:
        return [MultiPartParser()] if self.request_method == "PUT" else super().get_parsers()

    @property
    def request_method(self) -> str:
        request = getattr(self, "request", None)
        return getattr(request, "method", "") or ""

    @extend_schema(responses=DocumentShape, operation_id="documents_read", tags=["documents"])
    def get(self, request: Request, id: UUID) -> Response:
        """One document, without its text."""
        return show_document(access_document(self.principal.membership, id), self.principal)

    @extend_schema(
        request={"multipart/form-data": ContentForm},
        responses={202: AcceptedShape},
        operation_id="documents_replace",
        tags=["documents"],
    )
    def put(self, request: Request, id: UUID) -> Response:
        """New content. The old one answers until the new one is indexed."""
        document = access_document(self.principal.membership, id)
        form = self.parse(ContentForm)
        job = replace_content(document=document, upload=read_upload(form["file"]), principal=self.principal)
        return accepted(document=document, job=job)

    @extend_schema(
        request=DocumentChangeForm,
        responses=DocumentShape,
        operation_id="documents_change",
        tags=["documents"],
    )
    def patch(self, request: Request, id: UUID) -> Response:
        """Another title, other tags, another collection; holds from the next question on. A source's document keeps tags
        that were given here, until `own_tags` is set to false."""
        document = access_document(self.principal.membership, id)
        form = self.parse(DocumentChangeForm)
        changed = change_document(
            document=document,
            principal=self.principal,
            title=form.get("title"),
            tags=form.get("tags"),
            collection=_collection(self, form),
            own_tags=form.get("own_tags"),
        )
        return show_document(changed, self.principal)

    @extend_schema(responses={204: None}, operation_id="documents_delete", tags=["documents"])
    def delete(self, request: Request, id: UUID) -> Response:
        """Take a document out of every answer, at once; it can be restored for 30 days."""
        delete_document(document=access_document(self.principal.membership, id), principal=self.principal)
        return Response(status=204)


class DocumentRestoreView(TenantView):
    abilities = {"POST": UPLOAD}

    @extend_schema(
        request=None, responses=DocumentShape, operation_id="documents_restore", tags=["documents"]
    )
    def post(self, request: Request, id: UUID) -> Response:
        """Bring a deleted document back."""
        document = access_document(self.principal.membership, id, deleted=True)
        self.reference = id
        return show_document(restore_document(document=document, principal=self.principal), self.principal)

    def replay(self, reference: UUID) -> Response:
        """As it may be read now."""
        return show_document(access_document(self.principal.membership, reference), self.principal)


class DocumentContentView(TenantView):
    abilities = {"GET": ASK}

    @extend_schema(responses=DocumentContentShape, operation_id="documents_content", tags=["documents"])
    def get(self, request: Request, id: UUID) -> Response:
        """The extracted text; the offsets of sources point into it."""
        document = access_document(self.principal.membership, id)
        record_by(self.principal, "document.read", document, {"title": document.title})
        return Response(
            {
                "id": document.pk,
                "title": document.title,
                "text": document.text,
                "pages": document.pages,
                "version": document.version,
            }
        )


class DocumentOriginalView(TenantView):
    abilities = {"GET": ASK}
    content_negotiation_class = AnyFormat

    @extend_schema(
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY},
        operation_id="documents_original",
        tags=["documents"],
    )
    def get(self, request: Request, id: UUID) -> FileResponse:
        """The file as it was uploaded, as a download."""
        document = access_document(self.principal.membership, id)
        stored = document.stored_name or document.pending_name
        try:
            file = original_path(tenant_id=document.tenant_id, stored_name=stored).open("rb")
        except (FileNotFoundError, ValueError):
            raise not_found() from None
        record_by(self.principal, "document.read", document, {"title": document.title, "original": True})
        # Never the file's own type, never inline: an uploaded page must not run in our origin.
        response = FileResponse(file, content_type="application/octet-stream")
        name = document.uri.rsplit("/", 1)[-1]
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
        return response
