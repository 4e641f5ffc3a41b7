"""The end of a tenant: every row of it."""

from typing import Any

from django.apps import apps

from tenants.audit import record_platform_event
from tenants.models import Tenant
from tenants.scope import atomic, unscoped


def models_of_tenants() -> list[Any]:
    """Every model whose rows name a tenant; the audit log, which has rows of none too, is among them."""
    return [
        model
        for model in apps.get_models()
        if any(field.name == "tenant" and field.related_model is Tenant for field in model._meta.fields)
    ]


def remove_tenant(*, tenant: Tenant) -> None:
    """Removes a tenant with all of its rows, its audit log too, in one transaction. Files are the caller's business.

    Its users stay: a person may be a member elsewhere.
    """
    with unscoped(reason="remove a tenant"), atomic():
        # Foreign keys are checked when the transaction ends, so the order of the tables does not matter; a collector
        # would first load what may be a million rows.
        for model in models_of_tenants():
            model._base_manager.filter(tenant_id=tenant.pk)._raw_delete("platform")
        Tenant.objects.filter(pk=tenant.pk)._raw_delete("platform")
        record_platform_event(
            action="platform.tenant_removed",
            actor=None,
            detail={"tenant": str(tenant.pk), "slug": tenant.slug},
        )
