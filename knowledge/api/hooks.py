"""Webhooks: deliveries to a source, and the secret that signs them."""

from typing import Any
from uuid import UUID

from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from knowledge.access import access_source
from knowledge.webhooks.receive import receive, refused
from knowledge.webhooks.secrets import delete_secret, old_secret_until, rotate_secret
from knowledge.webhooks.signatures import is_signed
from ragsite.core.config import config
from ragsite.core.problems import Problem
from tenants.authentication import client_address
from tenants.limits import throttle
from tenants.models import Ability
from tenants.rest import TenantView

MANAGE = Ability.MANAGE.value
DELIVERIES_PER_ADDRESS = 600  # a minute
MAX_EVENT_BYTES = 25 * 2**20  # GitHub's own bound


class ReceivedShape(serializers.Serializer[Any]):
    status = serializers.ChoiceField(
        choices=["started", "unchanged", "deleted", "absent", "ignored", "received", "duplicate"]
    )
    detail = serializers.CharField(required=False)
    task_id = serializers.UUIDField(required=False)
    status_url = serializers.CharField(required=False)


class HookEventForm(serializers.Serializer[Any]):
    type = serializers.CharField(help_text="document.upsert or document.delete; of other senders their own.")
    data = serializers.DictField(  # type: ignore[assignment]
        required=False,
        help_text="uri, title?, tags? (of the source's own), content or content_base64, media_type?",
    )


class HookSecretShape(serializers.Serializer[Any]):
    secret = serializers.CharField(help_text="Shown this once.")
    hook_url = serializers.CharField()
    old_secret_until = serializers.DateTimeField(allow_null=True)


def hook_url(source_id: UUID, request: Any) -> str:
    """Where deliveries for a source go: the site's own address, or the one that was asked where it has none."""
    path = reverse("hook", args=[source_id])
    return f"{config().public_url}{path}" if config().public_url else request.build_absolute_uri(path)


class HookView(APIView):
    """Nobody signs in here, whatever they send along: the signature of the body decides."""

    authentication_classes = ()
    permission_classes = ()
    parser_classes = ()

    @extend_schema(
        request=HookEventForm,
        responses={200: ReceivedShape, 202: ReceivedShape},
        operation_id="hooks_receive",
        tags=["sources"],
        auth=[],
        parameters=[
            OpenApiParameter("webhook-id", str, OpenApiParameter.HEADER),
            OpenApiParameter("webhook-timestamp", int, OpenApiParameter.HEADER),
            OpenApiParameter("webhook-signature", str, OpenApiParameter.HEADER),
            OpenApiParameter("X-Hub-Signature-256", str, OpenApiParameter.HEADER),
            OpenApiParameter("X-Gitlab-Token", str, OpenApiParameter.HEADER),
        ],
    )
    def post(self, request: Request, id: UUID) -> Response:
        """A push of GitHub or GitLab, or a Standard Webhook, signed with the source's secret: synchronises the source, or
        takes a document in."""
        inner = request._request
        address = client_address(inner)
        throttle(what="hooks", key=address or "", most=DELIVERIES_PER_ADDRESS, seconds=60)
        headers = {name.lower(): value for name, value in inner.headers.items()}
        if not is_signed(headers):
            raise refused()
        received = receive(source_id=id, headers=headers, body=_read_body(inner), address=address)
        body: dict[str, Any] = {"status": received.status}
        if received.detail:
            body["detail"] = received.detail
        if received.job is not None:
            url = reverse("task", args=[received.job])
            body |= {"task_id": received.job, "status_url": url}
        done = received.status in ("received", "unchanged", "deleted", "absent")
        return Response(body, status=200 if done else 202)


def most_hook_bytes() -> int:
    """How large a delivery may be: an event, or a document as base64."""
    return max(MAX_EVENT_BYTES, config().max_upload_bytes * 4 // 3 + 64 * 1024)


def _read_body(request: Any) -> bytes:
    """The raw body, whose size Django does not bound where it is read as a stream.

    Raises:
        Problem: 413.
    """
    most = most_hook_bytes()
    declared = request.META.get("CONTENT_LENGTH") or "0"
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    body: bytes = request.read(most + 1)
    if len(body) > most:
        raise _too_large(most)
    return body


def _too_large(most: int) -> Problem:
    return Problem(413, "too-large", f"The body is larger than the {most >> 20} MB that are taken in.")


class HookSecretView(TenantView):
    abilities = {"POST": MANAGE, "DELETE": MANAGE}

    @extend_schema(
        request=None, responses={201: HookSecretShape}, operation_id="sources_hook_secret", tags=["sources"]
    )
    def post(self, request: Request, id: UUID) -> Response:
        """Make the secret of a source's webhooks and callbacks, or a new one; the old one holds for 24 hours more."""
        source = access_source(self.principal.membership, id)
        secret = rotate_secret(source=source, principal=self.principal)
        body = {
            "secret": secret,
            "hook_url": hook_url(source.pk, request),
            "old_secret_until": old_secret_until(source),
        }
        return Response(body, status=201, headers={"Cache-Control": "no-store"})

    @extend_schema(responses={204: None}, operation_id="sources_hook_secret_delete", tags=["sources"])
    def delete(self, request: Request, id: UUID) -> Response:
        """End every secret of a source at once."""
        delete_secret(source=access_source(self.principal.membership, id), principal=self.principal)
        return Response(status=204)
