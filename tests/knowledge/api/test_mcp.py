"""The Model Context Protocol: the SDK's own client against a live server, limits, audit, walls, origins."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from django.test import Client
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from knowledge.models import Answer
from tenants.models import AuditEvent, Budget, Tenant, UsageRecord
from tenants.scope import scope
from tests.cast import Member, member_of
from tests.knowledge.helpers import ANSWER_KEYS, HOLD_TIMER, SOURCE_KEYS, check_problem
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.security.helpers import key_client
from tests.stub_provider import Block, Reply, StubProvider

pytestmark = on_shared_cast
GOOD = Reply(blocks=(Block("The hold timer is 30 seconds.", cites=((0, 0, 1),)),))
ACCEPT = "application/json, text/event-stream"


def with_client(
    site: str, client: Client, work: Callable[[McpClient], Awaitable[Any]], **options: Any
) -> Any:
    """Runs ``work`` with the SDK's client, signed in as ``client`` is."""

    async def run() -> Any:
        headers = {"authorization": client.defaults["HTTP_AUTHORIZATION"]}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=20) as http,
            McpClient(streamable_http_client(f"{site}/mcp", http_client=http), **options) as found,
        ):
            return await work(found)

    return asyncio.run(run())


def rpc(client: Client, method: str, params: Any = None, **headers: str) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    return client.generic(
        "POST", "/mcp", json.dumps(body), "application/json", headers={"accept": ACCEPT, **headers}
    )


def use(member: Member | Client, tool: str, **arguments: Any) -> dict[str, Any]:
    client = member if isinstance(member, Client) else member.client
    response = rpc(client, "tools/call", {"name": tool, "arguments": arguments})
    assert response.status_code == 200, response.content
    assert response.headers["Content-Type"] == "application/json"
    found: dict[str, Any] = response.json()["result"]
    return found


def test_the_sdks_client_asks_searches_and_opens(shared: Any, shared_site: str, model: StubProvider) -> None:
    model.script(GOOD)
    key = key_client(shared.nina)

    async def work(client: McpClient) -> Any:
        tools = (await client.list_tools()).tools
        asked = await client.call_tool("ask", {"question": HOLD_TIMER, "cache": False})
        found = await client.call_tool("search", {"question": HOLD_TIMER, "k": 2, "tags": ["runbooks"]})
        document = found.structured_content["sources"][0]["document_id"]
        opened = await client.call_tool("open_document", {"document": document, "length": 40})
        return tools, asked, found, opened

    tools, asked, found, opened = with_client(shared_site, key, work)
    assert [tool.name for tool in tools] == ["ask", "search", "open_document"]
    assert all(tool.description and tool.annotations.read_only_hint for tool in tools)
    answer = asked.structured_content
    assert set(answer) == ANSWER_KEYS and answer["answer"] == "The hold timer is 30 seconds."
    assert asked.content[0].text.startswith("The hold timer is 30 seconds.\n\nSources:\n[1] ")
    assert not (asked.is_error or found.is_error or opened.is_error)
    assert set(found.structured_content["sources"][0]) >= SOURCE_KEYS
    runbook = shared.documents["acme"]["bgp-session-down.md"]
    text = opened.structured_content
    assert text["document_id"] == str(runbook.pk) and text["total"] == len(runbook.text)
    assert text["text"] == runbook.text[:40] and (text["start"], text["end"]) == (0, 40)
    assert "It goes on: start at 40" in opened.content[0].text

    # The same path as the REST API's: stored, in the ledger, in the audit log.
    with scope(tenant_id=shared.acme.pk, tags=None):
        stored = Answer.objects.get(pk=answer["request_id"])
        assert (stored.endpoint, stored.user_id) == ("mcp", shared.nina.membership.user_id)
        (row,) = UsageRecord.objects.filter(request_id=stored.pk)
        used = row.input_tokens + row.cache_read_tokens + row.cache_write_tokens
        assert used == answer["usage"]["input_tokens"] > 0
        assert AuditEvent.objects.get(target_id=str(stored.pk)).method == "api_key"
        read = AuditEvent.objects.filter(action="document.read", target_id=str(runbook.pk)).latest("at")
        assert (read.method, read.actor_id) == ("api_key", shared.nina.membership.user_id)


def test_the_handshake_of_older_clients_and_what_is_no_tool(shared: Any, shared_site: str) -> None:
    async def work(client: McpClient) -> Any:
        with pytest.raises(Exception, match="Unknown tool"):
            await client.call_tool("delete_everything", {})
        return await client.call_tool("ask", {"question": HOLD_TIMER})

    for mode in ("legacy", "auto"):
        told = with_client(shared_site, shared.nina.client, work, mode=mode)
        assert "30 seconds" in told.content[0].text, mode


def test_problems_are_told_where_the_calling_model_reads_them(shared: Any) -> None:
    short = use(shared.nina, "ask", question="?")
    assert short["isError"] and "question: " in short["content"][0]["text"]
    assert short["structuredContent"]["type"] == "/problems/invalid"
    many = use(shared.nina, "search", question=HOLD_TIMER, k=500)
    assert many["isError"] and "k: " in many["content"][0]["text"]
    absent = use(shared.nina, "open_document", document=str(uuid.uuid4()))
    assert absent["isError"] and absent["structuredContent"]["status"] == 404
    rows = Tenant.objects.using("platform").filter(pk=shared.acme.pk)
    rows.update(user_requests=1)
    try:
        nina = member_of(slug="acme", username="nina")
        first = rpc(nina.client, "tools/call", {"name": "search", "arguments": {"question": HOLD_TIMER}})
        assert "RateLimit" in first.headers
        for tool, arguments in (
            ("ask", {"question": HOLD_TIMER}),
            ("search", {"question": HOLD_TIMER}),
            ("open_document", {"document": str(uuid.uuid4())}),
        ):
            limited = use(nina, tool, **arguments)
            assert limited["isError"] and limited["structuredContent"]["status"] == 429
            assert int(limited["structuredContent"]["retry_after"]) > 0
    finally:
        rows.update(user_requests=None)


