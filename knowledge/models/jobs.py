from typing import Any, ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from knowledge.models.documents import Collection, Document, Source
from knowledge.querysets import JobQuerySet, manager_of
from tenants.models import TenantModel, User


class Job(TenantModel):
    """Work of a worker, as it is told to those who wait for it.

    A worker claims a job by a conditional update that sets ``run``; only the holder of that value may go on writing, so
    a worker that was thought dead cannot disturb its successor. ``heartbeat_at`` tells the living from the dead.
    """

    class Kind(models.TextChoices):
        DOCUMENT = "document", "index one document"
        SYNC = "sync", "synchronise a source"
        REINDEX = "reindex", "index again"
        QUESTIONS = "questions", "answer questions"

    class State(models.TextChoices):
        PENDING = "PENDING"
        PROGRESS = "PROGRESS"
        SUCCESS = "SUCCESS"
        FAILURE = "FAILURE"
        CANCELLED = "CANCELLED"

    class CallbackState(models.TextChoices):
        NONE = "", "none"
        PENDING = "pending"
        SENT = "sent"
        FAILED = "failed"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    step = models.CharField(max_length=200, blank=True)
    progress = models.PositiveSmallIntegerField(default=0)
    source = models.ForeignKey(Source, null=True, blank=True, on_delete=models.CASCADE, related_name="jobs")
    document = models.ForeignKey(
        Document, null=True, blank=True, on_delete=models.CASCADE, related_name="jobs"
    )
    collection = models.ForeignKey(
        Collection, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    user = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    seen = models.PositiveIntegerField(default=0)
    changed = models.PositiveIntegerField(default=0)
    unchanged = models.PositiveIntegerField(default=0)
    deleted = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    chunks_added = models.PositiveIntegerField(default=0)
    chunks_kept = models.PositiveIntegerField(default=0)
    chunks_removed = models.PositiveIntegerField(default=0)
    errors = models.JSONField(default=list)
    request = models.JSONField(
        default=dict, db_default={}, help_text="What was asked for, beyond the rows it names."
    )
    result = models.JSONField(null=True)
    error = models.TextField(blank=True)
    attempts = models.PositiveSmallIntegerField(
        default=0, help_text="How often it was begun since it last got further."
    )
    run = models.UUIDField(null=True)
    cancel_requested = models.BooleanField(default=False)
    callback_url = models.CharField(max_length=1000, blank=True, default="", db_default="")
    callback_state = models.CharField(
        max_length=10, choices=CallbackState.choices, blank=True, default="", db_default=""
    )
    callback_attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    callback_at = models.DateTimeField(null=True, help_text="Not tried before then; when it was sent.")
    callback_error = models.TextField(blank=True, default="", db_default="")
    again = models.BooleanField(
        default=False, db_default=False, help_text="Something has changed since it began: once more after it."
    )
    at = models.CharField(
        max_length=1000, blank=True, default="", db_default="", help_text="The document that it is at."
    )
    suspects = models.JSONField(
        default=dict, db_default={}, help_text="Documents at which a worker died, and how often."
    )
    trace_id = models.CharField(
        max_length=36, blank=True, default="", db_default="", help_text="In the worker's log lines."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    waiting_since = models.DateTimeField(default=timezone.now, db_default=Now())
    not_before = models.DateTimeField(
        null=True, help_text="It failed for the moment, and is tried again then."
    )
    started_at = models.DateTimeField(null=True, help_text="When it was begun first.")
    served_at = models.DateTimeField(null=True, help_text="When a worker took it up last.")
    heartbeat_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects: ClassVar[Any] = manager_of(JobQuerySet)

    class Meta(TenantModel.Meta):
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["tenant", "-created_at"], name="jobs_of_tenant"),
            # The reaper: what is waiting or running, in all tenants.
            models.Index(
                fields=["state", "heartbeat_at"],
                condition=models.Q(state__in=["PENDING", "PROGRESS"]),
                name="jobs_unfinished",
            ),
            # Who is to be told that a job has ended, in all tenants.
            models.Index(
                fields=["callback_at"],
                condition=models.Q(callback_state="pending"),
                name="jobs_to_call_back",
            ),
            # The next job of a tenant, and whether it has one.
            models.Index(
                fields=["tenant", "waiting_since"],
                condition=models.Q(state="PENDING"),
                name="jobs_waiting",
            ),
            # When a tenant was served last.
            models.Index(fields=["tenant", "-served_at"], name="jobs_served"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "source"],
                condition=models.Q(kind="sync", state__in=["PENDING", "PROGRESS"]),
                name="one_sync_per_source",
                violation_error_message="This source is being synchronised already.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} ({self.state.lower()})"

    @property
    def skipped(self) -> int:
        """Files of a source whose kind is not read; they are not among those that were seen."""
        return int((self.result or {}).get("totals", {}).get("skipped", 0))

    @property
    def is_finished(self) -> bool:
        return self.state in (self.State.SUCCESS, self.State.FAILURE, self.State.CANCELLED)
