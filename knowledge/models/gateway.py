from typing import Any, ClassVar

from django.db import models

from knowledge.querysets import manager_of
from tenants.models import TenantModel
from tenants.querysets import TenantQuerySet


class ModelSettings(TenantModel):
    """What a tenant has settled about language models, over the environment's defaults; at most one row each.

    ``order`` is a list of ``{provider, model, small_model}``; empty: the environment's. The extractive answerer comes
    after them in any case.
    """

    class Routing(models.TextChoices):
        OFF = "off", "every question to the large model"
        RULES = "rules", "simple questions to the small model, by rules"
        MODEL = "model", "the small model says which question is simple"

    order = models.JSONField(default=list)
    routing = models.CharField(max_length=10, choices=Routing.choices, blank=True, default="")
    prompt_tokens = models.PositiveIntegerField(
        null=True, help_text="The passages of a prompt are cut down to so many tokens; 0: not."
    )
    cache_seconds = models.JSONField(
        default=dict,
        db_default={},
        help_text="How long answers may be shown again, by the content class of what they cite, over the defaults.",
    )
    semantic_cache = models.BooleanField(
        default=True,
        db_default=True,
        help_text="Whether an answer is shown for other words that ask the same, where the environment allows it.",
    )
    semantic_threshold = models.FloatField(
        null=True,
        editable=False,
        help_text="The cosine that both questions must have at least, as readers' ratings have moved it.",
    )
    updated_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[Any] = manager_of(TenantQuerySet)

    class Meta(TenantModel.Meta):
        constraints = [
            models.UniqueConstraint(fields=["tenant"], name="model_settings_once_per_tenant"),
        ]

    def __str__(self) -> str:
        return "language models"
