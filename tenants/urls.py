"""The tenants' pages."""

from django.urls import path

from tenants.views.account import account
from tenants.views.audit import audit, audit_export
from tenants.views.invitations import join, resend, revoke
from tenants.views.keys import key_revoke, keys
from tenants.views.members import member_change, member_remove, members
from tenants.views.passwords import forgotten, new_password
from tenants.views.roles import role_delete, role_rename, roles
from tenants.views.session import sign_in, sign_out, switch_tenant
from tenants.views.settings import settings
from tenants.views.usage import usage, usage_calls, usage_export

urlpatterns = [
    path("sign-in/", sign_in, name="sign-in"),
    path("sign-out/", sign_out, name="sign-out"),
    path("tenant/", switch_tenant, name="switch-tenant"),
    path("join/", join, name="join"),
    path("password/forgotten/", forgotten, name="forgotten-password"),
    path("password/new/", new_password, name="new-password"),
    path("account/", account, name="account"),
    path("members/", members, name="members"),
    path("members/<uuid:id>/", member_change, name="member-change"),
    path("members/<uuid:id>/remove/", member_remove, name="member-remove"),
    path("invitations/<uuid:id>/resend/", resend, name="invitation-resend"),
    path("invitations/<uuid:id>/revoke/", revoke, name="invitation-revoke"),
    path("roles/", roles, name="roles"),
    path("roles/<uuid:id>/", role_rename, name="role-rename"),
    path("roles/<uuid:id>/delete/", role_delete, name="role-delete"),
    path("api-keys/", keys, name="keys"),
    path("api-keys/<uuid:id>/revoke/", key_revoke, name="key-revoke"),
    path("usage/", usage, name="usage"),
    path("usage/calls/", usage_calls, name="usage-calls"),
    path("usage/export/", usage_export, name="usage-export"),
    path("audit/", audit, name="audit"),
    path("audit/export/", audit_export, name="audit-export"),
    path("settings/", settings, name="settings"),
]
