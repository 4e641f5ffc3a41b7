import uuid
from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import HashIndex
from django.db import models

from knowledge.querysets import ConversationQuerySet, OwnQuerySet, manager_of
from tenants.models import Membership, TenantModel, User


class Conversation(TenantModel):
    """Questions that belong together; the first answer's request id is its id."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    title = models.CharField(max_length=200)
    pinned = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[Any] = manager_of(ConversationQuerySet)

    class Meta(TenantModel.Meta):
        ordering = ["-updated_at", "-id"]
        indexes = [models.Index(fields=["tenant", "user", "-updated_at"], name="conversations_of_user")]

    def __str__(self) -> str:
        return self.title


class ConversationShare(TenantModel):
    """Another member who may read a conversation."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="shares")
    membership = models.ForeignKey(Membership, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "conversation", "membership"], name="conversation_shared_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.conversation_id} → {self.membership_id}"


class Answer(TenantModel):
    """A question and what was answered, from which passages, by what, at what cost.

    ``id`` is the request id. ``sources`` is a snapshot of the passages shown; whoever reads it later is shown those
    alone whose documents they may still read, and the answer only if they may read all that it came from.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(
        Conversation, null=True, blank=True, on_delete=models.SET_NULL, related_name="answers"
    )
    user = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    role_name = models.CharField(max_length=60)
    question = models.TextField()
    standalone_question = models.TextField(blank=True)
    text = models.TextField(blank=True)
    sources = models.JSONField(default=list)
    citations = models.JSONField(default=list)
    marks = models.JSONField(
        default=list, db_default=[], help_text="Sentences that their sources do not support, and why."
    )
    document_ids = ArrayField(models.UUIDField(), default=list)
    depends_on = ArrayField(
        models.UUIDField(),
        default=list,
        db_default=[],
        help_text="Beside its own documents those of the earlier answers that a model had before it.",
    )
    answered = models.BooleanField(default=False)
    grounded = models.BooleanField(default=False)
    confidence = models.FloatField(default=0)
    cache = models.CharField(max_length=10, default="miss")
    provider = models.CharField(max_length=40, blank=True)
    model = models.CharField(max_length=100, blank=True)
    fallback = models.BooleanField(default=False)
    stop_reason = models.CharField(max_length=40, blank=True)
    prompt_version = models.CharField(max_length=20, blank=True)
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    cost_usd = models.DecimalField(max_digits=20, decimal_places=12, null=True)
    latency_ms = models.FloatField(default=0)
    timings = models.JSONField(default=dict)
    endpoint = models.CharField(max_length=20)
    status = models.CharField(
        max_length=20, help_text="success, cached, unanswered, fallback, cancelled or error"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[Any] = manager_of(OwnQuerySet)
    CUT_OFF: ClassVar = "cancelled"
    BROKEN: ClassVar = ("error", CUT_OFF)  # how an answer has ended that did not come to its end

    class Meta(TenantModel.Meta):
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["tenant", "-created_at"], name="answers_of_tenant"),
            models.Index(fields=["tenant", "user", "-created_at"], name="answers_of_user"),
            models.Index(fields=["tenant", "conversation", "created_at"], name="answers_of_conversation"),
            # The admin's list of answers by state or model.
            models.Index(fields=["tenant", "status", "-created_at"], name="answers_by_status"),
            models.Index(fields=["tenant", "model", "-created_at"], name="answers_by_model"),
            # The figures of the admin's home: read from the index alone, the rows are wide.
            models.Index(
                fields=["tenant", "created_at"],
                include=["user", "status", "answered", "cost_usd", "latency_ms"],
                name="answers_figures",
            ),
            # How often a question was asked word for word; of any length, which a tree does not take.
            HashIndex(fields=["question"], name="answers_by_question"),
        ]

    def __str__(self) -> str:
        return self.question[:80]

    @property
    def is_broken(self) -> bool:
        return self.status in self.BROKEN

    @property
    def needed_ids(self) -> set[uuid.UUID]:
        """The documents that one must be able to read to be shown its text, or its question as it was searched."""
        return {*self.document_ids, *self.depends_on}
