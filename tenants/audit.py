"""The audit log: what happened, by whom, to what. Written in the transaction of the change it records."""

from typing import Any

from ragsite.core.observability import current_request_id
from tenants.access import Principal
from tenants.models.audit import AuditEvent
from tenants.models.people import Membership, User
from tenants.scope import current_scope


def record_event(
    *,
    action: str,
    membership: Membership | None = None,
    actor: User | None = None,
    method: str = "",
    target: Any = None,
    detail: dict[str, Any] | None = None,
    address: str | None = None,
) -> None:
    """Appends an event to the log of the tenant in force, or to the platform's where none is.

    Args:
        action: ``noun.verb``, for instance ``document.delete``.
        membership: the member who did it; gives actor and role.
        actor: the user who did it, where there is no membership.
        target: the model instance it was done to.
        detail: JSON-able facts; never a secret, never a document's text.
        address: the client's IP address.
    """
    user = membership.user if membership else actor
    event = AuditEvent(
        action=action,
        actor_id=user.pk if user else None,
        actor_name=user.username if user else "",
        role_name=membership.role.name if membership else "",
        method=method or ("system" if user is None else ""),
        target_type=target._meta.model_name if target is not None else "",
        target_id=str(target.pk) if target is not None else "",
        detail=detail or {},
        address=address,
        request_id=current_request_id(),
    )
    scope = current_scope()
    if scope is not None and scope.platform and target is not None:
        event.tenant_id = getattr(target, "tenant_id", None)
    if event.tenant_id is None:
        event.save(using="platform", force_insert=True)
    else:
        event.save(force_insert=True)


def record_by(
    principal: Principal | None, action: str, target: Any, detail: dict[str, Any] | None = None
) -> None:
    """``record_event`` for what a member did, or the system where ``principal`` is ``None``."""
    record_event(
        action=action,
        membership=principal.membership if principal else None,
        method=principal.method if principal else "",
        target=target,
        detail=detail,
        address=principal.address if principal else None,
    )


def record_platform_event(*, action: str, actor: User | None, detail: dict[str, Any]) -> None:
    """Appends an event of no tenant's; called before the platform scope is entered."""
    AuditEvent(
        tenant_id=None,
        action=action,
        actor_id=actor.pk if actor else None,
        actor_name=actor.username if actor else "",
        method="" if actor else "system",
        detail=detail,
        request_id=current_request_id(),
    ).save(using="platform", force_insert=True)
