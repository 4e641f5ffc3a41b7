"""OpenAI's protocol: the official client against a live server, the raw shapes of chat clients, limits, walls."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from asgiref.sync import async_to_sync
from django_redis import get_redis_connection

from knowledge.models import Answer
from tenants.models import AuditEvent, Budget, Tenant, UsageRecord
from tenants.scope import scope
from tests.cast import Member, member_of
from tests.knowledge.helpers import HOLD_TIMER, check_source_offsets, eventually
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.security.helpers import _call_stream, call, key_client, read_body
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
PATH = "/v1/chat/completions"
CHUNK_KEYS = {"id", "object", "created", "model", "choices"}
GOOD = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def asked(text: Any = HOLD_TIMER, **body: Any) -> dict[str, Any]:
    return {"model": "all", "messages": [user(text)], **body}


def complete(member: Member, body: Any = None, **headers: str) -> Any:
    return call(member.client, "POST", PATH, asked() if body is None else body, **headers)


def chunks(member: Member, body: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
    """The chunks of a stream, which ends as it must."""
    response = async_to_sync(_call_stream)(member.client, "POST", PATH, {**body, "stream": True}, headers)
    text = read_body(response).decode()
    assert response.status_code == 200, text
    assert response.headers["Content-Type"] == "text/event-stream"
    lines = text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""] and all(line.startswith("data: ") for line in lines[:-1])
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def check_error(response: Any, status: int, kind: str, code: str, param: str | None = None) -> str:
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["type"], body["error"]["code"], body["error"]["param"]) == (kind, code, param)
    assert response.headers["X-Request-ID"]
    message: str = body["error"]["message"]
    assert message
    return message


def token(member: Member) -> str:
    header: str = member.client.defaults["HTTP_AUTHORIZATION"]
    return header.removeprefix("Bearer ")


@pytest.fixture
def client(shared: Any, shared_site: str) -> Iterator[openai.OpenAI]:
    key = key_client(shared.nina).defaults["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
    with openai.OpenAI(base_url=f"{shared_site}/v1", api_key=key, max_retries=0, timeout=20) as found:
        yield found


def test_the_official_client_gets_an_answer_and_a_stream(
    shared: Any, client: openai.OpenAI, model: StubProvider
) -> None:
    model.script(GOOD, GOOD)
    messages: Any = [{"role": "system", "content": "Talk like a pirate."}, user(HOLD_TIMER)]
    options: Any = {"ragsite": {"cache": False, "tags": ["runbooks"]}}
    whole = client.chat.completions.create(
        model="handbook", messages=messages, temperature=0.2, extra_body=options
    )
    choice = whole.choices[0]
    assert choice.message.content == "The hold timer is 30 seconds."
    assert (choice.finish_reason, choice.message.role, whole.model) == ("stop", "assistant", "handbook")
    assert whole.usage and whole.usage.prompt_tokens > 0 and whole.usage.completion_tokens > 0
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    said: Any = choice.message.model_extra
    found = said["ragsite"]
    assert found["grounded"] and found["answered"] and found["citations"][0]["source"] == 1
    assert {source["collection"] for source in found["sources"]} == {"handbook"}
    check_source_offsets(shared.nina, found)
    assert whole.id == f"chatcmpl-{found['request_id']}" == f"chatcmpl-{whole._request_id}"
    assert "pirate" not in str([request.body for request in model.requests])

    text, last, usage = "", None, None
    stream = client.chat.completions.create(
        model="all",
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=options,
    )
    roles = []
    for chunk in stream:
        if chunk.choices:
            assert chunk.usage is None
            roles.append(chunk.choices[0].delta.role)
            text += chunk.choices[0].delta.content or ""
            last = chunk
        else:
            usage = chunk.usage
    assert text == "The hold timer is 30 seconds." and roles[0] == "assistant" and not any(roles[1:])
    assert last is not None and last.choices[0].finish_reason == "stop"
    streamed: Any = last.choices[0].delta.model_extra
    assert text[slice(*[streamed["ragsite"]["citations"][0][name] for name in ("start", "end")])]
    assert usage is not None and usage.total_tokens > 0

    # The same path as the REST API's: stored, in the ledger, in the audit log, under the key that was used.
    with scope(tenant_id=shared.acme.pk, tags=None):
        answer = Answer.objects.get(pk=found["request_id"])
        assert (answer.endpoint, answer.user_id) == ("chat", shared.nina.membership.user_id)
        (row,) = UsageRecord.objects.filter(request_id=answer.pk)
        prompt = row.input_tokens + row.cache_read_tokens + row.cache_write_tokens
        assert (prompt, row.output_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
        event = AuditEvent.objects.get(action="question.ask", target_id=str(answer.pk))
        assert event.method == "api_key"


def test_the_official_client_lists_models_and_knows_the_errors(shared: Any, client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [(each.id, each.object, each.owned_by) for each in models] == [
        ("all", "model", "ragsite"),
        ("handbook", "model", "ragsite"),
    ]
    assert client.models.retrieve("handbook") == models[1]
    by_id = client.models.retrieve(str(shared.collections["acme"].pk))
    assert by_id.id == "handbook"
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-4o")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": HOLD_TIMER}])
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="all", messages=[{"role": "user", "content": HOLD_TIMER}], n=2)
    assert (refused.value.param, refused.value.code) == ("n", "unsupported_value")
    with pytest.raises(openai.AuthenticationError) as unknown:
        client.with_options(api_key="rsk_wrong").models.list()
    assert unknown.value.code == "invalid_api_key"


async def test_the_official_clients_stream_helper(shared: Any, shared_site: str) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{shared_site}/v1", api_key=token(shared.nina), max_retries=0
    ) as client:
        helper = client.chat.completions.stream(
            model="all", messages=[{"role": "user", "content": HOLD_TIMER}]
        )
        async with helper as stream:
            done = await asyncio.wait_for(stream.get_final_completion(), 20)
    content = done.choices[0].message.content or ""
    assert "30 seconds" in content
    extra: Any = done.choices[0].message.model_extra
    assert extra["ragsite"]["answered"]


def test_the_raw_shapes(shared: Any) -> None:
    body = complete(shared.nina).json()
    assert set(body) == CHUNK_KEYS | {"usage"}
    assert body["object"] == "chat.completion" and isinstance(body["created"], int)
    (choice,) = body["choices"]
    assert set(choice) == {"index", "message", "logprobs", "finish_reason"}
    assert set(choice["message"]) == {"role", "content", "refusal", "ragsite"}
    assert set(body["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}

    found = chunks(shared.nina, asked())
    assert all(set(chunk) == CHUNK_KEYS and chunk["object"] == "chat.completion.chunk" for chunk in found)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in found}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in found]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert set(deltas[-1]) == {"ragsite"} and all(set(delta) == {"content"} for delta in deltas[1:-1])
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None] * (len(found) - 1) + ["stop"]
    counted = chunks(shared.nina, asked(stream_options={"include_usage": True}))
    assert counted[-1]["choices"] == [] and counted[-1]["usage"]["total_tokens"] == 0  # nothing but quoting
    assert all(chunk["usage"] is None for chunk in counted[:-1])


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(
            {
                "stream": True,
                "model": "all",
                "messages": [{"role": "system", "content": "You are helpful."}, user(HOLD_TIMER)],
                "stream_options": {"include_usage": True},
                "temperature": 0.8,
                "top_p": 0.9,
                "max_tokens": 512,
                "stop": ["###"],
                "metadata": {"chat_id": "c-1"},
            },
            id="Open WebUI",
        ),
        pytest.param(
            {
                "model": "all",
                "user": "65f0c0ffee",
                "stream": True,
                "temperature": 1,
                "presence_penalty": 0,
                "frequency_penalty": 0,
                "messages": [user([{"type": "text", "text": HOLD_TIMER}])],
                "tools": [],
                "n": 1,
            },
            id="LibreChat",
        ),
        pytest.param(
            {
                "messages": [
                    {"role": "developer", "content": [{"type": "text", "text": "<important_rules> …"}]},
                    user([{"type": "text", "text": HOLD_TIMER}]),
                ],
                "model": "all",
                "max_tokens": 4096,
                "max_completion_tokens": None,
                "stream": True,
                "tool_choice": None,
                "response_format": {"type": "text"},
                "prediction": None,
            },
            id="Continue",
        ),
    ],
)
def test_what_chat_clients_send(shared: Any, sent: dict[str, Any]) -> None:
    found = chunks(shared.nina, sent)
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in found if c["choices"])
    assert "30 seconds" in text


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{"role": "wizard", "content": "hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "1", "tool_call_id": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "system", "content": "hello"}]}, "messages"),
        ({"messages": [user("hello there"), {"role": "assistant", "content": "Yes?"}]}, "messages"),
        ({"messages": [user("x" * 1001)]}, "messages[0].content"),
        ({"messages": [user("hi")]}, "messages[0].content"),
        ({"messages": [user("nul \0 inside")]}, "messages[0].content"),
        ({"messages": [user("half \ud800 inside")]}, "messages[0].content"),
        ({"messages": [user({"text": "hello"})]}, "messages[0].content"),
        (
            {"messages": [user([{"type": "image_url", "image_url": {"url": "data:,"}}])]},
            "messages[0].content[0].type",
        ),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"ragsite": {"k": 99}}, "ragsite.k"),
        ({"ragsite": 5}, "ragsite"),
    ],
)
def test_what_we_have_not_is_refused_and_named(shared: Any, change: dict[str, Any], param: str) -> None:
    response = complete(shared.nina, asked(**change))
    assert response.json()["error"]["code"] in ("invalid_value", "unsupported_value")
    check_error(response, 400, "invalid_request_error", response.json()["error"]["code"], param)


def test_every_error_has_openais_shape(shared: Any) -> None:
    from django.test import Client

    kind = "invalid_request_error"
    for method, path in (("POST", PATH), ("GET", "/v1/models"), ("GET", "/v1/models/all")):
        response = call(Client(), method, path, asked())
        check_error(response, 401, kind, "invalid_api_key")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    limited = key_client(shared.ada, scopes=["upload"])
    assert "ability" in check_error(call(limited, "POST", PATH, asked()), 403, kind, "forbidden")
    client = shared.nina.client
    check_error(call(client, "GET", PATH), 405, kind, "method_not_allowed")
    check_error(call(client, "GET", "/v1/engines"), 404, kind, "not_found")
    for data in (b"{", b"[1]", b"\xff", b"[" * 100_000):
        response = client.generic("POST", PATH, data, "application/json")
        check_error(response, 400, kind, response.json()["error"]["code"])
    check_error(client.generic("POST", PATH, b"a=1", "text/plain"), 415, kind, "unsupported_media_type")


def test_limits_and_budgets_are_told_as_openai_tells_them(shared: Any, model: StubProvider) -> None:
    rows = Tenant.objects.using("platform").filter(pk=shared.acme.pk)
    rows.update(user_requests=1)
    try:
        nina = member_of(slug="acme", username="nina")
        assert "RateLimit" in complete(nina).headers
        response = complete(nina)
        check_error(response, 429, "requests", "rate_limit_exceeded")
        assert int(response.headers["Retry-After"]) > 0
    finally:
        rows.update(user_requests=None)
    get_redis_connection("default").flushdb()  # the buckets are full again
    rows.update(user_tokens=1)
    try:
        nina = member_of(slug="acme", username="nina")
        for _ in range(2):
            response = complete(nina, asked(ragsite={"cache": False}))
        check_error(response, 429, "tokens", "rate_limit_exceeded")
    finally:
        rows.update(user_tokens=None)
    get_redis_connection("default").flushdb()
    with scope(tenant_id=shared.acme.pk, tags=None):
        Budget.objects.create(subject="tenant", period="month", hard_usd="0.0000001")
    try:
        calls = len(model.requests)
        for stream in (False, True):
            body = asked(stream=stream, ragsite={"cache": False})
            response = async_to_sync(_call_stream)(shared.ada.client, "POST", PATH, body, {})
            check_error(response, 402, "insufficient_quota", "insufficient_quota")
            assert int(response.headers["Retry-After"]) > 0
        assert len(model.requests) == calls
    finally:
        with scope(tenant_id=shared.acme.pk, tags=None):
            Budget.objects.all().delete()


def test_a_database_that_is_away_is_a_503_in_openais_shape(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr("knowledge.api.openai.base.access_collections", away)
    response = complete(shared.nina, asked(model="handbook"))
    check_error(response, 503, "server_error", "database_unavailable")
    assert response.headers["Retry-After"] == "30"
    monkeypatch.setattr("tenants.middleware.resolve_principal", away)  # before any view
    shared.nina.client.raise_request_exception = False
    try:
        response = complete(shared.nina)
    finally:
        shared.nina.client.raise_request_exception = True
    check_error(response, 503, "server_error", "database_unavailable")


def test_a_stream_that_fails_ends_in_an_error_that_the_official_client_raises(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    def away(**_: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr("knowledge.answering.storing.store_answer", away)
    text = ""
    stream = client.chat.completions.create(
        model="all", messages=[{"role": "user", "content": HOLD_TIMER}], stream=True
    )
    with pytest.raises(openai.APIError) as failed:
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert "30 seconds" in text
    assert (failed.value.type, failed.value.code) == ("server_error", "database_unavailable")


def test_a_client_that_leaves_cancels_the_call_upstream(client: openai.OpenAI, model: StubProvider) -> None:
    model.script(
        Reply(
            blocks=(Block("The hold timer is 30 seconds. ", cites=((0, 0, 1),)), Block("More.")),
            after_deltas=4,
        )
    )
    options: Any = {"ragsite": {"cache": False}}
    asked_before = len(model.requests)
    with client.chat.completions.create(
        model="all", messages=[{"role": "user", "content": HOLD_TIMER}], stream=True, extra_body=options
    ) as stream:
        assert next(iter(stream)).choices[0].delta.role == "assistant"
        eventually(lambda: len(model.requests) > asked_before, 5, "the model was not asked")
    assert model.wait_for_disconnect(2), "the call upstream went on"


def test_earlier_messages_make_a_follow_up_stand_alone(shared: Any, model: StubProvider) -> None:
    model.script(Reply(blocks=(Block("Whom to call when a BGP session stays down?"),)), GOOD)
    history = [
        {"role": "system", "content": "You are a parrot."},
        {"role": "assistant", "content": "How can I help?"},
        user("What does the runbook say"),
        user([{"type": "text", "text": "about a BGP session down?"}]),
        {"role": "assistant", "content": [{"type": "text", "text": "Look at the neighbour."}]},
        user("And whom do I call?"),
    ]
    found = complete(shared.nina, asked() | {"messages": history}).json()["choices"][0]["message"]["ragsite"]
    rewrite, answer = (request.body for request in model.requests[-2:])
    seen = str(rewrite["messages"])
    assert "What does the runbook say\\nabout a BGP session down?" in seen.replace("\\\\n", "\\n")
    assert "Look at the neighbour." in seen and "parrot" not in seen + str(answer)
    with scope(tenant_id=shared.acme.pk, tags=None):
        stored = Answer.objects.get(pk=found["request_id"])
        kinds = sorted(UsageRecord.objects.filter(request_id=stored.pk).values_list("kind", flat=True))
    assert stored.question == "And whom do I call?"
    assert stored.standalone_question == "Whom to call when a BGP session stays down?"
    assert kinds == ["answer", "rewrite"]

    # What a client claims to have been said gets into nobody's cache.
    calls = len(model.requests)
    model.script(GOOD)
    other = complete(shared.nina, asked("Whom to call when a BGP session stays down?")).json()
    assert other["choices"][0]["message"]["ragsite"]["cache"] == "miss" and len(model.requests) == calls + 1


def test_a_model_that_begins_again_keeps_the_offsets_right(shared: Any, model: StubProvider) -> None:
    model.script(
        Reply(
            blocks=(Block("The hold timer is 30 seconds. ", cites=((0, 0, 1),)), Block("More of it.")),
            after_deltas=4,
            cut="error",
        ),
        Reply(status=500),
        Reply(status=500),
        Reply(status=500),
    )
    found = chunks(shared.nina, asked(ragsite={"cache": False}))
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in found)
    extension = found[-1]["choices"][0]["delta"]["ragsite"]
    assert extension["provider"] == "extractive" and extension["fallback"]
    assert "30 seconds" in text and extension["citations"]
    begins = text.rfind("\n\n---\n\n")
    for citation in extension["citations"]:
        assert begins < citation["start"] < citation["end"] <= len(text)


def test_a_repeated_request_has_its_effect_once(shared: Any) -> None:
    for stream in (False, True):
        body, header = asked(stream=stream), {"idempotency-key": f"chat-{stream}"}
        first, again = (
            async_to_sync(_call_stream)(shared.nina.client, "POST", PATH, body, header) for _ in "ab"
        )
        assert again.headers["Idempotency-Replayed"] == "true"
        ids = {response.headers["X-Request-ID"] for response in (first, again)}
        told = [read_body(response).decode() for response in (first, again)]
        assert len(ids) == 2 and all(first.headers["X-Request-ID"] in text for text in told)
        assert all("30 seconds" in text for text in told)
    changed = complete(shared.nina, asked("Another question?"), **{"idempotency-key": "chat-False"})
    check_error(changed, 400, "invalid_request_error", "idempotency_key_reused")


def test_no_tenant_and_no_role_sees_more_by_this_way(shared: Any) -> None:
    """The walls: a foreign tenant's documents and collections, and a tag that the role lacks."""
    own = {name: {str(d.pk) for d in documents.values()} for name, documents in shared.documents.items()}
    ways = {"acme": (shared.nina, shared.ada), "globex": (shared.gina, shared.gus)}
    for tenant, members in ways.items():
        other = "180 seconds" if tenant == "acme" else "30 seconds"
        for member in members:
            for way in (member, Member(member.membership, key_client(member), member.principal)):
                extension = complete(way).json()["choices"][0]["message"]["ragsite"]
                documents = {source["document_id"] for source in extension["sources"]}
                assert documents and documents <= own[tenant]
                text = "".join(
                    chunk["choices"][0]["delta"].get("content", "") for chunk in chunks(way, asked())
                )
                assert other not in text
    secret = "Which jump host did the intruder enter through?"
    assert "marlin-7" in str(complete(shared.sam, asked(secret)).json())
    for member in (shared.nina, shared.hal, shared.gus):
        body = complete(member, asked(secret)).json()
        assert "marlin" not in str(body), member.username
        assert "marlin" not in str(chunks(member, asked(secret)))
    foreign = str(shared.collections["globex"].pk)
    absent = "00000000-0000-4000-8000-000000000000"
    told = [
        check_error(
            complete(shared.ada, asked(model=name)), 404, "invalid_request_error", "model_not_found", "model"
        ).replace(name, "…")
        for name in (foreign, absent)
    ]
    assert told[0] == told[1]
    listed = str(call(shared.ada.client, "GET", "/v1/models").json())
    assert foreign not in listed and "Globex" not in listed
