"""Both arms of the search under each wall alone: neither finds what the role may not read."""

import uuid
from typing import Any

import pytest
from django.db import connection, connections

from knowledge.config import RetrievalConfig
from knowledge.embedding.factory import embedder
from knowledge.models import Chunk, Document
from knowledge.retrieval.base import Filters
from knowledge.retrieval.search import rank_chunks
from tenants.models import Membership
from tenants.scope import atomic, enter, scope, unscoped
from tests.cast import Cast, add_indexed, member_of
from tests.security.helpers import call

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

SECRETS = {  # title → a word that only this document has
    "BGP session down": "7741",
    "Edge BGP policy": "64512",
    "Incident INC-0042": "marlin",
    "VPN questions": "IKE",
    "Renumbering plan": "Harbour",
}
READABLE = {
    "ada": set(SECRETS),
    "nina": {"BGP session down", "Edge BGP policy"},
    "sam": {"Incident INC-0042"},
    "hal": {"BGP session down", "VPN questions"},
    "mona": {"Edge BGP policy"},
}
EVERYTHING = "extension 7741, communities 64512, marlin, IKE service, project Harbour, hold timer, cerberus"


def arms(membership: Membership) -> dict[str, set[str]]:
    """The titles that each arm finds in the scope in force, asked for everything that there is."""
    ranking = rank_chunks(
        membership=membership,
        question=EVERYTHING,
        vector=embedder().embed([EVERYTHING])[0],
        limit=1000,
        filters=Filters(),
        config=RetrievalConfig(),
    )
    with unscoped(reason="tests"):
        titles = dict(Chunk.objects.values_list("id", "document__title"))
        tenants = dict(Chunk.objects.values_list("id", "tenant__slug"))
    found = {"dense": ranking.dense, "keyword": ranking.keyword, "fused": ranking.fused}
    assert {tenants[each.chunk_id] for ranked in found.values() for each in ranked} <= {"acme"}
    return {arm: {titles[each.chunk_id] for each in ranked} for arm, ranked in found.items()}


