from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import connections, models
from django.db.models import Value
from django.db.models.fields.json import KT
from django.db.models.functions import Coalesce

from knowledge.querysets import ChunkQuerySet, CollectionQuerySet, DocumentQuerySet, manager_of
from tenants.models import TenantModel, User, validate_tag
from tenants.scope import alias, require_tenant_id


def tags_field(help_text: str = "") -> "ArrayField[Any, Any]":
    return ArrayField(
        models.CharField(max_length=60, validators=[validate_tag]),
        default=list,
        blank=True,
        help_text=help_text,
    )


class Corpus(TenantModel):
    """The version of a tenant's knowledge; every change that a reader could notice raises it.

    A search index that stands at an older version takes in the documents whose ``revision`` is newer; one that is older
    than ``floor`` is made afresh, because documents have gone without a trace since.
    """

    version = models.BigIntegerField(default=1)
    floor = models.BigIntegerField(default=0, db_default=0)

    class Meta(TenantModel.Meta):
        verbose_name_plural = "corpora"
        constraints = [models.UniqueConstraint(fields=["tenant"], name="one_corpus_per_tenant")]

    def __str__(self) -> str:
        return f"version {self.version}"

    @classmethod
    def current_version(cls) -> int:
        """The version in force in this scope's tenant; 0 before anything was indexed."""
        return cls.objects.values_list("version", flat=True).first() or 0

    @classmethod
    def raise_version(cls, *, without_trace: bool = False) -> int:
        """The next version, which is now in force; to be called in the transaction that makes the change.

        Writers of one tenant wait for each other here until they commit: whoever sees a version sees all that made it.

        Args:
            without_trace: rows of documents are removed that were still being found.
        """
        cls.objects.bulk_create([cls(version=1)], ignore_conflicts=True)
        values = "version = version + 1" + (", floor = version + 1" if without_trace else "")
        with connections[alias()].cursor() as cursor:
            cursor.execute(
                f"UPDATE {cls._meta.db_table} SET {values} WHERE tenant_id = %s RETURNING version",  # noqa: S608
                [require_tenant_id()],
            )
            version: int = cursor.fetchone()[0]
        return version


class Collection(TenantModel):
    """A named set of documents with common defaults."""

    class ContentClass(models.TextChoices):
        REFERENCE = "reference"
        DOCUMENTATION = "documentation"
        CONFIGURATION = "configuration"
        TROUBLESHOOTING = "troubleshooting"
        STATE = "state"

    class Language(models.TextChoices):
        """PostgreSQL's text search configurations; ``simple`` does not stem."""

        ENGLISH = "english"
        GERMAN = "german"
        FRENCH = "french"
        SPANISH = "spanish"
        ITALIAN = "italian"
        DUTCH = "dutch"
        PORTUGUESE = "portuguese"
        SIMPLE = "simple"

    slug = models.SlugField(max_length=60)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    default_tags = tags_field("Given to documents that come without a tag of their own.")
    language = models.CharField(max_length=20, choices=Language.choices, default=Language.ENGLISH)
    content_class = models.CharField(
        max_length=20, choices=ContentClass.choices, default=ContentClass.DOCUMENTATION
    )
    retention_days = models.PositiveIntegerField(null=True, blank=True, help_text="Empty: kept for good.")
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[Any] = manager_of(CollectionQuerySet)

    class Meta(TenantModel.Meta):
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "slug"],
                name="collection_slug_once_per_tenant",
                violation_error_message="A collection of this short name exists already.",
            )
        ]

    def __str__(self) -> str:
        return self.name


# Beside its path, the options that say where a source lies: two of one repository may have a folder each.
SOURCE_PLACE_OPTIONS = ("branch", "folder", "endpoint")


