"""Who is asking, and what they may do: the one place that decides."""

import math
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from ragsite.core.problems import Problem, not_found
from tenants.models import ApiKey, AuditEvent, Membership, Role
from tenants.scope import Scope


@dataclass(frozen=True)
class Principal:
    """An authenticated member.

    Attributes:
        membership: with ``user``, ``role`` and ``tenant`` loaded.
        method: ``session``, ``jwt`` or ``api_key``.
        abilities: the role's, narrowed to the scopes of the API key where one was used.
        credential: the id of the key or token family, for the audit log.
        address: the client's IP address.
        expires: when the credential ends by itself, in seconds since 1970.
    """

    membership: Membership
    method: str
    abilities: frozenset[str]
    credential: str = ""
    address: str | None = None
    expires: float = math.inf

    def may(self, ability: str) -> bool:
        return ability in self.abilities

    def require(self, ability: str) -> None:
        """Raises the 403 problem unless the member may."""
        if not self.may(ability):
            raise Problem(
                403,
                "forbidden",
                f"Your role, {self.membership.role.name}, may not do this: it needs the ability “{ability}”. "
                "Ask an admin of your tenant.",
            )

    def scope(self) -> Scope:
        return Scope(tenant_id=self.membership.tenant_id, tags=self.membership.role.readable_tags)


def principal_of(request: Any) -> Principal:
    """The principal of a request that has passed a permission check.

    Raises:
        Problem: 401 when nobody is signed in.
    """
    inner = getattr(request, "_request", request)
    principal: Principal | None = getattr(inner, "principal", None)
    if principal is None:
        raise getattr(inner, "authentication_problem", None) or unauthenticated()
    return principal


def unauthenticated(
    detail: str = "Sign in first: send “Authorization: Bearer …” with a token or an API key.",
) -> Problem:
    return Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": 'Bearer realm="ragsite"'})


class IsMember(BasePermission):
    """A member of the tenant, with the ability that the view's ``abilities`` names for the method, if it names one."""

    def has_permission(self, request: Request, view: Any) -> bool:
        principal = principal_of(request)
        # HEAD runs the view's GET: its length alone would tell what the body says.
        method = "GET" if request.method == "HEAD" else request.method
        ability = getattr(view, "abilities", {}).get(method)
        if ability:
            principal.require(ability)
        return True


def access_one(queryset: "QuerySet[Any]", pk: UUID | str) -> Any:
    """One row of what is visible.

    Raises:
        Problem: 404, in the same words for what does not exist and for what may not be seen.
    """
    row = queryset.filter(pk=pk).first()
    if row is None:
        raise not_found()
    return row


def access_member(membership: Membership, pk: UUID | str) -> Membership:
    rows = Membership.objects.filter(tenant_id=membership.tenant_id).select_related("user", "role", "tenant")
    member: Membership = access_one(rows, pk)
    return member


def access_role(membership: Membership, pk: UUID | str) -> Role:
    role: Role = access_one(Role.objects.filter(tenant_id=membership.tenant_id), pk)
    return role


def access_api_key(membership: Membership, pk: UUID | str) -> ApiKey:
    rows = ApiKey.objects.filter(tenant_id=membership.tenant_id).select_related("membership__user")
    key: ApiKey = access_one(rows, pk)
    return key


def audit_events_visible_to(membership: Membership) -> "QuerySet[AuditEvent]":
    events: QuerySet[AuditEvent] = AuditEvent.objects.filter(tenant_id=membership.tenant_id)
    return events
