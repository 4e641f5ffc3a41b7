"""Collections: what is in them, how they are made and changed, and why some cannot be deleted."""

import re
from typing import Any

import pytest

from knowledge.models import Collection, Document, Job
from tenants.models import AuditEvent
from tenants.scope import scope
from tests.knowledge.pages.helpers import count_queries, html_of, signed_in, table_of, words_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

FORM = {
    "name": "Field notes",
    "slug": "",
    "description": "What was seen on site.",
    "tags": ["runbooks"],
    "language": "german",
    "content_class": "troubleshooting",
    "retention_days": "",
}


def in_acme(cast: Any) -> Any:
    return scope(tenant_id=cast.acme.pk, tags=None)


def test_each_is_listed_with_what_is_in_it(cast: Any) -> None:
    with in_acme(cast):
        Document.objects.filter(title="VPN questions").update(status="failed")
        Collection.objects.create(slug="empty", name="Empty shelf")
    rows = table_of(html_of(signed_in("ada").get("/collections/")))
    empty, handbook = re.findall(r"<tr>.*?</tr>", rows)
    assert 'href="/documents/?collection=handbook">5<' in handbook
    assert 'status=failed"><span class="badge bad">1<' in handbook
    assert "Empty shelf" in empty and 'href="/documents/?collection=empty">0<' in empty
    assert "Handbook" in words_of(handbook)


def test_one_is_made_changed_and_deleted(cast: Any) -> None:
    ada = signed_in("ada")
    response = ada.post("/collections/new/", FORM)
    assert (response.status_code, response.headers["Location"]) == (302, "/collections/")
    assert "Collection Field notes created." in html_of(ada.get("/collections/"))
    with in_acme(cast):
        made = Collection.objects.get(slug="field-notes")
        assert AuditEvent.objects.filter(action="collection.create", actor_name="ada").count() == 1
    assert (made.default_tags, made.language, made.content_class) == (
        ["runbooks"],
        "german",
        "troubleshooting",
    )
    assert made.retention_days is None
    page = html_of(ada.get(f"/collections/{made.pk}/"))
    assert 'value="runbooks" checked' in page and 'value="german" selected' in page
    changed = FORM | {"name": "Notes", "retention_days": "90", "tags": [], "other_tags": "standards, audits"}
    assert ada.post(f"/collections/{made.pk}/", changed).status_code == 302
    with in_acme(cast):
        made.refresh_from_db()
    assert (made.name, made.slug, made.retention_days) == ("Notes", "field-notes", 90)
    assert sorted(made.default_tags) == ["audits", "standards"]
    assert ada.post(f"/collections/{made.pk}/delete/").status_code == 302
    assert "Collection Notes deleted." in html_of(ada.get("/collections/"))
    with in_acme(cast):
        assert not Collection.objects.filter(pk=made.pk).exists()


def test_one_that_holds_documents_is_not_deleted(cast: Any) -> None:
    ada, handbook = signed_in("ada"), cast.collections["acme"]
    assert ada.post(f"/collections/{handbook.pk}/delete/").status_code == 302
    assert "move or delete them first" in html_of(ada.get("/collections/"))
    with in_acme(cast):
        assert Collection.objects.filter(pk=handbook.pk).exists()
        assert not AuditEvent.objects.filter(action="collection.delete").exists()


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"name": ""}, "name", "may not be blank"),
        ({"slug": "no slug!"}, "slug", "slug"),
        ({"language": "klingon"}, "language", "not a valid choice"),
        ({"content_class": ""}, "content_class", "not a valid choice"),
        ({"retention_days": "soon"}, "retention_days", "valid integer"),
        ({"retention_days": "0"}, "retention_days", "greater than or equal to 1"),
        ({"other_tags": "A!"}, "default_tags", "is not a tag"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    cast: Any, change: dict[str, str], field: str, words: str
) -> None:
    page = html_of(signed_in("ada").post("/collections/new/", FORM | change), 400)
    error = re.search(rf'id="{field}-error">([^<]+)<', page)
    assert error and words in error[1], page[-4000:]
    if "name" not in change:
        assert 'value="Field notes"' in page, "what was typed is there again"


def test_a_short_name_is_taken_once(cast: Any) -> None:
    page = html_of(signed_in("ada").post("/collections/new/", FORM | {"slug": "handbook"}), 409)
    assert "A collection named handbook exists already." in page
    # Another tenant's is no obstacle.
    assert signed_in("gus").post("/collections/new/", FORM | {"slug": "other"}).status_code == 302
    assert signed_in("ada").post("/collections/new/", FORM | {"slug": "other"}).status_code == 302


def test_indexing_one_again_leads_to_the_job(cast: Any) -> None:
    ada, handbook = signed_in("ada"), cast.collections["acme"]
    response = ada.post(f"/collections/{handbook.pk}/reindex/")
    with in_acme(cast):
        job = Job.objects.get(kind="reindex", collection=handbook)
    assert response.headers["Location"] == f"/jobs/{job.pk}/"
    assert "Index again: Handbook" in words_of(html_of(ada.get(response.headers["Location"])))


def test_they_are_for_those_who_manage_and_of_their_tenant(cast: Any) -> None:
    handbook = cast.collections["acme"].pk
    paths = (
        f"/collections/{handbook}/",
        f"/collections/{handbook}/delete/",
        f"/collections/{handbook}/reindex/",
    )
    for username, status in (("nina", 403), ("hal", 403), ("gus", 404)):
        client = signed_in(username)
        for path in paths:
            assert client.post(path, FORM).status_code == status, (username, path)
        assert client.get(paths[0]).status_code == status
        if username != "gus":
            assert client.get("/collections/").status_code == 403
            assert client.post("/collections/new/", FORM).status_code == 403


def test_the_number_of_queries_does_not_grow(cast: Any) -> None:
    ada = signed_in("ada")
    few = count_queries(lambda: ada.get("/collections/"))
    with in_acme(cast):
        for number in range(12):
            collection = Collection.objects.create(slug=f"c-{number}", name=f"C {number}")
            Document.objects.create(collection=collection, title="T", uri="t.md", tags=["faq"])
    assert count_queries(lambda: ada.get("/collections/")) == few <= 12
