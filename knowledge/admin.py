from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from knowledge.documents import change_document, delete_collection, delete_document, save_collection
from knowledge.ingestion.jobs import cancel_job, retry_job
from knowledge.models import (
    Answer,
    Chunk,
    Collection,
    Conversation,
    ConversationShare,
    Corpus,
    Document,
    Job,
    Price,
    Source,
)
from knowledge.sources import delete_source, save_source, start_sync
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.admin_site import (
    PlatformModelAdmin,
    ReadOnlyTenantAdmin,
    TenantModelAdmin,
    explain,
    is_superuser,
    principal_in,
)


def _of_same_tenant(request: HttpRequest, field: Any, model: Any, owner: Any) -> Any:
    """For a superuser, who works across tenants: only what belongs to the row's own."""
    if field is not None and is_superuser(request) and request.resolver_match:
        row = owner.objects.filter(pk=request.resolver_match.kwargs.get("object_id")).first()
        field.queryset = model.objects.filter(tenant_id=row.tenant_id if row else None)
    return field


@admin.register(Collection)
class CollectionAdmin(TenantModelAdmin):
    may_add = may_change = may_delete = True
    list_display = ("name", "slug", "default_tags", "language", "content_class")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal | None) -> None:
        save_collection(collection=obj, changes=changes, principal=principal)

    def remove(self, *, obj: Any, principal: Principal | None) -> None:
        delete_collection(collection=obj, principal=principal)


@admin.register(Source)
class SourceAdmin(TenantModelAdmin):
    may_add = may_change = may_delete = True
    list_display = ("name", "path", "collection", "schedule", "time_zone", "enabled", "last_synced_at")
    list_filter = ("enabled", "kind")
    search_fields = ("name", "path")
    readonly_fields = ("last_synced_at",)
    list_select_related = ("collection", "tenant")
    actions = ("sync",)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        return _of_same_tenant(request, field, Collection, Source)

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal | None) -> None:
        save_source(source=obj, changes=changes, principal=principal)

    def remove(self, *, obj: Any, principal: Principal | None) -> None:
        delete_source(source=obj, principal=principal)

    @admin.action(description="Synchronise now", permissions=["change"])
    def sync(self, request: HttpRequest, queryset: QuerySet[Source]) -> None:
        for source in queryset:
            with self.in_tenant_of(source):
                start_sync(source=source, principal=principal_in(request))
            self._audit(request, "sync", source)


@admin.register(Document)
class DocumentAdmin(TenantModelAdmin):
    may_change = may_delete = True
    list_display = ("title", "uri", "collection", "tags", "status", "chunk_count", "updated_at", "deleted_at")
    list_filter = ("status",)
    search_fields = ("title", "uri")
    fields = (
        "title",
        "tags",
        "collection",
        "uri",
        "source",
        "status",
        "error",
        "version",
        "chunk_count",
        "size",
        "sha256",
        "media_type",
        "created_at",
        "indexed_at",
        "deleted_at",
    )
    readonly_fields = fields[3:]
    list_select_related = ("collection", "tenant")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("text")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        return _of_same_tenant(request, field, Collection, Document)

    def write(self, *, obj: Any, changes: dict[str, Any], principal: Principal | None) -> None:
        stored = Document.objects.defer("text").select_related("collection").get(pk=obj.pk)
        change_document(
            document=stored,
            principal=principal,
            title=changes.get("title"),
            tags=changes.get("tags"),
            collection=changes.get("collection"),
        )

    def remove(self, *, obj: Any, principal: Principal | None) -> None:
        delete_document(document=obj, principal=principal)


@admin.register(Chunk)
class ChunkAdmin(ReadOnlyTenantAdmin):
    list_display = ("document", "ordinal", "page", "tokens", "tags")
    exclude = ("embedding", "search")
    list_select_related = ("document", "tenant")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("embedding", "search", "document__text")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [n for n in super().get_readonly_fields(request, obj) if n not in ("embedding", "search")]


@admin.register(Job)
class JobAdmin(ReadOnlyTenantAdmin):
    list_display = ("created_at", "kind", "state", "step", "progress", "changed", "failed", "user")
    list_filter = ("state", "kind")
    list_select_related = ("user", "tenant")
    actions = ("cancel", "retry")

    @admin.action(description="Cancel", permissions=["view"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        for job in queryset:
            try:
                with self.in_tenant_of(job):
                    cancel_job(job=job)
                self._audit(request, "cancel", job)
            except Problem as problem:
                messages.error(request, explain(problem))

    @admin.action(description="Retry", permissions=["view"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        for job in queryset:
            try:
                with self.in_tenant_of(job):
                    retry_job(job=job, user=request.user)  # type: ignore[arg-type]
                self._audit(request, "retry", job)
            except Problem as problem:
                messages.error(request, explain(problem))


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyTenantAdmin):
    list_display = ("title", "user", "pinned", "updated_at")
    list_select_related = ("user", "tenant")


@admin.register(ConversationShare)
class ConversationShareAdmin(ReadOnlyTenantAdmin):
    list_display = ("conversation", "membership", "created_at")
    list_select_related = ("conversation", "membership__user", "membership__role", "tenant")


@admin.register(Answer)
class AnswerAdmin(ReadOnlyTenantAdmin):
    list_display = (
        "created_at",
        "question",
        "user",
        "role_name",
        "status",
        "cache",
        "model",
        "cost_usd",
        "latency_ms",
    )
    list_filter = ("status", "cache", "model", "answered")
    search_fields = ("question",)
    list_select_related = ("user", "tenant")


@admin.register(Corpus)
class CorpusAdmin(ReadOnlyTenantAdmin):
    list_display = ("id", "version")


@admin.register(Price)
class PriceAdmin(PlatformModelAdmin):
    list_display = (
        "provider",
        "model",
        "effective_from",
        "min_prompt_tokens",
        "input_per_mtok",
        "output_per_mtok",
    )
    list_filter = ("provider",)
