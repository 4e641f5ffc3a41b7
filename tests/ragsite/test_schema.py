"""The OpenAPI document: valid, complete, and without what a later version brings."""

import io
from typing import Any

import pytest
from django.core.management import call_command

L_ROWS = """
post /token; post /token/refresh; post /token/revoke; get /me; post /query; post /query/stream; get /answers/{id};
get /answers/{id}/stream; post /search; get /conversations; get /conversations/{id}; patch /conversations/{id};
delete /conversations/{id}; post /conversations/{id}/share; get /collections; post /collections; get /collections/{id};
patch /collections/{id}; delete /collections/{id}; get /documents; post /documents; get /documents/{id};
patch /documents/{id}; put /documents/{id}; delete /documents/{id}; get /documents/{id}/content;
get /documents/{id}/original; post /documents/{id}/restore; get /sources; post /sources; get /sources/{id};
patch /sources/{id}; delete /sources/{id}; post /sources/{id}/sync; post /ingest; post /reindex; get /tasks/{id};
delete /tasks/{id}; post /feedback; patch /feedback/{id}; delete /feedback/{id}; get /document-requests;
post /document-requests; get /costs; get /cache/stats; delete /cache; get /members;
post /members; patch /members/{id}; delete /members/{id}; get /roles; post /roles;
patch /roles/{id}; delete /roles/{id}; get /api-keys; post /api-keys; delete /api-keys/{id}; get /audit; get /stats
"""
BESIDE = {"get /members/{id}", "get /roles/{id}", "get /api-keys/{id}", "get /tasks"} | {
    "delete /answers/{id}/stream",
    "patch /document-requests/{id}",
    "get /invitations",
    "get /invitations/{id}",
    "delete /invitations/{id}",
    "post /hooks/{id}",
    "post /sources/{id}/check",
    "get /sources/{id}/excluded",
    "delete /sources/{id}/excluded",
    "post /query/batch",
    "get /model-settings",
    "patch /model-settings",
    "post /cache/warm",
    "post /sources/{id}/hook-secret",
    "delete /sources/{id}/hook-secret",
}


def test_the_schema_validates_without_a_warning() -> None:
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    assert "openapi: 3" in out.getvalue()


def test_every_row_is_there_and_no_later_one() -> None:
    from tests.knowledge.helpers import operations, schema

    rows = {" ".join(row.split()) for row in L_ROWS.split(";")}
    found = {f"{method} {path.removeprefix('/api/v1')}" for path, method, _ in operations()}
    assert rows - found == set()
    assert found - rows == BESIDE
    names = [o["operationId"] for _, _, o in operations()]
    assert len(set(names)) == len(names)
    answer = schema()["components"]["schemas"]["AnswerShape"]["properties"]
    from tests.knowledge.helpers import ANSWER_KEYS

    assert set(answer) == ANSWER_KEYS | {"withheld", "warnings", "interrupted"}


@pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
def test_schema_and_docs_load_for_anybody(client: Any) -> None:
    response = client.get("/api/schema", headers={"accept": "application/vnd.oai.openapi+json"})
    assert response.status_code == 200 and response.json()["openapi"].startswith("3.")
    assert client.get("/api/schema").status_code == 200
    page = client.get("/api/docs")
    text = page.content.decode()
    assert page.status_code == 200 and "swagger-ui" in text
    # What the page loads must pass the site's own content security policy: nothing from elsewhere, nothing inline.
    assert "https://" not in text.replace("https://schema", "")
    assert "<script>" not in text and "script-src" in page.headers["Content-Security-Policy"]
    from re import findall

    for source in findall(r'(?:src|href)="(/[^"]+)"', text):
        assert client.get(source).status_code == 200, source
