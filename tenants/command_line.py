"""What the management commands share."""

from contextlib import AbstractContextManager
from typing import Any

from django.core.management.base import CommandError

from tenants.models import Tenant
from tenants.scope import scope, unscoped


def find_tenant(slug: str) -> Tenant:
    """A tenant by its slug.

    Raises:
        CommandError: naming those that exist.
    """
    with unscoped(reason="command line: find a tenant"):
        tenants = {tenant.slug: tenant for tenant in Tenant.objects.all()}
    if slug not in tenants:
        known = ", ".join(sorted(tenants)) or "none yet; “manage.py tenant create” makes one"
        raise CommandError(f"There is no tenant “{slug}”: choose one of {known}.")
    return tenants[slug]


def whole_tenant(tenant: Tenant) -> AbstractContextManager[Any]:
    """The scope of an operator's work in one tenant: all of its documents."""
    return scope(tenant_id=tenant.pk, tags=None)
