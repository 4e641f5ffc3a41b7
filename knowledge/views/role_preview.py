"""What a role would see: tried with a real question, before anybody gets the role."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from knowledge.access import as_member, eyes_of
from knowledge.answering.journey import source_object
from knowledge.config import answer_config
from knowledge.embedding.base import Vectors
from knowledge.embedding.spaces import embed_for_tenant
from knowledge.models import Document
from knowledge.rendering import excerpt_of
from knowledge.retrieval.base import Filters, FoundPassage
from knowledge.retrieval.evidence import judge_evidence
from knowledge.retrieval.search import search_passages
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal, access_role
from tenants.audit import record_by
from tenants.models import Ability, Membership, Role
from tenants.pages import member_page, render_part, shell_context


@dataclass(frozen=True)
class Preview:
    """What a role gets for a question.

    Attributes:
        shown: passages that the role would get and that the one who looks may read too, each with an excerpt.
        beyond: how many more the role would get that the one who looks may not read.
        hidden: of each document that the one who looks gets for the question and the role may not read, a passage.
        answered: whether the evidence would suffice for an answer.
    """

    shown: list[tuple[FoundPassage, str]]
    beyond: int
    hidden: list[FoundPassage]
    answered: bool


def preview_role(*, role: Role, question: str, principal: Principal) -> Preview:
    """Asks as a member with ``role`` would, behind both walls; nobody is shown more than they may read themselves."""
    vector = embed_for_tenant(question)[0]
    member = as_member(role, principal.membership)
    with eyes_of(role):
        theirs = _search(membership=member, question=question, vector=vector)
    mine = _search(membership=principal.membership, question=question, vector=vector)
    readable = _readable(principal.membership, theirs)
    with eyes_of(role):
        open_to_role = _readable(member, mine)
    record_by(principal, "role.preview", role, {"role": role.name})
    config = answer_config().retrieval
    return Preview(
        shown=[(p, excerpt_of(source_object(p))) for p in theirs if p.document_id in readable],
        beyond=sum(passage.document_id not in readable for passage in theirs),
        hidden=list({p.document_id: p for p in mine if p.document_id not in open_to_role}.values()),
        answered=judge_evidence(passages=theirs, config=config) >= config.evidence_floor,
    )


def _search(*, membership: Membership, question: str, vector: Vectors) -> list[FoundPassage]:
    config = answer_config()
    return search_passages(
        membership=membership,
        question=question,
        vector=vector,
        k=config.k,
        filters=Filters(),
        config=config.retrieval,
    )


def _readable(membership: Membership, passages: list[FoundPassage]) -> set[UUID]:
    found = Document.objects.visible_to(membership).filter(pk__in={p.document_id for p in passages})
    return set(found.values_list("pk", flat=True))


def _reach(role: Role, principal: Principal) -> list[dict[str, Any]]:
    """How many documents of each collection the role reads: numbers alone."""
    with eyes_of(role):
        documents = Document.objects.visible_to(as_member(role, principal.membership))
        return list(
            documents.values("collection__name").annotate(documents=Count("id")).order_by("collection__name")
        )


@require_GET
@member_page
def role_preview(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """What a role reads, and what it would get for a question."""
    principal.require(Ability.MANAGE.value)
    role = access_role(principal.membership, id)
    question = " ".join(request.GET.get("question", "").replace("\0", "").split())
    preview, problem = None, None
    if question:
        if len(question) < 3 or len(question) > 1000:
            words = _("Ask with 3 to 1,000 characters.")
            problem = Problem(400, "invalid", words, errors=[FieldProblem("question", words)])
        else:
            preview = preview_role(role=role, question=question, principal=principal)
    reach = _reach(role, principal)
    context = shell_context(principal) | {
        "here": "roles",
        "role": role,
        "question": question,
        "preview": preview,
        "reach": reach,
        "documents": sum(row["documents"] for row in reach),
        "every_role": Role.objects.all(),
    }
    return render_part(request, "knowledge/role_preview.html", "result", context, problem=problem)
