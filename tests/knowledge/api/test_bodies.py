"""Whatever is sent, the answer is a clear 4xx, never a 5xx: a sweep over every operation of the schema."""

import json
import time
from typing import Any
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from tests.knowledge.helpers import check_problem, operations, schema, send, upload
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast

JSON = "application/json"
MALFORMED = [
    b"",
    b"{",
    b"nonsense",
    b'{"question": "\xff\xfe"}',
    b'{"question": NaN}',
    b'"text"',
    b"[]",
    b"7",
    b"null",
    b"[" * 100_000,
    b'{"a":' * 50_000,
]
VALUES: list[Any] = [
    None, -1, 1.5, {}, "", "a\0b", "\ud800", "x" * 5000, [], ["\0"], [[[]]], {"\0": 1}, [None], "../../etc/passwd",
    "2026-99-99",
]  # fmt: skip
# These are tried in each field alone, where nothing else hides what they do.
NASTY: list[Any] = [10**30, ["\ud800"]]


def fill(path: str) -> str:
    return path.replace("{id}", str(uuid4()))


def properties(operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    reference = content.get(JSON, {}).get("schema", {}).get("$ref", "")
    found: dict[str, Any] = (
        schema()["components"]["schemas"][reference.rsplit("/", 1)[-1]]["properties"] if reference else {}
    )
    return found


def is_clear(response: Any, what: Any) -> None:
    assert response.status_code < 500, (what, response.status_code)
    assert response.headers["X-Request-ID"], what
    if response.status_code >= 400:
        check_problem(response, response.status_code)


def test_bodies_that_are_no_json_objects(shared: Any) -> None:
    shared.ada.client.raise_request_exception = False
    for path, method, operation in operations():
        if not properties(operation):
            continue
        for body in MALFORMED:
            response = getattr(shared.ada.client, method)(fill(path), body, content_type=JSON)
            is_clear(response, (method, path, body[:30]))
            assert response.status_code >= 400 or method == "patch" or path.endswith(("reindex", "warm")), (
                path,
                body[:30],
            )


def test_wrong_values_for_every_field(shared: Any) -> None:
    shared.ada.client.raise_request_exception = False
    seen = 0
    for path, method, operation in operations():
        fields = properties(operation)
        if not fields or path.endswith("/token"):
            continue
        good = {"question": "bgp", "name": "n", "members": ["ada"], "request_id": str(uuid4())}
        base = {key: given for key, given in good.items() if key in fields}
        bodies = [dict.fromkeys(fields, value) for value in VALUES]
        bodies += [base | {name: value} for name in fields for value in NASTY]
        for body in bodies:
            response = getattr(shared.ada.client, method)(fill(path), json.dumps(body), content_type=JSON)
            is_clear(response, (method, path, str(body)[:200]))
            seen += 1
    assert seen > 200


def test_wrong_query_strings(shared: Any) -> None:
    shared.ada.client.raise_request_exception = False
    for path, method, operation in operations():
        if method != "get":
            continue
        for parameter in operation.get("parameters", []):
            if parameter["in"] != "query":
                continue
            for value in ("", "\0", "\ud7ff", "-1", "x" * 3000, "2026-99-99", "' OR 1=1", "1e999"):
                response = shared.ada.client.get(fill(path), {parameter["name"]: value})
                is_clear(response, (path, parameter["name"], value))


def test_paths_that_are_no_ids(shared: Any) -> None:
    for path in ("documents/1", "documents/%00", f"documents/{uuid4()}x", "nothing", "query/"):
        check_problem(shared.ada.client.get(f"/api/v1/{path}"), 404, "not-found")
    check_problem(shared.ada.client.get("/api/v1/query"), 405)
    check_problem(shared.ada.client.get("/api/v1/query/stream"), 405)
    check_problem(shared.ada.client.delete("/api/v1/me"), 405)


def test_large_bodies(shared: Any) -> None:
    begun = time.monotonic()
    for path in ("query", "query/stream", "collections", "feedback"):
        body = json.dumps({"question": "x" * 3_000_000, "name": "x" * 3_000_000})
        response = shared.ada.client.post(f"/api/v1/{path}", body, content_type=JSON)
        is_clear(response, path)
        assert response.status_code in (400, 413)
        assert len(response.content) < 5000
    assert time.monotonic() - begun < 20


def test_other_content_types_and_formats(shared: Any) -> None:
    for path in ("query", "search", "collections"):
        check_problem(shared.ada.client.post(f"/api/v1/{path}", "a=1", content_type="text/plain"), 415)
        check_problem(shared.ada.client.post(f"/api/v1/{path}", {"question": "bgp"}), 415)
    refused = send(shared.ada, "post", "query", {"question": "bgp"}, accept="text/html")
    check_problem(refused, 406)
    multipart = "multipart/form-data; boundary=x"
    for body in (b"", b"--x\r\nnonsense", b"--x--\r\n", b"\xff" * 2000):
        check_problem(shared.ada.client.post("/api/v1/documents", body, content_type=multipart), 400)
    broken = shared.ada.client.post("/api/v1/documents", b"", content_type="multipart/form-data")
    check_problem(broken, 400)
    check_problem(send(shared.ada, "post", "documents", {"file": "x"}), 415)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a\0b.md", {}),
        ("x" * 300 + ".md", {}),
        ("note.md", {"tags": ["\0"]}),
        ("note.md", {"tags": ["a,b"]}),
        ("note.md", {"tags": ["configs"] * 51}),
        ("note.md", {"title": "\0"}),
        ("note.md", {"title": "x" * 501}),
        ("note.md", {"collection": "\0"}),
        (".md", {}),
    ],
)
def test_odd_uploads(shared: Any, name: str, form: dict[str, Any]) -> None:
    shared.ada.client.raise_request_exception = False
    is_clear(upload(shared.ada, name, **form), (name, form))


def test_a_file_field_that_is_no_file(shared: Any) -> None:
    refused = shared.ada.client.post("/api/v1/documents", {"file": "text"})
    assert check_problem(refused, 400)["errors"][0]["field"] == "file"
    refused = shared.ada.client.post("/api/v1/documents", {"other": SimpleUploadedFile("a.md", b"x")})
    assert check_problem(refused, 400)["errors"][0]["field"] == "file"
