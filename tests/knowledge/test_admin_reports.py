"""The figures of the admin's home page, against plain arithmetic."""

import time
import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_redis import get_redis_connection

from knowledge.models import Answer, Job
from knowledge.reports import AnswerDay, answer_figures, index_size, job_days, quantile
from tenants.models import UsageRecord
from tenants.periods import Days, last_days
from tenants.scope import scope
from tests.tenants.counting import without_scope

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

BERLIN = ZoneInfo("Europe/Berlin")


def answer(member: Any, at: datetime, **values: Any) -> None:
    defaults = {"answered": True, "status": "success", "cost_usd": Decimal("0.5"), "latency_ms": 1000.0}
    row = Answer.objects.create(
        user=member.membership.user, role_name="r", question="q", endpoint="query", **(defaults | values)
    )
    Answer.objects.filter(pk=row.pk).update(created_at=at)


def test_days_are_counted_in_the_time_zone_in_force(cast: Any) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None), timezone.override(BERLIN):
        # Summer time begins on 29 March: the day has 23 hours.
        answer(cast.nina, datetime(2026, 3, 28, 23, 59, tzinfo=BERLIN))
        answer(cast.nina, datetime(2026, 3, 29, 0, 0, tzinfo=BERLIN))
        answer(cast.sam, datetime(2026, 3, 29, 23, 59, tzinfo=BERLIN))
        answer(cast.sam, datetime(2026, 3, 30, 0, 0, tzinfo=BERLIN))
        figures = answer_figures(Days(date(2026, 3, 28), date(2026, 3, 31)))
    assert [day.questions for day in figures.days] == [1, 2, 1, 0]
    assert [day.users for day in figures.days] == [1, 2, 1, 0]
    assert figures.active == 2


def test_how_questions_ended_is_told_apart(cast: Any) -> None:
    now = timezone.now()
    with scope(tenant_id=cast.acme.pk, tags=None):
        for values in (
            {},
            {"status": "fallback"},
            {"status": "cached"},
            {"status": "cached", "answered": False},
            {"status": "unanswered", "answered": False},
            {"status": "error", "answered": False, "cost_usd": None},
            {"status": "cancelled", "answered": False},
        ):
            answer(cast.nina, now, **values)
        total = answer_figures(last_days(7)).total
    with scope(tenant_id=cast.globex.pk, tags=None):
        assert answer_figures(last_days(7)).total == AnswerDay()
    assert (total.questions, total.cached, total.missed, total.failed) == (7, 2, 1, 2)
    assert total.unanswered == 2  # the one from the cache too, what failed not


def test_the_cost_is_that_of_the_ledger_on_its_day(cast: Any) -> None:
    def call(at: datetime, cost: str | None) -> None:
        row = UsageRecord.objects.create(
            user=cast.nina.membership.user,
            request_id=uuid.uuid4(),  # a renewal's is no answer's
            endpoint="renewal",
            provider="anthropic",
            model="m",
            kind="answer",
            status="success",
            cost_usd=None if cost is None else Decimal(cost),
        )
        UsageRecord.objects.filter(pk=row.pk).update(created_at=at)

    days = Days(date(2026, 3, 28), date(2026, 3, 31))
    with scope(tenant_id=cast.globex.pk, tags=None):
        call(datetime(2026, 3, 29, 12, tzinfo=BERLIN), "9")
    with scope(tenant_id=cast.acme.pk, tags=None), timezone.override(BERLIN):
        answer(cast.nina, datetime(2026, 3, 29, 12, tzinfo=BERLIN))  # what it says itself is in no sum
        call(datetime(2026, 3, 28, 23, 59, tzinfo=BERLIN), "0.5")
        call(datetime(2026, 3, 29, 0, 0, tzinfo=BERLIN), "0.25")
        call(datetime(2026, 3, 29, 23, 59, tzinfo=BERLIN), "0.000000000001")
        call(datetime(2026, 3, 30, 0, 0, tzinfo=BERLIN), None)
        call(datetime(2026, 4, 1, 0, 0, tzinfo=BERLIN), "7")
        for _ in "ab":  # counted, and remembered
            figures = answer_figures(days)
            wanted = [Decimal("0.5"), Decimal("0.250000000001"), Decimal(0), Decimal(0)]
            assert [day.cost for day in figures.days] == wanted
            assert figures.total.cost == sum(wanted)


