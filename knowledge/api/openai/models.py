"""``/v1/models``: the collections."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.api.openai.base import ASK, OpenAIView, find_model, list_models
from ragsite.core.hops import run_db


@extend_schema(exclude=True)  # OpenAI's own reference describes it
class ModelsView(OpenAIView):
    abilities = {"GET": ASK}

    async def get(self, request: Request) -> Response:
        return Response({"object": "list", "data": await run_db(list_models, self.principal)})


@extend_schema(exclude=True)
class ModelView(OpenAIView):
    abilities = {"GET": ASK}

    async def get(self, request: Request, id: str) -> Response:
        model, _ = await run_db(find_model, self.principal, id)
        return Response(model)
