"""What the views in OpenAI's protocol share: its shape of errors, and collections as models."""

from collections.abc import Callable
from typing import Any

from rest_framework.response import Response

from knowledge.access import access_collections
from knowledge.models import Collection
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.models import Ability
from tenants.rest import AsyncTenantView, note_problem

ASK = Ability.ASK.value
EVERYTHING = "all"
OWNER = "ragsite"


class OpenAIView(AsyncTenantView):
    """A view whose problems are told as OpenAI's API tells them."""

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return _handle_exception


def _handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    problem = note_problem(error)
    if problem is None:
        return None
    return Response(problem.openai_document(), status=problem.openai_status, headers=dict(problem.headers))


def list_models(principal: Principal) -> list[dict[str, Any]]:
    """Everything that the caller may read, then each collection that they may see; within each, what their role reads."""
    rows = Collection.objects.visible_to(principal).order_by("slug")
    return [_everything(principal), *(_model_of(row) for row in rows)]


def find_model(principal: Principal, name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A model by its name, and the ids of the collections to search; none for all of them.

    Raises:
        Problem: 404, in the same words for what is absent and what the caller may not see.
    """
    if name == EVERYTHING:
        return _everything(principal), ()
    try:
        (collection,) = access_collections(principal, (name,))
    except Problem:
        detail = f"The model `{name}` does not exist, or you may not use it: GET /v1/models lists yours."
        raise Problem(404, "model-not-found", detail, errors=[FieldProblem("model", detail)]) from None
    return _model_of(collection), (str(collection.pk),)


def _everything(principal: Principal) -> dict[str, Any]:
    tenant = principal.membership.tenant
    return _model(EVERYTHING, name=f"{tenant.name}: all documents", created=tenant.created_at)


def _model_of(collection: Collection) -> dict[str, Any]:
    # A collection may be called “all”; it then goes by its id.
    name = str(collection.pk) if collection.slug == EVERYTHING else collection.slug
    return _model(name, name=collection.name, created=collection.created_at)


def _model(id: str, *, name: str, created: Any) -> dict[str, Any]:
    """``name`` is not OpenAI's: chat clients that know it show it."""
    return {
        "id": id,
        "object": "model",
        "created": int(created.timestamp()),
        "owned_by": OWNER,
        "name": name,
    }
