"""Who asked to be told when a job has ended is told: a Standard Webhook, signed with the source's secret.

What is to be sent stands in the job's row, so that neither a lost message nor a restart forgets it. It goes out at least
once, under one id for all tries.
"""

import posixpath
import time
import uuid
from datetime import datetime, timedelta

import structlog
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.client import GuardedClient
from knowledge.ingestion.sources.guard import Refused, check_url, host_of, read_url
from knowledge.models import Job, Source
from knowledge.webhooks.secrets import live_secrets
from knowledge.webhooks.signatures import sign
from ragsite.core.config import config
from ragsite.core.problems import FieldProblem, Problem
from tenants.rest import dump_json
from tenants.scope import unscoped

logger = structlog.get_logger(__name__)

COMPLETED, FAILED = "job.completed", "job.failed"
EVENTS = (COMPLETED, FAILED)
SECONDS = 15.0
MAX_ANSWER_BYTES = 64 * 1024
RETRY_AFTER = (timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10))
LEASE = timedelta(minutes=1)  # above what a try takes: nobody else sends meanwhile
_ENDED = (Job.State.SUCCESS, Job.State.FAILURE, Job.State.CANCELLED)


class _Unwanted(Exception):
    """The receiver, or our own guard, will not have it: no further try."""


def check_callback(url: str, *, source: Source | None = None) -> str:
    """The URL, when it can be called; empty stays empty.

    Args:
        source: whose secret is to sign it; must have one.

    Raises:
        Problem: 400 that says what is wrong with ``callback_url``.
    """
    if not url:
        return url
    try:
        is_hook = _is_own_hook(url)
        check_url(url)
    except SourceError as error:
        raise _wrong(str(error)) from None
    if is_hook:
        raise _wrong(
            "This is a webhook of a source here, which does nothing with it: name an address of yours."
        )
    if source is not None and not live_secrets(source):
        raise _wrong(
            "The source has no secret to sign callbacks with: make one with POST /api/v1/sources/{id}/hook-secret."
        )
    return url


def _is_own_hook(url: str) -> bool:
    if not config().public_url:
        return False
    asked, site = read_url(url), read_url(config().public_url)
    hooks = posixpath.dirname(reverse("hook", args=[uuid.UUID(int=0)]))
    path = "/" + posixpath.normpath(asked.path).lstrip("/")
    return host_of(asked) == host_of(site) and f"{path}/".startswith(f"{hooks}/")


def _wrong(words: str) -> Problem:
    return Problem(
        400,
        "invalid",
        "Some values cannot be used; see errors.",
        errors=[FieldProblem("callback_url", words)],
    )


def wish_callback(*, job: Job, url: str) -> None:
    """Has a job that waits or runs already tell this URL as well.

    Raises:
        Problem: 409 when it tells another one.
    """
    wanted = Job.objects.filter(pk=job.pk).exclude(state__in=_ENDED)
    if wanted.filter(callback_state="").update(callback_url=url, callback_state=Job.CallbackState.PENDING):
        return
    if not wanted.filter(callback_url=url).exists():
        raise Problem(
            409,
            "busy",
            "This source is being synchronised already, and its job tells another address when it has ended: "
            f"watch /api/v1/tasks/{job.pk}, or try again after it.",
        )


def find_due_callbacks(*, now: datetime | None = None) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """``(tenant, job)`` of what is to be told now, in every tenant."""
    with unscoped(reason="find callbacks that are due"):
        rows = Job.objects.filter(_due(now or timezone.now())).order_by("finished_at")
        return list(rows.values_list("tenant_id", "id")[:500])


def callback_is_due(*, job_id: str) -> bool:
    due: bool = Job.objects.filter(_due(timezone.now()), pk=job_id).exists()
    return due


def _due(now: datetime) -> Q:
    ended = Q(callback_state=Job.CallbackState.PENDING, state__in=_ENDED)
    return ended & (Q(callback_at__isnull=True) | Q(callback_at__lte=now))


def call_back(*, job_id: str) -> None:
    """One try for a job that has ended, unless somebody else is at it. Holds no transaction while it waits."""
    now = timezone.now()
    mine = Job.objects.filter(_due(now), pk=job_id).update(
        callback_at=now + LEASE, callback_attempts=F("callback_attempts") + 1
    )
    if not mine:
        return
    job: Job = Job.objects.select_related("source").defer("source__state").get(pk=job_id)
    try:
        _send(job)
    except _Unwanted as error:
        _note(job, state=Job.CallbackState.FAILED, error=str(error))
    except SourceError as error:
        if job.callback_attempts > len(RETRY_AFTER):
            _note(job, state=Job.CallbackState.FAILED, error=str(error))
        else:
            later = timezone.now() + RETRY_AFTER[job.callback_attempts - 1]
            _note(job, state=Job.CallbackState.PENDING, error=str(error), at=later)
    else:
        _note(job, state=Job.CallbackState.SENT)


def _note(job: Job, *, state: str, error: str = "", at: datetime | None = None) -> None:
    if error:
        logger.warning("callback not taken", job=str(job.pk), attempt=job.callback_attempts, final=at is None)
    Job.objects.filter(pk=job.pk).update(
        callback_state=state, callback_error=error[:1000], callback_at=at or timezone.now()
    )


def _send(job: Job) -> None:
    from knowledge.api.shapes import job_object

    secrets = live_secrets(job.source) if job.source is not None else []
    if not secrets:
        raise _Unwanted("The source has no secret to sign callbacks with.")
    done = job.state == Job.State.SUCCESS
    told = job_object(job)
    told.pop("callback", None)
    event = {
        "type": COMPLETED if done else FAILED,
        "timestamp": job.finished_at,
        "data": told | {"source": job.source_id},
    }
    body = dump_json(event).encode()
    message_id, sent = f"job_{job.pk.hex}", int(time.time())
    # During a rotation both secrets sign: the receiver may know either.
    signatures = [sign(secret=one, message_id=message_id, timestamp=sent, body=body) for one in secrets]
    client = GuardedClient()
    try:
        answer = client.request(
            "POST",
            job.callback_url,
            content=body,
            headers={
                "Content-Type": "application/json",
                "webhook-id": message_id,
                "webhook-timestamp": str(sent),
                "webhook-signature": " ".join(signatures),
            },
            max_bytes=MAX_ANSWER_BYTES,
            seconds=SECONDS,
            follow=lambda url: False,
            wants=lambda url, headers: False,
        )
    except Refused as error:
        raise _Unwanted(str(error)) from None
    finally:
        client.close()
    if answer.status == 410:
        raise _Unwanted("The receiver answered 410: it wants no more of them.")
    if not 200 <= answer.status < 300:
        raise SourceError(f"The receiver answered {answer.status}.", permanent=False)
