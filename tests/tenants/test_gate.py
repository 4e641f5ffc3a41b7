"""The gates: every write that something remembered may rest on shuts one for its commit, however it is made."""

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.db import connections, transaction
from django.db.models import F
from redis.exceptions import ConnectionError as RedisConnectionError

from knowledge.models import Corpus
from ragsite.core.redis import redis_connection
from tenants import gate
from tenants.gate import EVERYONE, LOOK, gate_key, gate_of, watched_tables
from tenants.models import ApiKey, Membership, Role, Tenant, TokenFamily, User
from tenants.scope import scope, unscoped
from tenants.tokens import issue_tokens
from tests.ragsite.helpers import CHECKOUT
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

# What an exact cache hit does not rest on. A table belongs here or among the watched ones: of two minds is nobody.
INDIFFERENT = {
    "tenants_auditevent",
    "tenants_idempotentrequest",
    "tenants_invitation",  # only the membership that comes of it
    "tenants_reservation",
    "tenants_spending",  # but for a soft limit that is gone over: tenants.budgets marks the gate
    "tenants_usagerecord",
}
# Each change of these that a reader could notice raises the corpus version, which is watched; the rest is history.
OF_DOCUMENTS_AND_HISTORY = ("knowledge_", "feedback_")


def stamps(*names: str) -> list[str] | None:
    client: Any = redis_connection()
    told = client.eval(LOOK, len(names), *(gate_key(name) for name in names), "fresh")
    return told.decode().split(" ") if told else None


@pytest.fixture
def acme(people: People) -> Iterator[str]:
    with scope(tenant_id=people.acme.pk, tags=None):
        yield str(people.acme.pk)


def changed(acme: str, work: Any) -> set[str]:
    """Whose gates have another stamp after it."""
    names = (acme, EVERYONE, "another")
    before = stamps(*names)
    work()
    after = stamps(*names)
    assert before and after, "no gate stays shut"
    return {name for name, old, new in zip(names, before, after, strict=True) if old != new}


def test_every_table_is_watched_or_is_not_for_a_reason() -> None:
    ours = {
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if model._meta.app_label in ("tenants", "knowledge", "feedback")
    }
    of_users = {"tenants_user_groups", "tenants_user_user_permissions"}  # the admin's, not a member's
    undecided = {
        table
        for table in ours - watched_tables() - INDIFFERENT - of_users
        if not table.startswith(OF_DOCUMENTS_AND_HISTORY)
    }
    assert undecided == set()
    assert watched_tables() <= ours


def test_every_way_to_write_is_seen(people: People, acme: str) -> None:
    member: Any = people.nina.membership
    role = Role.objects.get(pk=member.role_id)

    def by_hand() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute('  update "tenants_role" set name = name')

    def with_clause() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("WITH x AS (SELECT 1) UPDATE tenants_role SET name = name")

    def in_a_transaction() -> None:
        with transaction.atomic(), transaction.atomic():
            role.save()

    for work in (
        role.save,
        in_a_transaction,
        by_hand,
        with_clause,
        Corpus.raise_version,
        lambda: Role.objects.filter(pk=role.pk).update(name=F("name")),
        lambda: Role.objects.bulk_update([role], ["name"]),
        lambda: Role.objects.bulk_create([Role(name="new")]),
        lambda: Role.objects.filter(name="new").delete(),
        lambda: ApiKey.objects.update(revoked_at=None),
        lambda: TokenFamily.objects.update(revoked_because=""),
        people.acme.raise_auth_epoch,
    ):
        assert changed(acme, work) == {acme}, work


def test_what_concerns_everyone(people: People, acme: str) -> None:
    user = User.objects.get(username="nina")

    def platform() -> None:
        with unscoped(reason="tests"):
            Role.objects.filter(pk=people.nina.membership.role_id).update(name=F("name"))

    for work in (
        user.save,
        platform,
        lambda: Tenant.objects.using("platform").filter(slug="globex").update(name="Other"),
        lambda: Membership.objects.using("owner").filter(user=user).update(status="active"),
    ):
        assert changed(acme, work) == {EVERYONE}, work


