"""The admin's sidebar, in the order of what people do there, and what else unfold asks the settings for."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext as _

from feedback.models import Review
from tenants.admin_costs import may_see_costs
from tenants.admin_operator import is_superuser, on_platform

BADGE_UP_TO = 99


def favicon(request: HttpRequest | None = None) -> str:
    return static("img/favicon.svg")


def stylesheet(request: HttpRequest | None = None) -> str:
    return static("css/admin.css")


def site_url(request: HttpRequest) -> str | None:
    """Back to the site, for those who are members of a tenant."""
    own = getattr(request, "own_principal", None) if is_superuser(request) else request.principal  # type: ignore[attr-defined]
    return reverse("ask") if own is not None else None


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """What the reader may open; groups without anything are left out."""
    groups: list[tuple[str, list[dict[str, Any] | None]]] = [
        ("", [_page(request, _("Home"), "home", "admin:index"), _back(request)]),
        (
            _("Review"),
            [
                _list(request, _("Review queue"), "rate_review", "feedback.review", badge=open_reviews),
                _list(request, _("Ratings"), "thumbs_up_down", "feedback.feedback"),
                _list(request, _("Document requests"), "post_add", "feedback.documentrequest"),
                _list(request, _("Answers"), "forum", "knowledge.answer"),
            ],
        ),
        (
            _("Costs"),
            [
                _page(request, _("Costs"), "payments", "admin:costs") if may_see_costs(request) else None,
                _list(request, _("Calls"), "receipt_long", "tenants.usagerecord"),
                _list(request, _("Budgets"), "savings", "tenants.budget"),
                _list(request, _("Prices"), "sell", "knowledge.price"),
            ],
        ),
        (
            _("People"),
            [
                _list(request, _("Tenants"), "domain", "tenants.tenant"),
                _list(request, _("Users"), "person", "tenants.user"),
                _list(request, _("Members"), "group", "tenants.membership"),
                _list(request, _("Roles"), "badge", "tenants.role"),
                _list(request, _("Invitations"), "mail", "tenants.invitation"),
                _list(request, _("API keys"), "key", "tenants.apikey"),
                _list(request, _("Token sign-ins"), "devices", "tenants.tokenfamily"),
                _list(request, _("Audit log"), "history", "tenants.auditevent"),
            ],
        ),
        (
            _("Knowledge"),
            [
                _list(request, _("Documents"), "description", "knowledge.document"),
                _list(request, _("Collections"), "folder", "knowledge.collection"),
                _list(request, _("Sources"), "sync", "knowledge.source"),
                _list(request, _("Jobs"), "manufacturing", "knowledge.job"),
                _list(request, _("Dead letters"), "unsubscribe", "knowledge.deadletter"),
                _list(request, _("Passages"), "segment", "knowledge.chunk"),
                _list(request, _("Embedding models"), "hub", "knowledge.embeddingspace"),
                _list(request, _("Evaluation sets"), "quiz", "knowledge.evaluationset"),
                _list(request, _("Evaluation runs"), "query_stats", "knowledge.evaluationrun"),
            ],
        ),
        (
            _("Platform"),
            [
                _page(request, _("Breakers"), "electrical_services", "admin:breakers")
                if on_platform(request)
                else None,
                _list(request, _("Schedules"), "schedule", "django_celery_beat.periodictask"),
                _list(request, _("Crontabs"), "calendar_month", "django_celery_beat.crontabschedule"),
                _list(request, _("Intervals"), "timer", "django_celery_beat.intervalschedule"),
            ],
        ),
    ]
    shown = [(title, [item for item in items if item]) for title, items in groups]
    return [{"title": title, "separator": bool(title), "items": items} for title, items in shown if items]


def _back(request: HttpRequest) -> dict[str, Any] | None:
    path = site_url(request)
    item = {"title": _("Back to the site"), "icon": "arrow_back", "link": path, "active": False}
    return item if path else None


def open_reviews() -> str:
    """How many reviews wait, as far as a badge tells."""
    waiting = Review.objects.filter(status=Review.Status.OPEN).order_by()[: BADGE_UP_TO + 1].count()
    return "" if not waiting else str(waiting) if waiting <= BADGE_UP_TO else f"{BADGE_UP_TO}+"


def _page(request: HttpRequest, title: str, icon: str, name: str) -> dict[str, Any]:
    path = reverse(name)
    return {"title": title, "icon": icon, "link": path, "active": request.path == path}


def _list(
    request: HttpRequest, title: str, icon: str, label: str, *, badge: Any = None
) -> dict[str, Any] | None:
    model_admin = next(
        (each for model, each in admin.site._registry.items() if model._meta.label_lower == label), None
    )
    if model_admin is None or not model_admin.has_view_permission(request):
        return None
    path = reverse(f"admin:{label.replace('.', '_')}_changelist")
    item = {"title": title, "icon": icon, "link": path, "active": request.path.startswith(path)}
    if badge is not None and (value := badge()):
        item |= {"badge": value, "badge_variant": "warning"}
    return item
