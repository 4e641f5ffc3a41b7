from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from knowledge.models import Answer
from knowledge.querysets import OwnQuerySet, manager_of
from tenants.models import TenantModel, User


class Feedback(TenantModel):
    """What a member thought of an answer; one for each member and answer."""

    class Reason(models.TextChoices):
        WRONG = "wrong", "it is wrong"
        INCOMPLETE = "incomplete", "something is missing"
        OUTDATED = "outdated", "it is out of date"
        BAD_SOURCES = "bad_sources", "the sources do not fit"
        UNCLEAR = "unclear", "it is hard to understand"
        SLOW = "slow", "it took too long"
        OTHER = "other", "something else"

    answer = models.ForeignKey(Answer, on_delete=models.CASCADE, related_name="feedback")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    rating = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(5)]
    )
    helpful = models.BooleanField(null=True, blank=True)
    reasons = ArrayField(models.CharField(max_length=20, choices=Reason.choices), default=list, blank=True)
    comment = models.TextField(blank=True)
    correction = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[Any] = manager_of(OwnQuerySet)

    class Meta(TenantModel.Meta):
        verbose_name_plural = "feedback"
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "answer", "user"],
                name="feedback_once_per_member_and_answer",
                violation_error_message="You have rated this answer already: change that rating.",
            ),
            models.CheckConstraint(
                condition=models.Q(rating__isnull=True) | models.Q(rating__range=(1, 5)), name="rating_1_to_5"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rating or ('helpful' if self.helpful else 'not helpful')}"


class Review(TenantModel):
    """What becomes of an answer that members complained about; one for each such answer.

    ``worst``, ``ratings`` and ``asked`` are copies, kept by every rating, that the queue is ordered by.
    """

    class Status(models.TextChoices):
        OPEN = "open"
        IN_PROGRESS = "in_progress"
        RESOLVED = "resolved"
        DISMISSED = "dismissed"

    answer = models.ForeignKey(Answer, on_delete=models.CASCADE, related_name="reviews")
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.OPEN)
    assignee = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    note = models.TextField(blank=True)
    worst = models.PositiveSmallIntegerField(
        default=1, editable=False, help_text="The lowest rating, 1 to 5."
    )
    ratings = models.PositiveIntegerField(default=1, editable=False, help_text="How many members rated it.")
    asked = models.PositiveIntegerField(
        default=1, editable=False, help_text="How often its question was asked in the 90 days before."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    closed_at = models.DateTimeField(null=True, blank=True, editable=False)
    closed_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )

    class Meta(TenantModel.Meta):
        ordering = ["worst", "-asked", "-ratings", "created_at", "id"]
        constraints = [models.UniqueConstraint(fields=["tenant", "answer"], name="one_review_per_answer")]
        indexes = [
            # The queue: what is open, lowest and most frequent first.
            models.Index(
                fields=["tenant", "status", "worst", "-asked", "-ratings", "created_at", "id"],
                name="review_queue",
            ),
        ]

    def __str__(self) -> str:
        return f"review of {self.answer_id}"


class DocumentRequest(TenantModel):
    """What a member found missing in the documents."""

    class Status(models.TextChoices):
        OPEN = "open"
        DONE = "done"
        DECLINED = "declined"

    user = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+", editable=False)
    answer = models.ForeignKey(
        Answer, null=True, blank=True, on_delete=models.SET_NULL, related_name="document_requests"
    )
    question = models.TextField(help_text="What could not be answered.")
    note = models.TextField(blank=True, help_text="What document the member expects to say it.")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.OPEN)
    reply = models.TextField(blank=True, help_text="What the member is told.")
    handled_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    created_at = models.DateTimeField(auto_now_add=True)
    handled_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[Any] = manager_of(OwnQuerySet)

    class Meta(TenantModel.Meta):
        ordering = ["-created_at", "-id"]
        indexes = [
            # The list of those who manage, and a member's own.
            models.Index(fields=["tenant", "status", "-created_at"], name="requests_by_status"),
            models.Index(fields=["tenant", "user", "-created_at"], name="requests_of_user"),
        ]

    def __str__(self) -> str:
        return self.question[:80]
