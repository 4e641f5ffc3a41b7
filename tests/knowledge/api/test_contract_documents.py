"""The contract's rows of collections, documents, sources and jobs."""

from typing import Any
from uuid import uuid4

import pytest

from tests.knowledge.helpers import (
    JOB_KEYS,
    check_problem,
    conforms,
    run_job,
    send,
    upload,
    upload_indexed,
)
from tests.knowledge.rows import signed_in
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


@pytest.fixture
def folder(tmp_path: Any, configure: Any) -> Any:
    """A folder below the allowed root, with two documents."""
    configure(RAGSITE_INGEST_ROOT=tmp_path)
    place = tmp_path / "handbook"
    place.mkdir()
    (place / "one.md").write_text("# One\n\nThe first document speaks of optics.\n")
    (place / "two.txt").write_text("The second document speaks of cables.\n")
    return place


def test_collections(shared: Any) -> None:
    form = {"name": "Runbooks", "default_tags": ["runbooks"], "language": "german", "content_class": "state"}
    made = conforms(
        send(shared.ada, "post", "collections", {**form, "retention_days": 30}), "/api/v1/collections", "post"
    )
    assert made["slug"] == "runbooks" and made["retention_days"] == 30
    path = f"collections/{made['id']}"
    conforms(send(shared.nina, "get", path), "/api/v1/collections/{id}", "get")
    listed = conforms(send(shared.nina, "get", "collections"), "/api/v1/collections", "get")["results"]
    assert "runbooks" in {row["slug"] for row in listed}
    changed = send(shared.ada, "patch", path, {"name": "All runbooks"})
    assert conforms(changed, "/api/v1/collections/{id}", "patch")["name"] == "All runbooks"
    check_problem(send(shared.ada, "post", "collections", form), 409, "conflict")
    for wrong in (
        {"language": "klingon"},
        {"default_tags": ["No Tag"]},
        {"retention_days": 0},
        {"slug": "a b"},
    ):
        problem = check_problem(send(shared.ada, "patch", path, wrong), 400)
        assert problem["errors"][0]["field"].split(".")[0] == next(iter(wrong))
    check_problem(send(shared.nina, "post", "collections", form), 403)
    check_problem(send(shared.gus, "get", path), 404)
    conforms(send(shared.ada, "delete", path), "/api/v1/collections/{id}", "delete")
    handbook = shared.collections["acme"].pk
    check_problem(send(shared.ada, "delete", f"collections/{handbook}"), 409, "not-empty")


def test_a_document_from_upload_to_erasure_of_its_traces(shared: Any) -> None:
    response = upload(
        shared.nina,
        "peers.md",
        b"# Peers\n\nThe osprey peer speaks on port 1179.\n",
        tags=["configs", "runbooks"],
    )
    accepted = conforms(response, "/api/v1/documents", "post")
    assert response.status_code == 202 and set(accepted) == {"id", "task_id", "status_url"}
    assert response.headers["Location"] == accepted["status_url"]
    job = shared.nina.client.get(accepted["status_url"]).json()
    assert set(job) >= JOB_KEYS and (job["state"], job["progress"]) == ("PENDING", 0)
    done = run_job(shared.nina, accepted["task_id"])
    assert (done["state"], done["progress"]) == ("SUCCESS", 100)
    assert done["documents"] == {"seen": 1, "changed": 1, "unchanged": 0, "deleted": 0, "failed": 0}
    assert done["chunks"] == {"added": 1, "kept": 0, "removed": 0} and done["errors"] == []
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]

    path = f"documents/{accepted['id']}"
    document = conforms(send(shared.nina, "get", path), "/api/v1/documents/{id}", "get")
    assert document["title"] == "Peers" and document["tags"] == ["configs", "runbooks"]
    assert document["status"] == "indexed" and document["chunk_count"] == 1
    content = conforms(send(shared.nina, "get", f"{path}/content"), "/api/v1/documents/{id}/content", "get")
    assert "port 1179" in content["text"]

    changed = send(shared.nina, "patch", path, {"title": "Osprey", "tags": ["configs"]})
    assert conforms(changed, "/api/v1/documents/{id}", "patch")["tags"] == ["configs"]
    check_problem(send(shared.hal, "get", path), 404)
    check_problem(send(shared.hal, "delete", path), 403)
    check_problem(send(shared.gina, "delete", path), 404)
    check_problem(send(shared.nina, "patch", path, {"tags": []}), 400)

    conforms(send(shared.nina, "delete", path), "/api/v1/documents/{id}", "delete")
    for gone in (path, f"{path}/content", f"{path}/original"):
        check_problem(send(shared.nina, "get", gone), 404, "not-found")
    deleted = send(shared.nina, "get", "documents?deleted=true").json()["results"]
    assert [row["id"] for row in deleted] == [accepted["id"]]
    restored = send(shared.nina, "post", f"{path}/restore")
    assert conforms(restored, "/api/v1/documents/{id}/restore", "post")["title"] == "Osprey"
    check_problem(send(shared.nina, "post", f"{path}/restore"), 404)


