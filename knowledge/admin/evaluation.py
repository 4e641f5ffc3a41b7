"""How well the search finds, and which vectors it searches in: sets, runs and spaces in the admin."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from knowledge.embedding.spaces import Compared, is_compared
from knowledge.evaluation.metrics import METRICS
from knowledge.evaluation.sets import delete_set
from knowledge.evaluation.spaces import read_comparison
from knowledge.models import EmbeddingSpace, EvaluationRun, EvaluationSet
from tenants.access import Principal
from tenants.admin_base import ReadOnlyTenantAdmin
from tenants.admin_lists import DayFilter, at, choice, related, value_filter, yes_or_no

STATE_COLOURS = {"active": "success", "building": "info", "retired": "default"}


def figure_of(run: EvaluationRun, metric: str, arm: str = "fused") -> str:
    """A metric with what became of it since the run that it is compared with: ``0.612 (+0.021, p 0.012)``."""
    value = run.metrics.get(arm, {}).get(metric)
    if value is None:
        return "–"
    since = run.comparison.get(arm, {}).get(metric)
    words = f" ({since['difference']:+.3f}, p {since['p']:.3f})" if since else ""
    return f"{value:.3f}{words}".replace(" ", "\u00a0")


def metric_column(metric: str) -> Any:
    """A column of a list of runs, of both arms together."""

    def shown(run: EvaluationRun) -> str:
        return figure_of(run, metric)

    shown.short_description = metric  # type: ignore[attr-defined]
    return shown


@admin.register(EvaluationSet)
class EvaluationSetAdmin(ReadOnlyTenantAdmin):
    """Sets are made and replaced by ``manage.py evaluate``."""

    may_delete = True
    list_display = ("name", "questions", "last_ndcg", at("last_run_at"), at("created_at"))
    search_fields = ("name",)
    fields = ("name", "description", "questions", "runs", "created_at")
    export_fields = ("name", "description", "created_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        last = EvaluationRun.objects.filter(evaluation_set=OuterRef("pk"), trial=False)
        last = last.order_by("-created_at", "-id")
        rows: QuerySet[Any] = (
            super()
            .get_queryset(request)
            .annotate(
                case_count=Count("cases"),
                last_metrics=Subquery(last.values("metrics")[:1]),
                last_comparison=Subquery(last.values("comparison")[:1]),
                last_run_at=Subquery(last.values("created_at")[:1]),
            )
        )
        return rows

    @display(description=_("questions"))
    def questions(self, row: Any) -> int:
        return int(row.case_count)

    @display(description=_("nDCG@10 of the last run"))
    def last_ndcg(self, row: Any) -> str:
        if row.last_run_at is None:
            return "–"
        return figure_of(EvaluationRun(metrics=row.last_metrics, comparison=row.last_comparison), METRICS[0])

    @display(description=_("runs"))
    def runs(self, row: EvaluationSet) -> SafeString:
        path = f"{reverse('admin:knowledge_evaluationrun_changelist')}?evaluation_set__id__exact={row.pk}"
        return format_html('<a class="admin-link" href="{}">{}</a>', path, row.runs.count())

    def remove(self, *, obj: Any, principal: Principal) -> None:
        delete_set(evaluation_set=obj, principal=principal)


@admin.register(EvaluationRun)
class EvaluationRunAdmin(ReadOnlyTenantAdmin):
    list_display = (
        at("created_at"),
        "evaluation_set",
        "shown_kind",
        "reader_name",
        "embedder",
        *(metric_column(metric) for metric in METRICS),
        "queries",
    )
    list_filter = (
        related("evaluation_set"),
        value_filter("embedder", _("model")),
        yes_or_no("trial"),
        ("created_at", DayFilter),
    )
    ordering = ("-created_at", "-id")
    list_select_related = ("evaluation_set",)
    fields = (
        "evaluation_set",
        "created_at",
        "shown_kind",
        "reader_name",
        "embedder",
        "documents",
        "queries",
        "figures",
        "compared_with",
        "p50_ms",
        "p95_ms",
        "corpus_version",
        "config",
    )
    export_fields = (
        "evaluation_set",
        "created_at",
        "trial",
        "reader",
        "embedder",
        "documents",
        "queries",
        "metrics",
        "comparison",
        "p50_ms",
        "p95_ms",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("results", "compared_with__results")

    @display(description=_("kind"), label={"trial": "info", "run": "default"})
    def shown_kind(self, run: EvaluationRun) -> tuple[str, Any]:
        return ("trial", _("another model on trial")) if run.trial else ("run", _("run"))

    @display(description=_("seen by"))
    def reader_name(self, run: EvaluationRun) -> Any:
        return run.reader or _("the whole tenant")

    @display(description=_("figures"))
    def figures(self, run: EvaluationRun) -> SafeString:
        """Every arm, one a row."""
        head = format_html_join("", "<th>{}</th>", ((metric,) for metric in METRICS))
        rows = format_html_join(
            "",
            "<tr><th>{}</th>{}</tr>",
            (
                (
                    arm,
                    format_html_join(
                        "", "<td>{}</td>", ((figure_of(run, metric, arm),) for metric in METRICS)
                    ),
                )
                for arm in run.metrics
            ),
        )
        return format_html('<table class="admin-metrics"><tr><td></td>{}</tr>{}</table>', head, rows)


@admin.register(EmbeddingSpace)
class EmbeddingSpaceAdmin(ReadOnlyTenantAdmin):
    """Started, compared, switched to and dropped on the page Index, where it is seen how far each is."""

    list_display = (
        "model",
        "shown_state",
        "dimensions",
        "compared",
        at("created_at"),
        at("activated_at"),
        at("retired_at"),
    )
    list_filter = (choice("state"),)
    search_fields = ("model",)
    fields = (
        "model",
        "shown_state",
        "dimensions",
        "compared",
        "compare_error",
        "page",
        "created_at",
        "activated_at",
        "retired_at",
    )
    export_fields = ("model", "state", "dimensions", "created_at", "activated_at", "retired_at")

    @display(description=_("state"), label=STATE_COLOURS)
    def shown_state(self, space: EmbeddingSpace) -> tuple[str, str]:
        return space.state, space.get_state_display()

    @display(description=_("compared with the one in use"))
    def compared(self, space: EmbeddingSpace) -> Any:
        found = read_comparison(space)
        if found is None or not found.metrics:
            return _("not yet") if is_compared(space) == Compared.MISSING else "–"
        first = found.metrics[0]
        words = f"{first.name} {first.old:.3f} → {first.new:.3f} ({first.difference:+.3f}, p {first.p:.3f})"
        return words.replace(" ", "\u00a0")

    @display(description=_("page"))
    def page(self, space: EmbeddingSpace) -> SafeString:
        return format_html('<a class="admin-link" href="{}">{}</a>', reverse("index"), _("Index"))
