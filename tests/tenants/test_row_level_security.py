"""Wall 2: the context of every statement of the application role, by whatever road it comes."""

import asyncio
import copy
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction

from knowledge.models import Document
from ragsite.core.hops import run_db
from tenants.models import AuditEvent, Tenant
from tenants.postgresql.base import DatabaseWrapper
from tenants.scope import atomic, current_scope, scope, unscoped
from tests.security.helpers import tenant_models
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

SETTINGS = (
    "SELECT nullif(current_setting('ragsite.tenant', true), ''), nullif(current_setting('ragsite.tags', true), ''),"
    " nullif(current_setting('ragsite.user', true), '')"
)
NOTHING = (None, None, None)


def rows_of(table: str, *, using: Any = None) -> int:
    with (using or connection).cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return int(cursor.fetchone()[0])


def settings_now() -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(SETTINGS)
        found: tuple[Any, ...] = cursor.fetchone()
        return found


def titles() -> set[str]:
    """By plain SQL: what the database alone lets through."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT title FROM knowledge_document")
        return {row[0] for row in cursor.fetchall()}


def of(slug: str) -> set[str]:
    return {f"{slug} runbook", f"{slug} incident", f"{slug} untagged"}


def test_without_a_context_every_table_is_empty(people: People) -> None:
    tables = [model._meta.db_table for model in tenant_models()] + ["tenants_tenant"]
    assert rows_of("knowledge_document", using=connections["platform"]) == 6
    for table in tables:
        assert rows_of(table) == 0, table
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {table} SET id = id" if table != "tenants_auditevent" else "SELECT 1 WHERE false"
            )
            assert cursor.rowcount == 0, table
            cursor.execute(f"SELECT * FROM {table} LIMIT 1")
            assert cursor.fetchone() is None
    # Nonsense in the settings is no context either.
    for wrong in ("", "*", "all"):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('ragsite.tags', %s, true)", [wrong])
            cursor.execute("SELECT count(*) FROM knowledge_document")
            assert cursor.fetchone()[0] == 0
    with scope(tenant_id=uuid.uuid4(), tags=None):
        for table in tables:
            assert rows_of(table) == 0, table


def test_writing_into_another_tenant_is_refused(people: People) -> None:
    acme, globex = people.acme.pk, people.globex.pk
    with unscoped(reason="tests"):
        template = Document.objects.filter(tenant_id=globex).first()
    insert = (
        "INSERT INTO knowledge_document SELECT (jsonb_populate_record(d, jsonb_build_object("
        "'id', gen_random_uuid(), 'tenant_id', %s::uuid, 'tags', %s::text[]))).* FROM knowledge_document d LIMIT 1"
    )
    audit = (
        "INSERT INTO tenants_auditevent (id, tenant_id, at, action, actor_name, role_name, method, target_type,"
        " target_id, detail, request_id) VALUES (gen_random_uuid(), %s, now(), 'x', '', '', '', '', '', '{}', '')"
    )
    refused: list[tuple[str, list[Any]]] = [
        (insert, [globex, ["runbooks"]]),
        ("UPDATE knowledge_document SET tenant_id = %s", [globex]),
        ("UPDATE tenants_membership SET tenant_id = %s", [globex]),
        ("UPDATE tenants_role SET tenant_id = %s", [globex]),
        ("INSERT INTO tenants_tenant (id, slug, name, status, auth_epoch, is_demo, created_at)"
         " VALUES (%s, 'evil', 'Evil', 'active', 1, false, now())", [uuid.uuid4()]),
        (audit, [globex]),
        (audit, [None]),
        ("UPDATE tenants_auditevent SET action = %s", ["nothing happened"]),
        ("DELETE FROM tenants_auditevent WHERE action <> %s", [""]),
        ("TRUNCATE knowledge_document CASCADE -- %s", [""]),
        ("ALTER TABLE knowledge_document DISABLE ROW LEVEL SECURITY -- %s", [""]),
        ("DROP POLICY application ON knowledge_document -- %s", [""]),
        ("SET ROLE " + connections["owner"].settings_dict["USER"] + " -- %s", [""]),
        ("SET ROLE " + connections["platform"].settings_dict["USER"] + " -- %s", [""]),
        ("COPY knowledge_document TO PROGRAM 'cat' -- %s", [""]),
    ]  # fmt: skip
    with scope(tenant_id=acme, tags=None):
        for statement, params in refused:
            with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(statement, params)
        with connection.cursor() as cursor:
            for statement in ("UPDATE knowledge_document SET title = 'x'", "DELETE FROM knowledge_document"):
                cursor.execute(f"{statement} WHERE id = %s", [template.pk])
                assert cursor.rowcount == 0
            cursor.execute(insert, [acme, ["runbooks"]])  # the control
            assert cursor.rowcount == 1
        with pytest.raises(DatabaseError):
            Document.objects.create(
                tenant_id=globex, collection_id=template.collection_id, title="x", uri="x"
            )
    # Nor a document that the writer's own role could not read.
    with scope(tenant_id=acme, tags=["runbooks"]):
        for tags in ([], ["incident_reports"]):
            with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(insert, [acme, tags])
            with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("UPDATE knowledge_document SET tags = %s", [tags])


def test_tags_filter_in_the_database(people: People) -> None:
    acme = people.acme.pk
    for tags, expected in (
        (None, of("acme")),
        (["runbooks"], {"acme runbook"}),
        (["runbooks", "incident_reports"], {"acme runbook", "acme incident"}),
        ([], set()),
        (["nothing"], set()),
        (["run"], set()),
    ):
        with scope(tenant_id=acme, tags=tags):
            assert titles() == expected, tags


def test_the_context_follows_the_scope_through_transactions_and_savepoints(people: People) -> None:
    acme, globex = people.acme.pk, people.globex.pk
    with scope(tenant_id=acme, tags=None):
        assert titles() == of("acme")  # autocommit
        assert settings_now()[0] == str(acme)
    assert settings_now() == NOTHING and titles() == set()
    with transaction.atomic():
        assert titles() == set()
        with scope(tenant_id=acme, tags=None):
            assert titles() == of("acme")
            with scope(tenant_id=globex, tags=["runbooks"]):
                assert titles() == {"globex runbook"}
            assert titles() == of("acme")
            # A savepoint that is rolled back takes SET LOCAL with it.
            sid = transaction.savepoint()
            with scope(tenant_id=globex, tags=None):
                assert titles() == of("globex")
            transaction.savepoint_rollback(sid)
            assert titles() == of("acme")
            sid = transaction.savepoint()
            assert titles() == of("acme")
            with scope(tenant_id=globex, tags=None):
                assert titles() == of("globex")
                transaction.savepoint_rollback(sid)  # the database is back at acme
                assert titles() == of("globex")
            with pytest.raises(ZeroDivisionError), transaction.atomic(), scope(tenant_id=globex, tags=None):
                assert titles() == of("globex")
                1 / 0  # noqa: B018
            assert titles() == of("acme")
            with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT 1 / 0")
            assert titles() == of("acme")
        assert titles() == set()
        assert settings_now() == NOTHING
    # Manual transactions
    transaction.set_autocommit(False)
    try:
        with scope(tenant_id=acme, tags=None):
            assert titles() == of("acme")
            transaction.rollback()
            assert titles() == of("acme")
            transaction.commit()
        assert titles() == set()
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert titles() == set()


@pytest.fixture
def pooled() -> Iterator[DatabaseWrapper]:
    """The application role's connection out of a pool of one."""
    values = copy.deepcopy(connections["default"].settings_dict)
    values["CONN_MAX_AGE"] = 0
    values["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 1, "timeout": 5}
    wrapper = connections["default"]
    assert isinstance(wrapper, DatabaseWrapper)
    wrapper.close()
    before, wrapper.settings_dict = wrapper.settings_dict, values
    yield wrapper
    wrapper.close()
    wrapper.close_pool()
    wrapper.settings_dict = before


def test_nothing_of_a_context_stays_on_a_pooled_connection(people: People, pooled: DatabaseWrapper) -> None:
    def look(cursor: Any) -> tuple[Any, ...]:
        cursor.execute("SELECT pg_backend_pid(), current_user")
        backend, user = cursor.fetchone()
        assert user == connections["default"].settings_dict["USER"]
        cursor.execute(SETTINGS)
        assert cursor.fetchone() == NOTHING
        cursor.execute("SELECT count(*) FROM knowledge_document")
        assert cursor.fetchone() == (0,)
        return (backend,)

    backends = set()
    for ending in ("autocommit", "commit", "rollback", "abandoned"):
        with scope(tenant_id=people.acme.pk, tags=None):
            if ending == "autocommit":
                assert rows_of("knowledge_document", using=pooled) == 3
            else:
                pooled.set_autocommit(False)
                assert rows_of("knowledge_document", using=pooled) == 3
                if ending != "abandoned":
                    getattr(pooled, ending)()
                    pooled.set_autocommit(True)
        pooled.close()  # back to the pool
        with (
            pooled.pool.connection() as raw,
            raw.cursor() as cursor,
        ):  # the next borrower, without our wrapper
            backends |= {look(cursor)}
        with pooled.cursor() as cursor:
            backends |= {look(cursor)}
        pooled.close()
    assert len(backends) == 1, "the pool gave another connection: nothing was shown"


def test_threads_with_different_tenants_do_not_mix(people: People) -> None:
    barrier = threading.Barrier(2, timeout=20)
    wrong: list[Any] = []

    def work(slug: str, tenant: Tenant) -> None:
        try:
            assert current_scope() is None  # a new thread starts with nothing
            assert titles() == set()
            with scope(tenant_id=tenant.pk, tags=None):
                for turn in range(15):
                    barrier.wait()
                    if turn % 3 == 0:
                        with atomic():
                            assert titles() == of(slug)
                            barrier.wait()
                            assert titles() == of(slug)
                    else:
                        barrier.wait()
                        assert titles() == of(slug)
                        assert set(Document.objects.values_list("title", flat=True)) == of(slug)
        except BaseException as error:
            wrong.append(error)
            barrier.abort()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(slug, people.tenants[slug])) for slug in people.tenants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_tasks_of_one_event_loop_do_not_mix(people: People, settings: Any) -> None:
    settings.HOPS_IN_CALLING_THREAD = False

    async def work(slug: str, tenant: Tenant) -> None:
        with scope(tenant_id=tenant.pk, tags=None):
            for _ in range(10):
                await asyncio.sleep(0)
                assert await run_db(titles) == of(slug)
                assert await asyncio.to_thread(in_thread, titles) == of(slug)
        assert await run_db(titles) == set()

    def in_thread(function: Any) -> Any:
        try:
            return function()
        finally:
            connections.close_all()

    async def rush() -> None:
        both = [work(slug, tenant) for slug, tenant in people.tenants.items()]
        await asyncio.gather(*both, *(work(slug, tenant) for slug, tenant in people.tenants.items()))

    asyncio.run(rush())

    # An executor drops the context: no rows rather than the wrong ones; with the context copied, the right ones.
    with ThreadPoolExecutor(max_workers=1) as executor, scope(tenant_id=people.acme.pk, tags=None):
        assert executor.submit(in_thread, titles).result() == set()
        assert executor.submit(copy_context().run, in_thread, titles).result() == of("acme")


