from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db.models import QuerySet
from django.http import HttpRequest

from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.admin_site import (
    PlatformModelAdmin,
    ReadOnlyTenantAdmin,
    TenantModelAdmin,
    explain,
    is_superuser,
    principal_in,
)
from tenants.keys import revoke_api_key
from tenants.models import ApiKey, AuditEvent, Membership, Role, Tenant, TokenFamily, UsageRecord, User
from tenants.people import (
    change_member,
    create_tenant,
    delete_role,
    remove_member,
    save_role,
    set_tenant_status,
)


@admin.register(Tenant)
class TenantAdmin(PlatformModelAdmin):
    list_display = ("slug", "name", "status", "created_at")
    list_filter = ("status",)
    search_fields = ("slug", "name")
    readonly_fields = ("status", "auth_epoch", "created_at")
    actions = ("suspend", "resume")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a team's whole knowledge must not hang on one click: suspend it instead

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return (*fields, "slug") if obj else fields

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        created = create_tenant(slug=obj.slug, name=obj.name, actor=request.user)  # type: ignore[arg-type]
        obj.pk, obj._state.adding = created.pk, False

    @admin.action(description="Suspend: its members are refused from their next request on")
    def suspend(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        for tenant in queryset:
            set_tenant_status(tenant=tenant, status="suspended", actor=request.user)  # type: ignore[arg-type]

    @admin.action(description="Resume")
    def resume(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        for tenant in queryset:
            set_tenant_status(tenant=tenant, status="active", actor=request.user)  # type: ignore[arg-type]


@admin.register(User)
class UserAdmin(PlatformModelAdmin, DjangoUserAdmin):  # type: ignore[type-arg]
    list_display = ("username", "email", "is_service", "is_superuser", "is_active", "last_login")
    list_filter = ("is_service", "is_superuser", "is_active")


@admin.register(Role)
class RoleAdmin(TenantModelAdmin):
    may_add = may_change = may_delete = True
    list_display = ("name", "tag_list", "ability_list", "reads_everything")
    search_fields = ("name",)
    fields = ("name", "tags", "reads_everything", "abilities")

    @admin.display(description="tags")
    def tag_list(self, role: Role) -> str:
        return "all" if role.reads_everything else ", ".join(role.tags)

    @admin.display(description="abilities")
    def ability_list(self, role: Role) -> str:
        return ", ".join(role.abilities)

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal | None) -> None:
        if not obj._state.adding:
            obj.refresh_from_db()
        save_role(role=obj, changes=changes, principal=principal)

    def remove(self, *, obj: Any, principal: Principal | None) -> None:
        delete_role(role=obj, principal=principal)


@admin.register(Membership)
class MembershipAdmin(TenantModelAdmin):
    may_change = may_delete = True
    list_display = ("user", "role", "status", "created_at")
    list_filter = ("status",)
    search_fields = ("user__username", "user__email")
    fields = ("user", "role", "status", "created_at")
    readonly_fields = ("user", "created_at")
    list_select_related = ("user", "role", "tenant")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if db_field.name == "role" and is_superuser(request) and field is not None:
            # Across tenants: only the roles of the membership's own.
            pk = request.resolver_match.kwargs.get("object_id") if request.resolver_match else None
            member = Membership.objects.filter(pk=pk).first() if pk else None
            field.queryset = Role.objects.filter(tenant_id=member.tenant_id if member else None)
        return field

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal | None) -> None:
        stored = Membership.objects.select_related("user", "role", "tenant").get(pk=obj.pk)
        change_member(
            membership=stored, role=changes.get("role"), status=changes.get("status"), principal=principal
        )

    def remove(self, *, obj: Any, principal: Principal | None) -> None:
        remove_member(membership=obj, principal=principal)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyTenantAdmin):
    list_display = ("name", "membership", "hint", "expires_at", "last_used_at", "revoked_at")
    search_fields = ("name",)
    exclude = ("secret_hash",)
    list_select_related = ("membership__user", "membership__role", "tenant")
    actions = ("revoke",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [name for name in super().get_readonly_fields(request, obj) if name != "secret_hash"]

    @admin.action(description="Revoke: the next request with it is refused", permissions=["view"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        for key in queryset.select_related("membership__user", "membership__role"):
            with self.in_tenant_of(key):
                principal = principal_in(request) or Principal(
                    membership=key.membership, method="system", abilities=frozenset()
                )
                try:
                    revoke_api_key(principal=principal, key=key)
                except Problem as problem:
                    messages.error(request, explain(problem))
            self._audit(request, "revoke", key)


@admin.register(TokenFamily)
class TokenFamilyAdmin(ReadOnlyTenantAdmin):
    list_display = ("membership", "created_at", "rotated_at", "expires_at", "revoked_at", "revoked_because")
    list_select_related = ("membership__user", "membership__role", "tenant")


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyTenantAdmin):
    list_display = ("at", "action", "actor_name", "role_name", "target_type", "target_id", "address")
    list_filter = ("action",)
    search_fields = ("actor_name", "target_id", "request_id")
    date_hierarchy = "at"


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyTenantAdmin):
    list_display = (
        "created_at",
        "user",
        "provider",
        "model",
        "kind",
        "status",
        "input_tokens",
        "output_tokens",
        "cost_usd",
    )
    list_filter = ("provider", "model", "status")
    list_select_related = ("user", "tenant")
