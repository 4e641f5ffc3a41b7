"""Hits on their way into the database: each arrives, once, whoever dies meanwhile, and is waited for by who needs it."""

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import OperationalError

from knowledge.hits import records
from knowledge.hits.records import (
    drop_lease,
    has_records,
    hold_lease,
    ids_key,
    member_record,
    record_of,
    stream_key,
    write_records,
)
from knowledge.hits.writer import RecordWriter
from knowledge.models import Answer, Conversation
from ragsite.core.redis import redis_connection
from tenants.models import AuditEvent, UsageRecord
from tenants.scope import scope
from tests.knowledge.helpers import HOLD_TIMER, ask, check_problem, eventually, send
from tests.knowledge.hits_site import Asker, asker, is_fast
from tests.knowledge.ingestion.test_worker_real import environment
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.live import serve
from tests.ragsite.helpers import CHECKOUT

pytestmark = on_shared_cast


@pytest.fixture
def acme(shared: Any) -> Iterator[Any]:
    with scope(tenant_id=shared.acme.pk, tags=None):
        yield shared.acme


@pytest.fixture
def nina(shared: Any, settings: Any) -> Iterator[Asker]:
    settings.HOPS_IN_CALLING_THREAD = False
    with serve(fast_hits=True) as address, asker(address, shared.nina) as found:
        yield found


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process writes records down by itself. To be named before ``nina``."""
    monkeypatch.setattr(RecordWriter, "start", lambda self: None)


def add_hit(shared: Any, template: str, **values: Any) -> str:
    """A record as a hit of nina's leaves it; ``values`` go over it."""
    facts: dict[str, Any] = {
        "member": member_record(shared.nina.principal),
        "answer_id": template.encode(),
        "request_id": str(uuid.uuid4()).encode(),
        "at": datetime.now(UTC).isoformat().encode(),
        "milliseconds": 0.4,
        "address": "192.0.2.7",
    } | values
    fields: Any = {"tenant": str(shared.acme.pk), "id": facts["request_id"], "hit": record_of(**facts)}
    redis_connection().xadd(stream_key(), fields)
    redis_connection().sadd(ids_key(), facts["request_id"])
    return str(facts["request_id"].decode())


def facts_of(event: AuditEvent) -> dict[str, Any]:
    return {
        name: getattr(event, name)
        for name in ("action", "actor_id", "actor_name", "role_name", "method", "target_type", "tenant_id")
    } | {"detail": event.detail, "address": event.address}


def test_a_hit_is_stored_as_django_stores_one_within_two_seconds(shared: Any, nina: Asker, acme: Any) -> None:
    nina.post()
    slow = nina.post().json()
    fast = nina.warm().json()
    calls = UsageRecord.objects.count()
    row = eventually(lambda: Answer.objects.filter(pk=fast["request_id"]).first(), 2, "it was not recorded")
    read = nina.client.get(f"/api/v1/answers/{fast['request_id']}").json()
    assert read == fast
    as_django = Answer.objects.get(pk=slow["request_id"])
    own = {"id", "conversation_id", "latency_ms", "timings", "created_at"}
    for field in Answer._meta.concrete_fields:
        if field.attname not in own:
            assert getattr(row, field.attname) == getattr(as_django, field.attname), field.attname
    assert str(row.conversation_id) == fast["conversation"] == fast["request_id"]
    assert row.created_at.isoformat() == fast["timestamp"]
    mine, djangos = (Conversation.objects.get(pk=answer["request_id"]) for answer in (fast, slow))
    assert (mine.title, mine.user_id, mine.pinned) == (djangos.title, djangos.user_id, djangos.pinned)
    assert mine.created_at == mine.updated_at == row.created_at
    events = [AuditEvent.objects.get(target_id=answer["request_id"]) for answer in (fast, slow)]
    assert facts_of(events[0]) == facts_of(events[1])
    assert events[0].request_id == fast["request_id"] and events[0].at == row.created_at
    assert UsageRecord.objects.count() == calls, "a hit costs nothing"


def test_another_asker_of_the_same_answer_has_their_own_row(shared: Any, nina: Asker, acme: Any) -> None:
    """Who shares role and tenant shares what is remembered of the answer, not the history."""
    from tenants.keys import create_api_key

    _, secret = create_api_key(principal=shared.ada.principal, member=shared.nina.membership, name="hits")
    nina.warm()
    other = Asker(str(nina.client.base_url), {"X-API-Key": secret})
    other.post("What is the maximum-prefix limit?")  # now this key is known; the answer is, from the token
    hit = other.post()
    assert is_fast(hit)
    request_id = hit.json()["request_id"]
    event = eventually(lambda: AuditEvent.objects.filter(target_id=request_id).first(), 2, "no event")
    assert event.method == "api_key" and event.detail["credential"]


