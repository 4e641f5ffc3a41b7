"""What the tests of the API and of indexing say often."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jsonschema
from asgiref.sync import async_to_sync
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient

from tests.cast import Member

PROBLEM_KEYS = {"type", "title", "status", "detail", "request_id"}
# fmt: off
ANSWER_KEYS = {
    "request_id", "question", "answer", "sources", "citations", "marks", "cache", "cache_hit", "stale", "confidence",
    "grounded", "answered", "model", "provider", "fallback", "variant", "usage", "latency_ms", "timings", "conversation",
    "timestamp",
}
SOURCE_KEYS = {
    "n", "document_id", "title", "uri", "collection", "chunk_id", "text", "score", "page", "start", "end"
}
JOB_KEYS = {"id", "state", "step", "progress", "documents", "chunks", "errors"}
# fmt: on
HOLD_TIMER = "What is the hold timer on edge routers?"


def send(member: Member, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """A JSON request to ``/api/v1/<path>``."""
    call = getattr(member.client, method)
    if method in ("get", "head") or (method == "delete" and body is None):
        return call(f"/api/v1/{path}", headers=headers)
    data = "" if body is None else json.dumps(body)
    return call(f"/api/v1/{path}", data, content_type="application/json", headers=headers)


def ask(member: Member, question: str = HOLD_TIMER, **body: Any) -> dict[str, Any]:
    response = send(member, "post", "query", {"question": question, **body})
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def upload(
    member: Member, name: str = "note.md", data: bytes = b"# Note\n\nA line of text.\n", **form: Any
) -> Any:
    return member.client.post("/api/v1/documents", {"file": SimpleUploadedFile(name, data), **form})


def run_job(member: Member, task_id: str) -> dict[str, Any]:
    """Does a job's work here and now, and returns the job as its maker sees it."""
    from knowledge.embedding.factory import embedder
    from knowledge.ingestion.run import run_claimed_job
    from tenants.scope import scope

    with scope(tenant_id=member.membership.tenant_id, tags=None):
        run_claimed_job(job_id=str(task_id), embedder=embedder())
    response = send(member, "get", f"tasks/{task_id}")
    assert response.status_code == 200, response.content
    return conforms(response, "/api/v1/tasks/{id}", "get")


def upload_indexed(member: Member, name: str, text: str | bytes, **form: Any) -> str:
    """The id of a document that was uploaded and indexed."""
    response = upload(member, name, text.encode() if isinstance(text, str) else text, **form)
    assert response.status_code == 202, response.content
    job = run_job(member, response.json()["task_id"])
    assert job["state"] == "SUCCESS", job
    return str(response.json()["id"])


def check_problem(response: Any, status: int, code: str = "") -> dict[str, Any]:
    """RFC 9457, as the contract has it."""
    assert response.status_code == status, (response.status_code, response.content[:500])
    assert response.headers["Content-Type"].startswith("application/problem+json")
    body: dict[str, Any] = response.json()
    assert set(body) >= PROBLEM_KEYS, body
    assert body["status"] == status
    assert body["title"] and body["detail"] and body["type"].startswith("/problems/")
    assert body["request_id"] == response.headers["X-Request-ID"]
    for error in body.get("errors", []):
        assert set(error) == {"field", "detail"} and error["detail"]
    if code:
        assert body["type"] == f"/problems/{code}", body
    return body


def walk_pages(member: Member, path: str, page_size: int) -> list[dict[str, Any]]:
    """Every row of a list, by following ``next``; then the way back by ``previous``."""
    url: str | None = f"/api/v1/{path}{'&' if '?' in path else '?'}page_size={page_size}"
    pages: list[list[Any]] = []
    back = None
    while url:
        response = member.client.get(url)
        assert response.status_code == 200, response.content
        body = response.json()
        assert set(body) == {"results", "next", "previous"}
        assert len(body["results"]) <= page_size
        pages.append(body["results"])
        url, back = body["next"], body["previous"]
        assert len(pages) < 500
    returned = [pages[-1]]
    while back:
        body = member.client.get(back).json()
        returned.insert(0, body["results"])
        back = body["previous"]
    assert returned == pages
    return [row for page in pages for row in page]


# Streams


def read_stream(
    member: Member, path: str, body: dict[str, Any] | None = None, *, accept: str = ""
) -> tuple[Any, str]:
    """A response that may be a stream, and its whole body; GET without a ``body``."""

    async def read() -> tuple[Any, str]:
        headers = {"authorization": member.client.defaults["HTTP_AUTHORIZATION"]} | (
            {"accept": accept} if accept else {}
        )
        client = AsyncClient()
        url = f"/api/v1/{path}"
        if body is None:
            response = await client.get(url, headers=headers)
        else:
            response = await client.post(
                url, json.dumps(body), content_type="application/json", headers=headers
            )
        if not response.streaming:
            return response, response.content.decode()
        return response, b"".join([part async for part in response.streaming_content]).decode()

    return async_to_sync(read)()