def test_a_budget_that_is_spent_is_told_there_too(shared: Any, model: StubProvider) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        Budget.objects.create(subject="tenant", period="month", hard_usd="0.0000001")
    try:
        refused = use(shared.nina, "ask", question=HOLD_TIMER, cache=False)
    finally:
        with scope(tenant_id=shared.acme.pk, tags=None):
            Budget.objects.all().delete()
    told = refused["structuredContent"]
    assert refused["isError"] and (told["status"], told["type"]) == (402, "/problems/budget-exhausted")
    assert told["detail"] in refused["content"][0]["text"] and int(told["retry_after"]) > 0
    assert model.requests == []
    # What costs nothing goes on.
    assert not use(shared.nina, "search", question=HOLD_TIMER)["isError"]


def test_who_may_not_ask_is_stopped_at_the_door(shared: Any) -> None:
    check_problem(rpc(Client(), "tools/list"), 401)
    assert "Bearer" in rpc(Client(), "tools/list").headers["WWW-Authenticate"]
    check_problem(rpc(key_client(shared.ada, scopes=["upload"]), "tools/list"), 403)
    check_problem(shared.nina.client.get("/mcp"), 405)
    check_problem(shared.nina.client.delete("/mcp"), 405)
    for body in (b"{", b"[]", b"\xff", b"null", b"[" * 100_000):
        response = shared.nina.client.generic(
            "POST", "/mcp", body, "application/json", headers={"accept": ACCEPT}
        )
        assert response.status_code == 400, body[:10]


def test_pages_of_other_sites_are_refused(shared: Any, settings: Any) -> None:
    client = shared.nina.client
    assert rpc(client, "tools/list").status_code == 200
    assert rpc(client, "tools/list", origin="http://testserver").status_code == 200
    for origin in ("http://evil.example", "null", "http://testserver.evil.example", "https://testserver"):
        check_problem(rpc(client, "tools/list", origin=origin), 403, "foreign-origin")
    settings.CSRF_TRUSTED_ORIGINS = ["https://chat.example.com"]
    assert rpc(client, "tools/list", origin="https://chat.example.com").status_code == 200
    # A name that an attacker pointed to our address (DNS rebinding).
    settings.ALLOWED_HOSTS = ["testserver"]
    check_problem(rpc(client, "tools/list", host="rebound.example"), 400)


def test_no_tenant_and_no_role_sees_more_by_this_way(shared: Any) -> None:
    own = {name: {str(d.pk) for d in documents.values()} for name, documents in shared.documents.items()}
    for tenant, members in {"acme": (shared.nina, shared.ada), "globex": (shared.gina, shared.gus)}.items():
        other = "180 seconds" if tenant == "acme" else "30 seconds"
        for client in [way for m in members for way in (m.client, key_client(m))]:
            for tool in ("ask", "search"):
                result = use(client, tool, question=HOLD_TIMER)
                documents = {s["document_id"] for s in result["structuredContent"]["sources"]}
                assert documents and documents <= own[tenant]
                assert other not in str(result)
    # A foreign document, one whose tag the role lacks, and one that never was: the same words.
    foreign = shared.documents["globex"]["bgp-session-down.md"].pk
    hidden = shared.documents["acme"]["incident-0042.md"].pk
    assert "marlin-7" in str(use(shared.sam, "open_document", document=str(hidden)))
    told = []
    for pk in (foreign, hidden, uuid.uuid4()):
        result = use(shared.nina, "open_document", document=str(pk))
        assert result["isError"]
        result["structuredContent"].pop("request_id")
        told.append(result)
    assert told[0] == told[1] == told[2]
    secret = "Which jump host did the intruder enter through?"
    for member in (shared.nina, shared.hal, shared.gus):
        for tool in ("ask", "search"):
            assert "marlin" not in str(use(member, tool, question=secret)["structuredContent"]["sources"])
    collection = use(
        shared.nina, "search", question=HOLD_TIMER, collections=[str(shared.collections["globex"].pk)]
    )
    assert collection["isError"] and collection["structuredContent"]["status"] == 404


def test_a_client_that_leaves_cancels_the_call_upstream(
    shared: Any, shared_site: str, model: StubProvider
) -> None:
    model.script(Reply(blocks=GOOD.blocks, after_deltas=1, cut="hang"))
    body = {"name": "ask", "arguments": {"question": HOLD_TIMER, "cache": False}}
    headers = {"accept": ACCEPT, "authorization": shared.nina.client.defaults["HTTP_AUTHORIZATION"]}
    calls = len(model.requests)
    with httpx2.Client(headers=headers, timeout=1) as client, pytest.raises(httpx2.ReadTimeout):
        client.post(
            f"{shared_site}/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": body}
        )
    assert len(model.requests) == calls + 1
    assert model.wait_for_disconnect(2), "the call upstream went on"


@pytest.mark.long
def test_a_process_without_such_users_does_not_load_the_sdk() -> None:
    code = (
        "import ragsite.asgi, gc, sys;"
        "print('mcp' in sys.modules, 'starlette' in sys.modules, gc.get_freeze_count() > 50_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    *loaded, is_frozen = done.stdout.split()[-3:]
    assert loaded == ["False", "False"], done.stderr[-500:]
    assert is_frozen == "True", "a full collection holds every request up"
