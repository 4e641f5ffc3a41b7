"""The ledger against the provider's own count, to the token; and everything that sums it up against the ledger."""

import csv
import io
import json
import statistics
from collections import Counter
from decimal import Decimal
from typing import Any

import httpx
import pytest

from knowledge.models import Answer
from ragsite.core.observability import LLM_CALLS, LLM_COST, LLM_TOKENS
from tenants.models import UsageRecord
from tenants.scope import scope
from tests.knowledge.answering.test_model_live import bearer, stored
from tests.knowledge.answering.test_providers import three  # noqa: F401
from tests.knowledge.helpers import HOLD_TIMER, conforms, eventually, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider
from tests.tenants.admin_cast import signed_in

pytestmark = on_shared_cast
GOOD = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))
LONG = tuple(Block(f"Sentence {n} of a long answer.", cites=((0, 0, 1),)) for n in range(40))
TOKENS = ("input", "output", "cache_read", "cache_write")


def query(client: httpx.Client, member: Any, **body: Any) -> dict[str, Any]:
    question = {"question": HOLD_TIMER, "cache": False} | body
    response = client.post("/api/v1/query", json=question, headers=bearer(member))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def consumed(stub: StubProvider) -> None:
    assert not stub._scripts, "a reply was not asked for: the next question would get it"


def leave(client: httpx.Client, member: Any, *, after: str, stub: StubProvider) -> str:
    """Goes away in the middle of a stream, when the model has been asked."""
    asked = len(stub.requests)
    body = {"question": HOLD_TIMER, "cache": False}
    with client.stream("POST", "/api/v1/query/stream", json=body, headers=bearer(member)) as response:
        request_id: str = response.headers["x-request-id"]
        lines = response.iter_lines()  # a generator that nobody holds any more closes the connection
        for line in lines:
            if json.loads(line)["type"] == after:
                break
        eventually(lambda: len(stub.requests) > asked, 5, "the model was not asked")
    return request_id


def metrics() -> Counter[str]:
    """Prometheus's figures of model calls in this process: tokens by kind, dollars, calls."""
    found: Counter[str] = Counter()
    for name, metric in (("tokens", LLM_TOKENS), ("cost", LLM_COST), ("calls", LLM_CALLS)):
        for family in metric.collect():
            for sample in family.samples:
                if sample.name.endswith("_total") and sample.labels.get("provider") != "extractive":
                    found[sample.labels.get("kind", name)] += sample.value  # type: ignore[assignment]
    return found


@pytest.fixture
def emptied(shared: Any) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        UsageRecord.objects.all().delete()
        Answer.objects.all().delete()


