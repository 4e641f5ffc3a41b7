"""Conversations."""

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.access import access_conversation
from knowledge.answering.record import present_answers
from knowledge.api.question_shapes import (
    ConversationDetailShape,
    ConversationForm,
    ConversationShape,
    ShareForm,
    ShareShape,
)
from knowledge.conversations import change_conversation, delete_conversation, share_conversation
from knowledge.models import Answer, Conversation
from tenants.models import Ability
from tenants.rest import TenantView, list_schema

ASK = Ability.ASK.value


class ConversationsView(TenantView):
    abilities = {"GET": ASK}

    @list_schema(ConversationShape, operation_id="conversations_list", tags=["conversations"])
    def get(self, request: Request) -> Response:
        """My conversations and those shared with me, latest first."""
        membership = self.principal.membership
        rows = Conversation.objects.shared_or_own(membership)
        return self.page(rows, ConversationShape, user_id=membership.user_id)


class ConversationView(TenantView):
    abilities = {"GET": ASK, "PATCH": ASK, "DELETE": ASK}

    def _body(self, conversation: Conversation) -> dict[str, object]:
        membership = self.principal.membership
        answers = list(Answer.objects.filter(conversation=conversation).order_by("created_at", "id")[:500])
        shape = ConversationShape(conversation, context={"user_id": membership.user_id}).data
        return {**shape, "answers": present_answers(answers, membership=membership)}

    @extend_schema(
        responses=ConversationDetailShape, operation_id="conversations_read", tags=["conversations"]
    )
    def get(self, request: Request, id: UUID) -> Response:
        """One conversation with its answers; what you may not read is withheld."""
        return Response(self._body(access_conversation(self.principal.membership, id)))

    @extend_schema(
        request=ConversationForm,
        responses=ConversationDetailShape,
        operation_id="conversations_change",
        tags=["conversations"],
    )
    def patch(self, request: Request, id: UUID) -> Response:
        """Rename or pin."""
        conversation = access_conversation(self.principal.membership, id, to_change=True)
        changes = self.parse(ConversationForm, partial=True)
        changed = change_conversation(conversation=conversation, changes=changes, principal=self.principal)
        return Response(self._body(changed))

    @extend_schema(responses={204: None}, operation_id="conversations_delete", tags=["conversations"])
    def delete(self, request: Request, id: UUID) -> Response:
        """Delete a conversation. Its answers stay in the tenant's statistics, out of everyone's history."""
        conversation = access_conversation(self.principal.membership, id, to_change=True)
        delete_conversation(conversation=conversation, principal=self.principal)
        return Response(status=204)


class ConversationShareView(TenantView):
    abilities = {"POST": ASK}

    @extend_schema(
        request=ShareForm, responses=ShareShape, operation_id="conversations_share", tags=["conversations"]
    )
    def post(self, request: Request, id: UUID) -> Response:
        """Let other members read a conversation; only those who may read every source of it."""
        conversation = access_conversation(self.principal.membership, id, to_change=True)
        form = self.parse(ShareForm)
        names = share_conversation(
            conversation=conversation, members=form["members"], principal=self.principal
        )
        return Response({"shared_with": names})
