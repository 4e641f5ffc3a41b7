"""How the index of a tenant stands, how it grows, and the change to another embedding model."""

import statistics
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from knowledge.embedding.base import EmbeddingError
from knowledge.embedding.spaces import (
    KEPT_FOR,
    Compared,
    drop_space,
    is_compared,
    start_migration,
    switch_space,
)
from knowledge.evaluation.spaces import SpaceComparison, read_comparison, request_comparison
from knowledge.freshness import read_freshness
from knowledge.index_figures import read_growth, read_index_figures, read_spaces
from knowledge.models import EmbeddingSpace, EvaluationSet, IndexDay
from knowledge.views.forms import sentences
from knowledge.views.shown import uuid_in
from knowledge.withdrawals import read_withdrawals
from ragsite.core.config import config
from ragsite.core.problems import Problem, not_found
from tenants.access import Principal
from tenants.charts import Column, column_chart
from tenants.models import Ability
from tenants.pages import member_page, shell_context
from tenants.scope import scope

GROWTH_OF = 30  # days


@dataclass(frozen=True)
class ShownSpace:
    """A space as a row shows it.

    Attributes:
        stands: as ``progress_of``.
        compared: whether it may take the active one's place.
        kept_until: when it is dropped, for one that is not searched any more.
    """

    space: EmbeddingSpace
    stands: dict[str, int]
    compared: Compared
    comparison: SpaceComparison | None
    kept_until: datetime | None

    @property
    def is_whole(self) -> bool:
        return not self.stands["missing"]


@dataclass(frozen=True)
class Withdrawals:
    """Of the last 30 days, in milliseconds."""

    measured: int
    median: float
    slowest: float
    still_found: int


@require_GET
@member_page
def index_page(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Documents, passages, vectors and how current they are; numbers of the whole tenant, for those who manage."""
    principal.require(Ability.MANAGE.value)
    now = timezone.now()
    # Whoever manages may read some tags alone; the numbers are of all.
    with scope(tenant_id=principal.membership.tenant_id, tags=None):
        figures = read_index_figures()
        growth = read_growth(now=now, figures=figures)
        spaces = sorted(
            (_show(space, stands) for space, stands in read_spaces()), key=lambda shown: shown.space.state
        )  # by chance of the alphabet the one that is searched comes first
        context = shell_context(principal) | {
            "here": "index",
            "figures": figures,
            "growth": growth,
            "before": _days_ago(growth),
            "chart": _chart(growth),
            "spaces": spaces,
            "sets": list(EvaluationSet.objects.values("pk", "name")),
            "models": _models_to_start(spaces),
            "freshness": read_freshness(now=now),
            "withdrawals": _withdrawals(),
            "kept_days": KEPT_FOR.days,
        }
    return render(request, "knowledge/manage/index.html", context)


@require_POST
@member_page
def index_space(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Starts vectors of another model, has them compared, switches to them and back, drops them."""
    principal.require(Ability.MANAGE.value)
    with scope(tenant_id=principal.membership.tenant_id, tags=None):
        try:
            messages.success(request, _act(request, principal))
        except EmbeddingError as error:
            messages.error(request, str(error))
        except Problem as problem:
            if problem.status == 404:
                raise
            messages.error(request, sentences(problem))
    return redirect("index")


def _act(request: HttpRequest, principal: Principal) -> str:
    """Does what the form says, and what there is to say of it."""
    action = request.POST.get("action", "")
    if action == "start":
        model = request.POST.get("model", "")
        if model not in config().offered_models:
            raise Problem(400, "invalid", _("Choose one of the models that are offered."))
        start_migration(model=model, principal=principal)
        return _("Vectors of %(model)s are made from now on; questions go on meanwhile.") % {"model": model}
    space = EmbeddingSpace.objects.filter(pk=uuid_in(request.POST.get("space", ""))).first()
    if space is None:
        raise not_found()
    words = {"model": space.model}
    match action:
        case "compare":
            chosen = EvaluationSet.objects.filter(pk=uuid_in(request.POST.get("set", ""))).first()
            if chosen is None:
                raise not_found()
            request_comparison(space=space, evaluation_set=chosen, principal=principal)
            return _("%(model)s is being compared; the figures are here when that is done.") % words
        case "switch":
            waived = request.POST.get("without_comparison") == "on"
            found = switch_space(space=space, principal=principal, without_comparison=waived)
            told = _("The tenant is searched with %(model)s from now on.") % words
            if found == Compared.NO_QUESTIONS:
                told += " " + _("Nothing was compared: there is no evaluation set.")
            return told
        case "drop":
            drop_space(space=space, principal=principal)
            return _("The vectors of %(model)s are gone.") % words
    raise Problem(400, "invalid", _("Choose what to do with the vectors."))


def _show(space: EmbeddingSpace, stands: dict[str, int]) -> ShownSpace:
    return ShownSpace(
        space=space,
        stands=stands,
        compared=is_compared(space),
        comparison=read_comparison(space),
        kept_until=space.retired_at + KEPT_FOR if space.retired_at else None,
    )


def _models_to_start(spaces: list[ShownSpace]) -> list[str]:
    there = {shown.space.model for shown in spaces}
    return [name for name in config().offered_models if name not in there] if there else []


def _withdrawals() -> Withdrawals | None:
    measured, still_found = read_withdrawals()
    if not measured and not still_found:
        return None
    return Withdrawals(
        measured=len(measured),
        median=statistics.median(measured) if measured else 0.0,
        slowest=measured[-1] if measured else 0.0,
        still_found=still_found,
    )


def _days_ago(growth: list[IndexDay]) -> IndexDay | None:
    """The oldest of the last 30 days, to say what has been added since; ``None`` on the first day."""
    today = growth[-1].day
    return next((each for each in growth[:-1] if (today - each.day).days <= GROWTH_OF), None)


def _chart(growth: list[IndexDay]) -> SafeString | None:
    """Passages by day; nothing to draw on the first day."""
    if len(growth) < 2:
        return None
    columns: list[Any] = [
        Column(
            label=date_format(each.day, "j M"),
            value=Decimal(each.chunks),
            shown=_("passages: %(chunks)s, documents: %(documents)s")
            % {"chunks": each.chunks, "documents": each.documents},
        )
        for each in growth
    ]
    words = _("Passages by day, from %(first)s on %(day)s to %(last)s today.") % {
        "first": growth[0].chunks,
        "day": columns[0].label,
        "last": growth[-1].chunks,
    }
    return column_chart(columns, summary=words, scale=lambda value: f"{value:,.0f}")
