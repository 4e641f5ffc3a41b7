"""The tenants' part of ``/api/v1``."""

from django.urls import path

from tenants.api.audit import AuditView, CostsView
from tenants.api.identity import MeView, TokenRefreshView, TokenRevokeView, TokenView
from tenants.api.keys import ApiKeysView, ApiKeyView
from tenants.api.people import (
    InvitationsView,
    InvitationView,
    MembersView,
    MemberView,
    RolesView,
    RoleView,
)

urlpatterns = [
    path("token", TokenView.as_view(), name="token"),
    path("token/refresh", TokenRefreshView.as_view(), name="token-refresh"),
    path("token/revoke", TokenRevokeView.as_view(), name="token-revoke"),
    path("me", MeView.as_view(), name="me"),
    path("members", MembersView.as_view(), name="member-list"),
    path("members/<uuid:id>", MemberView.as_view(), name="member"),
    path("invitations", InvitationsView.as_view(), name="invitation-list"),
    path("invitations/<uuid:id>", InvitationView.as_view(), name="invitation"),
    path("roles", RolesView.as_view(), name="role-list"),
    path("roles/<uuid:id>", RoleView.as_view(), name="role"),
    path("api-keys", ApiKeysView.as_view(), name="api-keys"),
    path("api-keys/<uuid:id>", ApiKeyView.as_view(), name="api-key"),
    path("audit", AuditView.as_view(), name="audit-list"),
    path("costs", CostsView.as_view(), name="costs"),
]
