"""Requests for documents."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.models import DocumentRequest
from feedback.requests import answer_request, request_document, requests_visible_to
from knowledge.access import access_answer
from tenants.access import access_one
from tenants.models import Ability
from tenants.rest import TenantView, list_schema

ASK, MANAGE = Ability.ASK.value, Ability.MANAGE.value
Status = DocumentRequest.Status


class DocumentRequestForm(serializers.Serializer[Any]):
    question = serializers.CharField(max_length=1000, required=False, allow_blank=True)
    request_id = serializers.UUIDField(
        required=False, allow_null=True, help_text="The answer that did not say it."
    )
    note = serializers.CharField(max_length=5000, required=False, allow_blank=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs.get("question", "").strip() and not attrs.get("request_id"):
            raise serializers.ValidationError(
                {"question": ["Give a question, or the request_id of an answer."]}
            )
        return attrs


class DocumentRequestChangeForm(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=Status.choices, required=False)
    reply = serializers.CharField(max_length=5000, required=False, allow_blank=True)


class DocumentRequestShape(serializers.ModelSerializer[DocumentRequest]):
    request_id = serializers.UUIDField(source="answer_id", allow_null=True)
    user = serializers.CharField(source="user.username", default=None, allow_null=True)

    class Meta:
        model = DocumentRequest
        fields = (
            "id",
            "question",
            "note",
            "request_id",
            "user",
            "status",
            "reply",
            "created_at",
            "handled_at",
        )


class DocumentRequestsView(TenantView):
    abilities = {"GET": ASK, "POST": ASK}

    @list_schema(
        DocumentRequestShape,
        parameters=[OpenApiParameter("status", enum=Status.values)],
        operation_id="document_requests_list",
        tags=["feedback"],
    )
    def get(self, request: Request) -> Response:
        """My requests, newest first; everyone's for those who manage the tenant."""
        rows = requests_visible_to(self.principal)
        if (status := request.query_params.get("status")) is not None:
            field = serializers.ChoiceField(choices=Status.choices)
            try:
                rows = rows.filter(status=field.run_validation(status))
            except serializers.ValidationError as error:
                raise serializers.ValidationError({"status": error.detail}) from None
        return self.page(rows, DocumentRequestShape)

    @extend_schema(
        request=DocumentRequestForm,
        responses={201: DocumentRequestShape},
        operation_id="document_requests_create",
        tags=["feedback"],
    )
    def post(self, request: Request) -> Response:
        """Ask for a document that is missing."""
        form = self.parse(DocumentRequestForm)
        pk = form.get("request_id")
        row = request_document(
            principal=self.principal,
            question=form.get("question", ""),
            answer=access_answer(self.principal.membership, pk) if pk else None,
            note=form.get("note", ""),
        )
        return Response(DocumentRequestShape(row).data, status=201)


class DocumentRequestView(TenantView):
    abilities = {"PATCH": MANAGE}

    @extend_schema(
        request=DocumentRequestChangeForm,
        responses=DocumentRequestShape,
        operation_id="document_requests_change",
        tags=["feedback"],
    )
    def patch(self, request: Request, id: UUID) -> Response:
        """Say what became of a request."""
        row: DocumentRequest = access_one(requests_visible_to(self.principal), id)
        changes = self.parse(DocumentRequestChangeForm, partial=True)
        return Response(
            DocumentRequestShape(answer_request(principal=self.principal, request=row, changes=changes)).data
        )
