"""What the questions of a tenant come to."""

from datetime import datetime
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.stats import summarise_answers
from tenants.api.audit import read_period
from tenants.models import Ability
from tenants.rest import TenantView


class LatencyShape(serializers.Serializer[Any]):
    average = serializers.FloatField(allow_null=True)
    p50 = serializers.FloatField(allow_null=True)
    p95 = serializers.FloatField(allow_null=True)
    p99 = serializers.FloatField(allow_null=True)


class TokensShape(serializers.Serializer[Any]):
    input = serializers.IntegerField(
        help_text="Without what was read from or written to the provider's cache."
    )
    output = serializers.IntegerField()
    cache_read = serializers.IntegerField()
    cache_write = serializers.IntegerField()


class CacheRatesShape(serializers.Serializer[Any]):
    hits = serializers.IntegerField()
    misses = serializers.IntegerField()
    hit_rate = serializers.FloatField(allow_null=True)
    by_kind = serializers.DictField(child=serializers.IntegerField())


class StatsShape(serializers.Serializer[Any]):
    queries = serializers.IntegerField()
    failed = serializers.IntegerField(help_text="Without an answer, or stopped; in no latency and no rate.")
    queries_per_hour = serializers.FloatField()
    latency_ms = LatencyShape()
    empty_rate = serializers.FloatField(allow_null=True, help_text="“Not in your documents”.")
    tokens = TokensShape()
    calls = serializers.IntegerField(help_text="Of models.")
    cost = serializers.DecimalField(max_digits=20, decimal_places=12)
    satisfaction = serializers.FloatField(
        allow_null=True, help_text="Ratings that say “helpful” or give four stars or more."
    )
    ratings = serializers.IntegerField()
    average_rating = serializers.FloatField(allow_null=True)
    cache = CacheRatesShape()

    def get_fields(self) -> dict[str, Any]:
        return {
            "from": serializers.DateTimeField(),
            "to": serializers.DateTimeField(),
            **super().get_fields(),
        }


class StatsView(TenantView):
    abilities = {"GET": Ability.SEE_COSTS.value}

    @extend_schema(
        responses=StatsShape,
        operation_id="stats",
        tags=["costs"],
        parameters=[OpenApiParameter("from", datetime), OpenApiParameter("to", datetime)],
    )
    def get(self, request: Request) -> Response:
        """Questions, latency, tokens, costs and satisfaction; the last 30 days unless told."""
        start, end = read_period(request)
        return Response(StatsShape(summarise_answers(start=start, end=end).show()).data)
