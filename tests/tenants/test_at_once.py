"""Two who change rights at once: neither undoes the other's change, and somebody always manages the tenant."""

import threading
from typing import Any

import pytest
from django.db import connections

from ragsite.core.problems import Problem
from tenants.models import Membership, Role
from tenants.people import change_member, remove_member, save_role
from tenants.scope import scope
from tests.cast import member_of
from tests.security.helpers import call
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def read_nina() -> Membership:
    return Membership.objects.select_related("user", "role", "tenant").get(user__username="nina")


def test_a_suspension_is_not_undone_by_another_role(people: People) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        first, second = read_nina(), read_nina()
        change_member(membership=first, status="suspended")
        change_member(membership=second, role=Role.objects.get(name="helpdesk"))
        found = read_nina()
        assert (found.status, found.role.name) == ("suspended", "helpdesk")
        # Nor the other way round.
        first, second = read_nina(), read_nina()
        change_member(membership=first, role=Role.objects.get(name="management"))
        change_member(membership=second, status="active")
        found = read_nina()
        assert (found.status, found.role.name) == ("active", "management")
        stale = read_nina()
        remove_member(membership=read_nina())
        with pytest.raises(Problem) as error:
            change_member(membership=stale, status="suspended")
        assert error.value.status == 404


def test_a_new_name_brings_no_tags_and_abilities_back(people: People) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        first, second = (Role.objects.get(name="network_engineer") for _ in range(2))
        assert len(first.tags) > 1
        save_role(role=first, changes={"tags": ["runbooks"], "abilities": ["ask"]})
        save_role(role=second, changes={"name": "engineer"})
        found = Role.objects.get(pk=first.pk)
        assert (found.name, found.tags, found.abilities) == ("engineer", ["runbooks"], ["ask"])
        assert not found.reads_everything


def test_two_admins_who_suspend_each_other_are_not_both_gone(people: People) -> None:
    with scope(tenant_id=people.acme.pk, tags=None):
        change_member(membership=read_nina(), role=Role.objects.get(name="admin"))
    for _ in range(4):
        ada, nina = (member_of(slug="acme", username=name) for name in ("ada", "nina"))
        barrier, statuses = threading.Barrier(2), []

        def suspend(client: Any, target: Any, barrier: Any = barrier, statuses: Any = statuses) -> None:
            barrier.wait()
            body = {"status": "suspended"}
            statuses.append(call(client, "PATCH", f"/api/v1/members/{target}", body).status_code)
            connections.close_all()

        pair = [(ada, nina), (nina, ada)]
        threads = [
            threading.Thread(target=suspend, args=(one.client, other.membership.pk)) for one, other in pair
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with scope(tenant_id=people.acme.pk, tags=None):
            rows = Membership.objects.filter(role__name="admin")
            assert rows.filter(status="active").count() == 1, statuses
            rows.update(status="active")
        # The one who was late is told so, or was suspended already.
        assert sorted(statuses)[0] == 200 and sorted(statuses)[1] in (401, 409)
