"""Cursor paging of every list."""

from typing import Any

from tests.knowledge.helpers import ask, check_problem, operations, send, upload, walk_pages
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


def test_every_page_of_every_list_is_reached_once(shared: Any, configure: Any, tmp_path: Any) -> None:
    configure(RAGSITE_INGEST_ROOT=tmp_path)
    for number in range(5):
        send(shared.ada, "post", "collections", {"name": "The same name", "slug": f"c{number}"})
        (tmp_path / f"f{number}").mkdir()
        send(shared.ada, "post", "sources", {"name": f"s{number}", "path": f"f{number}"})
        send(shared.ada, "post", "api-keys", {"name": f"k{number}"})
        ask(shared.ada, f"Question number {number} about nothing?")
        upload(shared.ada, f"n{number}.md")
        send(shared.ada, "post", "document-requests", {"question": f"Where is plan {number}?"})
        send(shared.ada, "post", "members", {"email": f"new{number}@acme.example", "role": "helpdesk"})
    wanted = {
        "collections": 7,  # and the handbook, and uploads
        "sources": 5,
        "api-keys": 5,
        "conversations": 5,
        "documents": 10,
        "tasks": 5,
        "members": 5,
        "invitations": 5,
        "document-requests": 5,
        "roles": 5,
        "audit": 0,
    }
    lists = {
        path.removeprefix("/api/v1/") for path, method, o in operations() if method == "get" and _pages(o)
    }
    assert lists == {*wanted, "sources/{id}/excluded"}  # that one in test_exclusions.py
    for path, count in wanted.items():
        for size in (1, 2, 3, 200) if path != "audit" else (7, 200):
            rows = walk_pages(shared.ada, path, size)
            ids = [row["id"] for row in rows]
            assert len(set(ids)) == len(ids) and len(ids) >= count, (path, size)
            if path not in ("audit",):
                assert len(ids) == count, (path, size)
    assert len(walk_pages(shared.ada, "documents?q=n", 2)) >= 5
    assert len(send(shared.ada, "get", "documents?page_size=100000").json()["results"]) == 10


def _pages(operation: dict[str, Any]) -> bool:
    shape = operation["responses"]["200"].get("content", {}).get("application/json", {}).get("schema", {})
    return str(shape.get("$ref", "")).endswith("Page")


def test_broken_cursors_are_the_clients_error(shared: Any) -> None:
    # “p=yesterday”, “p=NUL”, “o=-1”, “o=10**30”, no base64 at all, not UTF-8
    for cursor in (
        "cD15ZXN0ZXJkYXk=",
        "cD0A",
        "bz0tMQ==",
        "bz0xMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=",
        "%%%",
        "/////w==",
    ):
        for path in ("documents", "collections", "audit", "conversations", "members"):
            response = shared.ada.client.get(f"/api/v1/{path}", {"cursor": cursor})
            assert response.status_code in (200, 400), (path, cursor, response.content)
            if response.status_code == 400:
                check_problem(response, 400)
    check_problem(send(shared.ada, "get", "documents?cursor=%00"), 400)
