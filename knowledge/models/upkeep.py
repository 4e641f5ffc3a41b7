"""What is remembered of work that failed for good, of documents that went of age, and of how the index grew."""

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from knowledge.models.documents import Document, Source
from knowledge.models.jobs import Job
from knowledge.querysets import manager_of
from tenants.models import TenantModel
from tenants.querysets import TenantQuerySet


class DeadLetter(TenantModel):
    """A job or a document that failed for good, until it succeeds or is gone.

    A document of a source whose content cannot be read is not fetched again while its source says that it is the same.
    """

    job = models.ForeignKey(Job, null=True, on_delete=models.SET_NULL, related_name="+")
    source = models.ForeignKey(Source, null=True, on_delete=models.CASCADE, related_name="+")
    document = models.ForeignKey(Document, null=True, on_delete=models.CASCADE, related_name="+")
    uri = models.CharField(max_length=1000, blank=True, help_text="The document; empty: the job as a whole.")
    reason = models.TextField()
    attempts = models.PositiveIntegerField(default=1)
    permanent = models.BooleanField(default=True, help_text="Not tried again while its content is the same.")
    fingerprint = models.CharField(max_length=200, blank=True)
    release = models.CharField(
        max_length=40, blank=True, help_text="A newer version may read what this one cannot."
    )
    trace_id = models.CharField(max_length=36, blank=True, help_text="In the worker's log lines.")
    created_at = models.DateTimeField(auto_now_add=True)
    failed_at = models.DateTimeField(default=timezone.now)

    objects: ClassVar[Any] = manager_of(TenantQuerySet)

    class Meta(TenantModel.Meta):
        ordering = ["-failed_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "source", "uri"],
                condition=models.Q(source__isnull=False),
                name="dead_letter_once_per_item",
            ),
            models.UniqueConstraint(
                fields=["tenant", "document"],
                condition=models.Q(document__isnull=False, source__isnull=True),
                name="dead_letter_once_per_document",
            ),
        ]
        indexes = [models.Index(fields=["tenant", "-failed_at", "-id"], name="dead_letters_of_tenant")]

    def __str__(self) -> str:
        return self.uri or "a job"


class ExpiredItem(TenantModel):
    """A document of a source that stays away although the source holds it.

    One that its collection's retention has deleted stays away while it is the same there, one that a person has deleted
    until it is restored or the source is told to take it again.
    """

    source = models.ForeignKey(Source, on_delete=models.CASCADE, related_name="+")
    uri = models.CharField(max_length=1000)
    sha256 = models.CharField(max_length=64)
    fingerprint = models.CharField(max_length=200, blank=True)
    current_since = models.DateTimeField()
    by_hand = models.BooleanField(default=False, db_default=False, help_text="Deleted by a person.")

    class Meta(TenantModel.Meta):
        constraints = [
            models.UniqueConstraint(fields=["tenant", "source", "uri"], name="expired_once_per_item")
        ]

    def __str__(self) -> str:
        return self.uri


class IndexDay(TenantModel):
    """How a tenant's index stood on a day (UTC), and how long what was withdrawn that day could still be found.

    ``withdrawal_ms`` are upper bounds, one for each withdrawal that was measured (``knowledge/withdrawals.py``);
    ``still_found`` counts those that a search found all the same, which must never happen.
    """

    day = models.DateField()
    documents = models.PositiveBigIntegerField(default=0)
    chunks = models.PositiveBigIntegerField(default=0)
    original_bytes = models.PositiveBigIntegerField(default=0)
    withdrawal_ms = ArrayField(models.FloatField(), default=list)
    still_found = models.PositiveIntegerField(default=0)

    class Meta(TenantModel.Meta):
        ordering = ["-day"]
        constraints = [models.UniqueConstraint(fields=["tenant", "day"], name="index_day_once")]

    def __str__(self) -> str:
        return f"{self.day:%Y-%m-%d}"
