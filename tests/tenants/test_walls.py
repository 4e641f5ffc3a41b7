"""The first two walls: scoped querysets that raise, and row-level security under the application role."""

import asyncio
import threading
import uuid
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connections, transaction
from django.db.utils import ConnectionHandler
from psycopg import sql

from knowledge.models import Collection, Document
from ragsite.core.hops import run_db
from tenants.models import AuditEvent, Membership, Role, Tenant
from tenants.people import create_tenant, create_user
from tenants.scope import (
    ScopeMissing,
    atomic,
    current_scope,
    enter,
    identity,
    require_tenant_id,
    scope,
    unscoped,
)
from tenants.tasks import TenantTask

both = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

SETTINGS = "SELECT current_setting('ragsite.tenant', true), current_setting('ragsite.tags', true)"


def tenant_tables() -> list[str]:
    return [
        model._meta.db_table
        for model in apps.get_models()
        if any(field.name == "tenant" for field in model._meta.fields) or model is Tenant
    ]


def count(table: str, *, alias: str = "default") -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)).as_string(cursor.connection)
        )
        return int(cursor.fetchone()[0])


@pytest.fixture
def two(transactional_db: None) -> tuple[Tenant, Tenant]:
    """Two tenants with a collection each."""
    tenants = create_tenant(slug="red", name="Red"), create_tenant(slug="blue", name="Blue")
    for tenant in tenants:
        with scope(tenant_id=tenant.pk, tags=None):
            Collection.objects.create(slug=f"of-{tenant.slug}", name=tenant.name)
    return tenants


@both
def test_without_context_there_are_no_rows(cast: Any) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT current_user")
        assert cursor.fetchone()[0].endswith("_app")
    filled = 0
    for table in tenant_tables():
        assert count(table) == 0, table
        with transaction.atomic():
            assert count(table) == 0, table
        filled += count(table, alias="platform") > 0
    assert filled >= 8
    # The owner is under FORCE as well.
    assert count("knowledge_document", alias="owner") == 0


@both
def test_wall_two_alone_filters_by_tenant_and_tag(cast: Any) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None):
        everything = count("knowledge_document")
    with scope(tenant_id=cast.acme.pk, tags=["runbooks"]):
        assert count("knowledge_document") == 1 < everything == 5
        assert count("knowledge_chunk") >= 1
    with scope(tenant_id=cast.acme.pk, tags=[]):
        assert count("knowledge_document") == count("knowledge_chunk") == 0
        assert count("knowledge_collection") == 1
    with scope(tenant_id=uuid.uuid4(), tags=None):
        assert count("knowledge_document") == 0


@both
def test_writing_into_another_tenant_is_refused(two: tuple[Tenant, Tenant]) -> None:
    red, blue = two
    with scope(tenant_id=red.pk, tags=None):
        with pytest.raises(DatabaseError, match="row-level security"):
            Collection(tenant_id=blue.pk, slug="x", name="x").save(force_insert=True)
        own = Collection.objects.get()
        own.tenant_id = blue.pk
        with pytest.raises(DatabaseError):
            own.save()
        with connections["default"].cursor() as cursor:
            cursor.execute("UPDATE knowledge_collection SET name = 'mine' WHERE tenant_id = %s", [blue.pk])
            assert cursor.rowcount == 0
            cursor.execute("DELETE FROM knowledge_collection WHERE tenant_id = %s", [blue.pk])
            assert cursor.rowcount == 0
    with enter(None), pytest.raises(DatabaseError):
        Collection(tenant_id=blue.pk, slug="y", name="y").save(force_insert=True)
    assert count("knowledge_collection", alias="platform") == 2


@both
def test_a_document_of_unreadable_tags_cannot_be_written(two: tuple[Tenant, Tenant]) -> None:
    with scope(tenant_id=two[0].pk, tags=["faq"]):
        collection = Collection.objects.get()
        with pytest.raises(DatabaseError, match="row-level security"):
            Document.objects.create(collection=collection, title="t", uri="t", tags=["secret"])
        Document.objects.create(collection=collection, title="t", uri="t", tags=["faq", "secret"])


@both
def test_every_way_to_a_row_raises_without_a_scope(two: tuple[Tenant, Tenant]) -> None:
    built_outside = Collection.objects.filter(slug="of-red")
    ways = [
        lambda rows: list(rows),
        lambda rows: rows.count(),
        lambda rows: rows.exists(),
        lambda rows: rows.first(),
        lambda rows: rows.get(),
        lambda rows: rows[0],
        lambda rows: bool(rows),
        lambda rows: list(rows.values_list("slug")),
        lambda rows: list(rows.iterator()),
        lambda rows: rows.aggregate(),
        lambda rows: rows.update(name="x"),
        lambda rows: rows.delete(),
        lambda rows: rows.in_bulk(),
        lambda rows: list(Document.objects.filter(collection__in=rows)),
        lambda rows: rows.earliest("created_at"),
        lambda rows: rows.contains(Collection(pk=uuid.uuid4())),
    ]
    for number, way in enumerate(ways):
        with pytest.raises(ScopeMissing):
            way(Collection.objects.all())
        # Built without a scope it stays unusable inside one: its filter was never applied.
        with scope(tenant_id=two[0].pk, tags=None), pytest.raises(ScopeMissing):
            way(built_outside.all())
            raise AssertionError(number)
    with scope(tenant_id=two[0].pk, tags=None):
        row = Collection.objects.get()
    for act in (row.save, row.refresh_from_db, row.delete, lambda: row.documents.count()):
        with pytest.raises(ScopeMissing):
            act()
    with pytest.raises(ScopeMissing):
        require_tenant_id()
    with pytest.raises(ScopeMissing):
        Membership.objects.all().of_no_tenant()


