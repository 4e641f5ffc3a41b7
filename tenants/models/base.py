import uuid
from typing import Any, ClassVar

from django.db import models

from tenants.models.tenant import Tenant
from tenants.querysets import TenantManager
from tenants.scope import current_tenant_id


class TenantModel(models.Model):
    """A row of one tenant. Its table is put under row-level security by its migration (``tenants.rls.ProtectTable``)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.CASCADE, related_name="+", default=current_tenant_id, editable=False
    )

    objects: ClassVar[Any] = TenantManager()

    class Meta:
        abstract = True
        base_manager_name = "objects"
        default_manager_name = "objects"
