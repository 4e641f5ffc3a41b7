"""Breakers: their rules, one state for all processes, and what happens without Redis."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ragsite.core import breaker as breakers
from ragsite.core import redis as clients
from ragsite.core.breaker import Breaker, read_changes
from ragsite.core.breaker_rules import BreakerOpen, BreakerPolicy, LocalBreaker

POLICY = BreakerPolicy(failures=3, open_seconds=0.15, successes=2, probe_seconds=0.3)


class Local:
    """A breaker of one process, asked as the shared one is."""

    def __init__(self) -> None:
        self._inner = LocalBreaker("test", POLICY)

    def admit_now(self) -> Any:
        return self._inner.admit(str(time.monotonic_ns()))

    def report_now(self, permit: Any, outcome: Any, *, reason: str = "") -> None:
        self._inner.report(permit, outcome, reason)


@pytest.fixture(params=["shared", "local"])
def breaker(request: pytest.FixtureRequest) -> Any:
    return Breaker("test", POLICY) if request.param == "shared" else Local()


def call(breaker: Any, outcome: str) -> None:
    breaker.report_now(breaker.admit_now(), outcome, reason="broken")


def is_refused(breaker: Any) -> bool:
    try:
        breaker.report_now(breaker.admit_now(), "unknown")
    except BreakerOpen as error:
        assert 0 < error.retry_after <= POLICY.probe_seconds
        return True
    return False


def open_it(breaker: Any) -> None:
    for _ in range(POLICY.failures):
        call(breaker, "failure")
    assert is_refused(breaker)


def test_failures_in_a_row_open_it_and_successes_in_a_row_close_it(breaker: Any) -> None:
    for outcome in ("failure", "failure", "success", "failure", "failure", "unknown"):
        call(breaker, outcome)
    assert not is_refused(breaker)
    call(breaker, "failure")
    assert is_refused(breaker)
    time.sleep(POLICY.open_seconds)
    call(breaker, "success")  # one is not enough: while the next one tries, nobody else may
    probe = breaker.admit_now()
    assert probe.is_probe and is_refused(breaker)
    breaker.report_now(probe, "success")
    assert not breaker.admit_now().is_probe


def test_a_failed_probe_opens_it_again(breaker: Any) -> None:
    open_it(breaker)
    time.sleep(POLICY.open_seconds)
    call(breaker, "failure")
    assert is_refused(breaker)


def test_a_probe_that_tells_nothing_makes_way(breaker: Any) -> None:
    open_it(breaker)
    time.sleep(POLICY.open_seconds)
    lost = breaker.admit_now()
    assert is_refused(breaker)
    time.sleep(POLICY.probe_seconds)
    found = breaker.admit_now()
    assert found.is_probe
    breaker.report_now(lost, "failure")  # too late to count
    breaker.report_now(found, "unknown")
    call(breaker, "success")
    call(breaker, "success")
    assert not breaker.admit_now().is_probe


def test_what_was_begun_before_it_opened_does_not_count_afterwards(breaker: Any) -> None:
    early = breaker.admit_now()
    open_it(breaker)
    time.sleep(POLICY.open_seconds)
    breaker.report_now(early, "success")
    breaker.report_now(early, "success")
    assert breaker.admit_now().is_probe


PROCESS = """
import json, sys
from ragsite.core import breaker as breakers
from ragsite.core.breaker import Breaker
from ragsite.core.breaker_rules import BreakerOpen, BreakerPolicy
from ragsite.core.observability import configure_logging
from ragsite.core.redis import GuardedRedis, config
configure_logging(level="ERROR", json_lines=True)
breakers.redis_connection = lambda: GuardedRedis.from_url(config().redis_url)  # django need not be set up
breaker = Breaker("test", BreakerPolicy(failures=3, open_seconds=float(sys.argv[1]), successes=2))
def ask():
    try:
        return "probe" if breaker.admit_now().is_probe else "call"
    except BreakerOpen:
        return "refused"
for line in sys.stdin:
    print(json.dumps([ask() for _ in range(int(line))]), flush=True)
