"""Asking for a document that is missing, and what becomes of it."""

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.models import DocumentRequest
from knowledge.models import Answer
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Ability
from tenants.scope import atomic


def requests_visible_to(principal: Principal) -> "QuerySet[DocumentRequest]":
    """Everyone's requests for those who manage, one's own for everybody else."""
    membership = principal.membership
    rows = (
        DocumentRequest.objects.filter(tenant_id=membership.tenant_id)
        if principal.may(Ability.MANAGE)
        else DocumentRequest.objects.visible_to(membership)
    )
    found: QuerySet[DocumentRequest] = rows.select_related("user", "handled_by")
    return found


def request_document(
    *, principal: Principal, question: str = "", answer: Answer | None = None, note: str = ""
) -> DocumentRequest:
    """Tells those who manage the tenant what the documents do not say.

    Args:
        question: what could not be answered; that of ``answer`` where it is left out.
        note: which document should say it.

    Raises:
        Problem: 400 without a question, 409 when the member has asked for it with this answer already.
    """
    question = question.strip() or (answer.question if answer else "")
    if not question:
        wrong = FieldProblem("question", _("Say what could not be answered."))
        raise Problem(400, "invalid", wrong.detail, errors=[wrong])
    user = principal.membership.user
    if answer and DocumentRequest.objects.filter(answer=answer, user=user).exists():
        raise Problem(409, "conflict", _("You have requested this document already."))
    row = DocumentRequest(user=user, answer=answer, question=question, note=note.strip())
    with atomic():
        row.save(force_insert=True)
        record_by(principal, "document_request.create", row, {"answer": str(answer.pk) if answer else None})
    return row


def answer_request(
    *, principal: Principal, request: DocumentRequest, changes: dict[str, Any]
) -> DocumentRequest:
    """Says what became of a request (``status``, ``reply``); one that is opened again was not handled."""
    for name, value in changes.items():
        setattr(request, name, value)
    is_open = request.status == DocumentRequest.Status.OPEN
    request.handled_at = None if is_open else timezone.now()
    request.handled_by = None if is_open else principal.membership.user
    with atomic():
        request.save(update_fields=["status", "reply", "handled_at", "handled_by"])
        record_by(principal, "document_request.change", request, {"status": request.status})
    return request
