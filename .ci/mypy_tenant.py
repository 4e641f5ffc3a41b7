"""For mypy: ``tenant_id`` of a tenant's row is never ``None``.

django-stubs reads the foreign key's default as “may be None”, and so would have every caller ask.
"""

from collections.abc import Callable

from mypy.plugin import AttributeContext, Plugin
from mypy.types import Instance, Type, get_proper_type
from mypy.types_utils import remove_optional


def _without_none(context: AttributeContext) -> Type:
    row = get_proper_type(context.type)
    if isinstance(row, Instance) and row.type.has_base("tenants.models.base.TenantModel"):
        return remove_optional(context.default_attr_type)
    return context.default_attr_type


class TenantPlugin(Plugin):
    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        return _without_none if fullname.endswith(".tenant_id") else None


def plugin(version: str) -> type[Plugin]:
    return TenantPlugin
