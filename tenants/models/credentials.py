from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from tenants.models.base import TenantModel
from tenants.models.people import Ability, Membership, User


class ApiKey(TenantModel):
    """Acts as its member, with at most that member's role. Only the hash of its secret is kept."""

    membership = models.ForeignKey(Membership, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    hint = models.CharField(
        max_length=12, editable=False, help_text="Its last characters, to recognise it by."
    )
    secret_hash = models.CharField(max_length=64, editable=False)
    scopes = ArrayField(
        models.CharField(max_length=20, choices=Ability.choices),
        default=list,
        blank=True,
        help_text="The abilities it may use; none listed: all of its member's.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        verbose_name = "API key"
        ordering = ["-created_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "name"],
                condition=models.Q(revoked_at__isnull=True),
                name="api_key_name_once_per_tenant",
                violation_error_message="A key of this name exists already.",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_live(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timezone.now())


class TokenFamily(TenantModel):
    """One sign-in by token: the chain of refresh tokens that grew from it.

    Only the newest refresh token (``current``) may be used; an older one that comes back was stolen or leaked, and
    ends the whole family, its access tokens included.
    """

    membership = models.ForeignKey(Membership, on_delete=models.CASCADE, related_name="token_families")
    current = models.UUIDField(editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    rotated_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_because = models.CharField(max_length=40, blank=True)

    class Meta(TenantModel.Meta):
        verbose_name_plural = "token families"
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"sign-in of {self.created_at:%Y-%m-%d %H:%M}"
