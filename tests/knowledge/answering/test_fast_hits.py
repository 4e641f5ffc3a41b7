"""Hits before Django: the same response, one call to Redis and no query, the same limits, and Django for all the rest."""

import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import redis
from django.db.backends.utils import CursorWrapper
from prometheus_client import REGISTRY

from knowledge.hits import memory
from knowledge.hits.memory import Memory
from knowledge.hits.writer import RecordWriter
from ragsite.core.config import config
from ragsite.core.redis import redis_connection
from tenants.keys import create_api_key
from tenants.models import Budget, Tenant
from tenants.scope import scope
from tests.knowledge.answering.test_rate_limits import items
from tests.knowledge.helpers import HOLD_TIMER, check_answer, check_problem, eventually
from tests.knowledge.hits_site import Asker, asker, is_fast, new_question
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.live import serve
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
OWN = {"request_id", "conversation", "latency_ms", "timings", "timestamp"}
OWN_HEADERS = {"x-request-id", "content-length", "ratelimit", "date"}


def test_the_response_is_that_of_django(nina: Asker) -> None:
    slow, fast = slow_hit(nina), nina.warm()
    assert not is_fast(slow) and slow.json()["cache"] == "exact"
    check_answer(fast.json())
    assert list(fast.json()) == list(slow.json())
    for name in set(fast.json()) - OWN:
        assert fast.json()[name] == slow.json()[name], name
    body = fast.json()
    assert body["request_id"] == body["conversation"] == fast.headers["x-request-id"]
    assert body["request_id"] != slow.json()["request_id"]
    assert body["timings"]["cache"] == body["latency_ms"] > 0
    # Byte for byte, once each response's own is put into the other.
    other = fast.text
    for name in OWN:
        mine, theirs = (json.dumps(r.json()[name], separators=(",", ":")) for r in (fast, slow))
        other = other.replace(f'"{name}":{mine}', f'"{name}":{theirs}')
    assert other == slow.text
    assert sorted(fast.headers) == sorted(slow.headers)
    for name in set(fast.headers) - OWN_HEADERS:
        assert fast.headers[name] == slow.headers[name], name
    assert int(fast.headers["content-length"]) == len(fast.content)


def slow_hit(nina: Asker) -> httpx.Response:
    """A hit of Django's, of a request that differs from the others in nothing that the answer shows."""
    nina.post()
    return nina.client.post("/api/v1/query", json={"question": HOLD_TIMER}, headers={"cookie": "a=b"})


@contextmanager
def counting_queries() -> Iterator[list[str]]:
    """Every statement of this process, of any thread and connection."""
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("execute", "executemany"):
            plain = getattr(CursorWrapper, name)

            def spy(self: Any, sql: Any, *args: Any, _plain: Any = plain, **kwargs: Any) -> Any:
                seen.append(str(sql))
                return _plain(self, sql, *args, **kwargs)

            patch.setattr(CursorWrapper, name, spy)
        yield seen


def test_a_hit_is_one_call_to_redis_and_no_query(
    shared: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecordWriter, "start", lambda self: None)  # it has calls and queries of its own
    settings.HOPS_IN_CALLING_THREAD = False
    with serve(fast_hits=True) as site, asker(site, shared.nina) as nina:
        nina.warm()
        client = redis.Redis.from_url(config().redis_url, single_connection_client=True)
        client.ping()
        watcher: Any = redis_connection()

        def watch_five() -> tuple[list[str], list[str]]:
            """The commands that Redis was sent while five hits were answered, and the queries."""
            with watcher.monitor() as monitor, counting_queries() as queries:
                for _ in range(5):
                    assert nina.is_fast()
                client.echo("that was all")
                commands = []
                for command in monitor.listen():
                    if command["command"].startswith("ECHO"):
                        return commands, queries
                    if command["client_type"] != "lua":
                        commands.append(command["command"].split()[0])
            raise AssertionError("the monitor ended")

        # What was asked before may still be settled in the background.
        eventually(lambda: watch_five() == (["EVALSHA"] * 5, []), 10, "a hit is more than one call")
        with counting_queries() as queries:
            assert not is_fast(nina.post(new_question()))
        assert queries, "the spy sees what Django asks"


