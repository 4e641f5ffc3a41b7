"""Celery tasks: load, one call."""

from datetime import timedelta
from typing import Any

from celery import shared_task
from django.utils import timezone

from knowledge.answering.warm import warm_cache
from knowledge.documents import erase_deleted
from knowledge.embedding.factory import embedder
from knowledge.embedding.spaces import find_spaces_to_fill, keep_filled
from knowledge.evaluation.spaces import run_requested_comparison
from knowledge.index_figures import note_index_day
from knowledge.ingestion.adopt import adopt_documents, adopt_tags
from knowledge.ingestion.jobs import (
    find_abandoned_jobs,
    give_up_on_job,
    is_abandoned,
    send_job_again,
    start_sync_job,
)
from knowledge.ingestion.run import run_claimed_job, serve_next_job
from knowledge.models import EmbeddingSpace, Source
from knowledge.retention import clear_away, expire_documents
from knowledge.webhooks.callbacks import call_back, find_due_callbacks
from knowledge.withdrawals import measure_withdrawal
from tenants.budgets import clear_reservations
from tenants.idempotency import clear_idempotency
from tenants.models import Tenant
from tenants.scope import scope, unscoped
from tenants.tasks import TenantTask

RESTORABLE_FOR = timedelta(days=30)
BUILD_SECONDS = 20.0


@shared_task(base=TenantTask, name="knowledge.run_job")
def run_job(job_id: str) -> None:
    """A worker is free: it takes up the job whose turn it is, or this one, if its worker has died."""
    if is_abandoned(job_id=job_id):
        run_claimed_job(job_id=job_id, embedder=embedder(), gives_way=True)
    else:
        serve_next_job(embedder=embedder())


@shared_task(base=TenantTask, name="knowledge.sync_source")
def sync_source(source_id: str) -> None:
    """The schedule of a source: makes a job unless one is waiting or running."""
    source = Source.objects.filter(pk=source_id, enabled=True).defer("state").first()
    if source is not None:
        start_sync_job(source=source)


@shared_task(name="knowledge.recover_jobs")
def recover_jobs() -> None:
    """Sends jobs again whose message or whose worker was lost, and those that are due for another try."""
    for tenant_id, job_id in find_abandoned_jobs():
        with scope(tenant_id=tenant_id, tags=None):
            if not give_up_on_job(job_id=job_id):
                send_job_again(job_id=job_id)


@shared_task(base=TenantTask, name="knowledge.send_callback")
def send_callback(job_id: str) -> None:
    """Tells whoever asked that a job has ended."""
    call_back(job_id=job_id)


@shared_task(name="knowledge.send_due_callbacks")
def send_due_callbacks() -> None:
    """Callbacks of jobs that ended without a worker, whose message was lost, or that are to be tried again."""
    for tenant_id, job_id in find_due_callbacks():
        with scope(tenant_id=tenant_id, tags=None):
            send_callback.enqueue_on_commit(job_id=str(job_id))


@shared_task(name="knowledge.erase_deleted_documents")
def erase_deleted_documents() -> None:
    """Erases, in every tenant, what was deleted more than 30 days ago."""
    for tenant_id in _tenants():
        with scope(tenant_id=tenant_id, tags=None):
            erase_deleted(before=timezone.now() - RESTORABLE_FOR)


@shared_task(name="knowledge.apply_retention")
def apply_retention() -> None:
    """Deletes, in every tenant, the documents that are older than their collection keeps them."""
    for tenant_id in _tenants():
        with scope(tenant_id=tenant_id, tags=None):
            expire_documents(now=timezone.now())


@shared_task(name="knowledge.build_spaces")
def build_spaces() -> None:
    """Fills, in every tenant, the spaces of vectors that are not whole: a slice of each."""
    for tenant_id, pk in find_spaces_to_fill(now=timezone.now()):
        with scope(tenant_id=tenant_id, tags=None):
            space = EmbeddingSpace.objects.filter(pk=pk).first()
            if space is not None:
                keep_filled(space, seconds=BUILD_SECONDS)


@shared_task(name="knowledge.note_index_days")
def note_index_days() -> None:
    """Keeps, of every tenant, how its index stands today."""
    for tenant_id in _tenants():
        with scope(tenant_id=tenant_id, tags=None):
            note_index_day(now=timezone.now())


@shared_task(base=TenantTask, name="knowledge.measure_withdrawal")
def measure_withdrawal_of(document_id: str, lost_tags: list[str] | None, begun: float) -> None:
    """Measures how long a document could still be found."""
    measure_withdrawal(document_id=document_id, lost_tags=lost_tags, begun=begun)


@shared_task(base=TenantTask, name="knowledge.compare_space")
def compare_space_on_set(space_id: str, set_id: str) -> None:
    """Measures a space of vectors beside the one in use."""
    run_requested_comparison(space_id=space_id, set_id=set_id)


@shared_task(name="knowledge.adopt")
def adopt_what_others_wrote() -> None:
    """Has indexed, in every tenant, what a process of the version before has written beside this one."""
    for tenant_id in _tenants():
        with scope(tenant_id=tenant_id, tags=None):
            adopt_documents()


@shared_task(name="knowledge.clear_away")
def clear_what_is_left() -> None:
    """Removes, in every tenant, spaces, vectors, originals and jobs that nothing needs any more."""
    for tenant_id in _tenants():
        with scope(tenant_id=tenant_id, tags=None):
            clear_away(now=timezone.now())
            adopt_tags()
            clear_reservations()
            clear_idempotency()


@shared_task(base=TenantTask, name="knowledge.warm_cache")
def warm_answers(most: int) -> None:
    """Answers what is asked most before it is asked again."""
    warm_cache(most=most)


def _tenants() -> list[Any]:
    with unscoped(reason="list tenants for housekeeping"):
        return list(Tenant.objects.values_list("pk", flat=True))
