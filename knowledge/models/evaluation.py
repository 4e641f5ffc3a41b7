"""Questions with the documents that answer them, and what was measured with them."""

from typing import Any

from django.db import models

from tenants.models import TenantModel


class EvaluationSet(TenantModel):
    """A named set of questions whose answers are known to lie in certain documents.

    The three tables are read by whoever reads the whole tenant alone: questions and passages tell of documents of any tag.
    """

    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "name"],
                name="evaluation_set_once_per_tenant",
                violation_error_message="A set of this name exists already.",
            )
        ]

    def __str__(self) -> str:
        return self.name


class EvaluationCase(TenantModel):
    """A question, and what a search for it should find.

    ``relevant`` lists ``{"document": id, "grade": 1…, "passage": text}``; the passage, which may be empty, is what an
    answer would be based on.
    """

    evaluation_set = models.ForeignKey(EvaluationSet, on_delete=models.CASCADE, related_name="cases")
    key = models.CharField(max_length=200, help_text="What the question is called from run to run.")
    question = models.TextField()
    relevant = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        ordering = ["key", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "evaluation_set", "key"], name="evaluation_case_once_per_set"
            )
        ]

    def __str__(self) -> str:
        return self.question[:80]

    @property
    def grades(self) -> dict[str, int]:
        """The grade of each relevant document, by its id; the best where it is named for several passages."""
        found: dict[str, int] = {}
        for each in self.relevant:
            found[each["document"]] = max(each["grade"], found.get(each["document"], 0))
        return found


class EvaluationRun(TenantModel):
    """What a set's questions found at one time, under one configuration and one embedder.

    ``metrics`` is ``{arm: {metric: mean}}``, ``results`` ``{key of the case: {arm: {metric: value}}}``, ``comparison``
    ``{arm: {metric: …}}`` against the run ``compared_with`` (``metrics.Comparison``), empty for the first.
    """

    evaluation_set = models.ForeignKey(EvaluationSet, on_delete=models.CASCADE, related_name="runs")
    reader = models.CharField(
        max_length=200, blank=True, help_text="Whose view was searched; empty: the whole tenant."
    )
    embedder = models.CharField(max_length=300)
    fingerprint = models.CharField(max_length=64, help_text="Of the configuration.")
    config: Any = models.JSONField(default=dict)
    corpus_version = models.BigIntegerField(default=0)
    documents = models.PositiveIntegerField()
    queries = models.PositiveIntegerField()
    metrics = models.JSONField(default=dict)
    results = models.JSONField(default=dict)
    comparison = models.JSONField(default=dict)
    compared_with = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="+")
    trial = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Of a model that the tenant was not searched with: later runs are not compared with it.",
    )
    p50_ms = models.FloatField()
    p95_ms = models.FloatField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        ordering = ["-created_at", "-id"]
        indexes = [
            # A set's last run.
            models.Index(fields=["tenant", "evaluation_set", "-created_at"], name="runs_of_evaluation_set")
        ]

    def __str__(self) -> str:
        return f"{self.evaluation_set} {self.created_at:%Y-%m-%d %H:%M}"
