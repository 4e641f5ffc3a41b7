from django.contrib.admin.apps import AdminConfig


class RagsiteAdminConfig(AdminConfig):
    """Django admin on our own site."""

    default_site = "tenants.admin_site.RagsiteAdminSite"

    def ready(self) -> None:
        super().ready()  # every app has registered its models now
        from tenants.admin_beat import register_schedules

        register_schedules()
