from django.contrib import admin

from feedback.models import Feedback
from tenants.admin_site import ReadOnlyTenantAdmin


@admin.register(Feedback)
class FeedbackAdmin(ReadOnlyTenantAdmin):
    list_display = ("created_at", "answer", "user", "rating", "helpful", "reasons")
    list_filter = ("rating", "helpful")
    list_select_related = ("answer", "user", "tenant")
