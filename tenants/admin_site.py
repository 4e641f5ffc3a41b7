"""The admin site: who may enter it, as whom, and under which content security policy."""

from collections.abc import Callable
from typing import Any

from csp.constants import NONE, SELF, UNSAFE_EVAL, UNSAFE_INLINE
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.http import urlencode
from unfold.dataclasses import SearchResult
from unfold.sites import UnfoldAdminSite

from tenants.access import Principal
from tenants.admin_breakers import breakers_page
from tenants.admin_costs import costs_page
from tenants.admin_operator import choose_tenant, is_superuser, on_platform, tenant_choices
from tenants.models import Ability

# Alpine, which unfold is built with, evaluates its attributes and unfold sets style attributes. Everything else is as
# strict as on our own pages: nothing from third parties, no remote image or font, no inline script.
POLICY = {
    "default-src": [NONE],
    "script-src": [SELF, UNSAFE_EVAL],
    "style-src": [SELF, UNSAFE_INLINE],
    "img-src": [SELF],
    "font-src": [SELF],
    "connect-src": [SELF],
    "form-action": [SELF],
    "frame-ancestors": [NONE],
    "base-uri": [NONE],
    "manifest-src": [SELF],
}
FOUND_AT_MOST = 20


def principal_in(request: HttpRequest) -> Principal | None:
    """The member who works in the admin; ``None`` for a superuser who has chosen no tenant."""
    found: Principal | None = getattr(request, "principal", None)
    return found


def may_in_tenant(request: HttpRequest, *abilities: str) -> bool:
    """A member with one of the abilities, signed in with a session (a key is not for clicking)."""
    principal = principal_in(request)
    return (
        principal is not None and principal.method == "session" and any(principal.may(a) for a in abilities)
    )


class RagsiteAdminSite(UnfoldAdminSite):
    """For superusers, for members who manage their tenant, and for those who review its answers."""

    site_header = site_title = "ragsite"
    index_title = "Home"

    def has_permission(self, request: HttpRequest) -> bool:
        return on_platform(request) or may_in_tenant(request, Ability.MANAGE, Ability.REVIEW)

    def extra_urls(self) -> list[URLPattern]:
        return [
            path("breakers/", self.admin_view(breakers_page), name="breakers"),
            path("costs/", self.admin_view(costs_page), name="costs"),
            path("tenant/", self.admin_view(choose_tenant), name="choose-tenant"),
        ]

    def get_urls(self) -> list[Any]:
        # Without Django's “view on site”, which tells which ids exist to whoever may enter.
        return [each for each in super().get_urls() if getattr(each, "name", "") != "view_on_site"]

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:
        inner = super().admin_view(view, cacheable)

        def page(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            principal = principal_in(request)
            with timezone.override(principal.membership.tenant.time_zone if principal else None):
                response = inner(request, *args, **kwargs)
                if isinstance(response, TemplateResponse):
                    response.render()  # here, while the tenant's time zone holds
            response._csp_replace = POLICY
            return response

        for name in ("model_admin", "model_admin_view", "csrf_exempt"):
            if hasattr(inner, name):
                setattr(page, name, getattr(inner, name))
        return page

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context: dict[str, Any] = super().each_context(request)
        principal = principal_in(request)
        context["tenant"] = principal.membership.tenant if principal else None
        context["is_operator"] = is_superuser(request)
        context["on_platform"] = on_platform(request)
        context["tenant_choices"] = tenant_choices() if context["is_operator"] else []
        return context

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """There is one way in, throttled and audited: the sign-in page."""
        signed_in = request.user.is_authenticated or principal_in(request) is not None
        if signed_in and not self.has_permission(request):
            raise PermissionDenied
        query = urlencode({"next": request.GET.get("next") or reverse("admin:index")})
        return HttpResponseRedirect(f"{reverse('sign-in')}?{query}")

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """There is one way out as well, which is audited."""
        from tenants.views.session import sign_out

        return sign_out(request)

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """The pages of the sidebar by name. Unfold's own search remembers what it found under no tenant's key."""
        wanted = request.GET.get("s", "").strip().lower()[:100]
        found = [
            SearchResult(
                title=str(item["title"]), description=str(group["title"]), link=item["link"], icon=""
            )
            for group in self.get_sidebar_list(request)
            for item in group["items"]
            if wanted and wanted in str(item["title"]).lower()
        ]
        return TemplateResponse(
            request, "unfold/helpers/search_results.html", {"results": found[:FOUND_AT_MOST]}
        )
