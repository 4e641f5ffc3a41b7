"""Every route."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from knowledge.api.mcp.view import McpView
from ragsite import health, views

urlpatterns = [
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("health", health.health, name="health"),
    path("metrics", health.metrics, name="metrics"),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path(
        "api/docs", SpectacularSwaggerSplitView.as_view(url_name="schema", metadata_class=None), name="docs"
    ),
    path("api/v1/", include("tenants.api.urls")),
    path("api/v1/", include("knowledge.api.urls")),
    path("api/v1/", include("feedback.api.urls")),
    path("v1/", include("knowledge.api.openai.urls")),
    path("mcp", McpView.as_view(), name="mcp"),
    path("admin/", admin.site.urls),
    path("", include("tenants.urls")),
    path("", include("knowledge.urls")),
    path("", include("feedback.urls")),
]

if settings.ENVIRONMENT == "dev":
    urlpatterns.append(path("styleguide", views.styleguide, name="styleguide"))

handler400 = "ragsite.views.bad_request"
handler403 = "ragsite.views.permission_denied"
handler404 = "ragsite.views.page_not_found"
handler500 = "ragsite.views.server_error"
