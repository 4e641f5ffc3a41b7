"""Budgets as those who manage set them; each change is in the audit log."""

from typing import Any

from django.core.exceptions import ValidationError
from django.forms import model_to_dict

from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Budget
from tenants.people import invalid
from tenants.scope import atomic

FIELDS = ("subject", "user", "period", "soft_usd", "hard_usd")


def save_budget(*, budget: Budget, changes: dict[str, Any], principal: Principal) -> Budget:
    """A new budget, or another one in its place; it holds from the next question on.

    Raises:
        Problem: 400 for limits that make no sense, or a second budget of one kind.
    """
    is_new = budget._state.adding
    before = {} if is_new else _facts(budget)
    for field, value in changes.items():
        setattr(budget, field, value)
    try:
        budget.full_clean()
    except ValidationError as error:
        raise invalid(error) from None
    with atomic():
        budget.save()
        facts = _facts(budget)
        action = "budget.create" if is_new else "budget.change"
        record_by(principal, action, budget, facts if is_new else {"before": before, "after": facts})
    return budget


def delete_budget(*, budget: Budget, principal: Principal) -> None:
    """Removes a budget; what was spent stays in the ledger."""
    with atomic():
        record_by(principal, "budget.delete", budget, _facts(budget))
        budget.delete()


def _facts(budget: Budget) -> dict[str, Any]:
    facts = model_to_dict(budget, fields=FIELDS)
    facts["user"] = budget.user.username if budget.user else None
    return {name: value if value is None else str(value) for name, value in facts.items()}
