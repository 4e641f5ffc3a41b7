"""Wall 1: without a scope nothing of a tenant can be read or written, by whatever way Django offers."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError
from django.db.models import Count, Exists, OuterRef, Prefetch, Subquery

from knowledge.models import Collection, Document
from tenants.models import Membership, Role, Tenant
from tenants.scope import ScopeMissing, identity, scope
from tests.security.helpers import tenant_models
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])

READS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "bool": bool,
    "len": len,
    "repr": repr,
    "index": lambda q: q[0],
    "slice": lambda q: list(q[:2]),
    "get": lambda q: q.get(uri="runbook"),
    "first": lambda q: q.first(),
    "last": lambda q: q.last(),
    "latest": lambda q: q.latest("created_at"),
    "earliest": lambda q: q.earliest("created_at"),
    "count": lambda q: q.count(),
    "exists": lambda q: q.exists(),
    "contains": lambda q: q.contains(Document(title="x")),
    "aggregate": lambda q: q.aggregate(Count("id")),
    "annotate": lambda q: list(q.annotate(n=Count("chunks"))),
    "values": lambda q: list(q.values("id")),
    "values_list": lambda q: list(q.values_list("id", flat=True)),
    "in_bulk": lambda q: q.in_bulk(),
    "iterator": lambda q: list(q.iterator()),
    "dates": lambda q: list(q.dates("created_at", "day")),
    "distinct": lambda q: list(q.order_by("uri").distinct("uri")),
    "exclude": lambda q: list(q.exclude(uri="")),
    "filter": lambda q: list(q.filter(uri="x")),
    "select_related": lambda q: list(q.select_related("collection")),
    "prefetch_related": lambda q: list(q.prefetch_related("chunks")),
    "defer": lambda q: list(q.defer("text")),
    "using": lambda q: list(q.using("default")),
    "reverse": lambda q: list(q.reverse()),
    "select_for_update": lambda q: list(q.select_for_update()),
    "explain": lambda q: q.explain(),
    "raw": lambda q: list(q.raw("SELECT * FROM knowledge_document")),
    "union": lambda q: list(q.union(q.model.objects.all())),
    "intersection": lambda q: list(q.intersection(q.model.objects.all())),
    "or": lambda q: list(q | q),
    "and": lambda q: list(q & q),
    "in another query": lambda q: list(Tenant.objects.filter(pk__in=q.values("tenant_id"))),
    "Subquery": lambda q: list(Tenant.objects.annotate(d=Subquery(q.values("title")[:1]))),
    "Exists": lambda q: list(Tenant.objects.filter(Exists(q.filter(tenant=OuterRef("pk"))))),
    "async list": lambda q: asyncio.run(_alist(q)),
    "async get": lambda q: asyncio.run(q.aget(uri="runbook")),
    "async count": lambda q: asyncio.run(q.acount()),
}

WRITES: dict[str, Callable[[Any], Any]] = {
    "update": lambda q: q.update(title="x"),
    "delete": lambda q: q.delete(),
    "create": lambda q: q.create(title="x", uri="x"),
    "get_or_create": lambda q: q.get_or_create(uri="x"),
    "update_or_create": lambda q: q.update_or_create(uri="x", defaults={"title": "y"}),
    "bulk_create": lambda q: q.bulk_create([q.model(title="x", uri="x")]),
    "bulk_update": lambda q: q.bulk_update([q.model(title="x", uri="x")], ["title"]),
}


async def _alist(queryset: Any) -> list[Any]:
    return [row async for row in queryset]


@pytest.fixture(autouse=True)
def async_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")


def titles() -> set[str]:
    return set(Document.objects.values_list("title", flat=True))


def test_nothing_of_a_tenant_is_reached_without_a_scope(people: People) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        before = titles()
        document = Document.objects.get(uri="runbook")
        collection = Collection.objects.get()
        bare = Document(collection=collection, title="new", uri="new")
        bare.tenant_id = people.acme.pk
    assert len(before) == 3
    for name, use in {**READS, **WRITES}.items():
        with pytest.raises(ScopeMissing):
            use(Document.objects.all())
            pytest.fail(f"{name} went through without a scope")
        # Which tenant's, nobody has said: the user alone is no scope for a tenant's data.
        with identity(user_id=people.ada.membership.user_id), pytest.raises(ScopeMissing):
            use(Document.objects.all())
            pytest.fail(f"{name} went through before a tenant was chosen")
        # Made outside, used inside: the filter is missing still.
        lazy = Document.objects.all()
        if name == "create":  # takes the tenant of the scope it is called in, and filters by nothing
            continue
        with scope(tenant_id=people.acme.pk, tags=None), pytest.raises(ScopeMissing):
            use(lazy)
            pytest.fail(f"{name} of a queryset made without a scope went through inside one")
    # Combined with a good one
    lazy = Document.objects.all()
    with scope(tenant_id=people.acme.pk, tags=None):
        good = Document.objects.all()
        for combine in (
            lambda: list(good | lazy),
            lambda: list(lazy | good),
            lambda: list(good & lazy),
            lambda: list(good ^ lazy),
            lambda: list(good.union(lazy)),
            lambda: list(good.filter(pk__in=lazy)),
            lambda: list(good.filter(Exists(lazy))),
            lambda: list(Collection.objects.prefetch_related(Prefetch("documents", queryset=lazy))),
        ):
            with pytest.raises(ScopeMissing):
                combine()
    # Through instances and relations
    for use in (
        lambda: document.refresh_from_db(),
        lambda: document.save(),
        lambda: document.delete(),
        lambda: bare.save(),
        lambda: bare.save(force_insert=True),
        lambda: list(collection.documents.all()),
        lambda: collection.documents.count(),
        lambda: collection.documents.create(title="x", uri="x"),
        lambda: Document.objects.get(pk=document.pk),
        lambda: Document._default_manager.get(pk=document.pk),
        lambda: Document._base_manager.get(pk=document.pk),
        lambda: Document(collection_id=collection.pk, title="x", uri="x").collection,
        lambda: bare.full_clean(),
    ):
        with pytest.raises(ScopeMissing):
            use()
    with scope(tenant_id=people.acme.pk, tags=None):
        assert titles() == before


def test_every_tenant_model_has_the_manager_that_refuses(people: People) -> None:
    models = tenant_models()
    assert len(models) >= 15
    for model in models:
        for manager in (model._default_manager, model._base_manager, *model._meta.managers):
            with pytest.raises(ScopeMissing):
                manager.count()
            with scope(tenant_id=people.globex.pk, tags=None):
                assert "tenant_id" in str(manager.all().query), model


def test_a_queryset_of_one_tenant_finds_nothing_in_another(people: People) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        lazy = Document.objects.all()
        document = Document.objects.get(uri="runbook")
    with scope(tenant_id=people.globex.pk, tags=None):
        assert list(lazy) == []  # the first wall says acme, the second globex
        with pytest.raises(Document.DoesNotExist):
            document.refresh_from_db()
        assert Document.objects.filter(pk=document.pk).update(title="mine") == 0
        assert Document.objects.filter(pk=document.pk).delete()[0] == 0
    with scope(tenant_id=people.acme.pk, tags=None):
        assert Document.objects.get(pk=document.pk).title == "acme runbook"


def test_before_a_tenant_is_chosen_a_user_sees_their_own_memberships_alone(people: People) -> None:
    user_id = people.ada.membership.user_id
    with identity(user_id=user_id):
        rows = list(Membership.objects.all().of_no_tenant().select_related("tenant", "role"))
        assert [(row.user_id, row.tenant.slug, row.role.name) for row in rows] == [(user_id, "acme", "admin")]
        # Even when asked for others by name.
        assert not Membership.objects.all().of_no_tenant().filter(user__username="gus").exists()
        assert [tenant.slug for tenant in Tenant.objects.all()] == ["acme"]
        assert [role.name for role in Role.objects.all().of_no_tenant()] == ["admin"]
        assert not Document.objects.all().of_no_tenant().exists()
        with pytest.raises(DatabaseError):
            Membership.objects.all().of_no_tenant().update(status="suspended")
    with scope(tenant_id=people.acme.pk, tags=None), pytest.raises(ScopeMissing):
        Membership.objects.all().of_no_tenant()
    with pytest.raises(ScopeMissing):
        Membership.objects.all().of_no_tenant()
