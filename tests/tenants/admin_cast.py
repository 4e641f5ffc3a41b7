"""The cast at the admin: one row of every model in each tenant, and everybody who may enter."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from feedback.models import DocumentRequest, Review
from knowledge.models import Answer, DeadLetter, EmbeddingSpace, EvaluationRun, EvaluationSet, ModelSettings
from tenants.models import Budget, Invitation, Role, UsageRecord
from tenants.people import add_member, create_user
from tenants.scope import scope, unscoped
from tests.cast import PASSWORD, Cast, member_of
from tests.security.helpers import Rows, make_rows

PLATFORM = "platform"


def signed_in(username: str) -> Client:
    client = Client()
    assert client.login(username=username, password=PASSWORD)
    return client


def operator(tenant: Any = None) -> Client:
    """The superuser, inside a tenant where one is given."""
    client = signed_in("root")
    if tenant is not None:
        response = client.post(reverse("admin:choose-tenant"), {"tenant": str(tenant.pk)})
        assert response.status_code == 302
    return client


def url_of(model: Any, what: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{what}", args=args)


def is_of_tenant(model: Any) -> bool:
    return any(field.name == "tenant" for field in model._meta.fields)


def registered() -> list[Any]:
    return sorted(admin.site._registry, key=lambda model: model._meta.label)


def add_reviewer(cast: Cast, *, username: str = "rita", tags: tuple[str, ...] = ("runbooks",)) -> Any:
    """A member of acme who reviews and does not manage."""
    with scope(tenant_id=cast.acme.pk, tags=None):
        role = Role.objects.create(name=f"role of {username}", tags=list(tags), abilities=["ask", "review"])
        add_member(user=create_user(username=username, password=PASSWORD, check_password=False), role=role)
    cast.members[username] = member_of(slug="acme", username=username)
    return cast.members[username]


def add_evaluation(*, name: str) -> EvaluationRun:
    """A set with two runs: of what is searched, and of another model beside it."""
    made = EvaluationSet.objects.create(name=name)
    searched = EmbeddingSpace.objects.get(state="active")
    EmbeddingSpace.objects.create(model="another/model", dimensions=768)
    shared = {"evaluation_set": made, "documents": 5, "queries": 40, "p50_ms": 9.0, "p95_ms": 14.0}
    means = {"ndcg@10": 0.591, "recall@10": 0.8, "mrr@10": 0.55}
    old = EvaluationRun.objects.create(
        **shared, embedder=searched.model, metrics={"fused": means, "dense": means}
    )
    change = {"questions": 40, "better": 9, "worse": 2, "difference": 0.021, "low": 0.004, "high": 0.04}
    run: EvaluationRun = EvaluationRun.objects.create(
        **shared,
        embedder="another/model",
        metrics={"fused": means | {"ndcg@10": 0.612}},
        compared_with=old,
        trial=True,
        comparison={"fused": dict.fromkeys(means, change | {"p": 0.012})},
    )
    return run


@dataclass(frozen=True)
class Everything:
    """By tenant, what ``make_rows`` makes; and the ids of each model's rows by tenant."""

    rows: dict[str, Rows]
    ids: dict[Any, dict[str, list[Any]]]

    def of(self, model: Any, slug: str) -> list[Any]:
        return self.ids[model].get(slug, [])


def make_everything(cast: Cast) -> Everything:
    rows = {}
    for slug, boss, member in (("acme", "ada", "hal"), ("globex", "gus", "hank")):
        rows[slug] = make_rows(cast, slug=slug, admin=boss, member=member)
        with scope(tenant_id=cast.tenants[slug].pk, tags=None):
            user = getattr(cast, boss).membership.user
            answer = Answer.objects.get(pk=rows[slug].answer)
            Review.objects.create(answer=answer)
            add_evaluation(name=f"questions of {slug}")
            DeadLetter.objects.create(uri=f"{slug}.pdf", reason="It cannot be read.")
            Budget.objects.create(subject="tenant", period="month", hard_usd=10)
            ModelSettings.objects.create(routing="off")
            DocumentRequest.objects.create(user=user, question=f"Where is the {slug} plan?")
            Invitation.objects.create(
                email=f"new@{slug}.example",
                role=Role.objects.get(name="helpdesk"),
                secret_hash=uuid.uuid4().hex,
                expires_at=timezone.now() + timedelta(days=7),
            )
            UsageRecord.objects.create(
                user=user,
                request_id=answer.pk,
                endpoint="query",
                provider="anthropic",
                model=f"model of {slug}",
                kind="answer",
                status="success",
            )
    add_reviewer(cast)
    every = IntervalSchedule.objects.using("owner").create(every=5, period="minutes")
    PeriodicTask.objects.using("owner").create(name="tick", task="knowledge.recover_jobs", interval=every)
    CrontabSchedule.objects.using("owner").create(minute="5", hour="4")
    ids: dict[Any, dict[str, list[Any]]] = {}
    with unscoped(reason="tests"):
        for model in registered():
            found: models.QuerySet[Any] = model._default_manager.all()
            ids[model] = (
                {
                    slug: list(found.filter(tenant=tenant).values_list("pk", flat=True)[:20])
                    for slug, tenant in cast.tenants.items()
                }
                if is_of_tenant(model)
                else {PLATFORM: list(found.values_list("pk", flat=True)[:20])}
            )
    return Everything(rows, ids)
