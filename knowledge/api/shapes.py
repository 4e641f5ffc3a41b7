"""The shapes of collections, documents, sources and jobs, for validation and for the OpenAPI document."""

from typing import Any

from rest_framework import serializers

from knowledge.models import Collection, Document, ExpiredItem, Job, Source
from knowledge.webhooks.callbacks import check_callback
from tenants.models import validate_tag


class CollectionShape(serializers.ModelSerializer[Collection]):
    class Meta:
        model = Collection
        fields = (
            "id",
            "slug",
            "name",
            "description",
            "default_tags",
            "language",
            "content_class",
            "retention_days",
            "created_at",
        )


def tag_list(**options: Any) -> Any:
    return serializers.ListField(
        child=serializers.CharField(max_length=60, validators=[validate_tag]),
        required=False,
        max_length=50,
        **options,
    )


class CollectionForm(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=200)
    slug = serializers.SlugField(max_length=60, required=False)
    description = serializers.CharField(max_length=5000, required=False, allow_blank=True)
    default_tags = tag_list()
    language = serializers.ChoiceField(choices=Collection.Language.choices, required=False)
    content_class = serializers.ChoiceField(choices=Collection.ContentClass.choices, required=False)
    retention_days = serializers.IntegerField(min_value=1, max_value=36500, required=False, allow_null=True)


class DocumentShape(serializers.ModelSerializer[Document]):
    collection = serializers.CharField(source="collection.slug")
    source = serializers.UUIDField(source="source_id", allow_null=True)  # type: ignore[assignment]

    has_duplicates = serializers.BooleanField(
        read_only=True, help_text="Whether another document that you may read has the same content."
    )

    own_tags = serializers.BooleanField(
        read_only=True,
        help_text="Of a source's document: whether its tags were set by hand, and stay whatever the source's are.",
    )

    class Meta:
        model = Document
        fields = (
            "id",
            "title",
            "uri",
            "collection",
            "source",
            "tags",
            "own_tags",
            "media_type",
            "size",
            "sha256",
            "version",
            "status",
            "error",
            "note",
            "chunk_count",
            "has_duplicates",
            "created_at",
            "updated_at",
            "indexed_at",
        )


class DocumentForm(serializers.Serializer[Any]):
    file = serializers.FileField(allow_empty_file=True, max_length=1000)
    collection = serializers.CharField(max_length=60, required=False, help_text="Slug or id.")
    tags = serializers.ListField(
        child=serializers.CharField(max_length=60, allow_blank=True), required=False, max_length=50
    )
    title = serializers.CharField(max_length=500, required=False, allow_blank=True)

    def validate_tags(self, tags: list[str]) -> list[str] | None:
        """A field of a form that was left empty is none."""
        return [tag for tag in tags if tag] or None


class ContentForm(serializers.Serializer[Any]):
    file = serializers.FileField(allow_empty_file=True, max_length=1000)


class DocumentChangeForm(serializers.Serializer[Any]):
    title = serializers.CharField(max_length=500, required=False)
    tags = tag_list()
    collection = serializers.CharField(max_length=60, required=False, help_text="Slug or id.")
    own_tags = serializers.BooleanField(
        required=False,
        help_text="Of a source's document: false gives it its source's tags again, true keeps those that it has.",
    )


