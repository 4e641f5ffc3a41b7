"""Feedback."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.models import Feedback
from feedback.ratings import change_rating, rate_answer, withdraw_rating
from knowledge.access import access_answer
from tenants.access import access_one
from tenants.models import Ability
from tenants.rest import TenantView

ASK = Ability.ASK.value


class RatingForm(serializers.Serializer[Any]):
    rating = serializers.IntegerField(min_value=1, max_value=5, required=False, allow_null=True)
    helpful = serializers.BooleanField(required=False, allow_null=True)
    reasons = serializers.ListField(
        child=serializers.ChoiceField(choices=Feedback.Reason.choices), required=False, max_length=10
    )
    comment = serializers.CharField(max_length=5000, required=False, allow_blank=True)
    correction = serializers.CharField(max_length=20000, required=False, allow_blank=True)


class FeedbackForm(RatingForm):
    request_id = serializers.UUIDField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not any(value not in (None, "", []) for name, value in attrs.items() if name != "request_id"):
            raise serializers.ValidationError({"rating": ["Give a rating, helpful, a reason or a comment."]})
        return attrs


class FeedbackShape(serializers.ModelSerializer[Feedback]):
    request_id = serializers.UUIDField(source="answer_id")

    class Meta:
        model = Feedback
        fields = (
            "id",
            "request_id",
            "rating",
            "helpful",
            "reasons",
            "comment",
            "correction",
            "created_at",
            "updated_at",
        )


class FeedbacksView(TenantView):
    abilities = {"POST": ASK}

    @extend_schema(
        request=FeedbackForm,
        responses={201: FeedbackShape},
        operation_id="feedback_create",
        tags=["feedback"],
    )
    def post(self, request: Request) -> Response:
        """Rate an answer."""
        form = self.parse(FeedbackForm)
        answer = access_answer(self.principal.membership, form.pop("request_id"))
        feedback = rate_answer(principal=self.principal, answer=answer, values=form)
        return Response(FeedbackShape(feedback).data, status=201)


class FeedbackView(TenantView):
    abilities = {"PATCH": ASK, "DELETE": ASK}

    def _access(self, id: UUID) -> Feedback:
        feedback: Feedback = access_one(Feedback.objects.visible_to(self.principal.membership), id)
        return feedback

    @extend_schema(
        request=RatingForm, responses=FeedbackShape, operation_id="feedback_change", tags=["feedback"]
    )
    def patch(self, request: Request, id: UUID) -> Response:
        """Change my rating."""
        feedback = self._access(id)
        values = self.parse(RatingForm, partial=True)
        return Response(
            FeedbackShape(change_rating(principal=self.principal, feedback=feedback, values=values)).data
        )

    @extend_schema(responses={204: None}, operation_id="feedback_delete", tags=["feedback"])
    def delete(self, request: Request, id: UUID) -> Response:
        """Withdraw my rating."""
        withdraw_rating(principal=self.principal, feedback=self._access(id))
        return Response(status=204)
