"""Whose data this piece of work may touch: one context variable that both walls read.

Wall 1 (``tenants.querysets``) filters by it and raises without it; wall 2 (``tenants.postgresql``) hands it to
PostgreSQL's row-level security with ``SET LOCAL``. Context variables follow ``await``, ``sync_to_async`` and
``asyncio.to_thread``; an ``Executor.submit`` drops them, and a streaming body runs after the middleware has left
its scope: capture ``current_scope()`` and enter it again there.
"""

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import transaction

from ragsite.core.observability import UNSCOPED

logger = structlog.get_logger(__name__)

EVERY_TAG = "*"


@dataclass(frozen=True)
class Scope:
    """What the work may see.

    ``tags`` are the document tags that may be read; ``None`` stands for all of them, untagged documents too.
    ``user_id`` opens that user's own memberships in every tenant (sign-in, tenant switcher), nothing else.
    ``platform`` is work across tenants on the platform role, only ever entered through ``unscoped``.
    """

    tenant_id: uuid.UUID | None = None
    tags: tuple[str, ...] | None = ()
    user_id: int | None = None
    platform: bool = False

    def database_settings(self) -> tuple[str, str, str]:
        """The values of ``ragsite.tenant``, ``ragsite.tags`` and ``ragsite.user`` for this scope."""
        return (
            str(self.tenant_id) if self.tenant_id else "",
            EVERY_TAG if self.tags is None else ",".join(self.tags),
            str(self.user_id) if self.user_id else "",
        )


PLATFORM = Scope(tags=None, platform=True)


class ScopeMissing(RuntimeError):
    """Tenant data was asked for outside of a scope: a programming error, never a user's."""


_scope: ContextVar[Scope | None] = ContextVar("ragsite_scope", default=None)
_last_system_audit: dict[str, float] = {}
SYSTEM_AUDIT_SECONDS = 3600.0


def current_scope() -> Scope | None:
    """The scope in force, or ``None``."""
    return _scope.get()


def current_tenant_id() -> uuid.UUID | None:
    """The id (UUID) of the tenant in force, or ``None``; the default of every tenant foreign key."""
    scope = _scope.get()
    return scope.tenant_id if scope else None


def require_tenant_id() -> uuid.UUID:
    """The tenant in force.

    Raises:
        ScopeMissing: no tenant is in force.
    """
    tenant_id = current_tenant_id()
    if tenant_id is None:
        raise ScopeMissing("Enter scope(tenant_id=…) before touching a tenant's data.")
    return tenant_id


@contextmanager
def enter(scope: Scope | None) -> Iterator[Scope | None]:
    """Puts a captured scope in force again."""
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


def scope(*, tenant_id: uuid.UUID, tags: Iterable[str] | None) -> AbstractContextManager[Scope | None]:
    """Work inside one tenant, reading documents of ``tags`` (``None``: all, untagged too)."""
    return enter(Scope(tenant_id=tenant_id, tags=None if tags is None else tuple(sorted(set(tags)))))


def identity(*, user_id: int) -> AbstractContextManager[Scope | None]:
    """Before a tenant is chosen: one user's own memberships, with their tenants and roles."""
    return enter(Scope(user_id=user_id))


def record_unscoped(*, reason: str, actor: Any = None) -> None:
    """Logs, counts and audits that the platform scope is about to be entered."""
    from tenants.audit import record_platform_event

    UNSCOPED.labels(reason).inc()
    logger.info("unscoped", reason=reason, actor=str(actor) if actor else "system")
    now = time.monotonic()
    if actor is not None:
        record_platform_event(action="platform.unscoped", actor=actor, detail={"reason": reason})
    elif now - _last_system_audit.get(reason, -SYSTEM_AUDIT_SECONDS) >= SYSTEM_AUDIT_SECONDS:
        record_platform_event(action="platform.unscoped", actor=None, detail={"reason": reason})
        _last_system_audit[reason] = now


@contextmanager
def unscoped(*, reason: str, actor: Any = None) -> Iterator[None]:
    """Platform work across tenants, on the platform role. Logged, counted and audited.

    Work without an actor (housekeeping that repeats every few seconds) is audited once an hour for each reason,
    so that the audit log stays readable; work of a person always.

    Args:
        reason: a constant sentence; it is a metric label, so never build it from data.
        actor: the user on whose behalf this happens.
    """
    record_unscoped(reason=reason, actor=actor)
    with enter(PLATFORM):
        yield


def alias() -> str:
    """The database alias of the scope in force."""
    scope = _scope.get()
    return "platform" if scope and scope.platform else "default"


def atomic(*, durable: bool = False, savepoint: bool = True) -> AbstractContextManager[Any]:
    """``transaction.atomic`` on the alias of the scope in force."""
    return transaction.atomic(using=alias(), durable=durable, savepoint=savepoint)


def on_commit(function: Any) -> None:
    """``transaction.on_commit`` on the alias of the scope in force. A failure is logged and hurts nobody: what is
    committed is committed, and whatever is sent here has someone who looks for it when it does not arrive."""
    transaction.on_commit(function, using=alias(), robust=True)
