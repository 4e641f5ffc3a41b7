"""A tenant's language models."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.api.question_shapes import ModelSettingsShape
from knowledge.model_settings import change_model_settings, read_model_settings
from knowledge.models import ModelSettings
from tenants.models import Ability
from tenants.rest import TenantView

MANAGE = Ability.MANAGE.value


class ModelSettingsView(TenantView):
    abilities = {"GET": MANAGE, "PATCH": MANAGE}

    @extend_schema(responses=ModelSettingsShape, operation_id="model_settings_read", tags=["models"])
    def get(self, request: Request) -> Response:
        """Which language models are asked, in which order, and which questions the small ones get."""
        return Response(_shown(read_model_settings() or ModelSettings()))

    @extend_schema(
        request=ModelSettingsShape,
        responses=ModelSettingsShape,
        operation_id="model_settings_change",
        tags=["models"],
    )
    def patch(self, request: Request) -> Response:
        """Change them; what is left out stays."""
        changes = self.parse(ModelSettingsShape, partial=True)
        return Response(_shown(change_model_settings(changes=changes, principal=self.principal)))


def _shown(row: ModelSettings) -> dict[str, Any]:
    shown: dict[str, Any] = ModelSettingsShape(row).data
    return shown
