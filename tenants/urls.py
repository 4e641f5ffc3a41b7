"""The tenants' pages."""

from django.urls import path

from tenants.views.session import sign_in, sign_out, switch_tenant

urlpatterns = [
    path("sign-in/", sign_in, name="sign-in"),
    path("sign-out/", sign_out, name="sign-out"),
    path("tenant/", switch_tenant, name="switch-tenant"),
]