def test_limits_are_one_account(shared: Any, nina: Asker) -> None:
    nina.warm()
    Tenant.objects.using("platform").filter(pk=shared.acme.pk).update(user_requests=40, tenant_requests=500)
    try:
        first = nina.post()  # the limits have changed: Django
        assert not is_fast(first)
        left = [items(first.headers["ratelimit"])["user"]["r"]]
        kinds = []
        for number in range(20):
            response = nina.post() if number % 3 else nina.post(new_question())
            kinds.append(is_fast(response))
            left.append(items(response.headers["ratelimit"])["user"]["r"])
            assert response.headers["ratelimit-policy"] == first.headers["ratelimit-policy"]
        assert kinds.count(True) > 5 and kinds.count(False) > 5
        # Each takes one of the same bucket, which fills by two in three seconds.
        assert all(after < before or after - before <= 1 for before, after in itertools.pairwise(left))
        assert left[-1] <= left[0] - 10
        for _ in range(80):
            response = nina.post()
            if response.status_code == 429:
                break
        check_problem(response, 429, "rate-limited")
        assert items(response.headers["ratelimit"])["user"]["r"] == 0
    finally:
        Tenant.objects.using("platform").filter(pk=shared.acme.pk).update(
            user_requests=None, tenant_requests=None
        )


def test_metrics_count_it_as_any_hit(nina: Asker) -> None:
    names = {
        "requests": ("rag_requests_total", {"endpoint": "query", "status": "cached"}),
        "latency": ("rag_request_latency_seconds_count", {"endpoint": "query"}),
        "exact": ("rag_cache_hits_total", {"layer": "exact"}),
        "process": ("rag_cache_hits_total", {"layer": "process"}),
    }

    def figures() -> dict[str, float]:
        return {name: REGISTRY.get_sample_value(*sample) or 0.0 for name, sample in names.items()}

    nina.warm()
    before = figures()
    stats = nina_stats(nina)
    for _ in range(3):
        assert nina.is_fast()
    assert {name: value - before[name] for name, value in figures().items()} == dict.fromkeys(names, 3.0)
    assert nina_stats(nina) == {name: value + 3 for name, value in stats.items()}


def nina_stats(nina: Asker) -> dict[str, int]:
    (key,) = redis_connection().scan_iter(match="*:stats")
    found = redis_connection().hgetall(key)
    return {name: int(found[f"{name}:hits".encode()]) for name in ("exact", "process")}


BODY = {"question": HOLD_TIMER}


@pytest.mark.parametrize(
    "request_of",
    [
        {"json": BODY | {"cache": False}},
        {"json": BODY | {"k": 3}},
        {"json": BODY | {"collections": ["handbook"]}},
        {"json": BODY | {"question": f"{HOLD_TIMER} "}},
        {"json": BODY, "params": {"format": "json"}},
        {"json": BODY, "headers": {"idempotency-key": "fast-1"}},
        {"json": BODY, "headers": {"cookie": "ragsite_session=x"}},
        {"json": BODY, "headers": {"accept": "application/json; indent=2"}},
        {"json": BODY, "headers": {"host": "localhost"}},
        {"json": BODY, "headers": {"x-api-key": "rsk_nothing"}},
        {"content": json.dumps(BODY), "headers": {"content-type": "application/json; charset=utf-8"}},
    ],
    ids=str,
)
def test_what_differs_is_answered_by_django(nina: Asker, request_of: dict[str, Any]) -> None:
    nina.warm()
    response = nina.client.post("/api/v1/query", **request_of)
    assert response.status_code == 200 and not is_fast(response), response.text
    assert is_fast(nina.warm())


