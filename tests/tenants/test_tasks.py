"""Celery tasks run in the scope of the tenant that sent them, or not at all."""

import uuid
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from django.db import connection, connections

from knowledge.models import Document
from ragsite.celery import app
from tenants.scope import ScopeMissing, atomic, current_scope, scope
from tenants.tasks import TenantTask
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

SEEN: list[tuple[str, Any, frozenset[str], frozenset[str]]] = []


@app.task(base=TenantTask, name="tests.look", shared=False)
def look(note: str = "") -> None:
    scope_now = current_scope()
    with connection.cursor() as cursor:
        cursor.execute("SELECT title FROM knowledge_document")
        raw = frozenset(row[0] for row in cursor.fetchall())
    ours = frozenset(Document.objects.values_list("title", flat=True))
    SEEN.append((note, scope_now.tenant_id if scope_now else None, raw, ours))


def of(slug: str) -> frozenset[str]:
    return frozenset({f"{slug} runbook", f"{slug} incident", f"{slug} untagged"})


def test_a_task_without_a_tenant_fails_and_one_with_it_sees_that_tenant_alone(people: People) -> None:
    SEEN.clear()
    for headers in ({}, {"ragsite_tenant": ""}, {"tenant": str(people.acme.pk)}):
        result = look.apply(headers=headers)
        assert result.failed() and "without a tenant" in str(result.result)
    assert look.apply(headers={"ragsite_tenant": "acme' OR true --"}).failed()
    assert SEEN == []
    assert look.apply(headers={"ragsite_tenant": str(uuid.uuid4())}).successful()
    assert SEEN.pop()[2:] == (frozenset(), frozenset())
    # The sender's own scope plays no part: the message says for whom.
    with scope(tenant_id=people.globex.pk, tags=["runbooks"]):
        assert look.apply(headers={"ragsite_tenant": str(people.acme.pk)}).successful()
        assert current_scope() is not None and current_scope().tenant_id == people.globex.pk  # type: ignore[union-attr]
    assert SEEN.pop() == ("", people.acme.pk, of("acme"), of("acme"))
    assert current_scope() is None
    with pytest.raises(ScopeMissing):
        look.enqueue_on_commit(note="nobody's")


def test_a_real_worker_takes_the_tenant_from_the_message(people: People) -> None:
    SEEN.clear()
    with scope(tenant_id=people.acme.pk, tags=[]), pytest.raises(ZeroDivisionError), atomic():
        look.enqueue_on_commit(note="rolled back")
        1 / 0  # noqa: B018
    for slug, tenant in people.tenants.items():
        with scope(tenant_id=tenant.pk, tags=[]), atomic():  # the sender's tags are not the task's
            look.enqueue_on_commit(note=slug)
    app.send_task("tests.look", kwargs={"note": "forged"})  # no tenant
    try:
        with start_worker(
            app, pool="solo", perform_ping_check=False, shutdown_timeout=30, loglevel="CRITICAL"
        ):
            import time

            deadline = time.monotonic() + 20
            while len(SEEN) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:
        connections.close_all()
    assert sorted(SEEN) == sorted(
        (slug, tenant.pk, of(slug), of(slug)) for slug, tenant in people.tenants.items()
    )
