"""A tenant's own choice of language models over what the environment has."""

from dataclasses import replace
from typing import Any

from knowledge.answering.threshold import START, threshold_of
from knowledge.config import AnswerConfig, configured_providers, model_of
from knowledge.models import ModelSettings
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.scope import atomic, require_tenant_id

MOST_MODELS = 6
NO_MODEL = "extractive"  # in an order: nothing after it, the documents are quoted


def read_model_settings() -> ModelSettings | None:
    """Of the tenant in force."""
    row: ModelSettings | None = ModelSettings.objects.first()
    return row


def apply_model_settings(config: AnswerConfig, row: ModelSettings | None) -> AnswerConfig:
    """The configuration as the tenant wants it. A provider that the environment has no key for any more is passed over."""
    if row is None:
        return config
    if row.routing:
        config = replace(config, routing=row.routing)
    if row.prompt_tokens is not None:
        config = replace(config, prompt_tokens=row.prompt_tokens)
    if row.cache_seconds:
        config = replace(config, class_seconds={**config.class_seconds, **row.cache_seconds})
    config = replace(config, semantic_cache=config.semantic_cache and row.semantic_cache)
    if row.semantic_threshold is not None:
        config = replace(config, semantic_threshold=row.semantic_threshold)
    if not row.order:
        return config
    known, chosen = configured_providers(), []
    for each in row.order:
        if each["provider"] == NO_MODEL:
            break
        if each["provider"] in known:
            chosen.append(each)
    # The asker's own limit may be lower than the environment's.
    limit = min((model.max_tokens for model in config.models), default=None)
    return replace(
        config,
        models=tuple(model_of(each["provider"], each["model"]) for each in chosen),
        small_models=tuple(model_of(each["provider"], each["small_model"]) for each in chosen),
    ).limited_to(limit)


def change_model_settings(*, changes: dict[str, Any], principal: Principal) -> ModelSettings:
    """Sets what is named in ``changes``: ``order``, ``routing`` (empty: the default), ``prompt_tokens`` (None: the default),
    ``cache_seconds`` (by content class; a class that is left out has the default), ``semantic_cache``.

    Raises:
        Problem: 400 for a provider that the environment has no key for, or named twice with the same model.
    """
    if "order" in changes:
        changes = changes | {"order": _check_order(changes["order"])}
    with atomic():
        row: ModelSettings = ModelSettings.objects.get_or_create(tenant_id=principal.membership.tenant_id)[0]
        for name, value in changes.items():
            setattr(row, name, value)
        row.save()
        record_by(principal, "models.change", row, changes)
    return row


def learn_threshold(*, good: int, bad: int) -> None:
    """Moves the tenant's threshold of the semantic cache to where so many good and bad ratings of its answers put it."""
    threshold = threshold_of(good=good, bad=bad)
    if ModelSettings.objects.exists() or threshold != START:
        ModelSettings.objects.update_or_create(
            tenant_id=require_tenant_id(), defaults={"semantic_threshold": threshold}
        )


def _check_order(order: list[dict[str, str]]) -> list[dict[str, str]]:
    known = (*configured_providers(), NO_MODEL)
    checked, wrong = [], []
    for at, each in enumerate(order):
        provider, model = each.get("provider", ""), each.get("model", "")
        if not provider:
            wrong.append(FieldProblem(f"order.{at}.provider", f"Name one of {', '.join(known)}."))
        elif provider not in known:
            detail = f"“{provider}” is not configured here: name some of {', '.join(known)}."
            wrong.append(FieldProblem(f"order.{at}.provider", detail))
        elif provider != NO_MODEL and not model:
            wrong.append(FieldProblem(f"order.{at}.model", "Name the model (of Azure the deployment)."))
        checked.append(
            {"provider": provider, "model": model, "small_model": each.get("small_model") or model}
        )
    if len({(each["provider"], each["model"]) for each in checked}) < len(checked):
        wrong.append(FieldProblem("order", "Name each model once."))
    if wrong:
        raise Problem(400, "invalid", "Some values cannot be used; see errors.", errors=wrong)
    return checked
