"""Several providers, one after another, behind the whole path of a question."""

from decimal import Decimal
from typing import Any

import pytest

from knowledge.config import answer_config
from tests.knowledge.answering.test_model_answers import ledger
from tests.knowledge.helpers import ask, check_answer, check_stream, read_events, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
CITED = Reply(
    blocks=(
        Block("The hold timer on acme edge routers is 30 seconds.", cites=((0, 0, 1),)),
        Block(" Call extension 7741.", cites=((0, 0, 1),)),
    )
)
BODY = {"question": "What is the hold timer on edge routers?", "cache": False}


@pytest.fixture
def three(model: StubProvider, configure: Any) -> StubProvider:
    """One server for all three: which of them was asked is told by the request's path."""
    configure(
        OPENAI_API_KEY="sk-test",
        OPENAI_BASE_URL=f"{model.url}/v1",
        RAGSITE_OPENAI_MODEL="gpt-4o",
        AZURE_OPENAI_API_KEY="azure-test",
        AZURE_OPENAI_ENDPOINT=model.url,
        AZURE_OPENAI_DEPLOYMENT="answers",
    )
    return model


def asked(stub: StubProvider) -> list[str]:
    return ["azure" if "/deployments/" in r.target else r.target.split("/")[2] for r in stub.requests]


def test_providers_are_asked_in_their_order(shared: Any, three: StubProvider, configure: Any) -> None:
    three.script(Reply(status=401), Reply(status=401), CITED)
    body = ask(shared.nina, cache=False)
    assert asked(three) == ["messages", "chat", "azure"]
    check_answer(body)
    assert (body["provider"], body["model"], body["fallback"]) == ("azure", "gpt-4o-2024-08-06", True)
    assert body["answer"] == "The hold timer on acme edge routers is 30 seconds. Call extension 7741."
    assert [body["answer"][c["start"] : c["end"]] for c in body["citations"]] == [
        "The hold timer on acme edge routers is 30 seconds.",
        "Call extension 7741.",
    ]
    rows = ledger(shared.nina, body["request_id"])
    assert {(row.provider, row.status) for row in rows} == {
        ("anthropic", "permanent"),
        ("openai", "permanent"),
        ("azure", "success"),
    }
    # What was refused cost nothing, and a dated snapshot has its model's price.
    assert Decimal(body["usage"]["cost_usd"]) == sum(row.cost_usd for row in rows) > 0

    configure(RAGSITE_PROVIDERS="openai,anthropic")
    three.requests.clear()
    three.script(CITED)
    body = ask(shared.nina, cache=False)
    assert asked(three) == ["chat"] and (body["provider"], body["fallback"]) == ("openai", False)


def test_a_broken_stream_goes_on_with_the_next_provider(shared: Any, three: StubProvider) -> None:
    broken = Reply(blocks=(Block("The hold timer is thirty. And then " * 20),), after_deltas=50, cut="error")
    three.script(broken, CITED)
    events = read_events(shared.nina, "query/stream", BODY)
    body = check_stream(events)
    kinds = [event["type"] for event in events]
    assert kinds.count("restart") == 1 and kinds.index("answer_chunk") < kinds.index("restart")
    assert body["answer"].startswith("The hold timer on acme") and "thirty" not in body["answer"]
    assert body["provider"] == "openai" and body["fallback"] is True
    assert [row.status for row in ledger(shared.nina, body["request_id"])].count("broken") == 1


def test_a_provider_that_fails_again_and_again_is_left_alone(shared: Any, three: StubProvider) -> None:
    # At once after the wait that the provider asks for, so that the test need not wait.
    down = Reply(status=529, headers=(("retry-after", "0"),))
    three.script(*[down] * 3, CITED, *[down] * 2, CITED, CITED)
    for _ in range(3):
        assert ask(shared.nina, cache=False)["provider"] == "openai"
    assert asked(three) == ["messages"] * 3 + ["chat"] + ["messages"] * 2 + ["chat"] * 2
    health = send(shared.nina, "get", "me")  # the API goes on
    assert health.status_code == 200
    checks = shared.nina.client.get("/health").json()["checks"]
    assert checks["model"]["detail"] == "ok, without anthropic"


def test_what_the_environment_must_hold_for_each(configure: Any) -> None:
    configure(OPENAI_API_KEY="sk-for-embeddings-alone")
    assert answer_config().models == ()
    configure(RAGSITE_OPENAI_MODEL="llama3", OPENAI_BASE_URL="http://127.0.0.1:11434/v1")
    assert [(m.provider, m.model) for m in answer_config().models] == [("openai", "llama3")]
    configure(ANTHROPIC_API_KEY="sk-ant")
    assert [m.provider for m in answer_config().models] == ["anthropic", "openai"]
    assert [m.model for m in answer_config().small_models] == ["claude-haiku-5-5", "llama3"]
