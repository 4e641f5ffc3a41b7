"""Collections, sources, documents and their chunks in the admin."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.decorators import display
from unfold.widgets import UnfoldAdminPasswordWidget

from knowledge.documents import change_document, delete_collection, delete_document, save_collection
from knowledge.models import Chunk, Collection, Document, Source
from knowledge.sources import delete_source, save_source, start_sync, try_source
from tenants.access import Principal
from tenants.admin_base import ReadOnlyTenantAdmin, TenantModelAdmin
from tenants.admin_lists import DayFilter, at, choice, related, yes_or_no

CHECKED_AT_ONCE = 5  # each takes up to 10 s
STATUS_COLOURS = {"indexed": "success", "failed": "danger", "pending": "warning"}


@admin.register(Collection)
class CollectionAdmin(TenantModelAdmin):
    may_add = may_change = may_delete = True
    list_display = ("name", "slug", "default_tags", "language", "content_class", "retention_days")
    list_filter = (choice("content_class"), choice("language"))
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal) -> None:
        save_collection(collection=obj, changes=changes, principal=principal)

    def remove(self, *, obj: Any, principal: Principal) -> None:
        delete_collection(collection=obj, principal=principal)


class SourceAdminForm(forms.ModelForm):  # type: ignore[type-arg]
    new_credentials = forms.JSONField(
        label=_("credentials"),
        required=False,
        widget=UnfoldAdminPasswordWidget(render_value=False),
        help_text=_(
            'An object such as {"token": "…"}; stored encrypted and never shown. Empty: kept; {}: removed. '
            "Another place drops them."
        ),
    )


@admin.register(Source)
class SourceAdmin(TenantModelAdmin):
    form = SourceAdminForm
    may_add = may_change = may_delete = True
    list_display = (
        "name",
        "kind",
        "path",
        "collection",
        "schedule",
        "time_zone",
        "enabled",
        at("last_synced_at"),
    )
    list_filter = (yes_or_no("enabled"), choice("kind"))
    search_fields = ("name", "path")
    readonly_fields = ("has_credentials", "last_synced_at")
    autocomplete_fields = ("collection",)
    list_select_related = ("collection",)
    actions = ("sync", "try_now")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Source]:
        return super().get_queryset(request).defer("state")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("kind", *self.readonly_fields) if obj is not None else self.readonly_fields

    @display(description=_("credentials stored"), boolean=True)
    def has_credentials(self, source: Source) -> bool:
        return bool(source.credentials)

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal) -> None:
        if "new_credentials" in changes:
            changes["credentials"] = changes.pop("new_credentials")
        save_source(source=obj, changes=changes, principal=principal)

    def remove(self, *, obj: Any, principal: Principal) -> None:
        delete_source(source=obj, principal=principal)

    @admin.action(description=_("Synchronise now"), permissions=["change"])
    def sync(self, request: HttpRequest, queryset: QuerySet[Source]) -> None:
        def act(source: Source) -> None:
            start_sync(source=source, principal=self.principal(request))
            self.record(request, "sync", source, {"name": source.name})

        self.attempt_each(
            request,
            queryset,
            act,
            done=lambda n: ngettext("%(n)d source started.", "%(n)d sources started.", n) % {"n": n},
        )

    @admin.action(description=_("Test the connection"), permissions=["change"])
    def try_now(self, request: HttpRequest, queryset: QuerySet[Source]) -> None:
        for source in queryset[:CHECKED_AT_ONCE]:
            ok, words = try_source(source=source, principal=self.principal(request))
            (messages.success if ok else messages.error)(request, f"{source}: {words}")


@admin.register(Document)
class DocumentAdmin(TenantModelAdmin):
    may_change = may_delete = True
    list_display = ("title", "uri", "collection", "tags", "shown_status", "chunk_count", at("created_at"))
    list_filter = (choice("status"), ("created_at", DayFilter), related("collection"))
    search_fields = ("title", "uri")
    search_help_text = _("Title or path, in the newest 10,000 documents")
    search_whole = False
    search_ids = ("pk",)
    ordering = ("-created_at", "-id")
    fields = (
        "title",
        "tags",
        "collection",
        "uri",
        "source",
        "tagged_by",
        "status",
        "error",
        "note",
        "version",
        "passages",
        "size",
        "sha256",
        "media_type",
        "created_at",
        "indexed_at",
        "deleted_at",
    )
    readonly_fields = fields[3:]
    autocomplete_fields = ("collection",)
    list_select_related = ("collection",)
    export_fields = (
        "title",
        "uri",
        "collection",
        "tags",
        "status",
        "error",
        "note",
        "chunk_count",
        "size",
        "media_type",
        "created_at",
        "indexed_at",
        "deleted_at",
    )

    @display(description=_("status"), label=STATUS_COLOURS | {"deleted": "danger"})
    def shown_status(self, document: Document) -> tuple[str, Any]:
        if document.deleted_at:
            return "deleted", _("deleted")
        return document.status, document.get_status_display()

    @display(description=_("passages"))
    def passages(self, document: Document) -> SafeString:
        path = f"{reverse('admin:knowledge_chunk_changelist')}?document__id__exact={document.pk}"
        return format_html('<a class="admin-link" href="{}">{}</a>', path, document.chunk_count)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("text")

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal) -> None:
        stored = Document.objects.defer("text").select_related("collection").get(pk=obj.pk)
        change_document(
            document=stored,
            principal=principal,
            title=changes.get("title"),
            tags=changes.get("tags"),
            collection=changes.get("collection"),
        )

    def remove(self, *, obj: Any, principal: Principal) -> None:
        delete_document(document=obj, principal=principal)


@admin.register(Chunk)
class ChunkAdmin(ReadOnlyTenantAdmin):
    """The passages as they are searched, those of documents that the reader's role reads (the database sees to it)."""

    list_display = ("document", "ordinal", "page", "tokens", "tags")
    exclude = ("embedding_hash", "terms")
    list_select_related = ("document",)
    ordering = ("document_id", "ordinal")
    drill_down = ("document__id__exact",)
    export_fields = ("document", "ordinal", "page", "tokens", "tags", "start", "end", "text")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("embedding_hash", "terms", "document__text")
