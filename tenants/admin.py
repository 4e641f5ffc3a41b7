"""Tenants, users and the people of a tenant in the admin. What they spent and did is in ``admin_logs``."""

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelectWidget

from tenants import admin_budgets, admin_logs
from tenants.access import Principal
from tenants.admin_base import PlatformModelAdmin, ReadOnlyTenantAdmin, TenantModelAdmin
from tenants.admin_lists import DayFilter, at, choice, related, yes_or_no
from tenants.invitations import revoke_invitation
from tenants.keys import revoke_api_key
from tenants.models import Ability, ApiKey, Invitation, Membership, Role, Tenant, TokenFamily, User
from tenants.people import (
    change_member,
    create_tenant,
    delete_role,
    remove_member,
    save_role,
    set_tenant_status,
)
from tenants.scope import current_scope, enter, scope

__all__ = ["admin_budgets", "admin_logs"]
STATUS_COLOURS = {"active": "success", "suspended": "danger"}


# A minute's worth each, over the installation's defaults. The operator's: what a tenant could raise would limit nobody.
LIMITS = (
    "user_requests",
    "user_tokens",
    "key_requests",
    "key_tokens",
    "tenant_requests",
    "tenant_tokens",
)


class TenantForm(forms.ModelForm):  # type: ignore[type-arg]
    time_zone = forms.ChoiceField(
        choices=lambda: [(name, name) for name in sorted(available_timezones())],
        initial="UTC",
        widget=UnfoldAdminSelectWidget,
        help_text=_("Times and days on its pages, and new schedules, are in this zone."),
    )

    class Meta:
        model = Tenant
        fields = ("slug", "name", "time_zone", *LIMITS)