def test_wrong_requests_get_djangos_own_words(shared: Any, nina: Asker, shared_site: str) -> None:
    nina.warm()
    wrong: list[dict[str, Any]] = [
        {"content": b"{", "headers": {"content-type": "application/json"}},
        {"content": b"\xff\xfe", "headers": {"content-type": "application/json"}},
        {"content": b"", "headers": {"content-type": "application/json"}},
        {"json": {"question": "x"}},
        {"json": {"question": HOLD_TIMER, "k": 99}},
        {"json": {"question": HOLD_TIMER, "collections": ["nowhere"]}},
        {"json": [1, 2]},
        {"content": json.dumps(BODY | {"padding": "x" * 40_000}), "headers": {"content-type": "text/plain"}},
        {"json": BODY, "headers": {"accept": "text/html"}},
        {"json": BODY, "headers": {"host": "evil.example"}},
        {"json": BODY, "headers": {"authorization": "Bearer nonsense"}},
        {"json": BODY, "headers": {"authorization": "Basic nonsense"}},
        {"json": BODY, "headers": {"authorization": ""}},
        {"json": BODY, "headers": {"authorization": "Bearer e30.eyJ0aWQiOiA1fQ.e30"}},
    ]
    with asker(shared_site, shared.nina) as plain:
        for each in wrong:
            found = [who.client.post("/api/v1/query", **each) for who in (nina, plain)]
            assert found[0].status_code >= 400, each
            assert found[0].status_code == found[1].status_code, each
            texts = [re.sub(r'"request_id": ?"[^"]*"', "", response.text) for response in found]
            assert texts[0] == texts[1], each
    assert nina.is_fast()


def test_a_body_in_pieces_and_a_large_one_arrive_whole(nina: Asker) -> None:
    nina.warm()
    body = json.dumps(BODY, separators=(",", ":")).encode()
    url = nina.client.base_url
    head = (
        f"POST /api/v1/query HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nAccept: */*\r\nConnection: close\r\n"
        f"Authorization: {nina.client.headers['authorization']}\r\nContent-Type: application/json\r\n"
    )
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:9])
        time.sleep(0.2)
        connection.sendall(body[9:])
        found = b"".join(iter(lambda: connection.recv(65536), b""))
    assert found.startswith(b"HTTP/1.1 200") and b'"timings":{"cache"' in found
    for padding in (10_000, 40_000):  # below and above what is looked at before Django
        response = nina.post(padding="x" * padding)
        assert response.status_code == 200 and not is_fast(response), response.text
    chunked = nina.client.post(
        "/api/v1/query", content=iter([body]), headers={"content-type": "application/json"}
    )
    assert chunked.status_code == 200 and not is_fast(chunked), chunked.text


def end_redis_connections() -> None:
    """All but one's own to this process's database: the tests beside these use the same server."""
    client: Any = redis_connection()
    own, database = client.client_id(), str(client.connection_pool.connection_kwargs["db"])
    for each in client.client_list():
        if each["db"] == database and int(each["id"]) != own:
            client.client_kill_filter(_id=each["id"])


