from django.db import models

from tenants.models.base import TenantModel
from tenants.models.people import User


class UsageRecord(TenantModel):
    """The cost ledger: one row for every model call, failed and abandoned ones too.

    ``cost_usd`` is ``None`` for a model without a price: unknown is not free.
    """

    user = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    request_id = models.UUIDField()
    endpoint = models.CharField(max_length=20)
    provider = models.CharField(max_length=40)
    model = models.CharField(max_length=100)
    kind = models.CharField(max_length=20, help_text="answer, rewrite or classify")
    status = models.CharField(max_length=20)
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    cache_read_tokens = models.PositiveIntegerField(default=0)
    cache_write_tokens = models.PositiveIntegerField(default=0)
    estimated = models.BooleanField(
        default=False,
        db_default=False,
        help_text="The call was cut off before its provider had counted: tokens are estimated from the text.",
    )
    cost_usd = models.DecimalField(max_digits=20, decimal_places=12, null=True)
    latency_ms = models.FloatField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["tenant", "created_at"], name="usage_of_period")]

    def __str__(self) -> str:
        return f"{self.model} {self.input_tokens}+{self.output_tokens}"