def test_what_changes_nothing_leaves_the_gates_alone(people: People, acme: str) -> None:
    user = User.objects.get(username="nina")

    def rolled_back() -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Role.objects.update(name=F("name"))
            raise ZeroDivisionError

    for work in (
        rolled_back,
        lambda: user.save(update_fields=["last_login"]),
        lambda: ApiKey.objects.update(last_used_at=None),
        lambda: TokenFamily.objects.update(current=F("current"), rotated_at=F("rotated_at")),
        lambda: issue_tokens(membership=people.nina.membership),
        lambda: list(Role.objects.all()),
        lambda: people.nina.client.get("/api/v1/me"),
        lambda: people.nina.client.get("/api/v1/documents"),
    ):
        assert changed(acme, work) == set(), work
    # After what was rolled back the next transaction is its own.
    assert changed(acme, lambda: list(Role.objects.all())) == set()


def test_a_statement_in_words() -> None:
    def of(sql: str) -> str | None:
        return gate_of(sql, keeps_to_scope=True)

    assert of('SELECT * FROM "tenants_role" FOR UPDATE') is None
    assert of("SAVEPOINT x") is None
    assert of('UPDATE "tenants_rolex" SET a = 1') is None
    assert of('UPDATE "tenants_apikey" SET "last_used_at" = %s WHERE "revoked_at" = %s') is None
    assert of('UPDATE "tenants_apikey" SET "last_used_at" = %s, "scopes" = %s WHERE id = 1') == EVERYONE
    assert of('DELETE FROM "tenants_apikey"') == of("TRUNCATE anything") == EVERYONE
    assert of('INSERT INTO "tenants_apikey" VALUES (1)') is None


def test_between_commit_and_the_new_stamp_the_gate_is_shut(people: People, acme: str) -> None:
    seen: list[Any] = []
    plain = gate._write

    def write(script: str, keys: list[str], writer: str) -> bool:
        done = plain(script, keys, writer)
        seen.append((script == gate._SHUT, stamps(acme)))
        return done

    before = stamps(acme)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "_write", write)
        with transaction.atomic():
            Role.objects.update(name=F("name"))
            assert stamps(acme) == before, "what is not committed yet is seen by nobody"
    assert [(shuts, bool(told)) for shuts, told in seen] == [(True, False), (False, True)]
    assert stamps(acme) != before


def test_two_writers_at_once(acme: str) -> None:
    with gate.shut([acme]):
        with gate.shut([acme]):
            assert stamps(acme) is None
        assert stamps(acme) is None, "the other one is still at it"
    assert stamps(acme)


_DIES = """
import os, django
django.setup()
from tenants import gate
with gate.shut([{name!r}]):
    os._exit(9)
"""


def test_a_writer_that_dies_leaves_the_gate_shut_for_a_while(
    acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stamps(acme)
    code = _DIES.format(name=acme)
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, timeout=60).returncode == 9
    assert stamps(acme) is None
    client: Any = redis_connection()
    (writer,) = [name for name in client.hkeys(gate_key(acme)) if name != b"stamp"]
    left = int(client.hget(gate_key(acme), writer)) - time.time()
    assert gate.MEMORY_SECONDS - 15 < left <= gate.MEMORY_SECONDS + 1
    client.hset(gate_key(acme), writer, int(time.time()) - 1)
    after = stamps(acme)
    assert after and after != before
    assert client.hkeys(gate_key(acme)) == [b"stamp"], "and it is forgotten"


def test_without_redis_the_writer_goes_on_and_tries_until_it_is_told(
    acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stamps(acme)
    plain, away = gate.redis_connection, threading.Event()
    away.set()

    class Away:
        def eval(self, *_: Any) -> None:
            raise RedisConnectionError

    monkeypatch.setattr(gate, "redis_connection", lambda: Away() if away.is_set() else plain())
    monkeypatch.setattr(gate, "_TRY_AGAIN_SECONDS", 0.05)
    Role.objects.update(name=F("name"))
    time.sleep(0.2)
    assert stamps(acme) == before
    away.clear()
    deadline = time.monotonic() + 5
    while stamps(acme) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert stamps(acme) != before


def test_a_soft_limit_that_is_gone_over_changes_what_answers(people: People, acme: str) -> None:
    from tenants.budgets import count_spending, reserve_cost
    from tenants.models import Budget

    member = people.nina.membership
    Budget.objects.create(soft_usd="0.05", period="day")
    reserve_cost(membership=member, request_id=uuid.uuid4(), amount=Decimal("0.01"))

    def spend() -> None:
        with transaction.atomic():
            count_spending(user_id=member.user_id, cost=Decimal("0.02"))

    assert [changed(acme, spend) for _ in range(4)] == [set(), set(), {acme}, set()]
