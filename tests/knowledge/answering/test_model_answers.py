"""Answers of Anthropic's own client against a local server that speaks its protocol."""

import time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from knowledge.llm.base import Usage
from knowledge.llm.extractive import NOTICE
from knowledge.llm.prices import DEFAULT_PRICES, price_usage
from tests.knowledge.helpers import (
    HOLD_TIMER,
    ask,
    check_answer,
    check_source_offsets,
    check_stream,
    read_events,
    read_sse,
    read_stream,
    send,
)
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider, count_tokens

pytestmark = on_shared_cast
BLOCKS = (
    Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),
    Block(" "),
    Block("Look at the neighbour with show bgp summary.", cites=((0, 0, 1),)),
)
ANSWER = "The hold timer is 30 seconds. Look at the neighbour with show bgp summary."
BODY = {"question": HOLD_TIMER, "cache": False}


def ledger(member: Any, request_id: str) -> list[Any]:
    from tenants.models import UsageRecord
    from tenants.scope import scope

    with scope(tenant_id=member.membership.tenant_id, tags=None):
        rows = UsageRecord.objects.filter(request_id=UUID(request_id)).order_by("created_at")
        return list(rows)


def cost_of(row: Any) -> Decimal:
    usage = Usage(row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens)
    cost = price_usage(
        rows=DEFAULT_PRICES, provider=row.provider, model=row.model, usage=usage, on=timezone.now().date()
    )
    assert cost is not None
    return cost


