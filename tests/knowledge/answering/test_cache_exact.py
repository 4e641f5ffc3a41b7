"""The exact-answer cache: what hits, what misses, and life without Redis."""

from typing import Any

import pytest

from tests.knowledge.helpers import HOLD_TIMER, ask, check_stream, read_events, send, upload_indexed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def test_the_second_ask_is_a_hit_and_faster(cast: Any) -> None:
    from tenants.models import UsageRecord
    from tenants.scope import scope

    first = ask(cast.nina)
    assert (first["cache"], first["cache_hit"]) == ("miss", False)
    second = ask(cast.nina, f"  {HOLD_TIMER.upper()}  ")
    assert (second["cache"], second["cache_hit"], second["stale"]) == ("exact", True, False)
    for name in ("answer", "sources", "citations", "answered", "grounded", "model", "provider", "confidence"):
        assert second[name] == first[name], name
    assert second["request_id"] != first["request_id"]
    assert second["latency_ms"] < first["latency_ms"]
    assert second["usage"] == {"input_tokens": 0, "output_tokens": 0, "cost_usd": "0"}
    streamed = check_stream(read_events(cast.nina, "query/stream", {"question": HOLD_TIMER}))
    assert streamed["cache"] == "exact" and streamed["answer"] == first["answer"]
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert set(UsageRecord.objects.values_list("request_id", flat=True)) == {
            __import__("uuid").UUID(first["request_id"])
        }

    # Another way to ask, another reader, another tenant: misses.
    assert ask(cast.nina, cache=False)["cache"] == "miss"
    assert ask(cast.nina, k=3)["cache"] == "miss"
    assert ask(cast.nina, tags=["runbooks"])["cache"] == "miss"
    assert ask(cast.nina, collections=["handbook"])["cache"] == "miss"
    assert ask(cast.hal)["cache"] == "miss"
    gina = ask(cast.gina)
    assert gina["cache"] == "miss" and "180 seconds" in gina["answer"]
    assert ask(cast.nina)["cache"] == "exact"


def test_every_change_of_documents_misses(cast: Any) -> None:
    path = f"documents/{cast.documents['acme']['edge-policy.md'].pk}"
    question = "What is the maximum-prefix limit of a transit session?"

    def misses() -> dict[str, Any]:
        body = ask(cast.nina, question)
        assert body["cache"] == "miss"
        assert ask(cast.nina, question)["cache"] == "exact"
        return body

    assert "950000" in misses()["answer"]
    # Another document changes nothing of it: it is shown as stale while it is made again.
    upload_indexed(cast.ada, "new.md", "# New\n\nNothing about it.\n")
    moved = ask(cast.nina, question)
    assert (moved["cache"], moved["stale"]) == ("exact", True)
    assert send(cast.ada, "patch", path, {"tags": ["standards", "faq"]}).status_code == 200
    misses()
    assert send(cast.ada, "delete", path).status_code == 204
    assert "950000" not in str(misses())
    assert send(cast.ada, "post", f"{path}/restore").status_code == 200
    assert "950000" in misses()["answer"]


def test_a_change_of_roles_misses_and_so_does_an_emptied_redis(cast: Any) -> None:
    from django_redis import get_redis_connection

    ask(cast.nina)
    assert ask(cast.nina)["cache"] == "exact"
    roles = send(cast.ada, "get", "roles").json()["results"]
    engineer = next(role for role in roles if role["name"] == "network_engineer")
    send(cast.ada, "patch", f"roles/{engineer['id']}", {"tags": ["faq"]})
    hidden = ask(cast.nina)
    assert hidden["cache"] == "miss" and "30 seconds" not in str(hidden)
    assert ask(cast.nina)["cache"] == "exact"
    get_redis_connection("default").flushdb()
    assert ask(cast.nina)["cache"] == "miss"


def test_answers_go_on_without_redis(cast: Any, configure: Any) -> None:
    configure(REDIS_URL="unix:///tmp/there-is-no-redis-here.sock")
    for _ in range(2):
        body = ask(cast.nina)
        assert body["answered"] and body["cache"] == "miss"
    events = read_events(cast.nina, "query/stream", {"question": HOLD_TIMER})
    assert check_stream(events)["answered"]
    again = check_stream(read_events(cast.nina, f"answers/{events[-1]['data']['request_id']}/stream"))
    assert again["answered"]


def test_a_cache_of_zero_seconds_is_off(cast: Any, configure: Any) -> None:
    configure(RAGSITE_ANSWER_CACHE_SECONDS=0)
    assert [ask(cast.nina)["cache"] for _ in range(2)] == ["miss", "miss"]