@admin.register(Tenant)
class TenantAdmin(PlatformModelAdmin):
    form = TenantForm
    list_display = ("slug", "name", "shown_status", "time_zone", at("created_at"), "enter")
    list_filter = (choice("status"),)
    search_fields = ("slug", "name")
    sortable_by = ("slug", "name")
    fields = ("slug", "name", "time_zone", *LIMITS, "status", "auth_epoch", "created_at")
    readonly_fields = ("status", "auth_epoch", "created_at")
    export_fields = ("slug", "name", "status", "time_zone", "created_at")
    actions = ("suspend", "resume")

    @display(description=_("status"), label=STATUS_COLOURS)
    def shown_status(self, tenant: Tenant) -> tuple[str, str]:
        return tenant.status, tenant.get_status_display()

    @display(description=_("work in it"))
    def enter(self, tenant: Tenant) -> SafeString:
        return format_html(
            '<button type="submit" form="choose-tenant" formnovalidate name="tenant" value="{}"'
            ' class="admin-link">{}</button>',
            tenant.pk,
            _("Choose"),
        )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a team's whole knowledge must not hang on one click: suspend it instead

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return (*fields, "slug") if obj else fields

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        # A new tenant is committed on the platform's connection, before its roles refer to it on the application's:
        # Django's transaction around the whole form must not be on the first.
        creating = object_id is None and request.method == "POST"
        with enter(None if creating else current_scope()):
            return super().changeform_view(request, object_id, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            created = create_tenant(slug=obj.slug, name=obj.name, actor=request.user)  # type: ignore[arg-type]
            obj.pk, obj._state.adding = created.pk, False
            with scope(tenant_id=created.pk, tags=None):
                limits = {name: getattr(obj, name) for name in LIMITS}
                Tenant.objects.filter(pk=created.pk).update(time_zone=obj.time_zone, **limits)
            return
        super().save_model(request, obj, form, change)

    @admin.action(description=_("Suspend: its members are refused from their next request on"))
    def suspend(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        for tenant in queryset:
            set_tenant_status(tenant=tenant, status="suspended", actor=request.user)  # type: ignore[arg-type]

    @admin.action(description=_("Resume"))
    def resume(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        for tenant in queryset:
            set_tenant_status(tenant=tenant, status="active", actor=request.user)  # type: ignore[arg-type]


@admin.register(User)
class UserAdmin(PlatformModelAdmin, DjangoUserAdmin):  # type: ignore[type-arg,misc]
    """People of all tenants. They are deactivated, never deleted: what they asked and did would go with them."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_service", "is_superuser", "is_active", "last_login")
    list_filter = (yes_or_no("is_active"), yes_or_no("is_superuser"), yes_or_no("is_service"))
    search_fields = ("username", "email", "first_name", "last_name")
    sortable_by = ("username",)  # type: ignore[misc]
    ordering = ("username",)
    filter_horizontal = ()
    readonly_fields = ("last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        (_("Person"), {"fields": ("first_name", "last_name", "email")}),
        (_("Access"), {"fields": ("is_active", "is_superuser", "is_service")}),
        (_("Times"), {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "email", "password1", "password2")}),)
    actions = ("deactivate", "activate")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.action(description=_("Deactivate: refused from their next request on"))
    def deactivate(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            if user == request.user:
                messages.error(request, _("You cannot deactivate yourself."))
            else:
                self._set_active(request, user, False)

    @admin.action(description=_("Activate"))
    def activate(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            self._set_active(request, user, True)

    def _set_active(self, request: HttpRequest, user: User, active: bool) -> None:
        User.objects.filter(pk=user.pk).update(is_active=active)
        self.record(request, "activate" if active else "deactivate", user, {"name": user.username})


class RoleForm(forms.ModelForm):  # type: ignore[type-arg]
    abilities = forms.MultipleChoiceField(
        choices=Ability.choices, required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget
    )

    class Meta:
        model = Role
        fields = ("name", "tags", "reads_everything", "abilities")


@admin.register(Role)
class RoleAdmin(TenantModelAdmin):
    form = RoleForm
    may_add = may_change = may_delete = True
    list_display = ("name", "tag_list", "ability_list", "reads_everything")
    search_fields = ("name",)
    list_filter = (yes_or_no("reads_everything"),)
    fields = ("name", "tags", "reads_everything", "abilities")

    @admin.display(description=_("tags"))
    def tag_list(self, role: Role) -> str:
        return str(_("all")) if role.reads_everything else ", ".join(role.tags)

    @admin.display(description=_("abilities"))
    def ability_list(self, role: Role) -> str:
        return ", ".join(role.abilities)

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal) -> None:
        if not obj._state.adding:
            obj.refresh_from_db()
        save_role(role=obj, changes=changes, principal=principal)

    def remove(self, *, obj: Any, principal: Principal) -> None:
        delete_role(role=obj, principal=principal)


@admin.register(Membership)
class MembershipAdmin(TenantModelAdmin):
    may_change = may_delete = True
    list_display = ("user", "role", "shown_status", at("created_at"))
    list_filter = (choice("status"), related("role"))
    search_fields = ("user__username", "user__email")
    fields = ("user", "role", "status", "created_at")
    readonly_fields = ("user", "created_at")
    autocomplete_fields = ("role",)
    list_select_related = ("user", "role")
    export_fields = ("user", "role", "status", "created_at")

    @display(description=_("status"), label=STATUS_COLOURS)
    def shown_status(self, member: Membership) -> tuple[str, str]:
        return member.status, member.get_status_display()

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal) -> None:
        stored = Membership.objects.select_related("user", "role", "tenant").get(pk=obj.pk)
        change_member(
            membership=stored, role=changes.get("role"), status=changes.get("status"), principal=principal
        )

    def remove(self, *, obj: Any, principal: Principal) -> None:
        remove_member(membership=obj, principal=principal)


@admin.register(Invitation)
class InvitationAdmin(ReadOnlyTenantAdmin):
    list_display = (
        "email",
        "role",
        "invited_by",
        at("sent_at"),
        at("expires_at"),
        at("accepted_at"),
        at("revoked_at"),
    )
    list_filter = (("created_at", DayFilter),)
    search_fields = ("email",)
    exclude = ("secret_hash",)
    list_select_related = ("role", "invited_by")
    actions = ("revoke",)

    @admin.action(description=_("Revoke: the link opens nothing any more"), permissions=["view"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> None:
        self.attempt_each(
            request,
            queryset,
            lambda row: revoke_invitation(principal=self.principal(request), invitation=row),
            done=lambda n: ngettext("%(n)d invitation revoked.", "%(n)d invitations revoked.", n) % {"n": n},
        )


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyTenantAdmin):
    list_display = ("name", "membership", "hint", at("expires_at"), at("last_used_at"), at("revoked_at"))
    list_filter = (("created_at", DayFilter),)
    search_fields = ("name", "membership__user__username")
    exclude = ("secret_hash",)
    list_select_related = ("membership__user", "membership__role")
    actions = ("revoke",)

    @admin.action(description=_("Revoke: the next request with it is refused"), permissions=["view"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self.attempt_each(
            request,
            queryset,
            lambda key: revoke_api_key(principal=self.principal(request), key=key),
            done=lambda n: ngettext("%(n)d key revoked.", "%(n)d keys revoked.", n) % {"n": n},
        )


@admin.register(TokenFamily)
class TokenFamilyAdmin(ReadOnlyTenantAdmin):
    list_display = (
        "membership",
        at("created_at"),
        at("rotated_at"),
        at("expires_at"),
        at("revoked_at"),
        "revoked_because",
    )
    list_filter = (("created_at", DayFilter),)
    search_fields = ("membership__user__username",)
    search_whole = False
    exclude = ("current",)
    list_select_related = ("membership__user", "membership__role")
