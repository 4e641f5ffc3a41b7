"""Budgets in the admin: set, shown with what is spent, changed, removed; each with its audit event."""

import uuid
from decimal import Decimal
from typing import Any

import pytest

from tenants.budgets import reserve_cost
from tenants.models import AuditEvent, Budget
from tenants.scope import atomic, enter, scope
from tenants.usage import Call, record_calls
from tests.tenants.admin_cast import signed_in, url_of
from tests.tenants.conftest import People

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
NEW = {"subject": "tenant", "user": "", "period": "month", "soft_usd": "5", "hard_usd": "10"}


def test_a_budget_from_its_making_to_its_end(people: People) -> None:
    ada, url = signed_in("ada"), url_of(Budget, "add")
    page = ada.get(url).content.decode()
    assert ">nina</option>" in page and ">gina</option>" not in page  # members of this tenant alone
    for wrong, words in (
        ({"hard_usd": "1"}, "must not be above the hard one"),
        ({"soft_usd": "", "hard_usd": ""}, "Give a soft limit, a hard limit or both"),
        ({"subject": "member"}, "Name a member"),
        ({"hard_usd": "-1", "soft_usd": ""}, "greater than or equal to 0"),
        ({"user": str(people.gina.membership.user_id), "subject": "member"}, "valid choice"),
    ):
        response = ada.post(url, NEW | wrong)
        assert response.status_code == 200 and words in response.content.decode(), wrong
    assert ada.post(url, NEW).status_code == 302
    again = ada.post(url, NEW, follow=True).content.decode()
    assert "There is a budget of this kind already" in again
    with enter(people.nina.principal.scope()):
        budget: Any = Budget.objects.get()
        request_id = uuid.uuid4()
        assert reserve_cost(membership=people.nina.membership, request_id=request_id, amount=Decimal("6"))
        call = Call("anthropic", "m", "answer", "success", 1, 1, 0, 0, Decimal("5.50"), 0.1)
        with atomic():
            record_calls(
                user=people.nina.membership.user, request_id=request_id, endpoint="query", calls=[call]
            )
    listed = ada.get(url_of(Budget, "changelist")).content.decode()
    assert "$5.50" in listed and "55 %" in listed
    costs = people.ada.client.get("/api/v1/costs").json()
    assert [(one["percent"], Decimal(one["spent_usd"])) for one in costs["budget"]] == [(55, Decimal("5.5"))]
    changed = ada.post(url_of(Budget, "change", budget.pk), NEW | {"hard_usd": "20"})
    assert changed.status_code == 302
    assert signed_in("gus").get(url_of(Budget, "change", budget.pk)).status_code == 404
    assert signed_in("nina").get(url_of(Budget, "changelist")).status_code in (302, 403)
    assert ada.post(url_of(Budget, "delete", budget.pk), {"post": "yes"}).status_code == 302
    with scope(tenant_id=people.acme.pk, tags=None):
        assert not Budget.objects.exists()
        events = list(AuditEvent.objects.filter(action__startswith="budget.").order_by("at"))
    assert [event.action for event in events] == ["budget.create", "budget.change", "budget.delete"]
    assert events[1].detail["before"]["hard_usd"] == "10.000000"
    assert events[1].detail["after"]["hard_usd"] == "20"