def test_without_redis_django_answers_and_nothing_old_is_shown_after(
    shared: Any, nina: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    nina.warm()
    end_redis_connections()  # as a server that is started again does
    assert not is_fast(nina.post())
    eventually(nina.is_fast, 10, "it is answered before Django again")
    monkeypatch.setattr("ragsite.core.redis_pipe.RETRY_SECONDS", 30.0)
    end_redis_connections()
    assert [is_fast(nina.post()) for _ in range(4)] == [False] * 4


def test_the_switch(shared: Any, shared_site: str) -> None:
    with asker(shared_site, shared.nina) as nina:
        assert [is_fast(nina.post()) for _ in range(4)] == [False] * 4


def test_a_warning_is_never_left_out(shared: Any, nina: Asker, configure: Any) -> None:
    """Over a soft limit other models answer, and the answer says so."""
    nina.warm()
    with scope(tenant_id=shared.acme.pk, tags=None):
        budget = Budget.objects.create(soft_usd=0, period="day")
    configure(ANTHROPIC_API_KEY="sk-ant-test", ANTHROPIC_BASE_URL="http://127.0.0.1:9")
    try:
        for _ in range(4):
            response = nina.post()
            assert not is_fast(response) and "over its soft limit" in response.json()["warnings"][0]
    finally:
        with scope(tenant_id=shared.acme.pk, tags=None):
            budget.delete()


def test_one_request_renews_what_is_remembered_while_the_others_hit() -> None:
    kept: Memory[str] = Memory(most=2)
    now = time.monotonic()
    kept.put("a", "old", since=now - memory.RENEW_SECONDS - 1)
    assert [kept.get("a") for _ in range(3)] == [None, "old", "old"]
    kept.put("a", "new", since=now)
    assert kept.get("a") == "new"
    kept.put("b", "over", since=now - memory.MEMORY_SECONDS - 1)
    assert kept.get("b") is None and kept.get("b") is None
    for name in "cde":
        kept.put(name, name, since=now)
    assert [kept.get(name) for name in "acde"] == [None, None, "d", "e"]


async def test_lifespan_and_other_paths_are_handed_on() -> None:
    from knowledge.hits.asgi import FastHits

    seen: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async def nothing(*_: Any) -> Any:
        return {"type": "http.disconnect"}

    application = FastHits(inner, enabled=True)
    for scope_ in (
        {"type": "lifespan"},
        {"type": "http", "method": "GET", "path": "/api/v1/query"},
        {"type": "http", "method": "POST", "path": "/api/v1/search"},
    ):
        await application(scope_, nothing, nothing)
        assert seen.pop() == (scope_, nothing, nothing)


def test_after_a_miss_the_next_is_a_hit_that_says_so(shared: Any, nina: Asker) -> None:
    question = new_question()
    nina.warm()  # now she is known
    miss, fast, again = nina.post(question), nina.post(question), nina.post(question)
    assert miss.json()["cache"] == "miss" and is_fast(fast) and is_fast(again)
    with asker(str(nina.client.base_url), shared.nina, **{"X-API-Key": key_of(shared)}) as other:
        slow = other.post(question)  # nobody knows the key yet
    assert not is_fast(slow) and slow.json()["cache"] == "exact"
    for name in set(slow.json()) - OWN:
        assert fast.json()[name] == slow.json()[name], name
    assert list(fast.json()) == list(slow.json())


def key_of(shared: Any) -> str:
    with scope(tenant_id=shared.acme.pk, tags=None):
        return create_api_key(
            principal=shared.ada.principal, member=shared.nina.membership, name=new_question()
        )[1]


def test_a_conversations_question_and_one_asked_afresh_are_never_remembered(nina: Asker) -> None:
    begun = nina.warm().json()["request_id"]
    for _ in range(4):
        response = nina.post("What does code 809 of the VPN client mean?", conversation=begun)
        assert not is_fast(response) and response.json()["conversation"] == begun
    for _ in range(3):
        response = nina.post(cache=False)
        assert not is_fast(response) and response.json()["cache"] == "miss"
    assert not is_fast(nina.post(cache=True))
    assert is_fast(nina.post(cache=True)), "that is a question as any other"


def test_of_many_at_once_django_answers_one(model: StubProvider, nina: Asker) -> None:
    nina.warm()
    question, asked = new_question(), len(model.requests)
    model.script(
        Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),), delta_seconds=0.1)
    )
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(nina.post, question)
        eventually(lambda: len(model.requests) > asked, 10, "it was not asked")
        rest = list(pool.map(lambda _: nina.post(question), range(7)))
    assert first.result().json()["cache"] == "miss"
    assert all(is_fast(response) for response in rest), [response.json()["timings"] for response in rest]
    assert len(model.requests) == asked + 1


def test_without_limits_nothing_is_told_of_them(shared: Any, settings: Any, configure: Any) -> None:
    names = [
        f"RAGSITE_LIMIT_{who}_{what}" for who in ("USER", "KEY", "TENANT") for what in ("REQUESTS", "TOKENS")
    ]
    configure(**dict.fromkeys(names, 0))
    settings.HOPS_IN_CALLING_THREAD = False
    with serve(fast_hits=True) as site, asker(site, shared.nina) as nina:
        fast = nina.warm()
        assert not any(name.startswith("ratelimit") for name in fast.headers)
        assert sorted(fast.headers) == sorted(slow_hit(nina).headers)
