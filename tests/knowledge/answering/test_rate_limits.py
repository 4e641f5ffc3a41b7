"""Rate limits of questions: in one call to Redis, told in the draft's headers, settled, and no hindrance without Redis."""

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django_redis import get_redis_connection

from ragsite.core.breaker_rules import Permit
from ragsite.core.observability import LIMITED, LIMITS_SKIPPED, REQUESTS
from ragsite.core.problems import Problem
from ragsite.core.redis import CACHE, cache_breaker
from tenants.keys import create_api_key
from tenants.models import Tenant
from tenants.rates import Grant, settle_request, take_request
from tenants.scope import scope
from tests.cast import Member, member_of
from tests.knowledge.answering.test_model_live import BODY, LONG, bearer, ledger_of, stored
from tests.knowledge.helpers import check_problem, eventually, read_stream, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
ITEM = re.compile(r'"([a-z-]+)"((?:;[a-z]+=(?:\d+|"[a-z]+"))*)')


@pytest.fixture
def limit(shared: Any) -> Iterator[Any]:
    """``limit(user_requests=2)`` holds in acme for this test; returns nina as she is then."""

    def change(**limits: int | None) -> Member:
        Tenant.objects.using("platform").filter(pk=shared.acme.pk).update(**limits)
        return member_of(slug="acme", username="nina")

    yield change
    names = [f"{subject}_{what}" for subject in ("user", "key", "tenant") for what in ("requests", "tokens")]
    change(**dict.fromkeys(names))


def take(member: Member, *, tokens: int = 0) -> Grant:
    return async_to_sync(take_request)(member.principal, tokens=tokens)


def items(header: str) -> dict[str, dict[str, Any]]:
    """A list of structured fields, strings with parameters; nothing else is allowed in it."""
    parts = header.split(", ")
    found = {}
    for part in parts:
        match = ITEM.fullmatch(part)
        assert match, part
        parameters = dict(each.split("=") for each in match[2].split(";")[1:])
        found[match[1]] = {name: int(v) if v.isdigit() else v for name, v in parameters.items()}
    return found


def left(member: Member) -> dict[str, int]:
    grant = take(member)
    return {name: item["r"] for name, item in items(dict(grant.headers)["RateLimit"]).items()}


def test_a_response_tells_what_is_left(shared: Any) -> None:
    response = send(shared.nina, "post", "search", {"question": "What is the hold timer?"})
    assert response.status_code == 200
    assert items(response.headers["RateLimit-Policy"]) == {
        "user": {"q": 60, "w": 60},
        "user-tokens": {"q": 100_000, "w": 60, "qu": '"tokens"'},
        "tenant": {"q": 600, "w": 60},
        "tenant-tokens": {"q": 1_000_000, "w": 60, "qu": '"tokens"'},
    }
    told = items(response.headers["RateLimit"])
    assert told["user"] == {"r": 59, "t": 1} and told["tenant"] == {"r": 599, "t": 1}
    assert "Retry-After" not in response.headers
    streamed, _ = read_stream(shared.nina, "query/stream", {"question": "What is the hold timer?"})
    assert items(streamed.headers["RateLimit"])["user"]["r"] in (58, 59)  # one a second comes back


