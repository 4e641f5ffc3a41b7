"""Wall 2: migration operations that put a table under row-level security, and the grants of the two roles.

The application role owns nothing and has no BYPASSRLS; the platform role is let through by a policy of its own, so a
managed PostgreSQL without superuser works as well. Both names come from the settings, because they differ between
installations and test databases.
"""

from typing import Any

from django.conf import settings
from django.db import connections, transaction
from django.db.migrations.operations.base import Operation

TENANT = "(SELECT nullif(current_setting('ragsite.tenant', true), '')::uuid)"
USER = "(SELECT nullif(current_setting('ragsite.user', true), '')::bigint)"
ALL_TAGS = "(SELECT coalesce(current_setting('ragsite.tags', true), '') = '*')"
TAGS = "(SELECT string_to_array(nullif(current_setting('ragsite.tags', true), ''), ',')::varchar[])"

OF_TENANT = f"tenant_id = {TENANT}"
READABLE = f"tenant_id = {TENANT} AND ({ALL_TAGS} OR tags && {TAGS})"
# What tells of documents whatever their tags: only for work that reads the whole tenant.
WHOLE_TENANT = f"tenant_id = {TENANT} AND {ALL_TAGS}"
OWN_MEMBERSHIP = f"user_id = {USER}"

APPLICATION_GRANTS = "SELECT, INSERT, UPDATE, DELETE"


def application_role() -> str:
    return str(settings.DATABASES["default"]["USER"])


def platform_role() -> str:
    return str(settings.DATABASES["platform"]["USER"])


class ProtectTable(Operation):
    """FORCE ROW LEVEL SECURITY on ``table`` with one policy for the application role, one for the platform role.

    Args:
        table: the table's name.
        visible: SQL condition of the rows that may be read, updated and deleted.
        writable: SQL condition that written rows must meet; ``visible`` when not given.
    """

    reversible = True
    reduces_to_sql = True

    def __init__(self, table: str, visible: str = OF_TENANT, writable: str | None = None) -> None:
        self.table = table
        self.visible = visible
        self.writable = writable if writable is not None else visible

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (
            type(self).__name__,
            [],
            {"table": self.table, "visible": self.visible, "writable": self.writable},
        )

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Row-level security is not part of Django's model state."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        q = schema_editor.quote_name
        table = q(self.table)
        schema_editor.execute(
            "SET LOCAL lock_timeout = '5s'"
        )  # an idle reader would block the table for everyone
        schema_editor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        schema_editor.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        schema_editor.execute(f"DROP POLICY IF EXISTS application ON {table}")
        schema_editor.execute(
            f"CREATE POLICY application ON {table} TO {q(application_role())}"
            f" USING ({self.visible}) WITH CHECK ({self.writable})"
        )
        schema_editor.execute(f"DROP POLICY IF EXISTS platform ON {table}")
        schema_editor.execute(
            f"CREATE POLICY platform ON {table} TO {q(platform_role())} USING (true) WITH CHECK (true)"
        )

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        table = schema_editor.quote_name(self.table)
        schema_editor.execute(f"DROP POLICY IF EXISTS application ON {table}")
        schema_editor.execute(f"DROP POLICY IF EXISTS platform ON {table}")
        schema_editor.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        schema_editor.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")

    def describe(self) -> str:
        return f"Put {self.table} under row-level security"


# What the application role may do with a table, where it is less than everything.
REDUCED_GRANTS = {
    "tenants_auditevent": "SELECT, INSERT",  # the log is only ever appended to
    "knowledge_price": "SELECT",
    "django_migrations": "SELECT",
}


def grant_tables(*, using: str = "owner", **_: Any) -> None:
    """Grants the two roles what they need on every table; runs after each ``migrate``.

    Safe before policies exist too: a table without a grant is closed, and migrations create policies in the same
    transaction as their tables.
    """
    if using != "owner":
        return
    # One transaction: a running process never meets a table between the revoke and the grant.
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        q = connections[using].ops.quote_name
        app, platform = q(application_role()), q(platform_role())
        cursor.execute(
            "SELECT c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'S', 'v') AND NOT EXISTS"
            " (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
        )
        for name, kind in cursor.fetchall():
            if kind == "S":
                cursor.execute(f"GRANT USAGE, SELECT ON SEQUENCE {q(name)} TO {app}, {platform}")
                continue
            cursor.execute(f"REVOKE ALL ON {q(name)} FROM PUBLIC, {app}, {platform}")
            cursor.execute(f"GRANT {REDUCED_GRANTS.get(name, APPLICATION_GRANTS)} ON {q(name)} TO {app}")
            cursor.execute(f"GRANT {APPLICATION_GRANTS} ON {q(name)} TO {platform}")