def test_latencies_are_within_a_bins_width_of_the_exact_ones(cast: Any) -> None:
    latencies = [12.0, 80.0, 450.0, 900.0, 1200.0, 1500.0, 2300.0, 4100.0, 7000.0, 30_000.0]
    with scope(tenant_id=cast.acme.pk, tags=None):
        for ms in latencies * 3:
            answer(cast.nina, timezone.now(), latency_ms=ms)
        total = answer_figures(last_days(7)).total
    for share in (0.5, 0.95):
        exact = sorted(latencies * 3)[int(share * 30) - 1]
        found = total.latency(share)
        assert found is not None and exact / 1.06 <= found <= exact * 1.06, share


def test_a_quantile_of_nothing_is_none_and_of_one_lies_in_its_bin() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({139: 1}, 1.0) == pytest.approx(1043, rel=0.01)  # e^(139 · 0.05)
    assert quantile({0: 1}, 0.5) <= 1.0


def test_a_day_that_is_over_is_counted_once(cast: Any) -> None:
    now = timezone.now()
    with scope(tenant_id=cast.acme.pk, tags=None):
        for days in (0, 1, 40):
            answer(cast.nina, now - timedelta(days=days))
        first = answer_figures(last_days(90))
        with CaptureQueriesContext(connection) as queries:
            again = answer_figures(last_days(90))
        assert first.days == again.days and first.total.questions == 3
        counted = [query["sql"] for query in queries.captured_queries if "WIDTH_BUCKET" in query["sql"]]
        assert counted
        today = timezone.localdate().isoformat()
        for statement in counted:  # from the beginning of today on
            assert f'"created_at" >= \'{today}' in statement
        # Of today itself nothing is remembered.
        answer(cast.nina, timezone.now())
        assert answer_figures(last_days(7)).days[-1].questions == 2
    keys = [key.decode() for key in get_redis_connection("default").keys("*answers-of-day*")]
    assert len(keys) >= 89 and all(str(cast.acme.pk) in key for key in keys)


def test_without_redis_the_figures_are_counted_anew(cast: Any, monkeypatch: Any) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise ConnectionError

    monkeypatch.setattr("knowledge.reports.get_redis_connection", away)
    with scope(tenant_id=cast.acme.pk, tags=None):
        answer(cast.nina, timezone.now() - timedelta(days=2))
        assert answer_figures(last_days(7)).total.questions == 1


def test_the_figures_of_answers_need_nothing_but_their_index(cast: Any) -> None:
    def words() -> str:
        return " ".join(str(uuid.uuid4()) for _ in range(40))  # as long as an answer, and nothing to compress

    with scope(tenant_id=cast.acme.pk, tags=None):
        user = cast.nina.membership.user
        Answer.objects.bulk_create(
            Answer(user=user, role_name="r", question="q", endpoint="query", status="success", text=words())
            for _ in range(2000)
        )
    with connections["owner"].cursor() as cursor:
        for _ in range(
            50
        ):  # the tests' server commits without waiting: pages become all visible a little later
            cursor.execute("VACUUM ANALYZE knowledge_answer")
            cursor.execute("SELECT relallvisible FROM pg_class WHERE relname = 'knowledge_answer'")
            if cursor.fetchone()[0]:
                break
            time.sleep(0.1)
    with scope(tenant_id=cast.acme.pk, tags=None), CaptureQueriesContext(connection) as queries:
        answer_figures(last_days(30))
        sums = next(query["sql"] for query in queries.captured_queries if "latency_ms" in query["sql"])
        with transaction.atomic(), connection.cursor() as cursor:
            # What is best for a table that is too large to walk over.
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
            cursor.execute(f"EXPLAIN {without_scope(sums)}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Only Scan using answers_figures" in plan, plan


def test_jobs_and_the_index_are_counted(cast: Any) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None):
        before = sum(day.failed for day in job_days(last_days(7)))
        for state in ("FAILURE", "FAILURE", "SUCCESS", "PROGRESS"):
            Job.objects.create(kind="reindex", state=state)
        today = job_days(last_days(7))[-1]
        assert (today.failed, today.finished) == (2, 1) and before == 0
        size = index_size()
    assert size.documents == 5 and size.failed == 0
    assert size.chunks >= 5 and size.size > 100