def test_every_way_of_a_call_is_in_the_ledger_to_the_token(
    shared: Any,
    shared_site: str,
    three: StubProvider,  # noqa: F811
    emptied: None,
    monkeypatch: Any,
) -> None:
    from knowledge.llm.gateway import RetryPolicy

    monkeypatch.setattr(RetryPolicy, "wait_seconds", lambda *args, **kwargs: 0.01)
    nina, counted = shared.nina, metrics()
    with httpx.Client(base_url=shared_site, timeout=90) as client:
        three.script(GOOD)  # plain
        first = query(client, nina)
        consumed(three)
        three.script(Reply(status=529), Reply(status=500), GOOD)  # retried: errors cost nothing
        query(client, nina)
        consumed(three)
        three.script(Reply(status=401), GOOD)  # the next provider answers
        assert query(client, nina)["provider"] == "openai"
        consumed(three)
        three.script(
            Reply(blocks=LONG, after_deltas=8, cut="error"), GOOD
        )  # broken in the middle, then another
        query(client, nina)
        consumed(three)
        three.script(Reply(blocks=(), stop_reason="refusal"), GOOD)  # declined, then another
        query(client, nina)
        consumed(three)
        three.script(
            Reply(blocks=(Block("What is the hold timer on acme edge routers?"),)), GOOD
        )  # a follow-up
        query(client, nina, question="And on the others?", conversation=first["conversation"])
        consumed(three)
        three.script(Reply(status=500), GOOD)  # a rewriting that fails
        query(
            client,
            nina,
            question="And what is the hold timer on edge routers?",
            conversation=first["conversation"],
        )
        consumed(three)
        three.script(GOOD)
        for _ in range(2):  # the second one is cached
            cached = query(client, nina, question="How long is the hold timer of edge routers?", cache=True)
        assert cached["cache"] == "exact"
        consumed(three)
        three.script(Reply(blocks=LONG, delta_seconds=0.05))  # its reader leaves
        left = leave(client, nina, after="citation", stub=three)
        assert three.wait_for_disconnect(15), [request.target for request in three.requests]
        eventually(lambda: stored(nina, left), 5, "the answer was not stored")
        consumed(three)
        three.script(Reply(blocks=LONG, wait_seconds=5))  # … before the model has said anything
        early = leave(client, nina, after="sources", stub=three)
        assert three.wait_for_disconnect(8)
        eventually(lambda: stored(nina, early), 5, "the answer was not stored")

    with scope(tenant_id=shared.acme.pk, tags=None):
        rows = [row for row in UsageRecord.objects.all() if row.provider != "extractive"]
        everything = list(UsageRecord.objects.all())
        answers = list(Answer.objects.all())

    def tokens(row: UsageRecord) -> tuple[int, int, int, int]:
        return row.input_tokens, row.cache_write_tokens, row.cache_read_tokens, row.output_tokens

    # Every call has a row; what the provider has counted to its end is there to the token.
    assert len(rows) == len(three.requests)
    assert {row.kind for row in rows} == {"answer", "rewrite"}
    whole = [row for row in rows if not row.estimated]
    assert Counter(tokens(row) for row in whole if any(tokens(row))) == Counter(
        one.tokens for one in three.billed if one.is_whole
    )
    sums = [sum(each) for each in zip(*(tokens(row) for row in whole), strict=True)]
    assert sums == [sum(each) for each in zip(*(b.tokens for b in three.billed if b.is_whole), strict=True)]
    assert all(row.cost_usd == 0 for row in whole if not any(tokens(row)))
    # What was cut off says so: the prompt as it was counted, the text as far as it had come.
    broken = next(row for row in rows if row.status == "broken")
    cancelled, unheard = (next(r for r in rows if str(r.request_id) == each) for each in (left, early))
    assert {row.pk for row in rows if row.estimated} == {broken.pk, cancelled.pk, unheard.pk}
    partly = [one for one in three.billed if not one.is_whole]
    assert sorted(one.tokens[:3] for one in partly) == sorted(tokens(row)[:3] for row in (broken, cancelled))
    assert broken.output_tokens > 1 and cancelled.output_tokens > 1
    assert (unheard.status, unheard.output_tokens) == ("cancelled", 0) and unheard.input_tokens > 100

    # Prometheus, the costs, the figures and the admin's page say the same as the ledger.
    told = metrics() - counted
    assert {name: int(told[name]) for name in TOKENS} == {
        name: sum(getattr(row, f"{name}_tokens") for row in rows) for name in TOKENS
    }
    cost = sum((row.cost_usd for row in everything), Decimal(0))
    assert cost > 0 and told["cost"] == pytest.approx(float(cost)) and int(told["calls"]) == len(rows)
    costs = conforms(send(shared.ada, "get", "costs"), "/api/v1/costs", "get")
    assert (Decimal(costs["total_cost"]), costs["total_calls"]) == (cost, len(everything))
    for group in ("by_model", "by_user"):
        for name in TOKENS:
            told_sum = sum(one[f"{name}_tokens"] for one in costs[group])
            assert told_sum == sum(getattr(row, f"{name}_tokens") for row in everything), (group, name)
        assert sum(Decimal(one["cost"]) for one in costs[group]) == cost
    stats = conforms(send(shared.ada, "get", "stats"), "/api/v1/stats", "get")
    assert (Decimal(stats["cost"]), stats["calls"]) == (cost, len(everything))
    assert stats["tokens"] == {
        name: sum(getattr(row, f"{name}_tokens") for row in everything) for name in TOKENS
    }
    assert sum((answer.cost_usd or Decimal(0) for answer in answers), Decimal(0)) == cost
    page = signed_in("ada").get("/admin/costs/?export=csv")
    lines = list(csv.reader(io.StringIO(b"".join(page).decode())))[1:]
    for group in ("Day", "Model", "Person", "Endpoint"):
        mine = [line for line in lines if line[0] == group]
        assert sum(Decimal(line[-1]) for line in mine) == cost, group
        assert sum(int(line[2]) for line in mine) == len(everything), group
        assert sum(int(line[4]) for line in mine) == sum(row.input_tokens for row in everything), group


def test_stats_are_those_of_the_answers(shared: Any, emptied: None) -> None:
    latencies = [float(n) for n in range(10, 1010, 10)]
    with scope(tenant_id=shared.acme.pk, tags=None):
        rows = [
            Answer(
                user=shared.nina.membership.user,
                question="What?",
                endpoint="query",
                status="unanswered" if n < 5 else "cached" if n < 45 else "success",
                answered=n >= 5,
                cache="exact" if 5 <= n < 45 else "miss",
                latency_ms=latency,
            )
            for n, latency in enumerate(latencies)
        ]
        rows += [
            Answer(user=shared.nina.membership.user, question="Stopped?", endpoint="query", status=status,
                   latency_ms=99_999)
            for status in ("cancelled", "error")
        ]  # fmt: skip
        Answer.objects.bulk_create(rows)
    for row, rating in zip(
        rows[50:54], ({"rating": 5}, {"rating": 2}, {"helpful": True}, {"rating": 4}), strict=True
    ):
        rated = send(shared.nina, "post", "feedback", {"request_id": str(row.pk), **rating})
        assert rated.status_code == 201, rated.content
    stats = conforms(send(shared.mona, "get", "stats"), "/api/v1/stats", "get")
    assert (stats["queries"], stats["failed"]) == (102, 2)
    assert stats["queries_per_hour"] == pytest.approx(102 / (30 * 24), abs=1e-4)
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    assert stats["latency_ms"] == {
        "average": pytest.approx(statistics.mean(latencies)),
        "p50": pytest.approx(cuts[49]),
        "p95": pytest.approx(cuts[94]),
        "p99": pytest.approx(cuts[98]),
    }
    assert stats["empty_rate"] == 0.05 and stats["satisfaction"] == 0.75 and stats["ratings"] == 4
    assert stats["cache"] == {"hits": 40, "misses": 60, "hit_rate": 0.4, "by_kind": {"exact": 40}}
    assert send(shared.nina, "get", "stats").status_code == 403
    assert send(shared.gus, "get", "stats").json()["queries"] == 0
    nothing = send(shared.ada, "get", "stats?from=2020-01-01&to=2020-01-02").json()
    assert nothing["latency_ms"]["p95"] is None and nothing["satisfaction"] is None