def test_platform_work_is_audited_and_ends_with_its_block(people: People) -> None:
    def events(**wanted: Any) -> int:
        with connections["platform"].cursor() as cursor:
            cursor.execute(
                "SELECT actor_name, detail->>'reason' FROM tenants_auditevent"
                " WHERE tenant_id IS NULL AND action = 'platform.unscoped'"
            )
            return sum(row == (wanted["actor"], wanted["reason"]) for row in cursor.fetchall())

    with unscoped(reason="count what there is", actor=people.ada.membership.user):
        assert Document.objects.count() == 6
    assert current_scope() is None
    assert titles() == set()
    assert events(actor="ada", reason="count what there is") == 1
    with (
        pytest.raises(ZeroDivisionError),
        unscoped(reason="count what there is", actor=people.ada.membership.user),
    ):
        1 / 0  # noqa: B018
    assert events(actor="ada", reason="count what there is") == 2
    assert current_scope() is None
    # Without an actor: once an hour for each reason, so the log stays readable.
    for _ in range(3):
        with unscoped(reason="housekeeping of a test"):
            pass
    assert events(actor="", reason="housekeeping of a test") == 1
    with pytest.raises(TypeError):
        unscoped()  # type: ignore[call-arg]
    # A tenant's own log does not show the platform's, nor another's.
    with scope(tenant_id=people.acme.pk, tags=None):
        actions = set(AuditEvent.objects.values_list("action", "tenant_id"))
        assert actions and {tenant for _, tenant in actions} == {people.acme.pk}


def test_a_statement_takes_its_scope_along_in_one_message(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = ("100%", "%s", "it's", 'a"b', "back\\slash", "; --")
    tenant = people.acme
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    messages: list[Any] = []
    wait = type(connection.connection).wait
    monkeypatch.setattr(
        type(connection.connection), "wait", lambda *args, **more: messages.append(1) or wait(*args, **more)
    )
    with scope(tenant_id=tenant.pk, tags=tags):
        expected = (str(tenant.pk), ",".join(sorted(tags)), None)
        assert settings_now() == expected and len(messages) == 1
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s, current_setting('ragsite.tags', true)", ["5 %"])
            assert cursor.fetchall() == [("5 %", expected[1])] and not cursor.nextset()
        with pytest.raises(DatabaseError), connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")
        assert settings_now() == expected
        with atomic():
            assert settings_now() == settings_now() == expected
    assert settings_now() == NOTHING
