"""CSV of any list in the admin: of the rows that were ticked, or of all that search and filters leave, bounded."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import label_for_field, lookup_field
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from tenants.exports import csv_response

ROWS_EXPORTED = 10_000


class CsvExports:
    """Adds the action “Export as CSV” and the address ``…/export/`` to a model's admin.

    ``export_fields`` names the columns, as ``list_display`` does; ``list_display`` itself when it is not given.
    """

    export_fields: tuple[str, ...] = ()

    def get_urls(self: Any) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_export"
        view = self.admin_site.admin_view(self.export_view)
        view.model_admin = self
        return [path("export/", view, name=name), *super().get_urls()]  # type: ignore[misc]

    def export_view(self: Any, request: HttpRequest) -> HttpResponseBase:
        """The list as one sees it, beyond its page."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        changes = self.get_changelist_instance(request)
        return self._csv(request, changes.queryset)  # type: ignore[no-any-return]

    @admin.action(description=_("Export the selected rows as CSV"), permissions=["view"])
    def export_selected(self: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponseBase:
        return self._csv(request, queryset)  # type: ignore[no-any-return]

    def get_actions(self: Any, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)  # type: ignore[misc]
        if self.has_view_permission(request) and "_popup" not in request.GET:
            actions["export_selected"] = self.get_action("export_selected")
        return actions

    def get_export_fields(self: Any, request: HttpRequest) -> list[str]:
        return list(self.export_fields or self.get_list_display(request))

    def export_rows(self: Any, request: HttpRequest, rows: QuerySet[Any]) -> Iterator[list[Any]]:
        """The cells of each row; ``rows`` is bounded already."""
        names = self.get_export_fields(request)
        for row in rows:
            yield [self._cell(name, row) for name in names]

    def _cell(self: Any, name: str, row: Model) -> Any:
        try:
            field, _attr, value = lookup_field(name, row, self)
        except ObjectDoesNotExist:
            return None
        if field is not None and field.remote_field is None and field.flatchoices:
            return dict(field.flatchoices).get(value, value)
        return ", ".join(map(str, value)) if isinstance(value, list) else value

    def _csv(self: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponseBase:
        names = self.get_export_fields(request)
        header = [capfirst(str(label_for_field(name, self.model, self))) for name in names]
        self.record_export(request)
        day = timezone.localdate().isoformat()
        name = f"{self.opts.verbose_name_plural}-{day}.csv".replace(" ", "-")
        rows = self.export_rows(request, queryset[:ROWS_EXPORTED])
        return csv_response(name=name, header=header, rows=rows)
