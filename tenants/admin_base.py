"""What every admin of a model is built on: unfold's look, the walls between tenants, writes through action functions."""

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any

from django.contrib import messages
from django.contrib.admin.filters import ListFilter
from django.contrib.postgres.fields import ArrayField
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminTextInputWidget

from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.admin_exports import CsvExports
from tenants.admin_lists import Listing, LookaheadPaginator, as_id, newest_of
from tenants.admin_operator import on_platform
from tenants.admin_site import may_in_tenant, principal_in
from tenants.audit import record_by, record_platform_event
from tenants.models import Ability

# What a filter by a field may be called in an address.
SUFFIXES = ("", "__exact", "__isnull", "__id__exact", "_from", "_to")


def explain(problem: Problem) -> str:
    return " ".join(error.detail for error in problem.errors) or problem.detail


class RagsiteModelAdmin(CsvExports, ModelAdmin):
    """What lists of both kinds share.

    ``search_whole``: the table is small enough to be searched from end to end; of any other the newest rows are, and a
    whole id finds its row by ``search_ids``.
    ``drill_down``: lookups that our own links use beside the list's filters.
    """

    show_full_result_count = False
    paginator: type[Any] = LookaheadPaginator
    list_per_page = 50
    list_max_show_all = 0
    list_disable_select_all = True
    list_filter_submit = True
    list_fullwidth = True
    sortable_by: tuple[str, ...] = ()
    compressed_fields = True
    warn_unsaved_form = True
    search_whole = True
    search_ids: tuple[str, ...] = ()
    drill_down: tuple[str, ...] = ()
    change_list_template = "admin/listing.html"
    formfield_overrides = {ArrayField: {"widget": UnfoldAdminTextInputWidget}}  # words and commas, one line

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Listing]:
        return Listing

    def get_paginator(
        self, request: HttpRequest, queryset: Any, per_page: int, *args: Any, **kwargs: Any
    ) -> Any:
        # The history of one row is a list of another model, short, and Django wants its length.
        kind = self.paginator if queryset.model is self.model else Paginator
        return kind(queryset, per_page, *args, **kwargs)

    def lookup_allowed(self, lookup: str, value: str, request: Any = None) -> bool:
        """Nothing but the list's own filters: any other lookup may walk over the whole table, or guess at a secret."""
        allowed = set(self.drill_down)
        for each in self.get_list_filter(request):
            if isinstance(each, type) and issubclass(each, ListFilter):
                allowed.add(str(each.parameter_name))  # type: ignore[attr-defined]
            else:
                field = each[0] if isinstance(each, tuple) else each
                allowed |= {f"{field}{suffix}" for suffix in SUFFIXES}
        return lookup in allowed

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not self.search_whole and term:
            wanted = as_id(term)
            if wanted is not None and self.search_ids:
                named = [Q(**{field: wanted}) for field in self.search_ids]
                return queryset.filter(reduce(or_, named)), False
            queryset = newest_of(queryset)
        return super().get_search_results(request, queryset, term)  # type: ignore[no-any-return]

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponse:
        # As on our pages: in the same words for what is absent and for what is not theirs.
        raise Http404

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        # An action holds for the rows that were ticked, never for a million that nobody has looked at.
        sent = request.POST.copy()
        sent["select_across"] = "0"
        request.POST = sent  # type: ignore[assignment]
        return super().response_action(request, queryset)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """The rows alone. What goes with them is the action's business, and may be more than a page can list."""
        return [str(obj) for obj in objs], {}, set(), []

    def attempt(self, request: HttpRequest, view: Callable[[], HttpResponse]) -> HttpResponse:
        """An expected failure of an action becomes a message on the page it came from."""
        try:
            return view()
        except Problem as problem:
            messages.error(request, explain(problem))
            return HttpResponseRedirect(request.get_full_path())

    def attempt_each(
        self, request: HttpRequest, rows: Any, act: Callable[[Any], Any], *, done: Callable[[int], str]
    ) -> None:
        """An action row by row: what fails is told, the rest is done."""
        count = 0
        for row in rows:
            try:
                act(row)
                count += 1
            except Problem as problem:
                messages.error(request, f"{row}: {explain(problem)}")
        if count:
            messages.success(request, done(count))

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self.attempt(
            request, lambda: super(RagsiteModelAdmin, self).changeform_view(request, *args, **kwargs)
        )

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self.attempt(
            request, lambda: super(RagsiteModelAdmin, self).delete_view(request, *args, **kwargs)
        )

    def record(self, request: HttpRequest, action: str, obj: Any, detail: dict[str, Any]) -> None:
        raise NotImplementedError

    def record_export(self, request: HttpRequest) -> None:
        self.record(
            request, "export", None, {"model": self.opts.label_lower, "query": request.GET.urlencode()}
        )

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self.record(request, "add", obj, {"name": str(obj)[:200]})
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self.record(request, "change", obj, {"name": str(obj)[:200]})
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        for obj in queryset:
            self.record(request, "delete", obj, {"name": str(obj)[:200]})
        return super().log_deletions(request, queryset)


class PlatformModelAdmin(RagsiteModelAdmin):
    """What belongs to no tenant: for superusers who have chosen none."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return on_platform(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return on_platform(request)

    has_add_permission = has_change_permission = has_delete_permission = has_view_permission

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Also for the history page, which looks for the row before it looks at the permission.
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows if on_platform(request) else rows.none()

    def record(self, request: HttpRequest, action: str, obj: Any, detail: dict[str, Any]) -> None:
        if obj is not None:
            detail = detail | {"model": self.opts.label_lower, "id": str(obj.pk)}
        record_platform_event(action=f"platform.{action}", actor=request.user, detail=detail)  # type: ignore[arg-type]


class TenantModelAdmin(RagsiteModelAdmin):
    """Rows of the tenant in force: a member's own, or the one that a superuser has chosen.

    ``abilities``: one of these is needed to see the model here. ``may_add``, ``may_change``, ``may_delete`` say what
    the admin offers for it at all.
    """

    abilities: tuple[str, ...] = (Ability.MANAGE,)
    may_add = False
    may_change = False
    may_delete = False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may_in_tenant(request, *self.abilities)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_add and self.has_module_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_change and self.has_module_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_delete and self.has_module_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Also for the history page, which looks for the row before it looks at the permission.
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows if self.has_view_permission(request) else rows.none()

    # What a subclass writes with.
    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal) -> None:
        raise Problem(403, "forbidden", _("This cannot be changed here."))

    def remove(self, *, obj: Any, principal: Principal) -> None:
        raise Problem(403, "forbidden", _("This cannot be deleted here."))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        changes = {name: form.cleaned_data[name] for name in form.changed_data if name in form.cleaned_data}
        self.write(obj=obj, changes=changes, principal=self.principal(request))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.remove(obj=obj, principal=self.principal(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for obj in queryset:
            self.delete_model(request, obj)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Nothing of ours has many-to-many fields or inlines."""

    def principal(self, request: HttpRequest) -> Principal:
        principal = principal_in(request)
        if principal is None:
            raise Problem(403, "forbidden", _("Choose a tenant first."))
        return principal

    def record(self, request: HttpRequest, action: str, obj: Model | None, detail: dict[str, Any]) -> None:
        record_by(self.principal(request), f"admin.{action}", obj, detail)


class ReadOnlyTenantAdmin(TenantModelAdmin):
    """What is shown and never changed here."""

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Every field; a subclass that names ``fields`` shows those, its own methods among them."""
        if self.fields:
            return list(self.fields)
        hidden = {"tenant", *(self.exclude or ())}
        return [field.name for field in self.opts.fields if field.name not in hidden]
