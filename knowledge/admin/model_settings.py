"""A tenant's language models in the admin: which are asked, in which order, and how long answers are kept."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from knowledge.api.question_shapes import ModelSettingsShape
from knowledge.model_settings import change_model_settings, read_model_settings
from knowledge.models import ModelSettings
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.admin_base import TenantModelAdmin


@admin.register(ModelSettings)
class ModelSettingsAdmin(TenantModelAdmin):
    may_change = True
    list_display = ("shown_order", "shown_routing", "shown_tokens", "updated_at")
    fields = ("order", "routing", "prompt_tokens", "cache_seconds", "semantic_cache")
    export_fields = (*fields, "updated_at")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Once: what there is is changed."""
        return self.has_module_permission(request) and read_model_settings() is None

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Any of them may be left empty: the environment's holds then."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None:
            field.required = False
        return field

    @admin.display(description=_("order"))
    def shown_order(self, row: ModelSettings) -> str:
        names = [f"{each['provider']} {each['model']}".strip() for each in row.order]
        return ", ".join(names) or str(_("the environment’s"))

    @admin.display(description=_("routing"))
    def shown_routing(self, row: ModelSettings) -> str:
        return row.get_routing_display() or str(_("the environment’s"))

    @admin.display(description=_("prompt tokens"))
    def shown_tokens(self, row: ModelSettings) -> str:
        return str(_("the environment’s") if row.prompt_tokens is None else row.prompt_tokens)

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal) -> None:
        shape = ModelSettingsShape(data=changes, partial=True)
        if not shape.is_valid():
            raise Problem(
                400, "invalid", _("Some values cannot be used: %(errors)s") % {"errors": _words(shape.errors)}
            )
        obj.pk = change_model_settings(changes=shape.validated_data, principal=principal).pk


def _words(errors: Any) -> str:
    """What is wrong with which field, however deep it lies."""
    match errors:
        case dict():
            return "; ".join(f"{name}: {_words(inner)}" for name, inner in errors.items() if inner)
        case list():
            return " ".join(words for each in errors if (words := _words(each)))
        case _:
            return str(errors)
