from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from knowledge.models import Price
from tenants.admin_base import PlatformModelAdmin
from tenants.admin_lists import value_filter


@admin.register(Price)
class PriceAdmin(PlatformModelAdmin):
    """What models cost; the same for every tenant."""

    list_display = (
        "provider",
        "model",
        "effective_from",
        "min_prompt_tokens",
        "input_per_mtok",
        "output_per_mtok",
    )
    list_filter = (value_filter("provider", _("provider")),)
    search_fields = ("provider", "model")
    sortable_by = list_display
    export_fields = (*list_display, "cache_write_factor", "cache_read_factor")
