import uuid

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F


def _per_minute(words: str) -> "models.PositiveIntegerField[int | None, int | None]":
    return models.PositiveIntegerField(
        words,
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(1_000_000_000)],
        help_text="Empty: the installation's default.",
    )


class Tenant(models.Model):
    """A team whose documents, people and answers no other team ever sees.

    ``auth_epoch`` rises with every change of roles, tags or memberships: whatever was cached under the old one misses.
    """

    class Status(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.CharField(
        max_length=40,
        unique=True,
        validators=[RegexValidator(r"^[a-z][a-z0-9-]{1,39}$", "Use lower-case letters, digits and dashes.")],
    )
    name = models.CharField(max_length=200)
    time_zone = models.CharField(
        max_length=64,
        default="UTC",
        db_default="UTC",
        help_text="Times and days on its pages, and new schedules, are in this zone.",
    )
    user_requests = _per_minute("requests a minute of a member")
    user_tokens = _per_minute("model tokens a minute of a member")
    key_requests = _per_minute("requests a minute of an API key")
    key_tokens = _per_minute("model tokens a minute of an API key")
    tenant_requests = _per_minute("requests a minute of the tenant")
    tenant_tokens = _per_minute("model tokens a minute of the tenant")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.ACTIVE)
    auth_epoch = models.BigIntegerField(default=1, editable=False)
    is_demo = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_active(self) -> bool:
        return self.status == self.Status.ACTIVE

    def raise_auth_epoch(self) -> None:
        """Makes everything miss that was cached under the present roles, tags and memberships."""
        type(self).objects.filter(pk=self.pk).update(auth_epoch=F("auth_epoch") + 1)
