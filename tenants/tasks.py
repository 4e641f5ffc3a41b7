"""The base class of every task that works for a tenant."""

import uuid
from typing import Any

import structlog
from celery import Task

from ragsite.core.observability import new_request_id, request_context
from tenants.scope import on_commit, require_tenant_id, scope

logger = structlog.get_logger(__name__)


class TenantTask(Task):  # type: ignore[type-arg]
    """Runs inside the scope of the tenant that enqueued it, reading all of that tenant's documents.

    The tenant travels in the message's headers, never in the arguments, so that no task can forget it. What a task may
    show to whom is decided where it is shown, not here.
    """

    abstract = True

    def enqueue_on_commit(self, **kwargs: Any) -> None:
        """Sends the task when the transaction of the scope in force commits; at once outside of one."""
        tenant_id = str(require_tenant_id())
        on_commit(lambda: self.apply_async(kwargs=kwargs, headers={"ragsite_tenant": tenant_id}))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        headers = self.request.get("ragsite_tenant") or (self.request.headers or {}).get("ragsite_tenant")
        if not headers:
            raise RuntimeError(f"{self.name} was sent without a tenant: use enqueue_on_commit().")
        with (
            request_context(new_request_id()),
            scope(tenant_id=uuid.UUID(headers), tags=None),
        ):
            return super().__call__(*args, **kwargs)
