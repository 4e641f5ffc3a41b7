"""How the OpenAPI document is made of the views. A module of its own: it is imported while ``tenants.rest`` is."""

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter

from tenants.idempotency import HEADER


class Schema(AutoSchema):
    """Names ``Idempotency-Key`` wherever it is heeded."""

    def get_override_parameters(self) -> list[Any]:
        parameters: list[Any] = list(super().get_override_parameters())
        if self.method == "POST" and getattr(self.view, "idempotent", False):
            words = "The request has its effect once, however often it is sent within 24 hours."
            parameters.append(OpenApiParameter(HEADER, str, OpenApiParameter.HEADER, description=words))
        return parameters
