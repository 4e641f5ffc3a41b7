"""What a member may see of the knowledge."""

from typing import Any, Self, TypeVar

from django.db import models
from django.db.models import Exists, OuterRef, Q

from tenants.access import Principal
from tenants.models import Ability, Membership
from tenants.querysets import TenantManager, TenantQuerySet

Row = TypeVar("Row", bound=models.Model)


class TaggedQuerySet(TenantQuerySet[Row]):
    """Documents, or their chunks, which carry a copy of their document's tags."""

    def _readable_by(self, membership: Membership) -> Self:
        readable = membership.role.readable_tags
        if not membership.is_active:
            return self.none()
        return self if readable is None else self.filter(tags__overlap=list(readable))


class DocumentQuerySet(TaggedQuerySet[Row]):
    """Documents."""

    def visible_to(self, membership: Membership) -> Self:
        """The documents that the member's role reads and that are not deleted."""
        return self._readable_by(membership).filter(tenant_id=membership.tenant_id, deleted_at__isnull=True)

    def restorable_by(self, membership: Membership) -> Self:
        """The deleted documents that the member's role would read."""
        return self._readable_by(membership).filter(tenant_id=membership.tenant_id, deleted_at__isnull=False)

    def without_text(self) -> Self:
        """Leaves the extracted text, which may be megabytes, in the database."""
        return self.defer("text")


class CollectionQuerySet(TenantQuerySet[Row]):
    """Collections."""

    def visible_to(self, principal: Principal) -> Self:
        """All of them for those who fill them, a new one too; for everybody else those in which they read something."""
        from knowledge.models import Document  # which is made of these querysets

        collections = self.filter(tenant_id=principal.membership.tenant_id)
        if principal.may(Ability.UPLOAD) or principal.may(Ability.MANAGE):
            return collections
        read = Document.objects.visible_to(principal.membership).filter(collection_id=OuterRef("pk"))
        return collections.filter(Exists(read))


class ChunkQuerySet(TaggedQuerySet[Row]):
    """Chunks."""

    def visible_to(self, membership: Membership) -> Self:
        """The chunks of documents that the member's role reads and that are not deleted."""
        return self._readable_by(membership).filter(
            tenant_id=membership.tenant_id, document__deleted_at__isnull=True
        )


class TagSetQuerySet(TaggedQuerySet[Row]):
    """Sets of tags."""

    def visible_to(self, membership: Membership) -> Self:
        """The sets that the member's role reads."""
        return self._readable_by(membership).filter(tenant_id=membership.tenant_id)


class OwnQuerySet(TenantQuerySet[Row]):
    """Rows that belong to one member: conversations and answers."""

    def visible_to(self, membership: Membership) -> Self:
        return self.filter(tenant_id=membership.tenant_id, user_id=membership.user_id)


class ConversationQuerySet(OwnQuerySet[Row]):
    def shared_or_own(self, membership: Membership) -> Self:
        return self.filter(
            Q(user_id=membership.user_id) | Q(shares__membership_id=membership.pk),
            tenant_id=membership.tenant_id,
        ).distinct()


class JobQuerySet(TenantQuerySet[Row]):
    def visible_to(self, principal: Principal) -> Self:
        """Everyone's jobs for those who manage, one's own for everybody else."""
        membership = principal.membership
        jobs = self.filter(tenant_id=membership.tenant_id)
        return jobs if principal.may(Ability.MANAGE) else jobs.filter(user_id=membership.user_id)


def manager_of(queryset: type[TenantQuerySet[Any]]) -> Any:
    """A scoped manager with the methods of ``queryset``."""
    return TenantManager.from_queryset(queryset)()