def test_json_ndjson_and_sse_tell_the_same_answer(shared: Any, model: StubProvider) -> None:
    model.script(*[Reply(blocks=BLOCKS)] * 3)
    whole = send(shared.nina, "post", "query", BODY).json()
    lines = check_stream(read_events(shared.nina, "query/stream", BODY))
    _, text = read_stream(shared.nina, "query/stream", BODY, accept="text/event-stream")
    for body in (whole, lines, check_stream(read_sse(text))):
        check_answer(body)
        check_source_offsets(shared.nina, body)
        assert body["answer"] == ANSWER and NOTICE not in ANSWER
        assert [body["answer"][c["start"] : c["end"]] for c in body["citations"]] == [
            "The hold timer is 30 seconds.",
            "Look at the neighbour with show bgp summary.",
        ]
        assert (body["provider"], body["model"]) == ("anthropic", "claude-sonnet-5-5")
        assert body["answered"] and body["grounded"] and body["fallback"] is False
        assert "first_byte" in body["timings"]
    # What was sent upstream: the reader's passages, as citable documents, and the fixed part marked for the cache.
    sent = model.requests[0].body
    documents = [block for block in sent["messages"][-1]["content"] if block["type"] == "document"]
    assert [d["title"] for d in documents] == [s["title"] for s in whole["sources"]]
    assert all(d["citations"] == {"enabled": True} for d in documents)
    assert sent["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert "180 seconds" not in str(sent) and "marlin" not in str(sent)


def test_tokens_and_cost_are_the_providers_count_at_the_tables_price(
    shared: Any, model: StubProvider
) -> None:
    model.script(*[Reply(blocks=BLOCKS)] * 2)
    first, second = ask(shared.nina, cache=False), ask(shared.nina, cache=False)
    (one,), (two,) = ledger(shared.nina, first["request_id"]), ledger(shared.nina, second["request_id"])
    fixed = count_tokens(model.requests[0].body["system"][0]["text"])
    output = sum(count_tokens(block.text) for block in BLOCKS) + 1
    assert (one.cache_write_tokens, one.cache_read_tokens) == (fixed, 0)
    assert (two.cache_write_tokens, two.cache_read_tokens) == (0, fixed)
    for body, row in ((first, one), (second, two)):
        assert (row.provider, row.model, row.kind, row.status) == (
            "anthropic",
            "claude-sonnet-5-5",
            "answer",
            "success",
        )
        assert row.output_tokens == body["usage"]["output_tokens"] == output
        assert body["usage"]["input_tokens"] == row.input_tokens + fixed
        assert row.cost_usd == cost_of(row) == Decimal(body["usage"]["cost_usd"])
        assert row.user_id == shared.nina.membership.user_id and row.endpoint == "query"
    assert two.cost_usd < one.cost_usd
    costs = send(shared.mona, "get", "costs").json()
    (sonnet,) = [m for m in costs["by_model"] if m["model"] == "claude-sonnet-5-5"]
    assert Decimal(costs["total_cost"]) >= Decimal(sonnet["cost"]) >= one.cost_usd + two.cost_usd
    assert "nina" in {user["user"] for user in costs["by_user"]}


def test_an_overloaded_provider_is_asked_again(shared: Any, model: StubProvider) -> None:
    model.script(Reply(status=529, headers=(("retry-after", "0"),)), Reply(blocks=BLOCKS))
    body = ask(shared.nina, cache=False)
    assert body["answer"] == ANSWER and body["fallback"] is False
    rows = ledger(shared.nina, body["request_id"])
    assert sorted(row.status for row in rows) == ["success", "transient"]
    assert sum(row.output_tokens for row in rows) == body["usage"]["output_tokens"]


def test_a_refused_key_and_a_hanging_provider_fall_back_to_quoting(
    shared: Any, model: StubProvider, configure: Any
) -> None:
    model.script(Reply(status=401))
    body = ask(shared.nina, cache=False)
    assert body["fallback"] is True and body["provider"] == "extractive" and body["answered"]
    assert "30 seconds" in body["answer"]
    assert {row.status for row in ledger(shared.nina, body["request_id"])} == {"permanent", "success"}

    configure(RAGSITE_FIRST_BYTE_SECONDS=0.3, RAGSITE_CALL_SECONDS=1, RAGSITE_ANSWER_SECONDS=1)
    model.script(*[Reply(wait_seconds=30)] * 3)
    begun = time.monotonic()
    hung = check_stream(read_events(shared.nina, "query/stream", BODY))
    assert time.monotonic() - begun < 6
    assert hung["fallback"] is True and hung["provider"] == "extractive" and hung["answered"]
    unheard = [row for row in ledger(shared.nina, hung["request_id"]) if row.provider == "anthropic"]
    assert unheard and all(row.input_tokens > 100 and row.cost_usd > 0 and row.estimated for row in unheard)
    model.script(*[Reply(status=500)] * 3)
    assert ask(shared.nina, cache=False)["fallback"] is True

    # What was made in need is not kept: the next one gets the model's answer.
    model._scripts.clear()
    model.script(Reply(status=401), Reply(blocks=BLOCKS))
    assert ask(shared.nina, HOLD_TIMER)["fallback"] is True
    assert ask(shared.nina, HOLD_TIMER)["answer"] == ANSWER


def test_a_break_in_mid_stream_says_restart(shared: Any, model: StubProvider) -> None:
    model.script(Reply(blocks=BLOCKS, after_deltas=4, cut="reset"))
    events = read_events(shared.nina, "query/stream", BODY)
    body = check_stream(events)
    kinds = [event["type"] for event in events]
    assert kinds.count("restart") == 1 and kinds.index("restart") > kinds.index("answer_chunk")
    assert body["fallback"] is True and body["provider"] == "extractive"
    assert not body["answer"].startswith("The hold timer is 30 seconds. Call")
    check_answer(body)
    assert send(shared.nina, "get", f"answers/{body['request_id']}").json()["answer"] == body["answer"]
    broken, quoted = ledger(shared.nina, body["request_id"])
    assert {broken.status, quoted.status} == {"broken", "success"}
    assert max(broken.cost_usd, quoted.cost_usd) > 0
    model.script(Reply(blocks=BLOCKS, after_deltas=4, cut="error"))
    whole = ask(shared.nina, cache=False)
    assert whole["fallback"] is True and whole["answer"].count("hold timer") == 1


def test_what_the_model_cannot_cite_is_not_an_answer(shared: Any, model: StubProvider) -> None:
    model.script(Reply(blocks=(Block("The documents do not say which vendor."),)))
    body = ask(shared.nina, cache=False)
    assert body["answered"] is False and body["grounded"] is False and body["citations"] == []
    model.script(
        Reply(blocks=(Block("The timer is 30 seconds.", cites=((0, 0, 1),), forged="never written"),))
    )
    forged = ask(shared.nina, cache=False)
    assert forged["citations"] == [] and forged["grounded"] is False


@pytest.mark.parametrize("stop", ["max_tokens", "model_context_window_exceeded", "pause_turn", "x" * 50])
def test_an_answer_that_stops_before_its_end_says_so_and_is_not_kept(
    shared: Any, model: StubProvider, stop: str
) -> None:
    half = "The hold timer is 30 seconds. Call exten"
    model.script(*[Reply(blocks=(Block(half, cites=((0, 0, 1),)),), stop_reason=stop)] * 2)
    body = ask(shared.nina, HOLD_TIMER)
    assert body["answer"] == half and body["fallback"] is False
    last = {"start": half.index("Call"), "end": len(half), "reason": "cut_off"}
    assert last in body["marks"]
    assert ask(shared.nina, HOLD_TIMER)["cache"] == "miss"


def test_an_unpriced_model_is_unknown_not_free(shared: Any, model: StubProvider, configure: Any) -> None:
    configure(RAGSITE_MODEL="claude-of-tomorrow")
    model.script(Reply(blocks=BLOCKS))
    before = send(shared.mona, "get", "costs").json()["unpriced_calls"]
    body = ask(shared.nina, cache=False)
    assert body["model"] == "claude-of-tomorrow" and body["usage"]["cost_usd"] is None
    assert send(shared.mona, "get", "costs").json()["unpriced_calls"] == before + 1


def test_a_hit_costs_nothing_and_calls_nobody(shared: Any, model: StubProvider) -> None:
    model.script(Reply(blocks=BLOCKS))
    question = "What is the hold timer, once more?"
    ask(shared.nina, question)
    hit = ask(shared.nina, question)
    assert hit["cache"] == "exact" and hit["model"] == "claude-sonnet-5-5" and hit["answer"] == ANSWER
    assert len(model.requests) == 1 and ledger(shared.nina, hit["request_id"]) == []
    # Another model's answers are not this one's.