class Source(TenantModel):
    """A place that documents come from and are kept in step with."""

    class Kind(models.TextChoices):
        FOLDER = "folder"
        GIT = "git", "git repository"
        WEB = "web", "web site"
        S3 = "s3", "S3 bucket"
        PUSH = "push", "pushed by webhook"

    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=20, choices=Kind.choices, default=Kind.FOLDER)
    path = models.CharField(
        max_length=1000,
        help_text="A folder below the allowed root (RAGSITE_INGEST_ROOT), or the address of what is synchronised.",
    )
    options = models.JSONField(
        default=dict, db_default={}, blank=True, help_text="What its kind asks for beside the path."
    )
    credentials = models.TextField(
        blank=True, default="", db_default="", editable=False, help_text="Encrypted; never shown again."
    )
    hook_secret = models.TextField(
        blank=True, default="", db_default="", editable=False, help_text="Encrypted; signs webhooks."
    )
    callback_url = models.CharField(
        max_length=1000,
        blank=True,
        default="",
        db_default="",
        help_text="Told when a job of this source has ended, signed with the webhooks' secret.",
    )
    state = models.JSONField(
        default=dict,
        db_default={},
        editable=False,
        help_text="What the connector remembers of the last sync.",
    )
    collection = models.ForeignKey(Collection, on_delete=models.PROTECT, related_name="sources")
    tags = tags_field("Given to every document of this source; empty: the collection's default tags.")
    trusted = models.BooleanField(
        default=False,
        editable=False,
        help_text="Named on the server's own command line: may lie outside of the allowed root.",
    )
    enabled = models.BooleanField(default=True)
    schedule = models.CharField(
        max_length=100,
        blank=True,
        help_text="A crontab line, for instance “*/15 * * * *”; empty: only by hand.",
    )
    time_zone = models.CharField(max_length=60, default="UTC")
    last_synced_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_run = models.JSONField(
        default=dict,
        db_default={},
        editable=False,
        help_text="How its last job ended: job, state, error, finished_at, documents, chunks.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "name"],
                name="source_name_once_per_tenant",
                violation_error_message="A source of this name exists already.",
            ),
            models.UniqueConstraint(
                "tenant",
                "kind",
                "path",
                "collection",
                *(Coalesce(KT(f"options__{name}"), Value("")) for name in SOURCE_PLACE_OPTIONS),
                name="source_place_once_per_collection",
                violation_error_message="This place is a source of this collection already.",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Document(TenantModel):
    """A document: its extracted text, who may read it (tags), and where it stands.

    Without a tag only roles that read everything see it. ``version`` rises with every new content.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        INDEXED = "indexed"
        FAILED = "failed"

    class TaggedBy(models.TextChoices):
        """Who chose a source's document's tags: its source gives them, its sender chose among those, a person set them."""

        SOURCE = "", "its source"
        SENDER = "sender"
        HAND = "hand"

    collection = models.ForeignKey(Collection, on_delete=models.PROTECT, related_name="documents")
    source = models.ForeignKey(
        Source, null=True, blank=True, on_delete=models.CASCADE, related_name="documents"
    )
    title = models.CharField(max_length=500)
    given_title = models.CharField(
        max_length=500, blank=True, editable=False, help_text="Set by a person; goes before the file's own."
    )
    uri = models.CharField(
        max_length=1000, help_text="Its path in its source, or the name it was uploaded under."
    )
    tags = tags_field("The roles that read one of these tags may read this document; none: admins only.")
    tagged_by = models.CharField(
        max_length=10,
        choices=TaggedBy.choices,
        blank=True,
        default=TaggedBy.SOURCE,
        db_default="",
        editable=False,
        help_text="Who chose the tags of a source's document; those that were set by hand stay whatever the source's are.",
    )
    media_type = models.CharField(max_length=100, blank=True, editable=False)
    size = models.PositiveBigIntegerField(default=0, editable=False)
    sha256 = models.CharField(max_length=64, blank=True, editable=False)
    stored_name = models.CharField(max_length=120, blank=True, editable=False)
    pending_name = models.CharField(
        max_length=120, blank=True, editable=False, help_text="The original that waits to be indexed."
    )
    pending_uri = models.CharField(
        max_length=1000, blank=True, editable=False, help_text="The name that replaces ``uri`` with it."
    )
    version = models.PositiveIntegerField(default=0, editable=False)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING, editable=False)
    error = models.TextField(blank=True, editable=False)
    note = models.TextField(
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="What of its content could not be indexed, although the rest was.",
    )
    text = models.TextField(blank=True, editable=False)
    pages = ArrayField(models.IntegerField(), default=list, blank=True, editable=False)
    chunk_count = models.PositiveIntegerField(default=0, editable=False)
    created_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    indexed_at = models.DateTimeField(null=True, blank=True, editable=False)
    revision = models.BigIntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text="The corpus version at which search had to notice it last.",
    )
    fingerprint = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="What its source said of its content; the same again: unchanged.",
    )
    text_sha256 = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="Of its words alone: equal for documents that say the same in another file.",
    )
    current_since = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="When its content changed last, or it was restored: its age for retention.",
    )
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[Any] = manager_of(DocumentQuerySet)

    class Meta(TenantModel.Meta):
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "source", "uri"],
                condition=models.Q(source__isnull=False, deleted_at__isnull=True),
                name="document_once_per_source",
                violation_error_message="The source holds a document of this path already.",
            )
        ]
        indexes = [
            # The list of documents, newest first.
            models.Index(fields=["tenant", "-created_at", "-id"], name="documents_of_tenant"),
            # What a search index has to take in since it was made.
            models.Index(fields=["tenant", "revision"], name="documents_by_revision"),
            # The same content elsewhere: by its bytes, by its words.
            models.Index(fields=["tenant", "sha256"], name="documents_by_bytes"),
            models.Index(fields=["tenant", "text_sha256"], name="documents_by_words"),
            # The tags that a person gave to what comes back to a source, and how many there are.
            models.Index(
                fields=["tenant", "source", "uri"],
                condition=models.Q(tagged_by="hand"),
                name="documents_tagged_by_hand",
            ),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def waiting_uri(self) -> str:
        """The path that it has once the content that waits is indexed; where none waits, the one that it has."""
        return (self.pending_name and self.pending_uri) or self.uri

    @property
    def own_tags(self) -> bool:
        """Whether its tags were set by hand and do not follow its source's."""
        return self.tagged_by == self.TaggedBy.HAND


class Chunk(TenantModel):
    """A passage of a document as it is searched. ``tags`` is a copy of the document's, so that both arms of the
    search, and the database itself, filter before they rank."""

    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="chunks")
    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, related_name="+")
    tags = tags_field()
    ordinal = models.PositiveIntegerField()
    start = models.PositiveIntegerField(help_text="Offset in the document's text, in characters.")
    end = models.PositiveIntegerField()
    page = models.PositiveIntegerField(null=True)
    heading_path = ArrayField(models.TextField(), default=list)
    text = models.TextField()
    tokens = models.PositiveIntegerField()
    content_hash = models.CharField(max_length=64)
    embedding_hash = models.BinaryField(
        max_length=32,
        null=True,
        help_text="Of the text that is embedded: its vector is the one of this hash.",
    )
    terms = models.BinaryField(
        null=True, help_text="Its search terms and their counts (``retrieval/analysis.py``)."
    )

    objects: ClassVar[Any] = manager_of(ChunkQuerySet)

    class Meta(TenantModel.Meta):
        ordering = ["document", "ordinal"]
        indexes = [
            # A document's chunks in order: the swap, the section around a passage, what a search index takes in.
            models.Index(fields=["tenant", "document", "ordinal"], name="chunks_of_document"),
            # Which vectors are still in use.
            models.Index(fields=["tenant", "embedding_hash"], name="chunks_by_embedding"),
        ]

    def __str__(self) -> str:
        return f"{self.document_id} #{self.ordinal}"
