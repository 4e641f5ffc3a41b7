from django.db import migrations

from tenants.rls import OF_TENANT, OWN_MEMBERSHIP, TENANT, ProtectTable

# Before a tenant is chosen, a user sees their own memberships, and the tenants and roles of those.
OWN_TENANT = f"id = {TENANT} OR id IN (SELECT m.tenant_id FROM tenants_membership m WHERE m.{OWN_MEMBERSHIP})"
OWN_ROLE = f"{OF_TENANT} OR id IN (SELECT m.role_id FROM tenants_membership m WHERE m.{OWN_MEMBERSHIP})"


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]

    operations = [
        ProtectTable(
            table="tenants_membership", visible=f"{OF_TENANT} OR {OWN_MEMBERSHIP}", writable=OF_TENANT
        ),
        ProtectTable(table="tenants_tenant", visible=OWN_TENANT, writable=f"id = {TENANT}"),
        ProtectTable(table="tenants_role", visible=OWN_ROLE, writable=OF_TENANT),
        ProtectTable(table="tenants_apikey"),
        ProtectTable(table="tenants_tokenfamily"),
        ProtectTable(table="tenants_auditevent"),
        ProtectTable(table="tenants_usagerecord"),
    ]
