"""The admin, inside one tenant: its admins see their own rows alone; the platform's superusers see every tenant's.

Row-level security holds here as everywhere: a tenant admin's request runs in their scope, a superuser's in the audited
platform scope.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode

from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_event
from tenants.models import Ability
from tenants.scope import current_scope, scope


def principal_in(request: HttpRequest) -> Principal | None:
    """The member who works in the admin; ``None`` for a superuser, who needs no membership."""
    found: Principal | None = getattr(request, "principal", None)
    return found


def is_superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_active and request.user.is_superuser)


def manages_tenant(request: HttpRequest) -> bool:
    """A member with the ability to manage, signed in with a session (a key is not for clicking)."""
    principal = principal_in(request)
    return principal is not None and principal.method == "session" and principal.may(Ability.MANAGE)


class RagsiteAdminSite(admin.AdminSite):
    """For superusers and for members who manage their tenant."""

    site_header = site_title = "ragsite"
    index_title = "Administration"

    def has_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request) or manages_tenant(request)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """There is one way in, throttled and audited: the sign-in page."""
        signed_in = request.user.is_authenticated or principal_in(request) is not None
        if signed_in and not self.has_permission(request):
            raise PermissionDenied
        query = urlencode({"next": request.GET.get("next") or reverse("admin:index")})
        return HttpResponseRedirect(f"{reverse('sign-in')}?{query}")


def explain(problem: Problem) -> str:
    return " ".join(error.detail for error in problem.errors) or problem.detail


class _ProblemsAsMessages:
    """An expected failure of an action becomes a message on the form it came from."""

    def _attempt(self, request: HttpRequest, view: Callable[[], HttpResponse]) -> HttpResponse:
        try:
            return view()
        except Problem as problem:
            messages.error(request, explain(problem))
            return HttpResponseRedirect(request.get_full_path())


class PlatformModelAdmin(_ProblemsAsMessages, admin.ModelAdmin):  # type: ignore[type-arg]
    """What belongs to no tenant: superusers alone."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Also for the history page, which looks for the row before it looks at the permission.
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows if is_superuser(request) else rows.none()

    has_add_permission = has_change_permission = has_delete_permission = has_view_permission

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._attempt(
            request, lambda: super(PlatformModelAdmin, self).changeform_view(request, *args, **kwargs)
        )


class TenantModelAdmin(_ProblemsAsMessages, admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows of the tenant in force. Writes go through the action functions, in the row's own tenant scope.

    ``may_add``, ``may_change``, ``may_delete`` say what the admin offers for the model at all.
    """

    may_add = False
    may_change = False
    may_delete = False
    show_full_result_count = False
    list_per_page = 50

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request) or manages_tenant(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # A superuser works across tenants, where a new row would belong to none.
        return self.may_add and manages_tenant(request) and not is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_change and self.has_module_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_delete and self.has_module_permission(request)

    def get_list_display(self, request: HttpRequest) -> list[Any] | tuple[Any, ...]:
        columns = super().get_list_display(request)
        return [*columns, "tenant"] if is_superuser(request) else columns

    def get_list_filter(self, request: HttpRequest) -> list[Any] | tuple[Any, ...]:
        filters = super().get_list_filter(request)
        return [*filters, "tenant"] if is_superuser(request) else filters

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("tenant")

    def in_tenant_of(self, obj: Model) -> AbstractContextManager[Any]:
        """The scope of the row's own tenant, also for a superuser: actions count and compare within one tenant."""
        current = current_scope()
        if current is not None and current.platform:
            return scope(tenant_id=obj.tenant_id, tags=None)  # type: ignore[attr-defined]
        return nullcontext()

    # What a subclass writes with.
    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal | None) -> None:
        raise Problem(403, "forbidden", "This cannot be changed here.")

    def remove(self, *, obj: Any, principal: Principal | None) -> None:
        raise Problem(403, "forbidden", "This cannot be deleted here.")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        changes = {name: form.cleaned_data[name] for name in form.changed_data if name in form.cleaned_data}
        with self.in_tenant_of(obj):
            self.write(obj=obj, changes=changes, principal=principal_in(request))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with self.in_tenant_of(obj):
            self.remove(obj=obj, principal=principal_in(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for obj in queryset:
            self.delete_model(request, obj)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Nothing of ours has many-to-many fields or inlines."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._attempt(
            request, lambda: super(TenantModelAdmin, self).changeform_view(request, *args, **kwargs)
        )

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._attempt(
            request, lambda: super(TenantModelAdmin, self).delete_view(request, *args, **kwargs)
        )

    def _audit(self, request: HttpRequest, action: str, obj: Any) -> None:
        with self.in_tenant_of(obj):
            principal = principal_in(request)
            record_event(
                action=f"admin.{action}",
                membership=principal.membership if principal else None,
                actor=None if principal else request.user,  # type: ignore[arg-type]
                method="session",
                target=obj,
                detail={"name": str(obj)[:200]},
                address=request.META.get("REMOTE_ADDR"),
            )

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self._audit(request, "add", obj)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self._audit(request, "change", obj)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        for obj in queryset:
            self._audit(request, "delete", obj)
        return super().log_deletions(request, queryset)


class ReadOnlyTenantAdmin(TenantModelAdmin):
    """What is shown and never changed here."""

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [field.name for field in self.opts.fields]
