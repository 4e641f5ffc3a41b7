"""Questions of a period, beside what they cost: a part of the usage page."""

from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from knowledge.models import Answer
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import member_page, render_part, shell_context
from tenants.periods import read_days


@require_GET
@member_page
def usage_questions(request: HttpRequest, principal: Principal) -> HttpResponse:
    """How many questions were asked, how many of them answered, and how many from the cache."""
    if not principal.may(Ability.MANAGE):
        principal.require(Ability.SEE_COSTS.value)
    days = read_days(request)
    counted = Answer.objects.filter(created_at__gte=days.start, created_at__lt=days.end).aggregate(
        asked=Count("id"),
        answered=Count("id", filter=Q(answered=True)),
        cached=Count("id", filter=Q(status="cached")),
    )
    context = shell_context(principal) | {
        "here": "usage",
        "days": days,
        **counted,
        "percent": round(100 * counted["answered"] / counted["asked"]) if counted["asked"] else None,
    }
    return render_part(request, "knowledge/usage_questions.html", "figures", context)