def test_new_content_answers_once_it_is_indexed(shared: Any) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile
    from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

    document = upload_indexed(shared.ada, "mtu.md", "# MTU\n\nThe MTU is 1500.\n")

    def put(name: str, data: bytes) -> Any:
        body = encode_multipart(BOUNDARY, {"file": SimpleUploadedFile(name, data)})
        return shared.ada.client.put(f"/api/v1/documents/{document}", body, content_type=MULTIPART_CONTENT)

    accepted = put("mtu.md", b"# MTU\n\nThe MTU is 9000.\n")
    body = conforms(accepted, "/api/v1/documents/{id}", "put")
    assert accepted.status_code == 202 and body["id"] == document

    def text() -> str:
        found: str = send(shared.ada, "get", f"documents/{document}/content").json()["text"]
        return found

    assert "1500" in text()
    assert run_job(shared.ada, body["task_id"])["chunks"] == {"added": 1, "kept": 0, "removed": 1}
    assert "9000" in text()
    assert send(shared.ada, "get", f"documents/{document}").json()["version"] == 2
    check_problem(put("mtu.exe", b"MZ\x90"), 415)
    check_problem(put("mtu.md", b""), 400)
    check_problem(send(shared.ada, "put", f"documents/{document}", {"file": "x"}), 415)


def test_the_list_of_documents_filters(shared: Any) -> None:
    def titles(query: str) -> set[str]:
        response = send(shared.sam, "get", f"documents?{query}")
        return {row["title"] for row in conforms(response, "/api/v1/documents", "get")["results"]}

    assert titles("tag=incident_reports") == {"Incident INC-0042"}
    assert "Incident INC-0042" in titles("collection=handbook&status=indexed&q=inc-00")
    assert titles("q=merger") == titles("status=failed") == titles("tag=runbooks") == set()
    check_problem(send(shared.sam, "get", "documents?collection=absent"), 404)
    check_problem(send(shared.sam, "get", "documents?cursor=nonsense"), 400, "invalid-cursor")
    check_problem(send(shared.hal, "get", "documents?deleted=true"), 403)


def test_sources_ingest_and_sync(shared: Any, folder: Any) -> None:
    form = {"name": "Files", "path": "handbook", "tags": ["runbooks"], "collection": "handbook"}
    source = conforms(send(shared.ada, "post", "sources", form), "/api/v1/sources", "post")
    path = f"sources/{source['id']}"
    conforms(send(shared.ada, "get", path), "/api/v1/sources/{id}", "get")
    conforms(send(shared.ada, "get", "sources"), "/api/v1/sources", "get")
    assert conforms(send(shared.ada, "patch", path, {"name": "All files"}), "/api/v1/sources/{id}", "patch")
    started = send(shared.ada, "post", f"{path}/sync")
    body = conforms(started, "/api/v1/sources/{id}/sync", "post")
    assert started.status_code == 202 and set(body) == {"task_id", "status", "status_url"}
    assert body["status"] == "started"
    # While it waits, another start is the same job.
    assert send(shared.ada, "post", "ingest", {"source": source["id"]}).json()["task_id"] == body["task_id"]
    done = run_job(shared.ada, body["task_id"])
    assert done["state"] == "SUCCESS" and done["documents"]["changed"] == 2
    again = conforms(send(shared.ada, "post", "ingest", {"source": source["id"]}), "/api/v1/ingest", "post")
    assert again["task_id"] != body["task_id"]
    assert run_job(shared.ada, again["task_id"])["documents"]["unchanged"] == 2
    assert {d["source"] for d in send(shared.nina, "get", "documents?q=.").json()["results"]} >= {
        source["id"]
    }

    check_problem(send(shared.ada, "post", "sources", form), 409)
    for wrong in ({"path": "../.."}, {"path": "/etc"}, {"path": "absent"}, {"schedule": "* *"}):
        assert check_problem(send(shared.ada, "patch", path, wrong), 400)["errors"][0]["field"] in wrong
    check_problem(send(shared.nina, "get", "sources"), 403)
    check_problem(send(shared.gus, "get", path), 404)
    check_problem(send(shared.gus, "post", f"{path}/sync"), 404)
    conforms(send(shared.ada, "delete", path), "/api/v1/sources/{id}", "delete")
    assert not send(shared.ada, "get", "documents?q=one.md").json()["results"]