def rows_of(table: str) -> list[tuple[Any, ...]]:
    """What plain SQL without any condition of ours finds, in the scope in force."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        return list(cursor.fetchall())


def raw_documents() -> set[tuple[uuid.UUID, uuid.UUID]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tenant_id, document_id FROM knowledge_chunk")
        return set(cursor.fetchall())


def test_each_wall_alone_filters_both_arms_by_tenant_and_tags(cast: Cast) -> None:
    ids = {document.title: document.pk for document in cast.documents["acme"].values()}
    assert set(ids) == set(SECRETS)
    for name, readable in READABLE.items():
        membership = getattr(cast, name).membership
        principal = getattr(cast, name).principal
        expected = {"dense": readable, "keyword": readable, "fused": readable}
        # Wall 1 alone: the database would show every tag of the tenant.
        with scope(tenant_id=cast.acme.pk, tags=None):
            assert arms(membership) == expected, name
            assert set(Document.objects.visible_to(membership).values_list("title", flat=True)) == readable
            assert len(rows_of("knowledge_embedding")) >= len(SECRETS)
        # Wall 2 alone: the code asks as one who reads everything, then with no condition at all.
        with enter(principal.scope()):
            assert arms(cast.ada.membership) == expected, name
            assert raw_documents() == {(cast.acme.pk, ids[title]) for title in readable}, name
            # Vectors tell of texts whatever their tags: not even one's own, unless one reads everything.
            assert bool(rows_of("knowledge_embedding")) == (name == "ada")
            with connection.cursor() as cursor:
                cursor.execute("SELECT title FROM knowledge_document")
                assert {row[0] for row in cursor.fetchall()} == readable
    # The wrong tenant's scope with the right member, and the other way round: nothing.
    with scope(tenant_id=cast.globex.pk, tags=None):
        assert not Chunk.objects.visible_to(cast.ada.membership).exists()
        assert arms(cast.ada.membership)["fused"] == set()
    with scope(tenant_id=cast.acme.pk, tags=None):
        assert not Chunk.objects.visible_to(cast.gus.membership).exists()
        assert not Chunk.objects.filter(tenant_id=cast.globex.pk).exists()
        assert arms(cast.gus.membership)["fused"] == set()


def found_titles(client: Any, **body: Any) -> set[str]:
    response = call(client, "POST", "/api/v1/search", {"question": EVERYTHING, "k": 20, **body})
    assert response.status_code == 200, response.content
    return {source["title"] for source in response.json()["sources"]}


def test_search_and_lists_show_what_the_role_reads_at_this_moment(cast: Cast) -> None:
    for name, readable in READABLE.items():
        client = getattr(cast, name).client
        assert found_titles(client) == readable, name
        listed = {d["title"] for d in client.get("/api/v1/documents").json()["results"]}
        assert listed == readable, name
        text = call(client, "POST", "/api/v1/query", {"question": EVERYTHING, "k": 20}).content.decode()
        hidden = {SECRETS[title] for title in set(SECRETS) - readable}
        asked = text.replace(EVERYTHING, "")  # the question itself comes back
        assert not [word for word in hidden if word in asked], name
    # Tokens and sessions stay; what they read changes with the very next request.
    ada = cast.ada.client
    role = cast.nina.membership.role_id
    assert call(ada, "PATCH", f"/api/v1/roles/{role}", {"tags": ["standards"]}).status_code == 200
    assert found_titles(cast.nina.client) == {"Edge BGP policy"}
    runbook = cast.documents["acme"]["bgp-session-down.md"].pk
    assert cast.nina.client.get(f"/api/v1/documents/{runbook}").status_code == 404
    assert call(ada, "PATCH", f"/api/v1/roles/{role}", {"tags": []}).status_code == 200
    assert found_titles(cast.nina.client) == set()
    # Another role
    sam = str(cast.sam.membership.role_id)
    assert call(ada, "PATCH", f"/api/v1/members/{cast.nina.membership.pk}", {"role": sam}).status_code == 200
    assert found_titles(cast.nina.client) == READABLE["sam"]
    # Another tag, no tag, deletion, restoration
    faq = cast.documents["acme"]["vpn-faq.md"].pk
    assert call(ada, "PATCH", f"/api/v1/documents/{faq}", {"tags": ["standards"]}).status_code == 200
    assert found_titles(cast.hal.client) == {"BGP session down"}
    assert found_titles(cast.mona.client) == {"Edge BGP policy", "VPN questions"}
    assert call(ada, "PATCH", f"/api/v1/documents/{faq}", {"tags": []}).status_code == 200
    assert found_titles(cast.mona.client) == {"Edge BGP policy"}
    assert found_titles(ada) == set(SECRETS)
    assert call(ada, "DELETE", f"/api/v1/documents/{runbook}").status_code == 204
    assert found_titles(cast.hal.client) == set()
    assert found_titles(ada) == set(SECRETS) - {"BGP session down"}
    assert call(ada, "POST", f"/api/v1/documents/{runbook}/restore").status_code == 200
    assert found_titles(cast.hal.client) == {"BGP session down"}


def test_scores_say_nothing_of_what_may_not_be_read(cast: Cast) -> None:
    """A document that a role may not read must not change the role's figures either (a word's rarity would tell)."""

    def figures() -> list[tuple[Any, ...]]:
        body = {"question": "hold timer of the marlin session", "k": 20}
        sources = call(cast.nina.client, "POST", "/api/v1/search", body).json()["sources"]
        return [(s["title"], s["score"], s["text"]) for s in sources]

    before = figures()
    with scope(tenant_id=cast.acme.pk, tags=None):
        for n in range(3):
            add_indexed(
                collection=cast.collections["acme"],
                name=f"hidden-{n}.md",
                tags=["incident_reports"] if n else [],
                text="# Marlin\n\nThe hold timer of the marlin session is kept secret.\n",
            )
    assert figures() == before
    assert len(before) > 0


def ask(member: Any, **body: Any) -> dict[str, Any]:
    body = {"question": "What is the hold timer on edge routers?", **body}
    response = call(member.client, "POST", "/api/v1/query", body)
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def test_the_answer_cache_misses_as_soon_as_a_right_or_a_document_changes(cast: Cast) -> None:
    ada = cast.ada.client
    runbook = cast.documents["acme"]["bgp-session-down.md"].pk

    def is_cached_for_nina() -> bool:
        first, second = ask(cast.nina), ask(cast.nina)
        assert "30 seconds" in first["answer"] and first["cache"] == "miss"
        return bool(second["cache"] == "exact" and "30 seconds" in second["answer"])

    assert is_cached_for_nina()
    # Other permissions, another tenant, other filters: never the same entry.
    assert ask(cast.sam)["cache"] == "miss"
    assert "30 seconds" not in ask(cast.sam)["answer"]
    assert ask(cast.gina)["cache"] == "miss"
    assert "180 seconds" in ask(cast.gina)["answer"]
    assert ask(cast.ada)["cache"] == "miss"
    narrowed = ask(cast.nina, tags=["standards"])
    assert narrowed["cache"] == "miss" and "30 seconds" not in narrowed["answer"]

    # A tag taken from the role, and given back.
    role = cast.nina.membership.role_id
    tags = cast.nina.membership.role.tags
    call(ada, "PATCH", f"/api/v1/roles/{role}", {"tags": [tag for tag in tags if tag != "runbooks"]})
    changed = ask(cast.nina)
    assert changed["cache"] == "miss" and "30 seconds" not in changed["answer"]
    call(ada, "PATCH", f"/api/v1/roles/{role}", {"tags": tags})
    assert is_cached_for_nina()
    # Another role for the member.
    call(ada, "PATCH", f"/api/v1/members/{cast.nina.membership.pk}", {"role": "security_analyst"})
    changed = ask(cast.nina)
    assert changed["cache"] == "miss" and "30 seconds" not in changed["answer"]
    call(ada, "PATCH", f"/api/v1/members/{cast.nina.membership.pk}", {"role": "network_engineer"})
    assert is_cached_for_nina()
    # Another tag for the document, and back.
    call(ada, "PATCH", f"/api/v1/documents/{runbook}", {"tags": ["faq"]})
    changed = ask(cast.nina)
    assert changed["cache"] == "miss" and "30 seconds" not in changed["answer"]
    call(ada, "PATCH", f"/api/v1/documents/{runbook}", {"tags": ["runbooks"]})
    assert is_cached_for_nina()
    # The document deleted.
    call(ada, "DELETE", f"/api/v1/documents/{runbook}")
    changed = ask(cast.nina)
    assert changed["cache"] == "miss" and "30 seconds" not in changed["answer"]
    with connections[
        "platform"
    ].cursor() as cursor:  # deleted is not erased: the row is there, and yet not found
        cursor.execute("SELECT count(*) FROM knowledge_chunk WHERE document_id = %s", [runbook])
        assert cursor.fetchone()[0] > 0


def test_a_member_who_was_suspended_meanwhile_reads_nothing(cast: Cast) -> None:
    with scope(tenant_id=cast.acme.pk, tags=None), atomic():
        Membership.objects.filter(pk=cast.nina.membership.pk).update(status="suspended")
        membership = Membership.objects.select_related("role", "tenant").get(pk=cast.nina.membership.pk)
        assert not Chunk.objects.visible_to(membership).exists()
        assert not Document.objects.visible_to(membership).exists()
    assert call(cast.nina.client, "POST", "/api/v1/search", {"question": EVERYTHING}).status_code == 401
    with scope(tenant_id=cast.acme.pk, tags=None):
        Membership.objects.filter(pk=membership.pk).update(status="active")
    assert found_titles(member_of(slug="acme", username="nina").client) == READABLE["nina"]
