"""Why a question finds what it finds, for those who manage."""

import time
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from knowledge.access import access_collections
from knowledge.api.question_shapes import SearchForm
from knowledge.config import answer_config
from knowledge.embedding.spaces import embed_for_tenant
from knowledge.models import Collection
from knowledge.retrieval.base import Filters
from knowledge.retrieval.explain import explain_document, explain_search, find_document
from ragsite.core.problems import FieldProblem, Problem, not_found
from tenants.access import Principal, access_role
from tenants.audit import record_by
from tenants.models import Ability, Role
from tenants.pages import member_page, render_part, shell_context
from tenants.rest import problem_of


@require_GET
@member_page
def search_why(request: HttpRequest, principal: Principal) -> HttpResponse:
    """A question, a role, filters: what search does with them, step by step."""
    principal.require(Ability.MANAGE.value)
    role = _chosen_role(request, principal)
    typed: dict[str, Any] = {
        "question": " ".join(request.GET.get("question", "").replace("\0", "").split()),
        "k": request.GET.get("k") or answer_config().k,
        "collections": [name for name in request.GET.getlist("collections") if name],
        "tags": request.GET.get("tags", "").replace(",", " ").split(),
    }
    document = request.GET.get("document", "").replace("\0", "").strip()[:1000]
    found: dict[str, Any] = {}
    problem = None
    if typed["question"]:
        try:
            found = _explain(principal, role, typed, document)
        except Exception as error:
            problem = problem_of(error)
            if problem is None or problem.status != 400:
                raise
    context = shell_context(principal) | {
        "here": "search-why",
        "role": role,
        "roles": Role.objects.all(),
        "collections": Collection.objects.values_list("slug", "name"),
        "form": typed | {"tags": " ".join(typed["tags"]), "document": document},
    }
    return render_part(request, "knowledge/why.html", "result", context | found, problem=problem)


def _chosen_role(request: HttpRequest, principal: Principal) -> Role:
    wanted = request.GET.get("role", "")
    if not wanted:
        return principal.membership.role
    try:
        return access_role(principal.membership, UUID(wanted))
    except ValueError:
        raise not_found() from None


def _explain(principal: Principal, role: Role, typed: dict[str, Any], document: str) -> dict[str, Any]:
    form = SearchForm(data=typed)
    form.is_valid(raise_exception=True)
    membership, config, asked = principal.membership, answer_config(), form.validated_data
    collections = access_collections(principal, asked.get("collections", ()))
    filters = Filters(collection_ids=tuple(c.pk for c in collections), tags=tuple(asked.get("tags", ())))
    row = find_document(membership, document) if document else None
    if document and row is None:
        words = _("There is no document of this id or address that you may read.")
        raise Problem(400, "invalid", words, errors=[FieldProblem("document", words)])
    begun = time.perf_counter()
    vector, model = embed_for_tenant(asked["question"])
    explanation = explain_search(
        role=role,
        membership=membership,
        question=asked["question"],
        vector=vector,
        k=asked["k"],
        filters=filters,
        config=config.retrieval,
        model=model,
        timings={_("the question's vector"): round((time.perf_counter() - begun) * 1000, 2)},
    )
    record_by(principal, "search.explain", role, {"role": role.name})
    fate = row and explain_document(
        document=row, role=role, membership=membership, filters=filters, explanation=explanation
    )
    return {"explained": explanation, "fate": fate, "floor": config.retrieval.evidence_floor}
