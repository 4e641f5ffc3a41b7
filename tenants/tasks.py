"""The base class of every task that works for a tenant, and the tasks that send e-mails."""

import uuid
from collections.abc import Callable
from typing import Any

import structlog
from celery import Task, shared_task

from ragsite.core.observability import new_request_id, request_context
from tenants.invitations import mail_invitation
from tenants.mail import is_permanent
from tenants.passwords import mail_password_changed, mail_reset
from tenants.scope import on_commit, require_tenant_id, scope

logger = structlog.get_logger(__name__)


class TenantTask(Task):  # type: ignore[type-arg]
    """Runs inside the scope of the tenant that enqueued it, reading all of that tenant's documents.

    The tenant travels in the message's headers, never in the arguments, so that no task can forget it. What a task may
    show to whom is decided where it is shown, not here.
    """

    abstract = True

    def enqueue_on_commit(self, *, wait_seconds: int = 0, **kwargs: Any) -> None:
        """Sends the task when the transaction of the scope in force commits; at once outside of one.

        Args:
            wait_seconds: it is begun so much later. The broker must not think it lost meanwhile: minutes, not hours.
        """
        tenant_id = str(require_tenant_id())
        headers = {"ragsite_tenant": tenant_id}
        on_commit(lambda: self.apply_async(kwargs=kwargs, headers=headers, countdown=wait_seconds))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        headers = self.request.get("ragsite_tenant") or (self.request.headers or {}).get("ragsite_tenant")
        if not headers:
            raise RuntimeError(f"{self.name} was sent without a tenant: use enqueue_on_commit().")
        with (
            request_context(new_request_id()),
            scope(tenant_id=uuid.UUID(headers), tags=None),
        ):
            return super().__call__(*args, **kwargs)


RETRY_SECONDS = 60.0


def _send(task: Any, mail: Callable[[], None]) -> None:
    """Three more tries, 60 seconds apart and doubling, unless the mail server refused for good."""
    try:
        mail()
    except OSError as error:
        logger.warning("e-mail not sent", task=task.name, error=type(error).__name__)
        if not is_permanent(error):
            raise task.retry(
                exc=error, countdown=RETRY_SECONDS * 2**task.request.retries, max_retries=3
            ) from None


@shared_task(base=TenantTask, bind=True, name="tenants.send_invitation")
def send_invitation(self: Any, invitation_id: str, site: str) -> None:
    """The e-mail of one invitation."""
    _send(self, lambda: mail_invitation(invitation_id=invitation_id, site=site))


@shared_task(bind=True, name="tenants.send_password_reset")
def send_password_reset(self: Any, email: str, site: str) -> None:
    """Links to a new password, to whoever has the address. Of no tenant: people are not."""
    _send(self, lambda: mail_reset(email=email, site=site))


@shared_task(bind=True, name="tenants.send_password_changed")
def send_password_changed(self: Any, user_id: int) -> None:
    """Tells somebody that their password is new."""
    _send(self, lambda: mail_password_changed(user_id=user_id))
