"""The management commands."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

from tests.cast import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def run(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out, stderr=out)
    return out.getvalue()


def test_from_a_tenant_to_an_answer(client: Any, monkeypatch: Any, tmp_path: Path) -> None:
    assert "initech is there" in run("tenant", "create", "initech", "Initech Ltd")
    with pytest.raises(CommandError, match="exists already"):
        run("tenant", "create", "initech")
    with pytest.raises(CommandError):
        run("tenant", "create", "Not A Slug")
    assert "initech\tInitech Ltd\tactive" in run("tenant", "list")

    monkeypatch.setenv("RAGSITE_MEMBER_PASSWORD", "a-long-password-1")
    run("member", "add", "peter", "--tenant", "initech", "--role", "admin", "--email", "p@initech.example")
    run("member", "add", "milton", "--tenant", "initech", "--role", "helpdesk")
    assert "milton\thelpdesk\tactive" in run("member", "list", "--tenant", "initech")
    with pytest.raises(CommandError, match="choose one of"):
        run("member", "add", "x", "--tenant", "initech", "--role", "boss")
    with pytest.raises(CommandError, match="no tenant"):
        run("member", "list", "--tenant", "nowhere")
    body = {"username": "milton", "password": "a-long-password-1"}

    def sign_in() -> int:
        code: int = client.post("/api/v1/token", body, content_type="application/json").status_code
        return code

    assert sign_in() == 200
    run("member", "suspend", "milton", "--tenant", "initech")
    assert sign_in() == 401
    run("member", "resume", "milton", "--tenant", "initech")
    assert sign_in() == 200
    run("tenant", "suspend", "initech")
    assert sign_in() == 401
    run("tenant", "resume", "initech")

    secret = run("apikey", "create", "ci", "--tenant", "initech", "--member", "milton").strip()
    key = {"authorization": f"Bearer {secret}"}
    assert client.get("/api/v1/me", headers=key).json()["username"] == "milton"
    listed = run("apikey", "list", "--tenant", "initech")
    assert "ci\tmilton" in listed and secret not in listed
    run("apikey", "revoke", "ci", "--tenant", "initech")
    assert client.get("/api/v1/me", headers=key).status_code == 401

    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "stapler.md").write_text("# Stapler\n\nThe red stapler is in storage room B.\n")
    (folder / "bad.pdf").write_bytes(b"no pdf")
    ingest = ("ingest", str(folder), "--tenant", "initech", "--collection", "office", "--tags", "faq")
    first = run(*ingest)
    assert "2 seen, 1 indexed, 0 unchanged, 0 deleted, 1 failed" in first and "bad.pdf: " in first
    assert "0 indexed, 1 unchanged" in run(*ingest)
    (folder / "stapler.md").write_text("# Stapler\n\nThe red stapler is in storage room C.\n")
    assert "1 indexed, 0 unchanged" in run(*ingest)
    single = tmp_path / "tps.txt"
    single.write_text("The TPS report has a new cover sheet.\n")
    assert "1 seen, 1 indexed" in run("ingest", str(single), "--tenant", "initech", "--tags", "faq,runbooks")
    with pytest.raises(CommandError, match="no file or folder"):
        run("ingest", str(tmp_path / "absent"), "--tenant", "initech")
    with pytest.raises(CommandError):
        run("ingest", str(single), "--tenant", "initech", "--tags", "Not a tag")

    answer = run("ask", "Where is the red stapler?", "--tenant", "initech", "--user", "milton")
    assert "storage room C" in answer and "[1] Stapler (stapler.md)" in answer
    run("member", "add", "bob", "--tenant", "initech", "--role", "management")
    assert "room C" not in run("ask", "Where is the red stapler?", "--tenant", "initech", "--user", "bob")
    with pytest.raises(CommandError, match="not an active member"):
        run("ask", "Where is the stapler?", "--tenant", "initech", "--user", "nobody")
    with pytest.raises(CommandError, match="3 to 1,000"):
        run("ask", "x", "--tenant", "initech", "--user", "milton")

    assert "2 indexed, 0 failed" in run("reindex", "--tenant", "initech")
    assert "1 indexed, 0 failed" in run("reindex", "--tenant", "initech", "--collection", "office")
    with pytest.raises(CommandError, match="choose one of"):
        run("reindex", "--tenant", "initech", "--collection", "absent")
    run("member", "remove", "bob", "--tenant", "initech")
    assert "bob" not in run("member", "list", "--tenant", "initech")
    with pytest.raises(CommandError, match="last member who manages"):
        run("member", "remove", "peter", "--tenant", "initech")


def small_demo(folder: Path) -> Path:
    tenants = []
    for slug in ("acme", "globex"):
        (folder / slug).mkdir(parents=True)
        (folder / slug / "a.md").write_text(f"# About {slug}\n\nThe code of {slug} is 17.\n")
        (folder / slug / "b.txt").write_text(f"Only admins of {slug} read this.\n")
        tenants.append(
            {
                "slug": slug,
                "name": slug.title(),
                "collections": [
                    {"slug": "faq", "name": "FAQ", "content_class": "reference", "default_tags": ["faq"]}
                ],
                "documents": [
                    {"path": "a.md", "collection": "faq", "tags": None},
                    {"path": "b.txt", "collection": "faq", "tags": [], "title": "Secret"},
                ],
            }
        )
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"version": 1, "tenants": tenants}))
    return folder


def test_demo_data_once_and_in_dev_alone(client: Any, monkeypatch: Any, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from knowledge.management.commands import seed_demo
    from tests.cast import member_of
    from tests.knowledge.helpers import send

    monkeypatch.setattr(seed_demo, "DEMO", small_demo(tmp_path / "demo"))
    for environment in ("staging", "prod"):
        with monkeypatch.context() as patch:
            patch.setattr(seed_demo, "config", lambda e=environment: SimpleNamespace(environment=e))
            with pytest.raises(CommandError, match="dev alone"):
                run("seed_demo")
    assert "acme: indexing 1 of 2" in run("seed_demo")
    people = {"ada": "admin", "nina": "network_engineer", "sam": "security_analyst", "hal": "helpdesk"}
    for slug, members in (("acme", people), ("globex", {"gus": "admin", "gina": "network_engineer"})):
        for name, role in members.items():
            signed = client.post(
                "/api/v1/token", {"username": name, "password": PASSWORD}, content_type="application/json"
            ).json()
            assert (signed["tenant"], signed["role"]) == (slug, role), signed
    assert client.login(username="root", password=PASSWORD)
    ada = member_of(slug="acme", username="ada")
    rows = send(ada, "get", "documents").json()["results"]
    assert {(row["uri"], row["status"], tuple(row["tags"])) for row in rows} == {
        ("a.md", "indexed", ("faq",)),
        ("b.txt", "indexed", ()),
    }
    assert {row["title"] for row in rows} == {"About acme", "Secret"}

    # Again: nothing is made twice, and what somebody has deleted stays deleted.
    deleted = next(row["id"] for row in rows if row["uri"] == "a.md")
    assert send(ada, "delete", f"documents/{deleted}").status_code == 204
    assert "indexing" not in run("seed_demo")
    assert [row["uri"] for row in send(ada, "get", "documents").json()["results"]] == ["b.txt"]
