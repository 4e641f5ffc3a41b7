"""Ids inside bodies and query strings: what is another tenant's, or not one's own, is like what nobody has."""

import json
import uuid
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tenants.scope import scope
from tests.cast import PASSWORD, Cast
from tests.security.helpers import call, fingerprint, make_rows, session_client, signature

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

QUESTION = "What is the hold timer on edge routers?"


def same_as_absent(
    client: Client, method: str, path: str, body: dict[str, Any], field: str, value: Any, *, status: int
) -> None:
    """``value`` in ``field`` (wrapped in a list where the body has one) is answered like a random id."""
    told = []
    for candidate in (str(value), str(uuid.uuid4())):
        given = body | {field: [candidate] if isinstance(body.get(field), list) else candidate}
        if method == "GET":
            response = call(client, "GET", f"{path}?{field}={candidate}")
        else:
            response = call(client, method, path, given)
        told.append(signature(response, hiding=(candidate,)))
    assert told[0] == told[1], (method, path, field)
    assert told[0][0] == status, (method, path, field, told[0])


def file() -> SimpleUploadedFile:
    return SimpleUploadedFile("note.md", b"# Note\n\nWords.\n", "text/markdown")


def test_ids_of_another_tenant(cast: Cast) -> None:
    foreign = make_rows(cast, slug="acme", admin="ada", member="hal")
    own = make_rows(cast, slug="globex", admin="gus", member="hank")
    before = fingerprint(cast.acme.pk)
    gus = cast.gus.client
    for path in ("query", "query/stream", "search"):
        same_as_absent(
            gus, "POST", f"/api/v1/{path}", {"question": QUESTION, "collections": []}, "collections",
            foreign.collection, status=404,
        )  # fmt: skip
    # One of one's own beside it changes nothing.
    mixed = {"question": QUESTION, "collections": [str(own.collection), str(foreign.collection)]}
    assert call(gus, "POST", "/api/v1/search", mixed).status_code == 404
    for path in ("query", "query/stream"):
        same_as_absent(
            gus,
            "POST",
            f"/api/v1/{path}",
            {"question": QUESTION},
            "conversation",
            foreign.conversation,
            status=404,
        )
    same_as_absent(gus, "POST", "/api/v1/ingest", {}, "source", foreign.source, status=404)
    same_as_absent(
        gus, "POST", "/api/v1/ingest", {"directory": "x"}, "collection", foreign.collection, status=404
    )
    same_as_absent(
        gus, "POST", "/api/v1/sources", {"path": "x"}, "collection", foreign.collection, status=404
    )
    same_as_absent(
        gus, "PATCH", f"/api/v1/sources/{own.source}", {}, "collection", foreign.collection, status=404
    )
    for name in ("collection", "source", "document"):
        same_as_absent(gus, "POST", "/api/v1/reindex", {}, name, getattr(foreign, name), status=404)
    same_as_absent(gus, "POST", "/api/v1/feedback", {"rating": 5}, "request_id", foreign.answer, status=404)
    same_as_absent(
        gus, "PATCH", f"/api/v1/documents/{own.document}", {}, "collection", foreign.collection, status=404
    )
    same_as_absent(
        gus, "POST", "/api/v1/documents", {"file": file()}, "collection", foreign.collection, status=404
    )
    same_as_absent(gus, "GET", "/api/v1/documents", {}, "collection", foreign.collection, status=404)
    for target in ("member", "document"):
        same_as_absent(gus, "GET", "/api/v1/audit", {}, "target_id", getattr(foreign, target), status=200)
    # People and roles
    same_as_absent(gus, "POST", "/api/v1/api-keys", {"name": "k"}, "member", foreign.member, status=404)
    for name in ("hal", "ada"):
        told = call(gus, "POST", "/api/v1/api-keys", {"name": "k", "member": name})
        random = call(gus, "POST", "/api/v1/api-keys", {"name": "k", "member": "nobody-of-that-name"})
        assert told.status_code == random.status_code == 400
        assert signature(told) == signature(random)
    same_as_absent(gus, "PATCH", f"/api/v1/members/{own.member}", {}, "role", foreign.role, status=400)
    same_as_absent(gus, "POST", "/api/v1/members", {"username": "new"}, "role", foreign.role, status=400)
    for candidate in (foreign.role, uuid.uuid4()):
        body = {"name": "k", "service_account": {"name": f"bot-{candidate}", "role": str(candidate)}}
        assert call(gus, "POST", "/api/v1/api-keys", body).status_code == 400
    share = f"/api/v1/conversations/{own.conversation}/share"
    same_as_absent(gus, "POST", share, {"members": []}, "members", foreign.member, status=400)
    told = call(gus, "POST", share, {"members": ["hal"]})
    random = call(gus, "POST", share, {"members": ["zoe"]})
    assert signature(told, hiding=("hal",)) == signature(random, hiding=("zoe",))
    assert fingerprint(cast.acme.pk) == before

    # The control: with one's own ids the same requests are no 404.
    assert (
        call(gus, "POST", "/api/v1/feedback", {"rating": 5, "request_id": str(own.answer)}).status_code == 409
    )
    assert call(gus, "POST", "/api/v1/reindex", {"source": str(own.source)}).status_code == 202
    assert call(gus, "POST", "/api/v1/ingest", {"source": str(own.source)}).status_code == 202
    ask = {"question": QUESTION, "conversation": str(own.conversation), "collections": [str(own.collection)]}
    assert call(gus, "POST", "/api/v1/query", ask).status_code == 200
    assert call(gus, "POST", "/api/v1/api-keys", {"name": "k", "member": str(own.member)}).status_code == 201


