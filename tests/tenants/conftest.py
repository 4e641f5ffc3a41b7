"""Two tenants with people and no documents: quicker than the whole cast, for what is about people alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from knowledge.models import Collection, Corpus, Document
from tenants.models import Role, Tenant
from tenants.people import add_member, create_tenant, create_user
from tenants.scope import scope
from tests.cast import PASSWORD, Member, member_of

PEOPLE = {
    "acme": {"ada": "admin", "nina": "network_engineer"},
    "globex": {"gus": "admin", "gina": "network_engineer"},
}


@dataclass
class People:
    """``people.nina`` is a ``Member``, ``people.acme`` a ``Tenant``; each tenant has three documents, one untagged."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        found = {**self.__dict__["members"], **self.__dict__["tenants"]}
        if name not in found:
            raise AttributeError(name)
        return found[name]


@pytest.fixture
def people(transactional_db: None) -> People:
    found = People()
    for slug, members in PEOPLE.items():
        tenant = found.tenants[slug] = create_tenant(slug=slug, name=slug.title())
        with scope(tenant_id=tenant.pk, tags=None):
            roles = {role.name: role for role in Role.objects.all()}
            for username, role in members.items():
                user = create_user(username=username, password=PASSWORD, check_password=False)
                add_member(user=user, role=roles[role])
            collection = Collection.objects.create(slug="all", name="All")
            Corpus.raise_version()
            for title, tags in (
                ("runbook", ["runbooks"]),
                ("incident", ["incident_reports"]),
                ("untagged", []),
            ):
                Document.objects.create(
                    collection=collection, title=f"{slug} {title}", uri=title, tags=tags, status="indexed"
                )
        for username in members:
            found.members[username] = member_of(slug=slug, username=username)
    return found


@pytest.fixture
def tasks_at_once() -> Iterator[None]:
    """Tasks run where they are sent: e-mails are in Django's outbox when the request is over."""
    from ragsite.celery import app

    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    yield
    app.conf.update(task_always_eager=False, task_eager_propagates=False)