_DIES = """
import os, uuid, django
django.setup()
from knowledge.hits import records
plain = records.redis_connection
class Dying:
    def __getattr__(self, name):
        return getattr(plain(), name)
    def pipeline(self):
        os._exit(9)
records.redis_connection = Dying
assert records.hold_lease("dead")
records.write_records()
"""


def test_a_writer_that_is_killed_after_the_commit_leaves_no_record_twice(shared: Any, acme: Any) -> None:
    template = ask(shared.nina)["request_id"]
    hits = [add_hit(shared, template) for _ in range(7)]
    before = AuditEvent.objects.count()
    died = subprocess.run(
        [sys.executable, "-c", _DIES], cwd=CHECKOUT, env=environment(), timeout=60, capture_output=True
    )
    assert died.returncode == 9, died.stderr.decode()
    assert Answer.objects.filter(pk__in=hits).count() == 7, "committed"
    assert redis_connection().xlen(stream_key()) == 7, "and still in the stream"
    # Deleted meanwhile, a conversation does not come back.
    Conversation.objects.get(pk=hits[0]).delete()
    assert not hold_lease("another"), "the dead one's lease has to run out"
    eventually(lambda: hold_lease("another"), records.LEASE_MS / 1000 + 2, "the lease runs out")
    assert write_records() == 7
    assert not has_records()
    assert Answer.objects.filter(pk__in=hits).count() == 7
    assert AuditEvent.objects.count() == before + 7
    assert set(Conversation.objects.filter(pk__in=hits).values_list("pk", flat=True)) == {
        uuid.UUID(hit) for hit in hits[1:]
    }
    drop_lease("dead")
    assert not hold_lease("third"), "nobody drops another's lease"
    drop_lease("another")
    assert hold_lease("third")


def test_a_record_that_is_refused_takes_no_other_with_it(shared: Any, acme: Any) -> None:
    template = ask(shared.nina)["request_id"]
    member = member_record(shared.nina.principal)
    gone = member.replace(b'"user_id": %d' % shared.nina.membership.user_id, b'"user_id": 987654321')
    assert gone != member
    good = [add_hit(shared, template) for _ in range(3)]
    bad = [add_hit(shared, template, member=gone), add_hit(shared, template, answer_id=b"nowhere")]
    good.append(add_hit(shared, template))
    nonsense: Any = {"tenant": str(shared.acme.pk), "id": "nonsense", "hit": b"not a record"}
    redis_connection().xadd(stream_key(), nonsense)
    good.append(add_hit(shared, template))
    while has_records():
        write_records(most=4)
    assert {str(pk) for pk in Answer.objects.filter(pk__in=good + bad).values_list("pk", flat=True)} == set(
        good
    )


@pytest.mark.parametrize(
    "address", ["nowhere", '"', "\0", "192.0.2.7:80", "fe80::1%eth0", "", "::ffff:192.0.2.7"]
)
def test_a_record_is_kept_whatever_its_address(shared: Any, acme: Any, address: str) -> None:
    hit = add_hit(shared, ask(shared.nina)["request_id"], address=address)
    while has_records():
        write_records()
    event = AuditEvent.objects.get(request_id=hit)
    known = {"fe80::1%eth0": "fe80::1", "::ffff:192.0.2.7": "192.0.2.7"}
    assert Answer.objects.filter(pk=hit).exists() and event.address == known.get(address)


def test_a_record_of_the_version_before_is_kept_without_what_is_no_address(shared: Any, acme: Any) -> None:
    request_id = str(uuid.uuid4())
    template = ask(shared.nina)["request_id"].encode()
    record = record_of(
        member=member_record(shared.nina.principal),
        answer_id=template,
        request_id=request_id.encode(),
        at=datetime.now(UTC).isoformat().encode(),
        milliseconds=0.4,
        address="192.0.2.7",
    )
    fields: Any = {
        "tenant": str(acme.pk),
        "id": request_id,
        "hit": record.replace(b"192.0.2.7", b"not-an-ip"),
    }
    redis_connection().xadd(stream_key(), fields)
    while has_records():
        write_records()
    assert AuditEvent.objects.get(request_id=request_id).address is None


