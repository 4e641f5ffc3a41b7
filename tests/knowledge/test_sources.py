"""Sources of every kind through the API: their options, their secrets, and trying whether they can be reached."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from knowledge.ingestion.sources.connect import KINDS
from knowledge.ingestion.sources.git_clone import clones_folder
from knowledge.models import Source
from knowledge.sources import save_source
from ragsite.core.problems import Problem
from ragsite.core.secrets import decrypt_secret
from tenants.scope import scope
from tests.knowledge.helpers import check_problem, conforms, run_job, send
from tests.knowledge.ingestion.sources.git_servers import GitSite, Repository, git_site
from tests.knowledge.pages.helpers import html_of, signed_in
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast

TOKEN = "glpat-Zx81-never-to-be-seen"
KEYS = {"access_key": "AKIANEVERSEEN0000", "secret_key": "abcd/never+to+be+seen=="}
S3 = {"kind": "s3", "path": "docs/handbook/", "tags": ["faq"], "options": {"endpoint": "https://203.0.113.7"}}


@pytest.fixture(autouse=True)
def place(shared: Any, tmp_path: Path, configure: Any) -> Iterator[Path]:
    hosts = "127.0.0.1, .example.internal, 203.0.113.0/24"
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS=hosts, RAGSITE_INGEST_ROOT=tmp_path)
    yield tmp_path
    with in_acme(shared):
        Source.objects.all().delete()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GitSite]:
    with git_site(tmp_path) as site:
        site.token = TOKEN
        yield site


def in_acme(shared: Any) -> Any:
    return scope(tenant_id=shared.acme.pk, tags=None)


def row_of(shared: Any, pk: str) -> Source:
    with in_acme(shared):
        found: Source = Source.objects.get(pk=pk)
        return found


def make(shared: Any, **body: Any) -> dict[str, Any]:
    response = send(shared.ada, "post", "sources", {"collection": "handbook", **body})
    assert response.status_code == 201, response.content
    return dict(conforms(response, "/api/v1/sources", "post"))


def change(shared: Any, pk: str, **body: Any) -> dict[str, Any]:
    response = send(shared.ada, "patch", f"sources/{pk}", body)
    assert response.status_code == 200, response.content
    return dict(conforms(response, "/api/v1/sources/{id}", "patch"))


def refused(shared: Any, field: str, words: str, **body: Any) -> None:
    body = {"collection": "handbook", **body}
    problem = check_problem(send(shared.ada, "post", "sources", body), 400)
    assert [error["field"] for error in problem["errors"]] == [field], problem
    assert words in problem["errors"][0]["detail"], problem


def test_secrets_go_nowhere_when_two_move_a_source_at_once(shared: Any, site: GitSite) -> None:
    with in_acme(shared):
        made = save_source(
            source=Source(kind="git", name="moved", collection=shared.collections["acme"]),
            changes={"path": "https://git.example.internal/a.git", "credentials": {"token": TOKEN}},
        )
        first, second = Source.objects.get(pk=made.pk), Source.objects.get(pk=made.pk)
        for each in (first, second):
            save_source(source=each, changes={"path": "https://elsewhere.example.internal/a.git"})
        assert first.credentials == second.credentials == Source.objects.get(pk=made.pk).credentials == ""


def test_what_is_wrong_is_said_at_its_field(shared: Any) -> None:
    git = {"kind": "git", "path": "https://git.example.internal/team/handbook.git"}
    refused(shared, "path", "may not be blank", kind="git")
    refused(shared, "path", "https:// or ssh://", kind="git", path="/srv/git")
    refused(
        shared,
        "path",
        "must not hold a name or password",
        kind="git",
        path="https://a:b@git.example.internal/x",
    )
    refused(shared, "options.branch", "cannot be the name", **git, options={"branch": "a..b"})
    refused(shared, "options.brunch", "give of branch, folder", **git, options={"brunch": "main"})
    refused(shared, "options.include", "cannot be used", **git, options={"include": ["!x"]})
    refused(shared, "credentials.password", "give of username, token", **git, credentials={"password": TOKEN})
    refused(shared, "credentials.private_key", "no private key", **git, credentials={"private_key": TOKEN})
    refused(
        shared,
        "credentials.private_key",
        "needs a deploy key",
        kind="git",
        path="git@git.example.internal:x.git",
    )
    refused(
        shared, "credentials", "access_key and secret_key together", **S3, credentials={"access_key": "a"}
    )
    refused(shared, "options.region", "eu-central-1", kind="s3", path="docs", options={"region": "a/b"})
    refused(shared, "options.depth", "leave it out", path="x", options={"depth": 1})
    refused(
        shared,
        "options.endpoint",
        "public internet",
        kind="s3",
        path="docs",
        options={"endpoint": "https://10.1.1.1"},
    )
    with in_acme(shared):
        assert not Source.objects.exists()


def test_every_kind_says_what_it_is() -> None:
    for kind in KINDS.values():
        assert str(kind.title) and kind.kind in Source.Kind.values
        for model in (kind.options, kind.credentials):
            for name, field in model.model_fields.items():
                assert isinstance(field.json_schema_extra, dict), name
                assert field.json_schema_extra["shown"]["title"], name  # type: ignore[index, call-overload]


def test_options_are_laid_over_those_that_are_stored(shared: Any) -> None:
    made = make(shared, **S3 | {"options": S3["options"] | {"exclude": ["*.log"], "region": "eu-west-1"}})
    assert made["path"] == "s3://docs/handbook/" and made["kind"] == "s3"
    assert made["options"] == {
        "endpoint": "https://203.0.113.7", "region": "eu-west-1", "path_style": True, "include": [], "exclude": ["*.log"],
    }  # fmt: skip
    changed = change(shared, made["id"], options={"exclude": None, "include": ["*.md"]})
    assert changed["options"] == made["options"] | {"exclude": [], "include": ["*.md"]}
    problem = check_problem(send(shared.ada, "patch", f"sources/{made['id']}", {"kind": "git"}), 400)
    assert "keeps its kind" in problem["errors"][0]["detail"]


def test_a_place_is_taken_once_in_a_collection(shared: Any) -> None:
    git = {"kind": "git", "path": "https://git.example.internal/team/handbook.git"}
    make(shared, **git, name="Docs", options={"folder": "docs"})
    make(shared, **git, name="Guides", options={"folder": "guides"})
    response = send(shared.ada, "post", "sources", {**git, "name": "Again", "options": {"folder": "/docs/"},
                                                    "collection": "handbook"})  # fmt: skip
    assert "This place is a source of this collection already" in check_problem(response, 409)["detail"]


def test_credentials_are_kept_changed_and_removed(shared: Any) -> None:
    made = make(shared, **S3, credentials=KEYS)
    assert made["has_credentials"] is True and "credentials" not in made
    sealed = row_of(shared, made["id"]).credentials
    assert KEYS["secret_key"] not in sealed and KEYS["secret_key"] in decrypt_secret(sealed)

    assert change(shared, made["id"], tags=["runbooks"], path="s3://docs/handbook/")["has_credentials"]
    assert row_of(shared, made["id"]).credentials == sealed, "left out: kept"
    other = KEYS | {"secret_key": "another-secret"}
    change(shared, made["id"], credentials=other)
    assert "another-secret" in decrypt_secret(row_of(shared, made["id"]).credentials)
    assert change(shared, made["id"], credentials={})["has_credentials"] is False
    change(shared, made["id"], credentials=KEYS)
    assert change(shared, made["id"], credentials=None)["has_credentials"] is False
    assert row_of(shared, made["id"]).credentials == ""


@pytest.mark.parametrize(
    "move",
    [
        {"path": "docs/elsewhere/"},
        {"path": "other-bucket"},
        {"options": {"endpoint": "https://203.0.113.66"}},
        {"options": {"endpoint": ""}},
        {"options": {"region": "eu-west-1", "endpoint": ""}},
    ],
)
def test_secrets_do_not_follow_to_another_place(shared: Any, move: dict[str, Any]) -> None:
    """Whoever may change a source may not have its secrets sent to where they listen."""
    made = make(shared, **S3, credentials=KEYS)
    assert change(shared, made["id"], **move)["has_credentials"] is False
    assert row_of(shared, made["id"]).credentials == ""
    back = change(shared, made["id"], path="docs/handbook/", options=S3["options"], credentials=KEYS)
    assert back["has_credentials"] is True
    assert change(shared, made["id"], **move, credentials=KEYS)["has_credentials"] is True, (
        "given anew they go along"
    )


def test_what_is_remembered_of_a_place_goes_with_it(shared: Any) -> None:
    made = make(shared, kind="git", path="https://git.example.internal/a.git")
    with in_acme(shared):
        Source.objects.filter(pk=made["id"]).update(
            state={"commit": "abc", "address": "https://git.example.internal/a.git"}
        )
    change(shared, made["id"], tags=["faq"])
    assert row_of(shared, made["id"]).state["commit"] == "abc"
    change(shared, made["id"], path="https://git.example.internal/b.git")
    assert row_of(shared, made["id"]).state == {}


def test_what_a_source_remembers_is_not_read_to_show_it(shared: Any) -> None:
    made = make(shared, kind="git", path="https://git.example.internal/team/docs.git")
    with in_acme(shared):
        Source.objects.filter(pk=made["id"]).update(state={"commit": "c0ffee", "said": ["A dunlin link."]})
    sent = [
        lambda: send(shared.ada, "get", "sources"),
        lambda: send(shared.ada, "get", f"sources/{made['id']}"),
        lambda: send(shared.ada, "patch", f"sources/{made['id']}", {"schedule": "5 4 * * *"}),
        lambda: shared.ada.client.get(reverse("sources")),
        lambda: shared.ada.client.get(reverse("source-page", args=[made["id"]])),
        lambda: shared.ada.client.get(reverse("index")),
        lambda: signed_in("ada").get("/admin/knowledge/source/"),
    ]
    for act in sent:
        with CaptureQueriesContext(connection) as captured:
            response = act()
        assert response.status_code == 200, response.content
        read = [each["sql"] for each in captured if '"knowledge_source"."state",' in each["sql"]]
        assert not read, read
    assert "A dunlin link." in sent[4]().content.decode()
    assert row_of(shared, made["id"]).state["commit"] == "c0ffee"


def test_a_changed_secret_key_of_the_installation_is_said(shared: Any, configure: Any) -> None:
    made = make(shared, **S3, credentials=KEYS)
    configure(RAGSITE_SECRET_KEY="another-key-another-key-another-key-0123456789")
    with in_acme(shared):
        from knowledge.sources import try_source

        ok, words = try_source(source=row_of(shared, made["id"]))
    assert not ok and "enter it again" in words


# Trying, and synchronising


def test_it_is_tried_with_what_is_stored(shared: Any, site: GitSite, place: Path) -> None:
    repository = Repository.make(place)
    commit = repository.commit({"a.md": "# A\n"})
    made = make(shared, kind="git", path=site.address(), credentials={"token": TOKEN})

    def tried() -> dict[str, Any]:
        response = send(shared.ada, "post", f"sources/{made['id']}/check")
        assert response.status_code == 200, response.content
        return dict(conforms(response, "/api/v1/sources/{id}/check", "post"))

    assert tried() == {"ok": True, "detail": f"The repository answers: HEAD is at commit {commit[:10]}."}
    site.token = "changed"
    failed = tried()
    assert failed["ok"] is False and "does not accept" in failed["detail"] and TOKEN not in failed["detail"]
    assert send(shared.nina, "post", f"sources/{made['id']}/check").status_code == 403
    assert send(shared.gus, "post", f"sources/{made['id']}/check").status_code == 404


def test_trying_ends_after_its_time(shared: Any, site: GitSite, monkeypatch: Any) -> None:
    made = make(shared, kind="git", path=site.address(), credentials={"token": TOKEN})
    site.delay = 3
    monkeypatch.setattr("knowledge.sources.CHECK_SECONDS", 0.3)
    body = send(shared.ada, "post", f"sources/{made['id']}/check").json()
    assert body["ok"] is False and "did not answer within" in body["detail"]


def test_a_repository_is_kept_in_step(shared: Any, site: GitSite, place: Path) -> None:
    repository = Repository.make(place)
    repository.commit(
        {"docs/a.md": "# Lynx\n\nThe lynx link is up.\n", "docs/b.md": "# B\n\nSecond.\n", "c.md": "# C\n"}
    )
    made = make(
        shared,
        kind="git",
        path=site.address(),
        options={"folder": "docs"},
        credentials={"token": TOKEN},
        tags=["faq"],
    )

    def sync() -> dict[str, Any]:
        return run_job(shared.ada, send(shared.ada, "post", f"sources/{made['id']}/sync").json()["task_id"])

    job = sync()
    assert job["state"] == "SUCCESS" and job["documents"]["changed"] == 2, job
    repository.commit({"docs/a.md": "# Lynx\n\nThe lynx link is down.\n", "docs/b.md": None})
    job = sync()
    assert (job["documents"]["changed"], job["documents"]["deleted"]) == (1, 1), job
    rows = send(shared.ada, "get", "documents?page_size=200").json()["results"]
    [document] = [row for row in rows if row["source"] == made["id"]]
    assert document["uri"] == "docs/a.md"
    assert "down" in send(shared.ada, "get", f"documents/{document['id']}/content").json()["text"]

    site.token = "changed"
    job = sync()
    assert (
        job["state"] == "FAILURE" and "does not accept" in job["error"] and job["documents"]["deleted"] == 0
    )
    folder = clones_folder(shared.acme.pk) / made["id"]
    assert folder.is_dir()
    assert send(shared.ada, "delete", f"sources/{made['id']}").status_code == 204
    assert not folder.exists()


def everything_stored() -> Iterator[str]:
    """Every row of every table, as text."""
    with connections["platform"].cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            " AND has_table_privilege(oid, 'SELECT')"
        )
        tables = [row[0] for row in cursor.fetchall()]
        assert {"knowledge_source", "knowledge_job", "tenants_auditevent"} <= set(tables)
        for table in tables:
            cursor.execute(f'SELECT row_to_json(t)::text FROM "{table}" t')
            for row in cursor.fetchall():
                yield f"{table}: {row[0]}"


def test_secrets_are_seen_nowhere(shared: Any, site: GitSite, place: Path, caplog: Any, capfd: Any) -> None:
    """Given, used, refused, changed and removed; then every answer, page, log line and row is searched for them."""
    repository = Repository.make(place)
    repository.commit({"a.md": "# A\n\nText.\n"})
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "markdown_it")
    seen: list[str] = []

    def call(method: str, path: str, body: Any = None) -> Any:
        response = send(shared.ada, method, path, body)
        seen.append(f"{method} {path}: {response.content.decode()} {response.headers}")
        return response

    body = {"kind": "git", "path": site.address(), "collection": "handbook", "credentials": {"token": TOKEN}}
    pk = call("post", "sources", body).json()["id"]
    call("post", "sources", body)  # taken
    call("post", "sources", body | {"path": f"https://x:{TOKEN}@example.com/x"})
    call("post", "sources", body | {"options": {"branch": " ~"}})
    call("post", "sources", body | {"credentials": {"token": TOKEN + "\n"}})
    call("post", "sources", body | {"credentials": {"private_key": TOKEN}})
    call("post", "sources", body | {"credentials": {"tokn": TOKEN}})
    call("post", "sources", body | {"credentials": [TOKEN]})
    call("post", "sources", body | {"credentials": TOKEN})
    for token in (TOKEN, "changed"):
        site.token = token
        call("post", f"sources/{pk}/check")
        task = call("post", f"sources/{pk}/sync").json()["task_id"]
        run_job(shared.ada, task)
        call("get", f"tasks/{task}")
    site.answer = (400, {}, f"<h1>{TOKEN}</h1>".encode())
    call("post", f"sources/{pk}/check")
    call("get", f"sources/{pk}")
    call("get", "sources")
    call("patch", f"sources/{pk}", {"credentials": {"token": TOKEN, "username": "deploy"}})
    call("get", "audit?page_size=200")
    page = signed_in("ada")
    for path in (f"/sources/{pk}/", f"/sources/{pk}/edit/", "/sources/", "/jobs/", "/audit/"):
        seen.append(f"{path}: {html_of(page.get(path))}")
    typed = {
        "kind": "git",
        "path": site.address(),
        "collection": "handbook",
        "schedule_kind": "never",
        "time_zone": "UTC",
    }
    for path in (f"/sources/{pk}/edit/", "/sources/new/", "/sources/check/?check=connection"):
        answer = page.post(path, typed | {"credentials.token": TOKEN, "options.branch": "a..b"})
        assert "cannot be the name" in answer.content.decode()
        seen.append(f"{path}: {answer.content.decode()}")
    call("patch", f"sources/{pk}", {"credentials": {}})

    out, err = capfd.readouterr()
    for text in [*seen, *everything_stored(), caplog.text, out, err]:
        assert TOKEN not in text, text[:3000]
    with in_acme(shared):
        from tenants.models import AuditEvent

        events = AuditEvent.objects.filter(target_id=pk).values_list("action", "detail__credentials")
        assert ("source.create", "given") in events and ("source.change", "removed") in events


def test_a_kind_that_is_not_here_is_refused(shared: Any, monkeypatch: Any) -> None:
    monkeypatch.delitem(KINDS, "s3")
    refused(shared, "kind", "choose one of", **S3)
    with in_acme(shared), pytest.raises(Problem):
        save_source(source=Source(kind="s3", path="x", collection=shared.collections["acme"]), changes={})


def test_the_admin_takes_secrets_and_shows_none(shared: Any) -> None:
    ada = signed_in("ada")
    form = {
        "name": "Bucket", "kind": "s3", "path": "docs/handbook", "options": '{"endpoint": "https://203.0.113.7"}',
        "new_credentials": json.dumps(KEYS), "collection": str(shared.collections["acme"].pk), "tags": "faq",
        "enabled": "on", "schedule": "", "time_zone": "UTC",
    }  # fmt: skip
    refused = html_of(ada.post("/admin/knowledge/source/add/", form | {"name": ""}))
    assert KEYS["secret_key"] not in refused
    response = ada.post("/admin/knowledge/source/add/", form)
    assert response.status_code == 302, response.content.decode()[-3000:]
    with in_acme(shared):
        source = Source.objects.get(name="Bucket")
    assert source.path == "s3://docs/handbook" and KEYS["secret_key"] in decrypt_secret(source.credentials)
    path = f"/admin/knowledge/source/{source.pk}/change/"
    page = html_of(ada.get(path))
    assert (
        KEYS["secret_key"] not in page and KEYS["access_key"] not in page and source.credentials not in page
    )
    kept = form | {"new_credentials": "", "tags": "runbooks"}
    assert ada.post(path, kept).status_code == 302
    assert row_of(shared, str(source.pk)).credentials == source.credentials
    assert row_of(shared, str(source.pk)).tags == ["runbooks"]
    assert ada.post(path, form | {"new_credentials": "{}"}).status_code == 302
    assert row_of(shared, str(source.pk)).credentials == ""
    listed = {"action": "try_now", "_selected_action": str(source.pk)}
    with in_acme(shared):
        Source.objects.filter(pk=source.pk).update(kind="push")
    assert "Documents are sent to this source" in html_of(
        ada.post("/admin/knowledge/source/", listed, follow=True)
    )