def test_ids_of_the_own_tenant_that_are_not_the_members(cast: Cast) -> None:
    rows = make_rows(cast, slug="acme", admin="ada", member="hal")
    nina = cast.nina.client
    for path in ("query", "query/stream"):
        same_as_absent(
            nina,
            "POST",
            f"/api/v1/{path}",
            {"question": QUESTION},
            "conversation",
            rows.conversation,
            status=404,
        )
    same_as_absent(nina, "POST", "/api/v1/feedback", {"rating": 5}, "request_id", rows.answer, status=404)
    for client in (nina, cast.hal.client):
        for path, body in (
            ("ingest", {"source": str(rows.source)}),
            ("reindex", {"document": str(rows.document)}),
        ):
            assert call(client, "POST", f"/api/v1/{path}", body).status_code == 403
    # Tags narrow, they never widen.
    for tags in (["incident_reports"], ["runbooks", "incident_reports"]):
        found = call(
            nina, "POST", "/api/v1/search", {"question": "Who is the intruder?", "tags": tags, "k": 20}
        )
        assert found.status_code == 200
        assert not [s for s in found.json()["sources"] if s["title"] == "Incident INC-0042"]
    # Nobody gives a document tags that take it out of their own sight, or into sight by guessing.
    runbook = cast.documents["acme"]["bgp-session-down.md"].pk
    for wrong in ([], ["faq"], ["incident_reports"]):
        assert call(nina, "PATCH", f"/api/v1/documents/{runbook}", {"tags": wrong}).status_code == 400
    # A conversation is not shared with those who may not read its sources, by id or by name.
    mine = call(nina, "POST", "/api/v1/query", {"question": QUESTION, "k": 20}).json()["conversation"]
    for who in (str(rows.member), "mona", str(cast.sam.membership.pk)):
        response = call(nina, "POST", f"/api/v1/conversations/{mine}/share", {"members": [who]})
        assert response.status_code == 409, who
    assert cast.hal.client.get(f"/api/v1/conversations/{mine}").status_code == 404


def test_another_tenant_cannot_be_chosen(cast: Cast) -> None:
    def sign_in(tenant: str) -> Any:
        body = {"username": "gina", "password": PASSWORD, "tenant": tenant}
        return call(Client(), "POST", "/api/v1/token", body)

    assert sign_in("globex").status_code == 200
    assert signature(sign_in("acme")) == signature(sign_in("nowhere"))
    assert sign_in("acme").status_code == 401

    client = session_client("gina")
    told = [client.post("/tenant/", {"tenant": slug}) for slug in ("acme", "nowhere")]
    assert [r.status_code for r in told] == [404, 404]
    assert signature(told[0]) == signature(told[1])
    # A session that claims another tenant is nobody's.
    session = client.session
    session["ragsite_tenant"] = str(cast.acme.pk)
    session.save()
    assert client.get("/api/v1/me").status_code == 401
    # Neither headers nor parameters choose a tenant.
    for headers in ({"x-tenant": "acme"}, {"x-tenant-id": str(cast.acme.pk)}):
        response = cast.gina.client.get(
            f"/api/v1/documents?tenant={cast.acme.pk}&tenant_id=acme", headers=headers
        )
        assert {d["id"] for d in response.json()["results"]} <= {
            str(d.pk) for d in cast.documents["globex"].values()
        }
        assert response.json()["results"]
    with scope(tenant_id=cast.globex.pk, tags=None):
        assert json.loads(cast.gina.client.get("/api/v1/me").content)["tenant"] == "globex"