class AcceptedShape(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    task_id = serializers.UUIDField()
    status_url = serializers.CharField()


class StartedShape(serializers.Serializer[Any]):
    task_id = serializers.UUIDField()
    status = serializers.CharField()
    status_url = serializers.CharField()


class DocumentContentShape(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    title = serializers.CharField()
    text = serializers.CharField()
    pages = serializers.ListField(
        child=serializers.IntegerField(), help_text="Offset of each page's start; empty: no pages."
    )
    version = serializers.IntegerField()


class SourceRowShape(serializers.ModelSerializer[Source]):
    collection = serializers.CharField(source="collection.slug")
    options = serializers.DictField(help_text="What its kind asks for beside the path.")
    has_credentials = serializers.SerializerMethodField(
        help_text="Whether some are stored; they are never shown."
    )

    def get_has_credentials(self, source: Source) -> bool:
        return bool(source.credentials)

    class Meta:
        model = Source
        fields = (
            "id",
            "name",
            "kind",
            "path",
            "options",
            "has_credentials",
            "collection",
            "tags",
            "enabled",
            "schedule",
            "time_zone",
            "callback_url",
            "last_synced_at",
            "created_at",
        )


def callback_field() -> Any:
    return serializers.CharField(
        max_length=1000,
        required=False,
        allow_blank=True,
        help_text="Told when the job has ended: a Standard Webhook, signed with the source's hook secret.",
    )


class SyncForm(serializers.Serializer[Any]):
    callback_url = callback_field()


class SourceForm(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=200, required=False)
    kind = serializers.ChoiceField(choices=Source.Kind.choices, required=False)
    path = serializers.CharField(
        max_length=1000,
        required=False,
        allow_blank=True,
        help_text="The folder, the address or the bucket; kinds that have no place need none.",
    )
    options = serializers.DictField(
        required=False,
        help_text="By kind, see the guide to the API. When changed, laid over the stored ones; null sets one back.",
    )
    credentials = serializers.DictField(
        child=serializers.CharField(max_length=20_000, allow_blank=True),
        required=False,
        allow_null=True,
        write_only=True,
        help_text="By kind; stored encrypted and never shown. Left out: kept; empty: removed. A new place drops them.",
    )
    collection = serializers.CharField(max_length=60, required=False, help_text="Slug or id.")
    tags = tag_list()
    enabled = serializers.BooleanField(required=False)
    schedule = serializers.CharField(max_length=100, required=False, allow_blank=True)
    time_zone = serializers.CharField(max_length=60, required=False)
    callback_url = callback_field()

    def validate_callback_url(self, value: str) -> str:
        return check_callback(value)


class ExcludedShape(serializers.ModelSerializer[ExpiredItem]):
    class Meta:
        model = ExpiredItem
        fields = ("uri",)


class SourceCheckShape(serializers.Serializer[Any]):
    ok = serializers.BooleanField()
    detail = serializers.CharField(help_text="What is there, or what is wrong and what to do.")


class IngestForm(serializers.Serializer[Any]):
    source = serializers.UUIDField(required=False)  # type: ignore[assignment]
    directory = serializers.CharField(max_length=1000, required=False)
    collection = serializers.CharField(max_length=60, required=False, help_text="Slug or id.")
    tags = tag_list()
    callback_url = callback_field()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if bool(attrs.get("source")) == bool(attrs.get("directory")):
            raise serializers.ValidationError({"directory": ["Give either a source or a directory."]})
        return attrs


class ReindexForm(serializers.Serializer[Any]):
    collection = serializers.CharField(max_length=60, required=False, help_text="Slug or id.")
    source = serializers.UUIDField(required=False)  # type: ignore[assignment]
    document = serializers.UUIDField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) > 1:
            raise serializers.ValidationError("Give one of collection, source and document, or none.")
        return attrs


class JobDocumentsShape(serializers.Serializer[Any]):
    seen = serializers.IntegerField()
    changed = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    deleted = serializers.IntegerField()
    failed = serializers.IntegerField()


class JobChunksShape(serializers.Serializer[Any]):
    added = serializers.IntegerField()
    kept = serializers.IntegerField()
    removed = serializers.IntegerField()


class JobErrorShape(serializers.Serializer[Any]):
    document = serializers.CharField()
    reason = serializers.CharField()


class JobCallbackShape(serializers.Serializer[Any]):
    url = serializers.CharField()
    state = serializers.ChoiceField(choices=["pending", "sent", "failed"])
    attempts = serializers.IntegerField()
    error = serializers.CharField(required=False)


class JobShape(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Job.Kind.choices)
    state = serializers.ChoiceField(choices=Job.State.choices)
    step = serializers.CharField()
    progress = serializers.IntegerField(help_text="0–100")
    documents = JobDocumentsShape()
    chunks = JobChunksShape()
    errors = JobErrorShape(many=True)  # type: ignore[assignment]
    result = serializers.JSONField(required=False)
    error = serializers.CharField(required=False)
    callback = JobCallbackShape(required=False)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


def job_object(job: Job) -> dict[str, Any]:
    """A job as the API tells it."""
    body: dict[str, Any] = {
        "id": job.pk,
        "kind": job.kind,
        "state": job.state,
        "step": job.step,
        "progress": job.progress,
        "documents": {
            "seen": job.seen,
            "changed": job.changed,
            "unchanged": job.unchanged,
            "deleted": job.deleted,
            "failed": job.failed,
        },
        "chunks": {"added": job.chunks_added, "kept": job.chunks_kept, "removed": job.chunks_removed},
        "errors": job.errors,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }
    if job.result is not None:
        body["result"] = job.result
    if job.error:
        body["error"] = job.error
    if job.callback_state:
        body["callback"] = {
            "url": job.callback_url,
            "state": job.callback_state,
            "attempts": job.callback_attempts,
        } | ({"error": job.callback_error} if job.callback_error else {})
    return body
