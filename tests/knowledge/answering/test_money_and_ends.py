"""What an answer has cost is paid for, and what was cut off is no answer, however it ends."""

import json
import socket
import threading
import time
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.db import OperationalError, connections

from knowledge.ingestion.job_run import JobRun
from knowledge.models import Answer, Conversation, Job
from ragsite.core.redis import redis_connection
from tenants.budgets import lock_budgets
from tenants.models import Budget, Reservation, Spending, Tenant
from tenants.scope import atomic, scope
from tests.knowledge.answering.test_batch import QUESTIONS, start
from tests.knowledge.answering.test_model_live import BODY, LONG, bearer, ledger_of, stored
from tests.knowledge.helpers import HOLD_TIMER, ask, eventually, run_job
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
SHORT = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))


@pytest.fixture
def budget(shared: Any) -> Any:
    with scope(tenant_id=shared.acme.pk, tags=None):
        made = Budget.objects.create(subject="tenant", period="day", hard_usd=Decimal("5"))
        yield made
        Budget.objects.all().delete()


def test_an_answer_whose_conversation_is_deleted_meanwhile_is_stored_and_paid_for(
    shared: Any, shared_site: str, model: StubProvider, budget: Budget
) -> None:
    with httpx.Client(base_url=shared_site, timeout=60, headers=bearer(shared.nina)) as client:
        model.script(SHORT)
        conversation = client.post("/api/v1/query", json=BODY).json()["conversation"]
        spent = sum(row.spent_usd for row in Spending.objects.all())
        rewritten = Reply(blocks=(Block("What is the hold timer on acme edge routers?"),))
        model.script(rewritten, Reply(blocks=LONG, delta_seconds=0.02))
        body = {"question": "And on the others?", "conversation": conversation, "cache": False}
        events: list[dict[str, Any]] = []
        with client.stream("POST", "/api/v1/query/stream", json=body) as response:
            for line in response.iter_lines():
                events.append(json.loads(line))
                if events[-1]["type"] == "citation" and Conversation.objects.filter(pk=conversation).exists():
                    gone = client.delete(f"/api/v1/conversations/{conversation}")
                    assert gone.status_code == 204
    done = events[-1]
    assert done["type"] == "done" and done["data"]["conversation"] is None
    request_id = done["data"]["request_id"]
    assert {row.kind for row in ledger_of(shared.nina, request_id)} == {"rewrite", "answer"}
    assert stored(shared.nina, request_id).conversation_id is None
    assert not Reservation.objects.exists() and sum(row.spent_usd for row in Spending.objects.all()) > spent


@pytest.mark.parametrize("odd", ["\0", "\ud800", "\udfff"])
def test_what_no_database_takes_is_left_out_of_what_a_model_says(
    shared: Any, model: StubProvider, odd: str
) -> None:
    question = f"{HOLD_TIMER} {ord(odd)}"
    model.script(Reply(blocks=(Block(f"The hold timer is {odd}30 seconds.", cites=((0, 0, 1),)),)))
    first = ask(shared.nina, question)
    assert "30 seconds" in first["answer"] and odd not in first["answer"]
    assert [row.status for row in ledger_of(shared.nina, first["request_id"])] == ["success"]
    second = ask(shared.nina, question)
    assert (second["cache"], second["answer"]) == ("exact", first["answer"])
    assert len(model.requests) == 1


def test_what_a_batch_had_cut_off_is_asked_again(
    shared: Any, model: StubProvider, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.HOPS_IN_CALLING_THREAD = False
    model.script(*[Reply(blocks=LONG, delta_seconds=0.3)] * len(QUESTIONS))
    task = start(shared.nina, cache=False).json()["task_id"]
    check, lost = JobRun.check, threading.Event()

    def lose_the_database_once(self: Any, *, now: bool = False) -> None:
        if len(model.requests) >= 2 and not lost.is_set():
            time.sleep(0.5)  # their answers are on their way
            lost.set()
            raise OperationalError("the connection was lost")
        check(self, now=now)

    with monkeypatch.context() as patch:
        patch.setattr(JobRun, "check", lose_the_database_once)
        job = run_job(shared.nina, task)
    assert job["state"] == "PENDING" and lost.is_set()
    ids = [row["request_id"] for row in job["result"]]
    with scope(tenant_id=shared.acme.pk, tags=None):
        cut = Answer.objects.filter(pk__in=ids, status="cancelled")
        eventually(cut.exists, 10, "nothing was cut off")
        Job.objects.filter(pk=task).update(not_before=None)
    model._scripts.clear()
    asked = len(model.requests)
    job = run_job(shared.nina, task)
    assert job["state"] == "SUCCESS" and len(model.requests) > asked
    assert [row for row in job["result"] if row.get("interrupted") or row.get("error")] == []
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert not cut.exists() and Answer.objects.filter(pk__in=ids).count() == len(QUESTIONS)


def test_a_batch_counts_each_of_its_questions_once(shared: Any, settings: Any) -> None:
    settings.HOPS_IN_CALLING_THREAD = False
    rows = Tenant.objects.using("platform").filter(pk=shared.acme.pk)
    none = dict.fromkeys(("user_requests", "user_tokens", "tenant_requests", "tenant_tokens"), 0)
    rows.update(**none)
    redis_connection().flushdb()
    try:
        ask(shared.nina, QUESTIONS[0])
        for _ in range(2):
            task = start(shared.nina, questions=[QUESTIONS[0]] * 60).json()["task_id"]
            counts = run_job(shared.nina, task)["documents"]
            assert (counts["seen"], counts["changed"], counts["failed"]) == (60, 60, 0)
    finally:
        rows.update(**dict.fromkeys(none))


def test_money_is_not_set_aside_for_a_question_that_has_ended(
    shared: Any, shared_site: str, model: StubProvider, budget: Budget
) -> None:
    locked, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with scope(tenant_id=shared.acme.pk, tags=None), atomic():
            lock_budgets()
            locked.set()
            assert may_end.wait(20)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(10)
    body = json.dumps(BODY).encode()
    head = f"Authorization: {bearer(shared.nina)['authorization']}\r\nContent-Length: {len(body)}\r\n"
    place = urlsplit(shared_site)
    try:
        with socket.create_connection((place.hostname, place.port), timeout=20) as asker:
            begun = f"POST /api/v1/query HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n{head}\r\n"
            asker.sendall(begun.encode() + body)
            eventually(is_waited_for, 20, "nothing was being set aside")
        time.sleep(0.5)  # until it is noticed that the asker has left
    finally:
        may_end.set()
        holder.join()
    with scope(tenant_id=shared.acme.pk, tags=None):
        eventually(lambda: Answer.objects.filter(status="cancelled").exists(), 10, "nothing was stored")
        assert not Reservation.objects.exists()
    assert not model.requests


def is_waited_for() -> bool:
    """Whether a lock is, in this database."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            " WHERE NOT granted AND datname = current_database()"
        )
        return bool(cursor.fetchone()[0])
