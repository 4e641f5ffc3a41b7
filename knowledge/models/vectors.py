"""What the search index is made from, beside the chunks: vectors by text, and the sets of tags that occur."""

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from pgvector.django import HalfVectorField

from knowledge.querysets import TagSetQuerySet, manager_of
from tenants.models import TenantModel


class TagSet(TenantModel):
    """A set of tags that a chunk carries, once.

    A role reads a chunk if it reads the chunk's set; which sets it reads, the database itself says (row-level security
    compares the tags), so that an index of the whole tenant can be filtered by a handful of ids before anything is ranked.
    """

    tags = ArrayField(models.CharField(max_length=60), default=list)

    objects: ClassVar[Any] = manager_of(TagSetQuerySet)

    class Meta(TenantModel.Meta):
        constraints = [models.UniqueConstraint(fields=["tenant", "tags"], name="tag_set_once_per_tenant")]

    def __str__(self) -> str:
        return ", ".join(self.tags) or "(no tags)"


class EmbeddingSpace(TenantModel):
    """The vectors of one embedding model in a tenant. Questions are compared in the active one."""

    class State(models.TextChoices):
        BUILDING = "building"
        ACTIVE = "active"
        RETIRED = "retired"

    model = models.CharField(max_length=300, help_text="The embedder's name.")
    dimensions = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.BUILDING)
    created_at = models.DateTimeField(auto_now_add=True)
    activated_at = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(
        null=True, blank=True, help_text="Since when another one is searched; a while later it is dropped."
    )
    comparing_since = models.DateTimeField(
        null=True, blank=True, help_text="A worker is comparing it with the one in use, or is about to."
    )
    compare_error = models.TextField(
        blank=True, default="", db_default="", help_text="Why the last comparison came to nothing."
    )

    class Meta(TenantModel.Meta):
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "model"], name="embedding_space_once_per_model"),
            models.UniqueConstraint(
                fields=["tenant"], condition=models.Q(state="active"), name="one_active_embedding_space"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} ({self.state})"


class Embedding(TenantModel):
    """A text's vector, by the hash of the text: chunks of equal text share it, and a text that comes back finds it.

    Read by whoever reads the whole tenant alone (row-level security asks for every tag): a vector tells much of its text.
    """

    space = models.ForeignKey(EmbeddingSpace, on_delete=models.CASCADE, related_name="+")
    text_hash = models.BinaryField(max_length=32)
    vector = HalfVectorField()
    created_at = models.DateTimeField(auto_now_add=True)
    unused_since = models.DateTimeField(null=True, help_text="When no chunk was found to use it.")

    class Meta(TenantModel.Meta):
        constraints = [
            models.UniqueConstraint(fields=["tenant", "space", "text_hash"], name="embedding_once_per_text")
        ]

    def __str__(self) -> str:
        return bytes(self.text_hash).hex()[:12]