def test_too_many_are_refused_and_told_when_to_come_again(shared: Any, limit: Any) -> None:
    nina = limit(user_requests=2)
    body = {"question": "What is the hold timer?"}
    before = LIMITED.labels("user", "requests")._value.get(), REQUESTS.labels("query", "limited")._value.get()
    for _ in range(2):
        assert send(nina, "post", "query", body).status_code == 200
    refused = send(nina, "post", "query", body)
    problem = check_problem(refused, 429, "rate-limited")
    assert problem["violated-policies"] == ["user"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert items(refused.headers["RateLimit"])["user"]["r"] == 0
    assert items(refused.headers["RateLimit-Policy"])["user"] == {"q": 2, "w": 60}
    streamed, _ = read_stream(nina, "query/stream", body)
    assert streamed.status_code == 429
    after = LIMITED.labels("user", "requests")._value.get(), REQUESTS.labels("query", "limited")._value.get()
    assert (after[0] - before[0], after[1] - before[1]) == (2, 1)
    assert send(shared.sam, "post", "query", body).status_code == 200  # another member's own
    # A page without JavaScript says it too.
    from tests.security.helpers import session_client

    page = session_client("nina").post("/", body)
    assert page.status_code == 429 and "try again in" in page.content.decode()


def test_a_key_is_limited_beside_its_member_and_the_tenant(shared: Any, limit: Any) -> None:
    limit(key_requests=3, tenant_requests=5)
    nina = member_of(slug="acme", username="nina")
    with scope(tenant_id=shared.acme.pk, tags=None):
        keys = [
            create_api_key(principal=shared.ada.principal, member=nina.membership, name=name)[1]
            for name in ("one", "two")
        ]

    def search(key: str) -> Any:
        return nina.client.post(
            "/api/v1/search",
            {"question": "What is the hold timer?"},
            content_type="application/json",
            headers={"authorization": f"Bearer {key}"},
        )

    assert [search(keys[0]).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert [search(keys[1]).status_code for _ in range(2)] == [200, 200]
    assert search(keys[1]).json()["violated-policies"] == ["tenant"]  # a refusal takes from no bucket
    assert send(shared.sam, "post", "search", {"question": "What is it?"}).status_code == 429


def test_parallel_requests_get_what_there_is_and_no_more(shared: Any, limit: Any) -> None:
    nina = limit(user_requests=20, tenant_requests=1000)
    barrier = threading.Barrier(40)

    def ask(_: int) -> str:
        barrier.wait(20)
        try:
            return "passed" if async_to_sync(take_request)(nina.principal).buckets else "uncounted"
        except Problem as problem:
            return str(problem.status)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(40) as pool:
        told = Counter(pool.map(ask, range(200)))
    assert told["uncounted"] == 0 and told["passed"] + told["429"] == 200
    assert 20 <= told["passed"] <= 24  # a third of a token a second comes back meanwhile


def test_all_buckets_are_asked_in_one_call(shared: Any) -> None:
    client = get_redis_connection("default")
    take(shared.nina)  # the script is known from here on

    def calls() -> dict[str, int]:
        stats: Any = client.info("commandstats")
        return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval")}

    seen = set()
    for _ in range(5):  # an answer of a test before may still be at work
        before = calls()
        take(shared.nina, tokens=10)
        after = calls()
        seen.add((after["evalsha"] - before["evalsha"], after["eval"] - before["eval"]))
    assert (1, 0) in seen, seen


def test_tokens_are_taken_by_estimate_and_settled(shared: Any, limit: Any) -> None:
    nina = limit(user_tokens=1000)
    grant = take(nina, tokens=600)
    assert left(nina)["user-tokens"] in range(400, 500)
    with pytest.raises(Problem) as refused:
        take(nina, tokens=600)
    assert refused.value.extra["violated-policies"] == ["user-tokens"]
    async_to_sync(settle_request)(grant, used=100)
    assert left(nina)["user-tokens"] in range(900, 1000)
    async_to_sync(settle_request)(take(nina, tokens=600), used=1500)
    assert left_or_wait(nina) > 20  # below nothing: 600 that were not there are waited for
    # More than a minute's worth may be asked for once there is a minute's worth.
    get_redis_connection("default").flushdb()
    assert take(nina, tokens=50_000).buckets


def left_or_wait(member: Member) -> int:
    with pytest.raises(Problem) as refused:
        take(member)
    return int(refused.value.headers["Retry-After"])


def test_a_question_settles_what_its_model_used(shared: Any, model: StubProvider, limit: Any) -> None:
    nina = limit(user_tokens=50_000)
    model.script(Reply(blocks=(Block("Thirty seconds.", cites=((0, 0, 1),)),)))
    body = {"question": "What is the hold timer on edge routers?", "cache": False}
    response = send(nina, "post", "query", body)
    told = items(response.headers["RateLimit"])["user-tokens"]["r"]
    usage = response.json()["usage"]
    used = usage["input_tokens"] + usage["output_tokens"]
    assert told == 50_000 - 2500 and 0 < used < 2000
    assert abs(50_000 - used - left(nina)["user-tokens"]) < 2500 / 2


@pytest.fixture
def settled(monkeypatch: Any) -> list[int]:
    """What questions have settled, one after another."""
    from knowledge.answering import answer

    settle, told = answer.settle_request, []

    async def note(grant: Grant, *, used: int) -> None:
        await settle(grant, used=used)
        if grant.buckets:
            told.append(used)

    monkeypatch.setattr("knowledge.answering.answer.settle_request", note)
    return told


def tokens_of(member: Member, request_id: str) -> int:
    (row,) = ledger_of(member, request_id)
    return int(row.input_tokens + row.cache_read_tokens + row.cache_write_tokens + row.output_tokens)


def test_a_stream_that_is_left_settles_what_it_used(
    shared: Any, shared_site: str, model: StubProvider, limit: Any, settled: list[int]
) -> None:
    nina = limit(user_tokens=3000)
    model.script(Reply(blocks=LONG, after_deltas=6))
    with (
        httpx.Client(base_url=shared_site, headers=bearer(nina), timeout=20) as client,
        client.stream("POST", "/api/v1/query/stream", json=BODY) as response,
    ):
        request_id = response.headers["x-request-id"]
        assert items(response.headers["RateLimit"])["user-tokens"]["r"] <= 600
        lines = response.iter_lines()
        for line in lines:
            if "Sentence 0" in line:
                break
    eventually(lambda: settled and stored(nina, request_id), 10, "it was not settled")
    assert settled == [tokens_of(nina, request_id)] and 0 < settled[0] < 1500
    assert left(nina)["user-tokens"] >= 3000 - settled[0]


def test_a_stream_that_fails_settles_what_it_used(
    shared: Any, shared_site: str, model: StubProvider, limit: Any, settled: list[int], monkeypatch: Any
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of order")

    nina = limit(user_tokens=3000)
    model.script(Reply(blocks=LONG[:2]))
    monkeypatch.setattr("knowledge.answering.citations.AnswerAssembler.finish", fail)
    response = httpx.post(f"{shared_site}/api/v1/query/stream", json=BODY, headers=bearer(nina), timeout=20)
    request_id = response.headers["x-request-id"]
    assert '"type":"error"' in response.text
    eventually(lambda: settled and stored(nina, request_id), 10, "it was not settled")
    assert settled == [tokens_of(nina, request_id)] and 0 < settled[0] < 1500
    assert left(nina)["user-tokens"] >= 3000 - settled[0]


def test_without_redis_requests_pass_are_counted_and_do_not_wait(
    shared: Any, configure: Any, limit: Any
) -> None:
    nina = limit(user_requests=1)

    async def silent(reader: Any, writer: Any) -> None:
        await reader.read()  # takes everything, answers nothing: the worst of servers

    async def ask() -> list[float]:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        configure(REDIS_URL=f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        took = []
        for _ in range(20):
            begun = time.perf_counter()
            assert (await take_request(nina.principal)).buckets == ()
            took.append(time.perf_counter() - begun)
        server.close()
        return took

    before = LIMITS_SKIPPED._value.get()
    took = asyncio.run(ask())
    assert LIMITS_SKIPPED._value.get() - before == 20
    assert max(took) < 1 and sum(took) < 2
    assert sorted(took)[10] < 0.01  # the first two have waited for the others


def test_redis_that_comes_back_counts_again_by_itself(shared: Any, limit: Any, monkeypatch: Any) -> None:
    nina = limit(user_requests=1)
    monkeypatch.setattr(cache_breaker, "_policy", replace(CACHE, open_seconds=0.1))
    for _ in range(CACHE.failures):
        cache_breaker.report(Permit(is_local=True), "failure", "it was gone just now")

    async def ask() -> None:
        for _ in range(3):
            assert (await take_request(nina.principal)).buckets == ()
        await asyncio.sleep(0.12)
        assert (await take_request(nina.principal)).buckets
        with pytest.raises(Problem):
            await take_request(nina.principal)

    asyncio.run(ask())


def test_a_limit_of_nought_is_none(shared: Any, configure: Any) -> None:
    configure(RAGSITE_LIMIT_USER_REQUESTS=0, RAGSITE_LIMIT_USER_TOKENS=0, RAGSITE_LIMIT_TENANT_TOKENS=0)
    assert set(items(dict(take(shared.nina).headers)["RateLimit"])) == {"tenant"}
