"""Conversations: finding, renaming, pinning, deleting and sharing them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from knowledge.access import may_read_tags
from knowledge.models import Answer, Conversation, ConversationShare, Document
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Ability, Membership
from tenants.scope import atomic

SEARCH_WORDS = 6
PINNED = 50
# Of a tenant of thousands the form offers this many names; the others can be typed.
OFFERED_NAMES = 200


@dataclass(frozen=True)
class Cursor:
    """Where the next page of a history begins: behind the conversation that was last used then."""

    updated_at: datetime
    pk: UUID

    @classmethod
    def behind(cls, conversation: Conversation) -> "Cursor":
        return cls(conversation.updated_at, conversation.pk)

    @classmethod
    def read(cls, text: str) -> "Cursor | None":
        """Raises the 400 problem for what is no cursor of ours; ``None`` for an empty text."""
        if not text:
            return None
        try:
            stamp, _separator, pk = text.partition("~")
            updated_at = parse_datetime(stamp)
            if updated_at is not None and updated_at.tzinfo is not None:
                return cls(updated_at, UUID(pk))
        except ValueError:
            pass
        raise Problem(
            400, "invalid-cursor", _("This page does not exist: begin at the history's first page.")
        )

    def __str__(self) -> str:
        return f"{self.updated_at.isoformat()}~{self.pk}"


def find_conversations(
    *, membership: Membership, query: str = "", behind: Cursor | None = None, limit: int
) -> list[Conversation]:
    """A member's own conversations (without the pinned ones) and those shared with them, last used first.

    Args:
        query: words that all occur in the title or in a question.
    """
    shared = Conversation.objects.filter(
        tenant_id=membership.tenant_id, shares__membership_id=membership.pk
    ).exclude(user_id=membership.user_id)
    own = Conversation.objects.visible_to(membership).filter(pinned=False)
    found: list[Conversation] = []
    # Two queries that each follow an index and end early; one with OR would sort the whole history.
    for rows in (own, shared):
        if behind is not None:
            rows = rows.filter(
                Q(updated_at__lt=behind.updated_at) | Q(updated_at=behind.updated_at, pk__lt=behind.pk)
            )
        found += _matching(rows, query).select_related("user").order_by("-updated_at", "-id")[:limit]
    return sorted(found, key=lambda c: (c.updated_at, c.pk), reverse=True)[:limit]


def find_pinned(*, membership: Membership, query: str = "") -> list[Conversation]:
    """A member's pinned conversations."""
    rows = Conversation.objects.visible_to(membership).filter(pinned=True)
    return list(_matching(rows, query).select_related("user").order_by("-updated_at", "-id")[:PINNED])


def _matching(rows: Any, query: str) -> Any:
    for word in query.replace("\0", "").split()[:SEARCH_WORDS]:
        asked = Answer.objects.filter(conversation=OuterRef("pk"), question__icontains=word)
        rows = rows.filter(Q(title__icontains=word) | Exists(asked))
    return rows


def change_conversation(
    *, conversation: Conversation, changes: dict[str, Any], principal: Principal
) -> Conversation:
    """Renames (``title``) or pins (``pinned``). Its place in the history stays: it was not used."""
    if not changes.get("title", "x").strip():
        raise Problem(
            400, "invalid", _("Give it a title."), errors=[FieldProblem("title", _("Give it a title."))]
        )
    with atomic():
        Conversation.objects.filter(pk=conversation.pk).update(**changes)
        record_by(principal, "conversation.change", conversation, {"fields": sorted(changes)})
    conversation.refresh_from_db()
    return conversation


def delete_conversation(*, conversation: Conversation, principal: Principal) -> None:
    """Removes a conversation from everyone's history. Its answers stay in the tenant's statistics."""
    with atomic():
        # An answer that is being stored in it is there before, or finds it gone.
        Conversation.objects.select_for_update().filter(pk=conversation.pk).first()
        record_by(principal, "conversation.delete", conversation)
        conversation.delete()


@dataclass(frozen=True)
class Reader:
    """A member whom a conversation is shared with; without every source some answers are withheld from them."""

    share: UUID
    username: str
    reads_all: bool


@dataclass(frozen=True)
class Sharing:
    """Who reads a conversation, and the user names of those others who could, and who could not."""

    readers: list[Reader]
    able: list[str]
    unable: list[str]


def describe_sharing(*, conversation: Conversation, membership: Membership) -> Sharing:
    """Whom a conversation is shared with, and who else may or may not read every source of it.

    Members learn each other's user names by it and nothing else: no address, no role.
    """
    reads_all = _readers_of_all(conversation, asker=membership)
    shares = (
        ConversationShare.objects.filter(conversation=conversation)
        .select_related("membership__user", "membership__role")
        .order_by("membership__user__username")
    )
    readers = [Reader(s.pk, s.membership.user.username, reads_all(s.membership)) for s in shares]
    others = (
        Membership.objects.filter(
            status=Membership.Status.ACTIVE, user__is_active=True, user__is_service=False
        )
        .filter(role__abilities__contains=[Ability.ASK])
        .exclude(pk=membership.pk)
        .exclude(user__username__in=[reader.username for reader in readers])
        .select_related("user", "role")
        .order_by("user__username")[:OFFERED_NAMES]
    )
    able: list[str] = []
    unable: list[str] = []
    for other in others:
        (able if reads_all(other) else unable).append(other.user.username)
    return Sharing(readers, able, unable)


def _readers_of_all(conversation: Conversation, *, asker: Membership) -> Callable[[Membership], bool]:
    """Who may read every document of a conversation. Nobody, as soon as its asker may not read one any more."""
    rows = Answer.objects.filter(conversation=conversation).only("document_ids", "depends_on", "tenant_id")
    wanted = {pk for row in rows for pk in row.needed_ids}
    tags = list(Document.objects.visible_to(asker).filter(pk__in=wanted).values_list("tags", flat=True))

    def reads_all(member: Membership) -> bool:
        return len(tags) == len(wanted) and all(may_read_tags(member, own) for own in tags)

    return reads_all


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
            _("Some members are not known."),
            errors=[
                FieldProblem("members", _("There is no active member “%(name)s”.") % {"name": name})
                for name in unknown
            ],
        )
    reads_all = _readers_of_all(conversation, asker=principal.membership)
    excluded = [m.user.username for m in rows if not reads_all(m)]
    if excluded:
        raise Problem(
            409,
            "sources-not-readable",
            _("Not everyone may read every source of this conversation: %(names)s.")
            % {"names": ", ".join(sorted(excluded))},
        )
    with atomic():
        for member in rows:
            ConversationShare.objects.get_or_create(conversation=conversation, membership=member)
        names = sorted(m.user.username for m in rows)
        record_by(principal, "conversation.share", conversation, {"members": names})
    return names


def unshare_conversation(*, conversation: Conversation, share: UUID, principal: Principal) -> None:
    """Takes a conversation back from a member; that it is taken back already is no error."""
    with atomic():
        found = ConversationShare.objects.filter(conversation=conversation, pk=share)
        names = list(found.values_list("membership__user__username", flat=True))
        if names:
            found.delete()
            record_by(principal, "conversation.unshare", conversation, {"members": names})


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
