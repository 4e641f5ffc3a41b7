"""Celery tasks: load, one call."""

from datetime import timedelta
from typing import Any

from celery import shared_task
from django.utils import timezone

from knowledge.documents import erase_deleted
from knowledge.embedding.factory import embedder
from knowledge.ingestion.jobs import create_job, find_abandoned_jobs, give_up_on_job, send_job_again
from knowledge.ingestion.run import run_claimed_job
from knowledge.models import Job, Source
from knowledge.webhooks.callbacks import call_back, callback_is_due, find_due_callbacks
from tenants.models import Tenant
from tenants.scope import scope, unscoped
from tenants.tasks import TenantTask

RESTORABLE_FOR = timedelta(days=30)


@shared_task(base=TenantTask, name="knowledge.run_job")
def run_job(job_id: str) -> None:
    """Runs one job."""
    try:
        run_claimed_job(job_id=job_id, embedder=embedder())
    finally:
        if callback_is_due(job_id=job_id):
            send_callback.enqueue_on_commit(job_id=job_id)


@shared_task(base=TenantTask, name="knowledge.sync_source")
def sync_source(source_id: str) -> None:
    """The schedule of a source: makes a job unless one is waiting or running."""
    source = Source.objects.filter(pk=source_id, enabled=True).first()
    if source is None:
        return
    busy = Job.objects.filter(source=source, state__in=[Job.State.PENDING, Job.State.PROGRESS])
    if not busy.exists():
        create_job(kind=Job.Kind.SYNC, source=source)


@shared_task(name="knowledge.recover_jobs")
def recover_jobs() -> None:
    """Sends jobs again whose message or whose worker was lost."""
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
    with unscoped(reason="list tenants for housekeeping"):
        tenants: list[Any] = list(Tenant.objects.values_list("pk", flat=True))
    for tenant_id in tenants:
        with scope(tenant_id=tenant_id, tags=None):
            erase_deleted(before=timezone.now() - RESTORABLE_FOR)
