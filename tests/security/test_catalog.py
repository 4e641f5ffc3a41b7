"""What PostgreSQL's own catalog says of the second wall."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from tests.security.helpers import tenant_models

pytestmark = pytest.mark.django_db(databases=["default", "platform", "owner"])

APP = settings.DATABASES["default"]["USER"]
PLATFORM = settings.DATABASES["platform"]["USER"]
OWNER = settings.DATABASES["owner"]["USER"]


@pytest.fixture
def catalog() -> Iterator[Any]:
    with connections["owner"].cursor() as cursor:

        def ask(sql: str, *params: Any) -> list[tuple[Any, ...]]:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

        yield ask


def tenant_tables() -> set[str]:
    return {model._meta.db_table for model in tenant_models()} | {"tenants_tenant"}


def test_every_tenant_table_forces_row_level_security(catalog: Any) -> None:
    tables = tenant_tables()
    assert len(tables) >= 16
    rows = catalog(
        "SELECT relname, relrowsecurity, relforcerowsecurity, relkind, relowner::regrole::text FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%s)",
        list(tables),
    )
    assert {row[0] for row in rows} == tables
    for name, enabled, forced, kind, owner in rows:
        assert enabled and forced, f"{name} is not under FORCE ROW LEVEL SECURITY"
        assert kind == "r", f"{name}: a partition would have no policy of its own"
        assert owner == OWNER
    # A table with a tenant column that Django does not know is no way round either.
    columns = catalog(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'tenant_id'"
    )
    assert {row[0] for row in columns} == tables - {"tenants_tenant"}


def test_policies_are_for_the_two_roles_alone_and_ask_for_the_tenant(catalog: Any) -> None:
    policies = catalog(
        "SELECT tablename, policyname, roles::text[], permissive, cmd, qual, with_check FROM pg_policies"
    )
    found: dict[str, set[str]] = {}
    for table, name, roles, _, command, using, check in policies:
        assert roles in ([APP], [PLATFORM]), f"{name} on {table} is for {roles}"
        assert command == "ALL", (table, name)
        found.setdefault(table, set()).add(roles[0])
        if roles == [APP]:
            assert "ragsite.tenant" in using and "ragsite.tenant" in check, table
            assert "NULLIF(current_setting('ragsite.tenant'::text, true)" in check, table
            assert using != "true" and check != "true"
    assert set(found) == tenant_tables()
    assert all(roles == {APP, PLATFORM} for roles in found.values())
    tagged = {table for table, *_, using, _ in policies if "ragsite.tags" in (using or "")}
    assert tagged == {
        m._meta.db_table
        for m in tenant_models()
        if m._meta.model_name
        in ("document", "chunk", "tagset", "embedding", "evaluationset", "evaluationcase", "evaluationrun")
    }
    # A vector tells of its text whatever the tags: only a scope that reads the whole tenant sees any.
    (vectors,) = [
        using
        for table, *_, using, _ in policies
        if table == "knowledge_embedding" and "tags" in (using or "")
    ]
    assert "&&" not in vectors and "= '*'" in vectors


def test_the_roles_have_no_rights_beyond_their_own(catalog: Any) -> None:
    rows = catalog(
        "SELECT rolname, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles"
        " WHERE rolname = ANY(%s)",
        [APP, PLATFORM],
    )
    assert {row[0] for row in rows} == {APP, PLATFORM} and APP != PLATFORM
    assert all(not any(row[1:]) for row in rows), rows
    for role in (APP, PLATFORM):
        for other in {APP, PLATFORM, OWNER} - {role}:
            assert not catalog("SELECT pg_has_role(%s, %s, 'MEMBER')", role, other)[0][0], (role, other)
        assert catalog("SELECT count(*) FROM pg_class WHERE relowner = %s::regrole", role) == [(0,)]
        assert catalog("SELECT count(*) FROM pg_proc WHERE proowner = %s::regrole", role) == [(0,)]
        assert catalog("SELECT count(*) FROM pg_namespace WHERE nspowner = %s::regrole", role) == [(0,)]
        assert catalog("SELECT has_schema_privilege(%s, 'public', 'CREATE')", role) == [(False,)]
        grants = catalog(
            "SELECT table_name, privilege_type FROM information_schema.role_table_grants"
            " WHERE grantee = %s AND privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER')",
            role,
        )
        assert grants == [], role
        assert (
            catalog(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
                " AND has_table_privilege(%s, oid, 'TRUNCATE')",
                role,
            )
            == []
        )
    public = catalog(
        "SELECT table_name FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC' AND table_schema = 'public'"
    )
    assert public == []


def test_the_audit_log_is_only_appended_to(catalog: Any) -> None:
    rights = catalog(
        "SELECT p, has_table_privilege(%s, 'tenants_auditevent', p)"
        " FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p",
        APP,
    )
    assert dict(rights) == {
        "SELECT": True,
        "INSERT": True,
        "UPDATE": False,
        "DELETE": False,
        "TRUNCATE": False,
    }
    for table in ("django_migrations", "knowledge_price"):
        assert catalog("SELECT has_table_privilege(%s, %s, 'INSERT, UPDATE, DELETE')", APP, table) == [
            (False,)
        ]


def test_nothing_runs_with_the_rights_of_its_owner(catalog: Any) -> None:
    functions = catalog(
        "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    )
    assert functions == [], "SECURITY DEFINER"
    views = catalog(
        "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')"
    )
    for name, options in views:
        assert "security_invoker=true" in (options or []), name


def test_every_unique_index_of_a_tenant_table_includes_the_tenant(catalog: Any) -> None:
    """A unique index without it would tell one tenant what another one has."""
    rows = catalog(
        "SELECT t.relname, i.indexrelid::regclass::text,"
        " ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY(i.indkey))"
        " FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid"
        " WHERE i.indisunique AND NOT i.indisprimary AND t.relname = ANY(%s)",
        list(tenant_tables() - {"tenants_tenant"}),
    )
    assert len(rows) >= 8
    for table, index, columns in rows:
        assert "tenant_id" in columns, f"{index} on {table}"


def test_each_alias_is_the_role_that_it_claims_to_be() -> None:
    for alias, role in (("default", APP), ("platform", PLATFORM), ("owner", OWNER)):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT current_user, session_user, current_database()")
            current, session, database = cursor.fetchone()
        assert (current, session) == (role, role)
        assert database.startswith("test_")