def read_events(member: Member, path: str, body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The events of an NDJSON stream."""
    response, text = read_stream(member, path, body)
    assert response.status_code == 200, text
    return [json.loads(line) for line in text.splitlines()]


def read_sse(text: str) -> list[dict[str, Any]]:
    """The events of a server-sent stream; checks that type, sequence and object agree."""
    events = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        assert set(fields) == {"event", "id", "data"}, lines
        event = json.loads(fields["data"])
        assert fields["event"] == event["type"]
        assert int(fields["id"]) == len(events) + 1
        events.append(event)
    return events


def check_stream(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Order and shape; returns what the reader ends up with, as an answer object."""
    assert events[0]["type"] == "sources"
    assert [event["type"] for event in events].count("sources") == 1
    assert [event["type"] in ("done", "error") for event in events].index(True) == len(events) - 1
    text, citations, marks = "", [], []
    for event in events:
        assert set(event) == {"type", "data"}
        match event["type"]:
            case "answer_chunk":
                text += event["data"]
            case "citation":
                assert set(event["data"]) == {"source", "start", "end"}
                citations.append(event["data"])
            case "restart":
                assert set(event["data"]) == {"reason"}
                text, citations, marks = "", [], []
            case "mark":
                assert set(event["data"]) == {"start", "end", "reason"}
                marks.append(event["data"])
            case "sources" | "done" | "error":
                pass
            case other:
                raise AssertionError(other)
    last = events[-1]
    if last["type"] == "error":
        assert set(last["data"]) >= PROBLEM_KEYS
        return {"answer": text, "citations": citations, "sources": events[0]["data"]}
    assert set(last["data"]) == ANSWER_KEYS - {"answer", "sources"}
    assert (last["data"]["citations"], last["data"]["marks"]) == (citations, marks)
    return {**last["data"], "answer": text, "sources": events[0]["data"]}


def check_answer(body: dict[str, Any]) -> None:
    """Keys and offsets of an answer object."""
    assert set(body) == ANSWER_KEYS
    assert set(body["usage"]) == {"input_tokens", "output_tokens", "cost_usd"}
    assert [source["n"] for source in body["sources"]] == list(range(1, len(body["sources"]) + 1))
    for source in body["sources"]:
        assert set(source) >= SOURCE_KEYS
        assert 0 <= source["score"] <= 1
    for citation in body["citations"]:
        assert 1 <= citation["source"] <= len(body["sources"])
        assert 0 <= citation["start"] < citation["end"] <= len(body["answer"])
        assert body["answer"][citation["start"] : citation["end"]].strip()
    for mark in body["marks"]:
        assert body["answer"][mark["start"] : mark["end"]].strip()


def check_source_offsets(member: Member, body: dict[str, Any]) -> None:
    """A source's text lies in its document exactly where it says."""
    for source in body["sources"]:
        content = send(member, "get", f"documents/{source['document_id']}/content").json()
        assert content["text"][source["start"] : source["end"]] == source["text"]


# The schema


@cache
def schema() -> dict[str, Any]:
    from drf_spectacular.generators import SchemaGenerator

    found: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return found


def _strict(node: Any) -> Any:
    """OpenAPI 3.0's schema as JSON Schema that allows no key beyond those it names."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: _strict(value) for key, value in node.items() if key not in ("nullable", "pattern")}
    if node.get("type") == "object" and "properties" in node:
        out["additionalProperties"] = False
    if node.get("nullable"):
        out = {"anyOf": [out, {"type": "null"}]}
    return out


@cache
def _components() -> Any:
    return _strict(schema()["components"])


def conforms(response: Any, path: str, method: str) -> Any:
    """The body, after it has been held against the published schema."""
    assert response.headers["X-Request-ID"]
    operation = schema()["paths"][path][method]
    described = operation["responses"][str(response.status_code)]
    if response.status_code == 204:
        assert not response.content
        return None
    body = response.json()
    wanted = described["content"]["application/json"]["schema"]
    root = {**_strict(wanted), "components": _components()}
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(root).iter_errors(body))
    assert error is None, f"{method} {path}: {error.json_path}: {error.message[:300]}"
    return body


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in schema()["paths"].items():
        for method, operation in item.items():
            if method in ("get", "post", "put", "patch", "delete"):
                yield path, method, operation


def eventually(check: Callable[[], Any], seconds: float = 10, what: str = "it never came true") -> Any:
    """Waits until ``check`` returns something true; returns that."""
    import time

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.03)
    raise AssertionError(what)
