from django.apps import AppConfig
from django.db.models.signals import post_migrate


class TenantsConfig(AppConfig):
    """Tenants, people, access, audit, usage."""

    name = "tenants"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from tenants.rls import grant_tables

        # Django's own hook for what must hold after every migrate, third-party tables included.
        post_migrate.connect(grant_tables, sender=self, dispatch_uid="ragsite.grants")
