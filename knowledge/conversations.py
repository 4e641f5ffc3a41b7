"""Sharing a conversation."""

from collections.abc import Sequence
from uuid import UUID

from django.db.models import Q

from knowledge.models import Answer, Conversation, ConversationShare, Document
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Membership
from tenants.scope import atomic


def share_conversation(
    *, conversation: Conversation, members: Sequence[str], principal: Principal
) -> list[str]:
    """Lets members read a conversation: all of them, or none.

    Args:
        members: ids or user names.

    Raises:
        Problem: 400 for an unknown member; 409 naming those who may not read every source.
    """
    rows = list(
        Membership.objects.filter(status=Membership.Status.ACTIVE)
        .filter(Q(user__username__in=members) | Q(pk__in=[m for m in members if _is_uuid(m)]))
        .select_related("user", "role")
    )
    unknown = sorted(set(members) - {m.user.username for m in rows} - {str(m.pk) for m in rows})
    if unknown:
        raise Problem(
            400,
            "invalid",
            "Some members are not known.",
            errors=[FieldProblem("members", f"There is no active member “{name}”.") for name in unknown],
        )
    documents = {
        pk
        for ids in Answer.objects.filter(conversation=conversation).values_list("document_ids", flat=True)
        for pk in ids
    }
    excluded = [
        m.user.username
        for m in rows
        if Document.objects.visible_to(m).filter(pk__in=documents).count() < len(documents)
    ]
    if excluded:
        raise Problem(
            409,
            "sources-not-readable",
            "Not everyone may read every source of this conversation: " + ", ".join(sorted(excluded)) + ".",
        )
    with atomic():
        for member in rows:
            ConversationShare.objects.get_or_create(conversation=conversation, membership=member)
        names = sorted(m.user.username for m in rows)
        record_by(principal, "conversation.share", conversation, {"members": names})
    return names


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
