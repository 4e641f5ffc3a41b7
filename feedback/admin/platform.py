"""The admin's home page for superusers who have chosen no tenant: what the installation holds and spends."""

from typing import Any

from django.db.models import Count, Q
from django.urls import reverse
from django.utils.translation import gettext as _

from feedback.admin.figures import Figure, list_link
from knowledge.models import Job
from tenants.admin_charts import Chart, Series
from tenants.costs import Asked, by_day, calls_of, total
from tenants.models import Tenant, User
from tenants.periods import Days
from tenants.templatetags.people import money, thousands

UNFINISHED = (Job.State.PENDING, Job.State.PROGRESS)


def platform_home(days: Days) -> dict[str, Any]:
    """In the platform scope. Questions and ratings are a tenant's own business, and told inside of it."""
    calls = calls_of(Asked(days=days))
    spent, costs = total(calls), by_day(calls, days)
    tenants = Tenant.objects.aggregate(
        active=Count("pk", filter=Q(status=Tenant.Status.ACTIVE)), every=Count("*")
    )
    jobs = Job.objects.filter(created_at__gte=days.start, created_at__lt=days.end).aggregate(
        failed=Count("pk", filter=Q(state=Job.State.FAILURE))
    )
    waiting = Job.objects.filter(state__in=UNFINISHED).order_by().count()
    users = User.objects.filter(is_active=True).count()
    suspended = tenants["every"] - tenants["active"]
    figures = [
        Figure(
            _("Active tenants"),
            thousands(tenants["active"]),
            list_link("tenants_tenant"),
            _("and %(n)s suspended") % {"n": suspended} if suspended else "",
        ),
        Figure(_("Active users"), thousands(users), list_link("tenants_user")),
        Figure(_("Cost of all tenants"), money(spent.cost), f"{reverse('admin:costs')}?days={len(days)}"),
        Figure(
            _("Model calls"), thousands(spent.calls), "", _("%(n)s failed") % {"n": thousands(spent.failed)}
        ),
        Figure(_("Jobs waiting or running"), thousands(waiting)),
        Figure(_("Jobs failed"), thousands(jobs["failed"]), alert=bool(jobs["failed"])),
    ]
    charts = [
        Chart(
            _("Cost per day"),
            "bar",
            [day for day, _group in costs],
            [Series(_("US dollars"), [group.cost for _day, group in costs])],
            unit="$",
        ),
        Chart(
            _("Model calls per day"),
            "bar",
            [day for day, _group in costs],
            [Series(_("calls"), [group.calls for _day, group in costs])],
        ),
    ]
    return {"figures": figures, "charts": charts}