def test_ingest_takes_a_folder_below_the_allowed_root(shared: Any, folder: Any) -> None:
    body = {"directory": "handbook", "tags": ["faq"]}
    started = conforms(send(shared.ada, "post", "ingest", body), "/api/v1/ingest", "post")
    assert run_job(shared.ada, started["task_id"])["documents"]["changed"] == 2
    hits = send(shared.hal, "post", "search", {"question": "optics", "tags": ["faq"]}).json()["sources"]
    assert hits[0]["uri"] == "one.md" and hits[0]["collection"] == "uploads"
    for wrong in (
        {},
        {"directory": "../"},
        {"directory": "/etc"},
        {"directory": "x", "source": str(uuid4())},
    ):
        check_problem(send(shared.ada, "post", "ingest", wrong), 400)
    check_problem(send(shared.ada, "post", "ingest", {"source": str(uuid4())}), 404)
    check_problem(send(shared.nina, "post", "ingest", body), 403)


def test_reindex_of_one_document_of_a_collection_and_of_everything(shared: Any) -> None:
    document = str(shared.documents["acme"]["merger.md"].pk)
    for body, count in (({"document": document}, 1), ({"collection": "handbook"}, 5), ({}, 5)):
        started = conforms(send(shared.ada, "post", "reindex", body), "/api/v1/reindex", "post")
        done = run_job(shared.ada, started["task_id"])
        assert done["state"] == "SUCCESS" and done["documents"]["seen"] >= count
        assert done["chunks"]["kept"] >= count
    check_problem(send(shared.ada, "post", "reindex", {"document": str(uuid4())}), 404)
    check_problem(send(shared.gus, "post", "reindex", {"document": document}), 404)
    check_problem(send(shared.ada, "post", "reindex", {"document": document, "collection": "handbook"}), 400)
    check_problem(send(shared.nina, "post", "reindex", {}), 403)


def test_a_task_is_its_makers_and_the_managers(shared: Any) -> None:
    task = upload(shared.nina, "note.md", tags=["configs"]).json()["task_id"]
    assert send(shared.ada, "get", f"tasks/{task}").status_code == 200
    check_problem(send(shared.sam, "get", f"tasks/{task}"), 404)
    check_problem(send(shared.gus, "get", f"tasks/{task}"), 404)
    check_problem(send(shared.sam, "delete", f"tasks/{task}"), 404)
    listed = conforms(send(shared.nina, "get", "tasks?state=PENDING"), "/api/v1/tasks", "get")["results"]
    assert task in {row["id"] for row in listed}
    cancelled = conforms(send(shared.nina, "delete", f"tasks/{task}"), "/api/v1/tasks/{id}", "delete")
    assert cancelled["state"] == "CANCELLED"
    check_problem(send(shared.nina, "delete", f"tasks/{task}"), 409)
    assert run_job(shared.nina, task)["state"] == "CANCELLED"


def test_a_collection_is_seen_by_those_who_fill_it_and_those_who_read_something_in_it(shared: Any) -> None:
    plans = send(shared.ada, "post", "collections", {"name": "Secret plans", "slug": "plans"}).json()["id"]
    absent = uuid4()

    def sees(member: Any) -> bool:
        """The same by every way to it: what one does not see is told as what is absent."""
        listed = send(member, "get", "collections").content.decode()
        is_seen = plans in listed
        assert ("Secret plans" in listed) is is_seen
        assert ("plans" in member.client.get("/v1/models").content.decode()) is is_seen
        one = send(member, "get", f"collections/{plans}")
        page = signed_in(member.username).get("/documents/").content.decode()
        assert ("Secret plans" in page) is is_seen
        asked = [
            send(member, "post", path, {"question": "What is planned?", "collections": [name]})
            for path in ("search", "query")
            for name in (plans, "plans")
        ]
        chats = [
            member.client.get(f"/v1/models/{name}").content.decode().replace(str(name), "…")
            for name in (plans, absent)
        ]
        assert (chats[0] != chats[1]) is is_seen
        if is_seen:
            assert {each.status_code for each in (one, *asked)} == {200}
        else:
            check_problem(one, 404)
            for each in asked:
                check_problem(each, 404)
        return is_seen

    assert [sees(m) for m in (shared.ada, shared.nina, shared.hal, shared.mona)] == [True, True, False, False]
    own = {"collection": "plans", "tags": ["standards"]}
    document = upload_indexed(shared.ada, "plan.md", "# Plan\n\nThe plan is to move the racks.\n", **own)
    assert not sees(shared.hal) and sees(shared.mona)
    assert send(shared.ada, "delete", f"documents/{document}").status_code == 204
    assert not sees(shared.mona)
