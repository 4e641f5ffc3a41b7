from django.db import models

from tenants.models.base import TenantModel
from tenants.models.people import Membership


class IdempotentRequest(TenantModel):
    """A member's POST under an ``Idempotency-Key``, and what was answered.

    Attributes:
        fingerprint: of method, path and body; another one under the same key is refused.
        run: whoever does the work; one that has died can be taken over.
        status: ``None`` while the work is under way.
        body: encrypted, as it may hold a secret that is shown once; empty where ``reference`` names what to show.
    """

    membership = models.ForeignKey(Membership, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    run = models.UUIDField()
    started_at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True)
    reference = models.UUIDField(null=True)
    body = models.TextField(blank=True)

    class Meta(TenantModel.Meta):
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "membership", "key"], name="one_request_for_each_idempotency_key"
            )
        ]
        indexes = [models.Index(fields=["tenant", "started_at"], name="idempotency_keys_by_age")]

    def __str__(self) -> str:
        return self.key
