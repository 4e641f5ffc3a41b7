"""Where a client of OpenAI's protocol has its text end: ``max_tokens`` and ``stop``, whole and streamed."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from knowledge.api.openai.limits import TextLimit
from knowledge.models import Answer
from tenants.models import UsageRecord
from tenants.scope import scope
from tests.knowledge.api.test_chat_completions import asked, check_error, client, complete  # noqa: F401
from tests.knowledge.helpers import HOLD_TIMER, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
FIRST, SECOND = "The hold timer is 30 seconds. ", "The hold timer of the edge is STOP 30 seconds, too."
TWO = Reply(blocks=(Block(FIRST, cites=((0, 0, 1),)), Block(SECOND, cites=((0, 0, 1),))))


def say(client: openai.OpenAI, *, stream: bool, cache: bool = False, **limits: Any) -> dict[str, Any]:  # noqa: F811
    """Content, finish reason, the extension and the usage, whichever way they come."""
    given: dict[str, Any] = {
        "model": "all",
        "messages": [{"role": "user", "content": HOLD_TIMER}],
        "extra_body": {"ragsite": {"cache": cache}},
        **limits,
    }
    if not stream:
        whole = client.chat.completions.create(**given)
        message: Any = whole.choices[0].message
        return {
            "text": message.content,
            "reason": whole.choices[0].finish_reason,
            "usage": whole.usage,
            **message.model_extra["ragsite"],
        }
    found: dict[str, Any] = {"text": ""}
    for chunk in client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True}):
        if not chunk.choices:
            found["usage"] = chunk.usage
            continue
        delta: Any = chunk.choices[0].delta
        found["text"] += delta.content or ""
        if chunk.choices[0].finish_reason:
            found |= {"reason": chunk.choices[0].finish_reason, **delta.model_extra["ragsite"]}
    return found


def whole_text(member: Any, request_id: str) -> str:
    answer: str = send(member, "get", f"answers/{request_id}").json()["answer"]
    return answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_ends_after_so_many_tokens(
    shared: Any,
    client: openai.OpenAI,  # noqa: F811
    model: StubProvider,
    stream: bool,
    name: str,
) -> None:
    model.script(TWO)
    found = say(client, stream=stream, **{name: 10})
    assert (found["text"], found["reason"]) == ((FIRST + SECOND)[:40], "length")
    assert model.requests[-1].body["max_tokens"] == 10
    # The citation of the sentence that was cut ends with it; offsets are in what was sent.
    assert [(each["start"], each["end"]) for each in found["citations"]] == [(0, 29), (30, 40)]
    assert found["sources"]
    # What the model has said is paid for and stored, all of it.
    with scope(tenant_id=shared.acme.pk, tags=None):
        (row,) = UsageRecord.objects.filter(request_id=found["request_id"])
        assert Answer.objects.get(pk=found["request_id"]).text == FIRST + SECOND
    assert found["usage"].completion_tokens == row.output_tokens > 0 and row.status == "success"
    assert found["usage"].prompt_tokens == row.input_tokens + row.cache_read_tokens + row.cache_write_tokens
    model.script(TWO)
    one = say(client, stream=stream, **{name: 1})
    assert (one["text"], one["reason"]) == ("The ", "length") and len(one["citations"]) == 1
    assert model.requests[-1].body["max_tokens"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_limit_that_is_not_reached_changes_nothing(
    shared: Any,
    client: openai.OpenAI,  # noqa: F811
    model: StubProvider,
    stream: bool,
) -> None:
    for limit in (100, 1000, 4096, 10**9):
        model.script(TWO)
        found = say(client, stream=stream, max_tokens=limit, stop="not in it")
        assert (found["text"], found["reason"]) == (FIRST + SECOND, "stop")
        assert model.requests[-1].body["max_tokens"] == min(limit, 1000)
        assert len(found["citations"]) == 2 and found["marks"] == []
    # The lower one of both names holds.
    model.script(TWO)
    assert say(client, stream=stream, max_tokens=500, max_completion_tokens=3)["text"] == FIRST[:12]
    assert model.requests[-1].body["max_tokens"] == 3


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_the_model_ends_at_the_limit_says_so(
    client: openai.OpenAI,  # noqa: F811
    model: StubProvider,
    stream: bool,
) -> None:
    model.script(
        Reply(blocks=(Block(FIRST, cites=((0, 0, 1),)), Block("The hold")), stop_reason="max_tokens")
    )
    found = say(client, stream=stream, max_tokens=12)
    assert (found["text"], found["reason"]) == (f"{FIRST}The hold", "length")
    assert found["marks"][-1]["reason"] == "cut_off"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("STOP", f"{FIRST}The hold timer of the edge is "),
        (["never", "STOP", " of the edge"], f"{FIRST}The hold timer"),
        ([FIRST[:5]], ""),
    ],
)
def test_an_answer_ends_before_a_stop_string(
    client: openai.OpenAI,  # noqa: F811
    model: StubProvider,
    stream: bool,
    stop: Any,
    text: str,
) -> None:
    model.script(TWO)
    found = say(client, stream=stream, stop=stop, max_tokens=900)
    assert (found["text"], found["reason"]) == (text, "stop")
    assert all(0 <= each["start"] < each["end"] <= len(text) for each in found["citations"])
    assert "stop_sequences" not in model.requests[-1].body, (
        "citations and what is cached are of the whole answer"
    )


@pytest.mark.parametrize("stream", [False, True])
def test_quoted_and_cached_answers_end_there_too(
    shared: Any,
    client: openai.OpenAI,  # noqa: F811
    stream: bool,
) -> None:
    for cache in ("miss", "exact"):
        found = say(client, stream=stream, cache=True, max_tokens=5)
        whole = whole_text(shared.nina, found["request_id"])
        assert (found["text"], found["reason"]) == (whole[:20], "length") and found[
            "provider"
        ] == "extractive"
        assert found["cache"] in (cache, "exact") and found["usage"].total_tokens == 0
    stopped = say(client, stream=stream, cache=True, stop="30")
    assert stopped["text"] == whole.partition("30")[0] and stopped["reason"] == "stop" and stopped["text"]


def test_a_limited_answer_is_nobody_elses(
    shared: Any,
    client: openai.OpenAI,  # noqa: F811
    model: StubProvider,
) -> None:
    """What the model was made to keep short is not shown to who asks without a limit."""
    model.script(Reply(blocks=(Block("Thirty.", cites=((0, 0, 1),)),)), TWO)
    assert say(client, stream=False, cache=True, max_tokens=20)["text"] == "Thirty."
    assert say(client, stream=False, cache=True)["text"] == FIRST + SECOND
    assert say(client, stream=False, cache=True, max_tokens=20)["cache"] == "exact"


def test_a_limit_holds_for_the_models_that_a_tenant_has_chosen(
    shared: Any,
    client: openai.OpenAI,  # noqa: F811
    model: StubProvider,
) -> None:
    order = [{"provider": "anthropic", "model": "claude-opus-5-5"}]
    assert send(shared.ada, "patch", "model-settings", {"order": order}).status_code == 200
    try:
        model.script(TWO)
        assert say(client, stream=False, max_tokens=10)["reason"] == "length"
        body = model.requests[-1].body
        assert (body["model"], body["max_tokens"]) == ("claude-opus-5-5", 10)
    finally:
        assert send(shared.ada, "patch", "model-settings", {"order": []}).status_code == 200


def test_a_model_that_begins_again_has_no_second_allowance(
    client: openai.OpenAI,  # noqa: F811
    model: StubProvider,
) -> None:
    blocks = (Block(FIRST, cites=((0, 0, 1),)), Block("More of it."))
    broken = Reply(blocks=blocks, after_deltas=4, cut="error")
    model.script(broken, broken)
    found = say(client, stream=True, max_tokens=12)
    assert found["reason"] == "length" and len(found["text"]) == 48 and found["fallback"]
    assert found["text"].startswith(f"{FIRST}\n\n---\n\n")
    assert all(37 <= each["start"] < each["end"] <= 48 for each in found["citations"])
    short = say(client, stream=True, max_tokens=3)
    assert (short["text"], short["reason"], short["citations"]) == (FIRST[:12], "length", [])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        *(
            ({name: value}, name)
            for name in ("max_tokens", "max_completion_tokens")
            for value in ("many", "10", -5, 0, 1.5, True, [], {})
        ),
        *(({"stop": value}, "stop") for value in (5, True, {}, "", [""], ["a", 3], list("abcde"))),
        *(({"n": value}, "n") for value in (0, 2, "two", True)),
        *(({"temperature": value}, "temperature") for value in ("hot", -1, 2.1, True)),
        ({"top_p": 2}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": "x"}, "frequency_penalty"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream_options": {"include_usage": True}, "stream": False}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}, "stream": True}, "stream_options.include_usage"),
    ],
)
def test_wrong_values_are_refused_and_named(shared: Any, change: dict[str, Any], param: str) -> None:
    response = complete(shared.nina, asked(**change))
    check_error(response, 400, "invalid_request_error", response.json()["error"]["code"], param)


def test_what_says_nothing_is_no_limit(shared: Any) -> None:
    for change in ({"max_tokens": None, "stop": None}, {"stop": []}, {"temperature": 0, "top_p": 1.0}):
        body = complete(shared.nina, asked(**change)).json()
        assert body["choices"][0]["finish_reason"] == "stop" and "30 seconds" in str(body)


def parts(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))


@pytest.mark.parametrize(
    ("tokens", "stops", "text", "wanted", "reason"),
    [
        (None, (), "abc", "abc", None),
        (2, (), "12345678", "12345678", None),
        (2, (), "123456789", "12345678", "length"),
        (None, ("aab",), "aaaab!", "aa", "stop"),
        (None, ("ab", "abc"), "xxabcd", "xx", "stop"),
        (None, ("###",), "one ## two ##", "one ## two ##", None),
        (None, ("\n\n",), "one\ntwo\n\nthree", "one\ntwo", "stop"),
        (1, ("cd",), "abcdef", "ab", "stop"),
        (1, ("def",), "abcdef", "abcd", "length"),
    ],
)
def test_a_text_ends_at_the_same_place_however_it_comes(
    tokens: int | None, stops: tuple[str, ...], text: str, wanted: str, reason: str | None
) -> None:
    for size in range(1, len(text) + 1):
        limit = TextLimit(tokens=tokens, stops=stops)
        out = "".join(limit.take(part) for part in parts(text, size)) + limit.finish()
        assert (out, limit.reason) == (wanted, reason), size
        assert limit.end == (len(wanted) if reason else None)
