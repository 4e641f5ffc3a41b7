"""The fixed cast of the tests: two tenants with the same people as the demo data, and small documents of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.test import Client

from knowledge.documents import save_collection
from knowledge.embedding.base import Vectors
from knowledge.embedding.factory import embedder
from knowledge.embedding.store import store_vectors
from knowledge.ingestion.index import Original, prepare_document, swap_documents
from knowledge.ingestion.storage import store_original
from knowledge.llm.prices import DEFAULT_PRICES
from knowledge.models import Collection, Document, Price
from tenants.access import Principal
from tenants.models import Membership, Role, Tenant, User
from tenants.people import add_member, create_tenant, create_user
from tenants.scope import atomic, scope, unscoped

PASSWORD = "demo-ragsite"
PEOPLE = {
    "acme": {
        "ada": "admin",
        "nina": "network_engineer",
        "sam": "security_analyst",
        "hal": "helpdesk",
        "mona": "management",
    },
    "globex": {"gus": "admin", "gina": "network_engineer", "hank": "helpdesk"},
}
# tenant → file name → (tags, text)
DOCUMENTS: dict[str, dict[str, tuple[list[str], str]]] = {
    "acme": {
        "bgp-session-down.md": (
            ["runbooks"],
            "# BGP session down\n\n## Check the session\n\nThe hold timer on acme edge routers is 30 seconds. "
            "Look at the neighbour with show bgp summary on interface ge-0/0/1.\n\n"
            "## Escalation\n\nCall the backbone duty officer at extension 7741 when the session stays down "
            "for ten minutes.\n",
        ),
        "edge-policy.md": (
            ["standards"],
            "# Edge BGP policy\n\nEvery transit session carries a maximum-prefix limit of 950000 and is torn down "
            "at 90 percent. Communities 64512:100 mark customer routes.\n",
        ),
        "incident-0042.md": (
            ["incident_reports"],
            "# Incident INC-0042\n\nThe intruder entered through the jump host marlin-7 with a stolen key on "
            "3 March. Error code ERR-4711 was logged by the bastion.\n",
        ),
        "vpn-faq.md": (
            ["faq"],
            "# VPN questions\n\nIf the client shows code 809, restart the IKE service and try again.\n",
        ),
        "merger.md": (
            [],
            "# Renumbering plan\n\nProject Harbour moves the warehouse network to 10.77.0.0/16 in the second "
            "quarter.\n",
        ),
    },
    "globex": {
        "bgp-session-down.md": (
            ["runbooks"],
            "# BGP session down\n\n## Check the session\n\nThe hold timer on globex border routers is 180 seconds. "
            "The border router is called cerberus-2.\n\n## Escalation\n\nCall the plant network desk at "
            "extension 3300.\n",
        ),
        "edge-policy.md": (
            ["standards"],
            "# Edge BGP policy\n\nThe maximum-prefix limit towards transit is 120000.\n",
        ),
    },
}


@dataclass
class Member:
    """A member, and a client signed in as them with a token."""

    membership: Membership
    client: Client
    principal: Principal

    @property
    def username(self) -> str:
        return self.membership.user.username


@dataclass
class Cast:
    """``cast.nina`` is a ``Member``; ``cast.acme`` a ``Tenant``; ``cast.documents["acme"]["merger.md"]`` a ``Document``."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    collections: dict[str, Collection] = field(default_factory=dict)
    documents: dict[str, dict[str, Document]] = field(default_factory=dict)
    root: User | None = None

    def __getattr__(self, name: str) -> Any:
        if name in self.members:
            return self.members[name]
        if name in self.tenants:
            return self.tenants[name]
        raise AttributeError(name)


@cache
def _embed(name: str, texts: tuple[str, ...]) -> Vectors:
    vectors = embedder().embed(texts)
    vectors.setflags(write=False)
    return vectors


class RememberingEmbedder:
    """The configured model, which is asked once for the documents of the cast: they are the same in every test.

    It is for what the tests find already indexed. What a test itself indexes or asks goes to the model.
    """

    def __init__(self) -> None:
        self.name = embedder().name
        self.dimensions = embedder().dimensions

    def embed(self, texts: Sequence[str]) -> Vectors:
        return _embed(self.name, tuple(texts))

    def count_tokens(self, text: str) -> int:
        return embedder().count_tokens(text)


def make_cast() -> Cast:
    cast = Cast()
    Price.objects.using("owner").bulk_create(
        [Price(**row.__dict__) for row in DEFAULT_PRICES], ignore_conflicts=True
    )
    for slug, people in PEOPLE.items():
        tenant = create_tenant(slug=slug, name=slug.title())
        cast.tenants[slug] = tenant
        # One transaction: a third of the round trips.
        with scope(tenant_id=tenant.pk, tags=None), atomic():
            roles = {role.name: role for role in Role.objects.all()}
            for username, role in people.items():
                user = create_user(
                    username=username,
                    email=f"{username}@{slug}.example",
                    password=PASSWORD,
                    check_password=False,
                )
                add_member(user=user, role=roles[role])
            collection = save_collection(
                collection=Collection(), changes={"slug": "handbook", "name": "Handbook"}
            )
            cast.collections[slug] = collection
            cast.documents[slug] = add_all_indexed(collection=collection, documents=DOCUMENTS[slug])
        with unscoped(reason="tests"):
            rows = {row.user.username: row for row in _memberships().filter(tenant=tenant)}
        with scope(tenant_id=tenant.pk, tags=None), atomic():
            cast.members |= {username: _member(rows[username]) for username in people}
    cast.root = User.objects.create_superuser("root", password=PASSWORD)
    return cast


def member_of(*, slug: str, username: str) -> Member:
    """A member as they are now, with a client that holds a fresh token."""
    with unscoped(reason="tests"):
        row = _memberships().get(user__username=username, tenant__slug=slug)
    with scope(tenant_id=row.tenant_id, tags=None):
        return _member(row)


def _memberships() -> Any:
    return Membership.objects.select_related("user", "role", "tenant")


def _member(row: Membership) -> Member:
    """In the scope of its tenant."""
    from tenants.tokens import issue_tokens

    pair = issue_tokens(membership=row)
    client = Client(headers={"authorization": f"Bearer {pair.access}"})
    principal = Principal(membership=row, method="jwt", abilities=frozenset(row.role.abilities))
    return Member(membership=row, client=client, principal=principal)


def add_indexed(*, collection: Collection, name: str, tags: list[str], text: str) -> Document:
    """A document that is indexed already; in the scope of its tenant."""
    return add_all_indexed(collection=collection, documents={name: (tags, text)})[name]


def add_all_indexed(
    *, collection: Collection, documents: dict[str, tuple[list[str], str]]
) -> dict[str, Document]:
    """Documents that are indexed already, by name, in one turn; in the scope of their tenant.

    Args:
        documents: tags and text by name.
    """
    model, prepared = RememberingEmbedder(), []
    for name, (tags, text) in documents.items():
        data = text.encode()
        stored = store_original(tenant_id=collection.tenant_id, data=data)
        document = Document(collection=collection, uri=name, title=name, tags=sorted(tags))
        original = Original(data=data, filename=name, stored_name=stored)
        prepared.append(prepare_document(document=document, original=original, embedder=model))
    store_vectors(texts={key: text for each in prepared for key, text in each.texts.items()}, embedder=model)
    swap_documents(prepared=prepared)
    added = Document.objects.in_bulk([each.document.pk for each in prepared])
    return {name: added[each.document.pk] for name, each in zip(documents, prepared, strict=True)}
