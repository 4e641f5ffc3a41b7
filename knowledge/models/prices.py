from django.db import models


class Price(models.Model):
    """What a provider asks for a model from a day on, in US dollars per million tokens. The same for every tenant."""

    provider = models.CharField(max_length=40)
    model = models.CharField(max_length=100)
    effective_from = models.DateField()
    min_prompt_tokens = models.PositiveIntegerField(
        default=0, help_text="Holds for prompts of this many tokens or more."
    )
    input_per_mtok = models.DecimalField(max_digits=10, decimal_places=4)
    output_per_mtok = models.DecimalField(max_digits=10, decimal_places=4)
    cache_write_factor = models.DecimalField(max_digits=5, decimal_places=3, default=1.25)
    cache_read_factor = models.DecimalField(max_digits=5, decimal_places=3, default=0.1)

    class Meta:
        ordering = ["provider", "model", "-effective_from", "min_prompt_tokens"]
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "model", "effective_from", "min_prompt_tokens"], name="price_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.effective_from}"
