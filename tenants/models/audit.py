import uuid

from django.db import models

from tenants.models.tenant import Tenant
from tenants.querysets import TenantManager
from tenants.scope import current_tenant_id


class AuditEvent(models.Model):
    """Something that happened. Appended to, never changed: the application role may not update or delete here.

    A row without a tenant is the platform's own (unscoped work, a failed sign-in of nobody's). People and things are
    named by value as well, so that a row outlives what it speaks of.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(
        Tenant,
        null=True,
        on_delete=models.CASCADE,
        related_name="+",
        default=current_tenant_id,
        editable=False,
    )
    at = models.DateTimeField(auto_now_add=True)
    action = models.CharField(max_length=60)
    actor_id = models.BigIntegerField(null=True)
    actor_name = models.CharField(max_length=150, blank=True)
    role_name = models.CharField(max_length=60, blank=True)
    method = models.CharField(max_length=10, blank=True, help_text="session, jwt, api_key or system")
    target_type = models.CharField(max_length=60, blank=True)
    target_id = models.CharField(max_length=60, blank=True)
    detail = models.JSONField(default=dict)
    address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=36, blank=True)

    objects = TenantManager()

    class Meta:
        base_manager_name = "objects"
        ordering = ["-at", "-id"]
        indexes = [
            # The audit log, newest first, whole and by action.
            models.Index(fields=["tenant", "-at", "-id"], name="audit_of_tenant"),
            models.Index(fields=["tenant", "action", "-at"], name="audit_of_action"),
            # What one person did (and when they last signed in), what happened to one thing.
            models.Index(fields=["tenant", "actor_name", "-at"], name="audit_of_actor"),
            models.Index(fields=["tenant", "target_id", "-at"], name="audit_of_target"),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.action} {self.actor_name}"