def test_while_the_database_is_away_the_records_stay(
    shared: Any, acme: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ask(shared.nina)["request_id"]
    hit = add_hit(shared, template)
    with monkeypatch.context() as patch:

        def away() -> None:
            raise OperationalError

        patch.setattr(records, "atomic", away)
        with pytest.raises(OperationalError):
            write_records()
    assert has_records() and not Answer.objects.filter(pk=hit).exists()
    write_records()
    assert not has_records() and Answer.objects.filter(pk=hit).exists()


def test_a_writer_goes_on_after_a_failure(
    shared: Any, acme: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    failures = []

    def fails_once(**_: Any) -> int:
        if not failures:
            failures.append(True)
            raise OperationalError
        return write_records()

    monkeypatch.setattr("knowledge.hits.writer.AFTER_FAILURE_SECONDS", 0.2)
    monkeypatch.setattr("knowledge.hits.writer.write_records", fails_once)
    template = ask(shared.nina)["request_id"]
    hit = add_hit(shared, template)
    settings.HOPS_IN_CALLING_THREAD = False
    with serve(fast_hits=True) as address, asker(address, shared.nina) as nina:
        nina.client.get("/livez")  # any first request sets it going
        eventually(lambda: Answer.objects.filter(pk=hit).exists(), 10, "it was not tried again")
    assert failures


@pytest.mark.parametrize("what", ["feedback", "answer", "conversation", "follow_up"])
def test_who_needs_a_hit_waits_until_it_is_written_down(
    unwritten: None, shared: Any, nina: Asker, what: str
) -> None:
    request_id = nina.warm().json()["request_id"]
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert not Answer.objects.filter(pk=request_id).exists()

    def write_later() -> None:
        time.sleep(0.6)
        write_records()
        from django.db import connections

        connections.close_all()

    thread = threading.Thread(target=write_later)
    thread.start()
    begun = time.monotonic()
    match what:
        case "feedback":
            response = nina.client.post("/api/v1/feedback", json={"request_id": request_id, "rating": 5})
            assert response.status_code == 201, response.text
        case "answer":
            response = nina.client.get(f"/api/v1/answers/{request_id}")
            assert response.json()["request_id"] == request_id
        case "conversation":
            response = nina.client.get(f"/api/v1/conversations/{request_id}")
            assert response.json()["id"] == request_id
        case "follow_up":
            response = nina.post("And of what is it?", conversation=request_id)
            assert response.status_code == 200 and response.json()["conversation"] == request_id
    assert 0.3 < time.monotonic() - begun < 5
    thread.join()


def test_what_is_not_under_way_is_not_waited_for(unwritten: None, shared: Any, nina: Asker) -> None:
    request_id = nina.warm().json()["request_id"]
    begun = time.monotonic()
    check_problem(send(shared.nina, "get", f"answers/{uuid.uuid4()}"), 404)
    assert time.monotonic() - begun < 1
    begun = time.monotonic()
    check_problem(send(shared.nina, "get", f"answers/{request_id}"), 404)
    assert records.WAIT_SECONDS - 0.1 < time.monotonic() - begun < records.WAIT_SECONDS + 2
    write_records()
    assert send(shared.nina, "get", f"answers/{request_id}").status_code == 200
    assert redis_connection().scard(ids_key()) == 0


def test_a_hit_is_its_askers_alone(unwritten: None, shared: Any, nina: Asker) -> None:
    request_id = nina.warm().json()["request_id"]
    write_records()
    for member in (shared.gina, shared.hal, shared.ada):
        check_problem(send(member, "get", f"answers/{request_id}"), 404)
    assert send(shared.nina, "get", f"answers/{request_id}").json()["question"] == HOLD_TIMER


def test_with_too_many_records_a_hit_waits_and_then_django_answers(
    unwritten: None, shared: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr("knowledge.hits.lookup.MOST_RECORDS", 3)
    settings.HOPS_IN_CALLING_THREAD = False
    with serve(fast_hits=True) as address, asker(address, shared.nina) as nina:
        nina.warm()
        assert nina.is_fast() and nina.is_fast()
        begun = time.monotonic()
        assert not nina.is_fast(), "after a while Django answers, which writes its own at once"
        assert 1.5 < time.monotonic() - begun < 6
        assert redis_connection().xlen(stream_key()) == 3, "none is cut off"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(nina.is_fast)
            time.sleep(0.4)
            assert not waiting.done()
            write_records()
            assert waiting.result(), "it has waited for room"