@both
def test_identity_shows_ones_own_memberships_alone(two: tuple[Tenant, Tenant]) -> None:
    ann, bob = (create_user(username=n, password="x" * 12, check_password=False) for n in ("ann", "bob"))
    for tenant, user in ((two[0], ann), (two[1], ann), (two[1], bob)):
        with scope(tenant_id=tenant.pk, tags=None):
            Membership.objects.create(user=user, role=Role.objects.get(name="helpdesk"))
    for user, expected in ((ann, {"red", "blue"}), (bob, {"blue"})):
        with identity(user_id=user.pk):
            mine = Membership.objects.all().of_no_tenant().select_related("tenant", "role")
            assert {m.tenant.slug for m in mine} == expected
            assert {m.user_id for m in mine} == {user.pk}
            assert count("tenants_tenant") == count("tenants_role") == len(expected)
            assert count("knowledge_collection") == 0


@both
def test_nothing_of_the_context_remains(two: tuple[Tenant, Tenant]) -> None:
    red = two[0]
    with connections["default"].cursor() as cursor:

        def settings() -> tuple[str, str]:
            cursor.execute(SETTINGS)
            found = cursor.fetchone()
            return (found[0] or "", found[1] or "")

        with scope(tenant_id=red.pk, tags=["faq"]):
            assert settings() == (str(red.pk), "faq")
        assert settings() == ("", "")
        with atomic(), scope(tenant_id=red.pk, tags=None):
            assert settings() == (str(red.pk), "*")
            with enter(None):
                assert settings() == ("", "")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                with scope(tenant_id=two[1].pk, tags=None):
                    assert settings()[0] == str(two[1].pk)
                raise ZeroDivisionError
            # A savepoint's rollback takes SET LOCAL back with it.
            assert settings() == (str(red.pk), "*")
            assert Collection.objects.get().slug == "of-red"
        assert settings() == ("", "")
        with pytest.raises(DatabaseError), scope(tenant_id=red.pk, tags=None), atomic():
            cursor.execute("SELECT 1/0")
        assert settings() == ("", "")


@both
def test_a_pooled_connection_carries_nothing_to_its_next_borrower(two: tuple[Tenant, Tenant]) -> None:
    original = connections["default"].settings_dict
    pooled = original | {
        "OPTIONS": original["OPTIONS"] | {"pool": {"min_size": 1, "max_size": 1}},
        "CONN_MAX_AGE": 0,
    }
    handler = ConnectionHandler({"default": pooled})
    connection = handler["default"]
    try:
        backends = set()
        for tenant in (*two, *two):
            with scope(tenant_id=tenant.pk, tags=None), connection.cursor() as cursor:
                cursor.execute("SELECT slug FROM knowledge_collection")
                assert cursor.fetchall() == [(f"of-{tenant.slug}",)]
            connection.close()
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid(), count(*) FROM knowledge_collection")
                pid, rows = cursor.fetchone()
                assert rows == 0
                backends.add(pid)
                cursor.execute(SETTINGS)
                assert all(not value for value in cursor.fetchone())
            connection.close()
        assert len(backends) == 1
    finally:
        connection.close()
        connection.close_pool()


@both
def test_threads_and_coroutines_keep_their_tenants_apart(two: tuple[Tenant, Tenant], settings: Any) -> None:
    settings.HOPS_IN_CALLING_THREAD = False
    seen: list[tuple[str, str]] = []

    def look(tenant: Tenant) -> None:
        with scope(tenant_id=tenant.pk, tags=None):
            for _ in range(10):
                seen.append((f"of-{tenant.slug}", Collection.objects.get().slug))
        connections.close_all()

    threads = [threading.Thread(target=look, args=(tenant,)) for tenant in two * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def look_async(tenant: Tenant) -> None:
        with scope(tenant_id=tenant.pk, tags=None):
            for _ in range(10):
                seen.append((f"of-{tenant.slug}", await run_db(lambda: Collection.objects.get().slug)))
                await asyncio.sleep(0)

    async def everybody() -> None:
        await asyncio.gather(*(look_async(tenant) for tenant in two * 5))

    asyncio.run(everybody())
    assert len(seen) == 160
    assert all(expected == found for expected, found in seen)


@both
def test_a_new_thread_has_no_scope(two: tuple[Tenant, Tenant], in_thread: Any) -> None:
    with scope(tenant_id=two[0].pk, tags=None):
        assert current_scope() is not None
        assert in_thread(current_scope) is None


@both
def test_a_task_runs_in_the_scope_that_sent_it(two: tuple[Tenant, Tenant]) -> None:
    from ragsite.celery import app

    @app.task(base=TenantTask, name="tests.slug")
    def slug() -> str:
        return str(Collection.objects.get().slug)

    for tenant in two:
        result = slug.apply(headers={"ragsite_tenant": str(tenant.pk)})
        assert result.get() == f"of-{tenant.slug}"
    assert current_scope() is None
    with pytest.raises(RuntimeError, match="without a tenant"):
        slug.apply().get()
    with pytest.raises(ScopeMissing):
        slug.enqueue_on_commit()


@both
def test_unscoped_sees_all_and_is_told_of(two: tuple[Tenant, Tenant]) -> None:
    root = create_user(username="op", password="x" * 12, check_password=False)
    with unscoped(reason="a test of the platform", actor=root):
        assert Collection.objects.count() == 2
        with connections["platform"].cursor() as cursor:
            cursor.execute("SELECT current_user")
            assert cursor.fetchone()[0].endswith("_platform")
        events = AuditEvent.objects.filter(action="platform.unscoped", actor_name="op")
        assert [event.detail for event in events] == [{"reason": "a test of the platform"}]
    with pytest.raises(ScopeMissing):
        Collection.objects.count()
