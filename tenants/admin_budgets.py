"""Budgets in the admin: what may be spent, and how much of it is."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from tenants.access import Principal
from tenants.admin_base import TenantModelAdmin
from tenants.admin_lists import choice
from tenants.budget_rules import delete_budget, save_budget
from tenants.budgets import read_budget
from tenants.models import Budget, Membership, Tenant, User
from tenants.scope import require_tenant_id
from tenants.templatetags.people import money


@admin.register(Budget)
class BudgetAdmin(TenantModelAdmin):
    may_add = may_change = may_delete = True
    list_display = ("whom", "shown_period", "soft", "hard", "spent", "used")
    list_filter = (choice("subject"), choice("period"))
    search_fields = ("user__username",)
    fields = ("subject", "user", "period", "soft_usd", "hard_usd")
    list_select_related = ("user",)
    export_fields = ("subject", "user", "period", "soft_usd", "hard_usd")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "user":  # people are of no tenant; a budget is for a member
            members = Membership.objects.values("user_id")
            kwargs["queryset"] = User.objects.filter(pk__in=members).order_by("username")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    @admin.display(description=_("for"))
    def whom(self, budget: Budget) -> str:
        return budget.user.username if budget.user else budget.get_subject_display()

    @admin.display(description=_("period"))
    def shown_period(self, budget: Budget) -> str:
        return budget.get_period_display()

    @admin.display(description=_("soft limit"))
    def soft(self, budget: Budget) -> str:
        return "–" if budget.soft_usd is None else str(money(budget.soft_usd))

    @admin.display(description=_("hard limit"))
    def hard(self, budget: Budget) -> str:
        return "–" if budget.hard_usd is None else str(money(budget.hard_usd))

    @admin.display(description=_("spent"))
    def spent(self, budget: Budget) -> str:
        standing = self._standing(budget)
        return "–" if standing is None else str(money(standing.spent))

    @admin.display(description=_("used"))
    def used(self, budget: Budget) -> str:
        standing = self._standing(budget)
        return "–" if standing is None else f"{standing.percent} %"

    def _standing(self, budget: Budget) -> Any:
        """``None`` for what holds for each member: it is spent by nobody in particular."""
        if budget.subject == Budget.Subject.MEMBERS:
            return None
        if not hasattr(budget, "standing"):
            tenant = Tenant.objects.get(pk=require_tenant_id())
            budget.standing = read_budget(budget, tenant=tenant)  # type: ignore[attr-defined]
        return budget.standing  # type: ignore[attr-defined]

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal) -> None:
        if not obj._state.adding:
            obj.refresh_from_db()
        save_budget(budget=obj, changes=changes, principal=principal)

    def remove(self, *, obj: Any, principal: Principal) -> None:
        delete_budget(budget=obj, principal=principal)
