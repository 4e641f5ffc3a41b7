"""The form of a source has the fields of its kind; what was typed is tried before it is stored; secrets stay unseen."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knowledge.models import Source
from ragsite.core.secrets import decrypt_secret
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.ingestion.sources.git_servers import GitSite, Repository, git_site
from tests.knowledge.pages.helpers import HTMX, html_of, signed_in, words_of
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast

TOKEN = "glpat-typed-into-a-form"


@pytest.fixture
def site(shared: Any, tmp_path: Path, configure: Any) -> Iterator[GitSite]:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1", RAGSITE_INGEST_ROOT=tmp_path)
    Repository.make(tmp_path).commit({"docs/a.md": "# A\n"})
    with git_site(tmp_path) as site:
        site.token = TOKEN
        yield site
    with in_acme(shared):
        Source.objects.all().delete()


def in_acme(shared: Any) -> Any:
    return scope(tenant_id=shared.acme.pk, tags=None)


def form(site: GitSite, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "git", "path": site.address(), "name": "Team handbook", "collection": "handbook", "tags": ["faq"],
        "schedule_kind": "never", "time_zone": "UTC", "options.folder": "docs", "options.include": "*.md\n\n *.txt ",
        "credentials.token": TOKEN, **changes,
    }  # fmt: skip


def only(shared: Any) -> Source:
    with in_acme(shared):
        found: Source = Source.objects.get()
        return found


def test_each_kind_has_its_own_fields(shared: Any) -> None:
    ada = signed_in("ada")
    folder = html_of(ada.get("/sources/new/"))
    assert (
        'href="?kind=git"' in folder and "credentials" not in folder and "Test the connection" not in folder
    )
    assert 'aria-current="page">Folder of the server<' in folder
    for kind, fields in {
        "git": ("branch", "folder", "include", "known_hosts", "username", "token", "private_key"),
        "s3": ("endpoint", "region", "path_style", "access_key", "secret_key"),
    }.items():
        page = html_of(ada.get(f"/sources/new/?kind={kind}"))
        assert f'name="kind" value="{kind}"' in page and "Test the connection" in page
        named = re.findall(r'name="(?:options|credentials)\.([a-z_]+)"', page)
        assert set(fields) <= set(named)
        for name in named:
            group = "credentials" if f'id="credentials.{name}"' in page else "options"
            assert f'id="{group}.{name}"' in page and (
                f'for="{group}.{name}"' in page or name == "path_style"
            )
    assert 'type="password"' in page and 'value="us-east-1"' in page
    assert 'name="kind" value="folder"' in html_of(ada.get("/sources/new/?kind=nonsense"))


def test_one_is_made_changed_and_its_token_kept(shared: Any, site: GitSite) -> None:
    ada = signed_in("ada")
    response = ada.post("/sources/new/", form(site))
    assert response.status_code == 302, response.content.decode()[-3000:]
    source = only(shared)
    assert source.options["folder"] == "docs" and source.options["include"] == ["*.md", "*.txt"]
    assert TOKEN in decrypt_secret(source.credentials)
    page = html_of(ada.get(f"/sources/{source.pk}/"))
    words = words_of(page)
    assert "Git repository" in words and "Sub-folder docs" in words and "Credentials stored" in words
    assert TOKEN not in page and "The place itself stays" in words

    edit = html_of(ada.get(f"/sources/{source.pk}/edit/"))
    assert "left empty here they are kept" in edit and "Remove the stored credentials" in edit
    assert TOKEN not in edit and ">*.md\n*.txt</textarea>" in edit and 'href="?kind=' not in edit
    path, sealed = f"/sources/{source.pk}/edit/", source.credentials
    assert (
        ada.post(path, form(site, **{"credentials.token": "", "options.branch": "main"})).status_code == 302
    )
    assert only(shared).credentials == sealed and only(shared).options["branch"] == "main"
    assert (
        ada.post(path, form(site, **{"credentials.token": "", "remove_credentials": "1"})).status_code == 302
    )
    assert only(shared).credentials == ""
    assert ada.post(path, form(site)).status_code == 302
    moved = form(site, path="http://127.0.0.1:1/elsewhere.git", **{"credentials.token": ""})
    assert ada.post(path, moved).status_code == 302
    assert only(shared).credentials == ""
    with in_acme(shared):
        told = list(
            AuditEvent.objects.filter(target_id=str(source.pk))
            .order_by("at")
            .values_list("detail__credentials", flat=True)
        )
    assert told == ["given", None, "removed", "given", "dropped"]


def test_what_is_wrong_is_said_at_its_field(shared: Any, site: GitSite) -> None:
    ada = signed_in("ada")
    for changes, field, words in [
        ({"path": "/srv/git"}, "path", "https:// or ssh://"),
        ({"options.branch": "a..b"}, "options.branch", "cannot be the name"),
        ({"options.include": "!x"}, "options.include", "cannot be used"),
        ({"credentials.private_key": "none"}, "credentials.private_key", "no private key"),
        (
            {"path": "git@127.0.0.1:x.git", "credentials.token": ""},
            "credentials.private_key",
            "needs a deploy key",
        ),
        ({"credentials.token": "", "credentials.username": "me"}, "credentials", "give the token too"),
    ]:
        page = html_of(ada.post("/sources/new/", form(site, **changes)), 400)
        error = re.search(rf'id="{re.escape(field)}-error">([^<]+)<', page)
        assert error and words in error[1], (field, page[-5000:])
        assert 'value="Team handbook"' in page and 'value="docs"' in page, "what was typed is there again"
        assert TOKEN not in page, "but for secrets"
    with in_acme(shared):
        assert not Source.objects.exists()


def test_what_was_typed_is_tried(shared: Any, site: GitSite) -> None:
    ada = signed_in("ada")

    def tried(**changes: Any) -> str:
        return words_of(
            html_of(ada.post("/sources/check/?check=connection", form(site, **changes), headers=HTMX))
        )

    assert tried().startswith("The repository answers: HEAD is at commit ")
    assert "does not accept" in tried(**{"credentials.token": "wrong"})
    assert "There is no branch or tag “nowhere”" in tried(**{"options.branch": "nowhere"})
    assert "https:// or ssh://" in tried(path="/srv")
    with in_acme(shared):
        assert not Source.objects.exists()
    # Without JavaScript the form comes back with the answer; a secret has to be typed again.
    page = html_of(ada.post("/sources/new/", form(site, test="1")))
    assert "The repository answers" in page and "have to be typed again" in page and TOKEN not in page
    page = html_of(ada.post("/sources/new/", form(site, test="1", **{"credentials.token": "wrong"})), 400)
    assert 'id="connection-error">' in page and "does not accept" in page
    with in_acme(shared):
        assert not Source.objects.exists()


def test_a_stored_one_is_tried_with_its_secrets_at_its_own_place_alone(
    shared: Any, site: GitSite, tmp_path: Path
) -> None:
    ada = signed_in("ada")
    ada.post("/sources/new/", form(site))
    source = only(shared)
    page = html_of(ada.post(f"/sources/{source.pk}/check/", {"place": "source"}, headers=HTMX))
    assert "The repository answers" in page and "<html" not in page
    assert "The repository answers" in html_of(ada.post(f"/sources/{source.pk}/check/", follow=True))

    def tried(**changes: Any) -> str:
        typed = form(site, source=str(source.pk), **{"credentials.token": ""}, **changes)
        return words_of(html_of(ada.post("/sources/check/?check=connection", typed, headers=HTMX)))

    assert "The repository answers" in tried()
    with git_site(tmp_path) as thief:
        thief.token = "asks for one"
        assert "asks for credentials" in tried(path=thief.address())
        assert {user for _method, _path, user, _body in thief.requests} == {""}
    stored = only(shared)
    assert stored.path == site.address() and stored.credentials == source.credentials
    gus = signed_in("gus")
    foreign = form(site, source=str(source.pk), **{"credentials.token": ""})
    assert gus.post("/sources/check/?check=connection", foreign, headers=HTMX).status_code == 404
    assert signed_in("nina").post(f"/sources/{source.pk}/check/").status_code == 403
