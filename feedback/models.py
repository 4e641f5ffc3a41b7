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
