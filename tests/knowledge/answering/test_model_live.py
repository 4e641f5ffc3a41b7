"""Streams of a real ASGI server: disconnects, connections, re-attaching, two tenants at once."""

import asyncio
import json
import threading
from typing import Any

import httpx
import psycopg

from ragsite.core import hops
from tests.knowledge.helpers import HOLD_TIMER, check_problem, check_stream, eventually, read_stream
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
BODY = {"question": HOLD_TIMER, "cache": False}
LONG = tuple(Block(f"Sentence {n} of a long answer.", cites=((0, 0, 1),)) for n in range(40))


def bearer(member: Any) -> dict[str, str]:
    return {"authorization": member.client.defaults["HTTP_AUTHORIZATION"]}


def stored(member: Any, request_id: str) -> Any:
    from knowledge.models import Answer
    from tenants.scope import scope

    with scope(tenant_id=member.membership.tenant_id, tags=None):
        return Answer.objects.filter(pk=request_id).first()


def ledger_of(member: Any, request_id: str) -> list[Any]:
    from tenants.models import UsageRecord
    from tenants.scope import scope

    with scope(tenant_id=member.membership.tenant_id, tags=None):
        return list(UsageRecord.objects.filter(request_id=request_id))


def test_a_client_that_leaves_cancels_the_call_upstream(
    shared: Any, shared_site: str, model: StubProvider
) -> None:
    model.script(Reply(blocks=LONG, delta_seconds=0.05))
    with (
        httpx.Client(base_url=shared_site, headers=bearer(shared.nina), timeout=20) as client,
        client.stream("POST", "/api/v1/query/stream", json=BODY) as response,
    ):
        request_id = response.headers["x-request-id"]
        lines = response.iter_lines()
        for line in lines:
            if json.loads(line)["type"] == "citation":
                break
    assert model.wait_for_disconnect(2), "the call upstream went on"
    answer = eventually(lambda: stored(shared.nina, request_id), 5, "the answer was not stored")
    assert answer.status == "cancelled" and answer.text.startswith("Sentence 0")
    (row,) = ledger_of(shared.nina, request_id)
    assert (row.status, row.provider) == ("cancelled", "anthropic")
    assert row.input_tokens > 0 and row.output_tokens > 0 and row.cost_usd > 0


def test_coming_back_to_an_answer_in_flight(shared: Any, shared_site: str, model: StubProvider) -> None:
    model.script(Reply(blocks=LONG, delta_seconds=0.02))
    found: dict[str, Any] = {}
    arrived = threading.Event()

    def first_reader() -> None:
        with (
            httpx.Client(base_url=shared_site, headers=bearer(shared.nina), timeout=30) as client,
            client.stream("POST", "/api/v1/query/stream", json=BODY) as response,
        ):
            found["id"] = response.headers["x-request-id"]
            events = []
            for line in response.iter_lines():
                events.append(json.loads(line))
                if len(events) == 3:
                    arrived.set()
            found["events"] = events

    thread = threading.Thread(target=first_reader)
    thread.start()
    assert arrived.wait(20)
    path = f"/api/v1/answers/{found['id']}"
    with httpx.Client(base_url=shared_site, timeout=30) as client:
        for outsider in (shared.ada, shared.gina):
            refused = client.get(f"{path}/stream", headers=bearer(outsider))
            assert refused.status_code == 404
        assert client.get(path, headers=bearer(shared.nina)).status_code == 404  # not finished yet
        again = client.get(f"{path}/stream", headers=bearer(shared.nina) | {"accept": "application/x-ndjson"})
    thread.join()
    events = [json.loads(line) for line in again.text.splitlines()]
    check_stream(events)
    assert events == found["events"]


def test_no_connection_is_held_while_the_model_talks(
    shared: Any, shared_site: str, model: StubProvider
) -> None:
    from django.db import connections

    streams = 20
    model.script(*[Reply(blocks=LONG[:2], after_deltas=2, cut="hang")] * streams)
    settings = connections["owner"].settings_dict
    other = psycopg.connect(
        host=settings["HOST"],
        port=settings["PORT"] or None,
        user=settings["USER"],
        password=settings["PASSWORD"],
        dbname=settings["NAME"],
        autocommit=True,
    )
    count = (
        "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%%') FROM pg_stat_activity "
        "WHERE datname = %s AND pid <> pg_backend_pid()"
    )

    async def hold() -> tuple[int, int]:
        async with httpx.AsyncClient(
            base_url=shared_site,
            headers=bearer(shared.nina),
            timeout=30,
            limits=httpx.Limits(max_connections=None),
        ) as client:
            began = asyncio.Semaphore(0)

            async def one() -> None:
                async with client.stream("POST", "/api/v1/query/stream", json=BODY) as response:
                    assert response.status_code == 200
                    began.release()
                    async for _ in response.aiter_lines():
                        pass

            tasks = [asyncio.create_task(one()) for _ in range(streams)]
            for _ in range(streams):
                await asyncio.wait_for(began.acquire(), 30)
            while model.open_connections < streams:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            held = other.execute(count, [settings["NAME"]]).fetchone()
            assert held is not None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return int(held[0]), int(held[1])

    before = other.execute(count, [settings["NAME"]]).fetchone()
    assert before is not None
    total, in_transaction = asyncio.run(hold())
    other.close()
    assert in_transaction == 0
    # The test's own connections stay as they were; the server's threads have given theirs back.
    assert total - before[0] <= hops._executor._max_workers
    assert total <= before[0] + 1, f"{total - before[0]} connections are held by waiting streams"


def test_thirty_streams_of_two_tenants_never_mix(shared: Any, shared_site: str, model: StubProvider) -> None:
    people = {"nina": ("30 seconds", "180 seconds"), "gina": ("180 seconds", "30 seconds on")}

    async def one(client: httpx.AsyncClient, name: str, number: int) -> tuple[str, dict[str, Any]]:
        member = shared.members[name]
        body = {"question": f"{HOLD_TIMER} ({number})", "cache": False}
        sse = {"accept": "text/event-stream" if number % 2 else "application/x-ndjson"}
        response = await client.post("/api/v1/query/stream", json=body, headers=bearer(member) | sse)
        assert response.status_code == 200, response.text
        events = [
            json.loads(line.removeprefix("data: "))
            for line in response.text.splitlines()
            if line.startswith(("data: ", "{"))
        ]
        return name, check_stream(events)

    async def all_of_them() -> list[tuple[str, dict[str, Any]]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=shared_site, timeout=60, limits=limits) as client:
            return await asyncio.gather(
                *(one(client, name, n) for n in range(15) for name in ("nina", "gina"))
            )

    answers = asyncio.run(all_of_them())
    assert len({body["request_id"] for _, body in answers}) == 30
    for name, body in answers:
        own, others = people[name]
        text = str(body["sources"]) + body["answer"]
        assert own in text and others.replace(" on", "") not in text.replace(own, "")
        row = stored(shared.members[name], body["request_id"])
        assert row.user_id == shared.members[name].membership.user_id
        other = shared.gina if name == "nina" else shared.nina
        assert stored(other, body["request_id"]) is None


def test_an_answer_in_flight_is_nobody_elses_without_redis_too(shared: Any) -> None:
    response, _ = read_stream(shared.nina, "answers/00000000-0000-4000-8000-000000000000/stream")
    check_problem(response, 404)