"""


@pytest.fixture
def processes() -> Iterator[Any]:
    started: list[subprocess.Popen[str]] = []

    def start(count: int, open_seconds: float) -> list[subprocess.Popen[str]]:
        for _ in range(count):
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", PROCESS, str(open_seconds)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_all_processes_share_one_state_and_one_probe(processes: Any) -> None:
    open_seconds = 0.5
    breaker = Breaker("test", BreakerPolicy(failures=3, open_seconds=open_seconds, successes=2))
    before = REGISTRY.get_sample_value("rag_breaker_changes_total", {"component": "test", "state": "open"})
    running = processes(2, open_seconds)

    def ask(times: int) -> list[str]:
        for process in running:
            process.stdin.write(f"{times}\n")
            process.stdin.flush()
        return [word for process in running for word in json.loads(process.stdout.readline())]

    assert set(ask(1)) == {"call"}  # both have started
    for _ in range(3):
        breaker.report_now(breaker.admit_now(), "failure", reason="it hangs")
    assert set(ask(20)) == {"refused"}
    time.sleep(open_seconds)
    asked = ask(50)
    assert asked.count("probe") == 1 and asked.count("refused") == 99
    after = REGISTRY.get_sample_value("rag_breaker_changes_total", {"component": "test", "state": "open"})
    assert (after or 0) - (before or 0) == 1
    told = [(c["state"], c["reason"]) for c in read_changes() if c["name"] == "test"]
    assert told == [("half_open", ""), ("open", "it hangs")]


async def test_coroutines_and_threads_ask_the_same_breaker() -> None:
    breaker = Breaker("test", POLICY)
    for _ in range(3):
        await breaker.report(await breaker.admit(), "failure")
    with pytest.raises(BreakerOpen):
        await breaker.admit()
    with pytest.raises(BreakerOpen):
        await asyncio.to_thread(breaker.admit_now)


def test_what_is_asked_often_is_not_asked_of_redis_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calm = Breaker("test", BreakerPolicy(failures=2, open_seconds=1, calm_seconds=30))
    asked: list[int] = []
    plain = clients.GuardedRedis.execute_command

    def count(self: Any, *args: Any, **options: Any) -> Any:
        asked.append(1)
        return plain(self, *args, **options)

    monkeypatch.setattr(clients.GuardedRedis, "execute_command", count)
    for _ in range(20):
        call(calm, "success")
    assert len(asked) == 2
    call(calm, "failure")
    call(calm, "failure")
    with pytest.raises(BreakerOpen):
        calm.admit_now()


@pytest.fixture
def no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port at which nobody listens."""
    nobody = clients.GuardedRedis(port=1, socket_timeout=0.1, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(breakers, "redis_connection", lambda: nobody)


def test_without_redis_each_process_goes_on_by_itself(no_redis: None) -> None:
    breaker = Breaker("test", POLICY)
    open_it(breaker)
    time.sleep(POLICY.open_seconds)
    assert breaker.admit_now().is_probe and is_refused(breaker)
    # Redis itself is left alone after two failures, in this process.
    with pytest.raises(RedisError, match="left alone"):
        breakers.redis_connection().get("x")
    assert [c["state"] for c in read_changes() if c["name"] == "cache"] == ["open"]


def test_redis_is_asked_again_and_an_error_of_its_own_is_an_answer(no_redis: None) -> None:
    for _ in range(2):
        with pytest.raises(RedisError):
            breakers.redis_connection().get("x")
    assert clients.cache_breaker.state == "open"
    clients.cache_breaker._since -= 15
    works = clients.GuardedRedis.from_url(clients.config().redis_url)
    works.set("word", "letters")
    with pytest.raises(RedisError, match="not an integer"):
        works.incr("word")
    assert clients.cache_breaker.state == "closed"


async def test_a_hanging_redis_is_waited_for_twice_and_no_more() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = clients.GuardedAsyncRedis(port=port, socket_timeout=0.1, socket_connect_timeout=0.1)
    client.set_retry(clients.AsyncRetry(clients.NoBackoff(), 0))
    begun = time.monotonic()
    for _ in range(50):
        with pytest.raises((RedisError, TimeoutError)):
            await client.get("x")
    assert time.monotonic() - begun < 1
    await client.aclose()
    server.close()


def test_the_database_is_left_alone_when_it_is_away(django_db_blocker: Any) -> None:
    from django.db import OperationalError, connections
    from django.db.utils import ConnectionHandler

    settings = {**connections["default"].settings_dict, "HOST": "127.0.0.1", "PORT": "1", "OPTIONS": {}}
    away = ConnectionHandler({"default": settings})["default"]
    with django_db_blocker.unblock():
        for _ in range(3):
            with pytest.raises(OperationalError, match="refused"):
                away.ensure_connection()
        with pytest.raises(OperationalError, match="left alone for 30 seconds"):
            away.ensure_connection()
    assert [c["name"] for c in read_changes()] == ["database"]
