"""The audit log and the costs."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import audit_events_visible_to
from tenants.audit_log import tell_events
from tenants.models import Ability, AuditEvent, Budget
from tenants.rest import TenantView, list_schema
from tenants.usage import summarise_costs


class AuditEventShape(serializers.ModelSerializer[AuditEvent]):
    actor = serializers.CharField(source="actor_name")
    role = serializers.CharField(source="role_name")

    class Meta:
        model = AuditEvent
        fields = (
            "id",
            "at",
            "action",
            "actor",
            "role",
            "method",
            "target_type",
            "target_id",
            "detail",
            "address",
            "request_id",
        )


class PeriodForm(serializers.Serializer[Any]):
    """``from`` and ``to`` of a query string, ISO 8601."""

    def get_fields(self) -> dict[str, Any]:
        return {
            "from": serializers.DateTimeField(required=False),
            "to": serializers.DateTimeField(required=False),
        }


def read_period(request: Request, *, days: int = 30) -> tuple[datetime, datetime]:
    """``from`` and ``to`` of the query string; the last ``days`` unless told.

    Raises:
        Problem: 400 when they are no times, or the wrong way round.
    """
    given = {name: request.query_params[name] for name in ("from", "to") if request.query_params.get(name)}
    for name, value in given.items():
        if len(value) == 10:  # a date: its beginning, or for “to” its end
            given[name] = value + ("T00:00:00Z" if name == "from" else "T23:59:59.999999Z")
    form = PeriodForm(data=given)
    form.is_valid(raise_exception=True)
    end: datetime = form.validated_data.get("to") or timezone.now()
    earliest = datetime.min.replace(tzinfo=UTC)
    start: datetime = form.validated_data.get("from") or earliest + max(
        timedelta(), end - earliest - timedelta(days=days)
    )
    if start >= end:
        raise Problem(
            400,
            "invalid",
            "The period is empty.",
            errors=[FieldProblem("from", "Give a time before “to”.")],
        )
    return start, end


class AuditView(TenantView):
    abilities = {"GET": Ability.MANAGE.value}

    @list_schema(
        AuditEventShape,
        operation_id="audit_list",
        tags=["people"],
        parameters=[
            OpenApiParameter(
                "action", str, description="Exactly this action, or a prefix that ends with a dot."
            ),
            OpenApiParameter("actor", str, description="A user name."),
            OpenApiParameter("target_id", str),
            OpenApiParameter("from", datetime),
            OpenApiParameter("to", datetime),
        ],
    )
    def get(self, request: Request) -> Response:
        """What happened in the tenant, newest first. Of documents that you may not read the `detail` is withheld."""
        reader = self.principal.membership
        events = audit_events_visible_to(reader)
        asked = request.query_params
        if action := asked.get("action"):
            events = (
                events.filter(action__startswith=action)
                if action.endswith(".")
                else events.filter(action=action)
            )
        if actor := asked.get("actor"):
            events = events.filter(actor_name=actor)
        if target := asked.get("target_id"):
            events = events.filter(target_id=target)
        if asked.get("from") or asked.get("to"):
            start, end = read_period(request, days=365 * 100)
            events = events.filter(at__gte=start, at__lt=end)

        def shape(rows: list[AuditEvent], **options: Any) -> Any:
            return AuditEventShape(tell_events(rows, reader=reader), **options)

        return self.page(events, shape)


class CostGroupShape(serializers.Serializer[Any]):
    calls = serializers.IntegerField()
    cost = serializers.DecimalField(max_digits=20, decimal_places=12)
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    cache_read_tokens = serializers.IntegerField()
    cache_write_tokens = serializers.IntegerField()


class BudgetShape(serializers.Serializer[Any]):
    subject = serializers.ChoiceField(choices=Budget.Subject.choices)
    period = serializers.ChoiceField(choices=Budget.Period.choices)
    soft_usd = serializers.DecimalField(max_digits=14, decimal_places=6, allow_null=True)
    hard_usd = serializers.DecimalField(max_digits=14, decimal_places=6, allow_null=True)
    spent_usd = serializers.DecimalField(max_digits=20, decimal_places=12)
    reserved_usd = serializers.DecimalField(
        max_digits=20, decimal_places=12, help_text="Set aside for calls under way."
    )
    percent = serializers.IntegerField(
        help_text="Of the hard limit; of the soft one where there is no other."
    )
    resets_at = serializers.DateTimeField()


class ModelCostShape(CostGroupShape):
    model = serializers.CharField()


class UserCostShape(CostGroupShape):
    user = serializers.CharField()


class CostsShape(serializers.Serializer[Any]):
    total_calls = serializers.IntegerField()
    total_cost = serializers.DecimalField(max_digits=20, decimal_places=12)
    hourly_rate = serializers.DecimalField(max_digits=20, decimal_places=12)
    daily_rate = serializers.DecimalField(max_digits=20, decimal_places=12)
    monthly_rate = serializers.DecimalField(max_digits=20, decimal_places=12)
    avg_cost_per_query = serializers.DecimalField(max_digits=20, decimal_places=12)
    unpriced_calls = serializers.IntegerField()
    by_model = ModelCostShape(many=True)
    by_user = UserCostShape(many=True)
    budget = BudgetShape(
        many=True, allow_null=True, help_text="The tenant’s as they stand now; null: none is set."
    )

    def get_fields(self) -> dict[str, Any]:
        return {
            "from": serializers.DateTimeField(),
            "to": serializers.DateTimeField(),
            **super().get_fields(),
        }


class CostsView(TenantView):
    abilities = {"GET": Ability.SEE_COSTS.value}

    @extend_schema(
        responses=CostsShape,
        operation_id="costs",
        tags=["costs"],
        parameters=[OpenApiParameter("from", datetime), OpenApiParameter("to", datetime)],
    )
    def get(self, request: Request) -> Response:
        """What the tenant's model calls cost, in US dollars; the last 30 days unless told."""
        start, end = read_period(request)
        return Response(
            CostsShape(summarise_costs(tenant=self.principal.membership.tenant, start=start, end=end)).data
        )
