"""Why something is found: the figures are those of the search, and nobody is shown more than they may read."""

from typing import Any

import pytest

from knowledge.models import Document
from knowledge.retrieval.analysis import find_terms
from knowledge.retrieval.explain import Places, cut_at, describe_place
from tenants.models import AuditEvent, Role
from tenants.scope import scope
from tests.knowledge.rows import html_of, htmx, signed_in
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast

MARLIN = "Through which host did the intruder enter, marlin-7?"


def why(username: str, question: str, status: int = 200, **query: Any) -> str:
    client = signed_in(username)
    return html_of(client.get("/search/why/", {"question": question, **query}), status)


def role_of(cast: Any, name: str, slug: str = "acme") -> str:
    with scope(tenant_id=cast.tenants[slug].pk, tags=None):
        return str(Role.objects.get(name=name).pk)


@pytest.fixture
def hal_manages(shared: Any) -> Any:
    """The helpdesk may manage, and reads the FAQ alone."""
    with scope(tenant_id=shared.acme.pk, tags=None):
        roles = Role.objects.filter(name="helpdesk")
        before = roles.get().abilities
        roles.update(abilities=["ask", "manage"])
        yield shared
        roles.update(abilities=before)


def test_a_place_in_words() -> None:
    sentence = describe_place(Places(4, 1, 1), held=["ge-0/0/1"], rarest="ge-0/0/1")
    assert sentence == "4th by meaning, 1st by words: holds ge-0/0/1, the rarest term of the question."
    assert describe_place(Places(None, 2, 1), held=["bgp", "hold"], rarest="x").endswith(
        "not near by meaning, 2nd by words: holds bgp and hold."
    )
    assert describe_place(Places(3, None, 2), held=[]).startswith("3rd by meaning, not found by words")


def test_terms_are_marked_where_they_stand() -> None:
    text = "Sessions on GE-0/0/1 follow RFC 7938, not others."
    spans = find_terms(text, terms={"session", "ge-0/0/1", "rfc7938"}, language="english")
    assert [text[slice(*span)] for span in spans] == ["Sessions", "GE-0/0/1", "RFC 7938"]
    assert "".join(piece for piece, _ in cut_at(text, spans)) == text


def test_an_admin_sees_terms_ranks_and_scores(shared: Any) -> None:
    page = why("ada", "What is on interface ge-0/0/1?")
    assert "1st by words: holds ge-0/0/1, the rarest term of the question" in page
    assert "<mark>ge-0/0/1</mark>" in page and "BGP session down" in page
    assert "<code>interfac</code>" in page and "globex" not in page
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert AuditEvent.objects.filter(action="search.explain").exists()


def test_as_another_role_and_with_filters(shared: Any) -> None:
    page = why("ada", MARLIN, role=role_of(shared, "helpdesk"), document="incident-0042.md")
    passages, _, _ = page.partition("Terms of the question")
    assert "INC-0042" not in passages.partition("<h2>Passages")[2]
    assert "The role may not read it: it has incident_reports, the role reads" in page
    narrowed = why("ada", MARLIN, tags="standards", document="incident-0042.md")
    assert "none of the tags that the filter asks for" in narrowed
    assert "Edge BGP policy" in narrowed and "VPN questions" not in narrowed


def test_why_a_document_is_not_found(shared: Any) -> None:
    documents = shared.documents["acme"]
    assert "Its best passage is 1st of all" in why(
        "ada", MARLIN, document=str(documents["incident-0042.md"].pk)
    )
    assert "no document of this id or address that you may read" in why(
        "ada", MARLIN, 400, document="nowhere.md"
    )
    with scope(tenant_id=shared.acme.pk, tags=None):
        row = Document.objects.create(
            collection=shared.collections["acme"],
            uri="b.md",
            title="b",
            status="failed",
            error="It is broken.",
        )
    assert "could not be indexed: It is broken." in why("ada", MARLIN, document="b.md")
    foreign = str(shared.documents["globex"]["edge-policy.md"].pk)
    assert "no document of this id" in why("ada", MARLIN, 400, document=foreign)
    with scope(tenant_id=shared.acme.pk, tags=None):
        row.delete()


def test_who_does_not_read_everything_is_shown_counts(hal_manages: Any) -> None:
    page = why("hal", MARLIN, role=role_of(hal_manages, "security_analyst"))
    shown = page.partition('id="why"')[2]
    assert "marlin" not in shown and "INC-0042" not in page and "jump host" not in page
    assert "that your own role may not read" in page
    assert "Weight (idf)" not in page and "confidence 0" not in page and "BM25" not in page
    # The document is there for the role, and not for the one who asks after it.
    assert "no document of this id" in why("hal", MARLIN, 400, document="incident-0042.md")
    own = why("hal", "client shows code 809")
    assert "Weight (idf)" in own and "VPN questions" in own


def test_wrong_input_and_others(shared: Any) -> None:
    assert "at least 3 characters" in why("ada", "x", 400)
    assert html_of(signed_in("ada").get("/search/why/", {"question": "", "role": "nonsense"}), 404)
    why("ada", MARLIN, 404, role=role_of(shared, "admin", "globex"))
    why("ada", MARLIN, 404, collections="nowhere")
    why("nina", MARLIN, 403)
    part = signed_in("ada").get("/search/why/", {"question": MARLIN}, headers=htmx())
    assert "<html" not in html_of(part) and "Passages searched" in html_of(part)
