from django.contrib.admin.apps import AdminConfig


class RagsiteAdminConfig(AdminConfig):
    """Django admin on our own site."""

    default_site = "tenants.admin_site.RagsiteAdminSite"
