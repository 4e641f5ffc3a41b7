"""A delivery to a source's webhook: whose it is, whether it is genuine and new, and what follows from it.

There is no member here: the signature is the authentication, and what it may do is bound to its source.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog
from django.core.cache import cache
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from knowledge.exclusions import is_excluded
from knowledge.models import Job, Source
from knowledge.sources import start_sync
from knowledge.webhooks.callbacks import EVENTS
from knowledge.webhooks.documents import read_document, read_uri, remove_document, upsert_document
from knowledge.webhooks.events import Event, read_event
from knowledge.webhooks.secrets import live_secrets
from knowledge.webhooks.signatures import Signed, new_secret, verify
from ragsite.core.problems import Problem
from tenants.audit import record_event
from tenants.models import Tenant
from tenants.scope import atomic, scope, unscoped

logger = structlog.get_logger(__name__)

REMEMBERED_SECONDS = 24 * 3600
# Longer than a delivery takes; one whose process has died may be sent again then.
LEASE_SECONDS = 60
_NOBODY = (
    new_secret()
)  # what a source that is not there is held against, so that it takes as long as one that is


@dataclass(frozen=True)
class Received:
    """What became of a delivery.

    Attributes:
        status: ``started``, ``unchanged``, ``deleted``, ``absent``, ``ignored``, ``received`` (a ping) or ``duplicate``.
        detail: why, where nothing was done.
        job: what it started.
    """

    status: str
    detail: str = ""
    job: UUID | None = None


def refused() -> Problem:
    """The same words for a source that is not there, one without a secret, and a signature that does not hold."""
    return Problem(
        401,
        "signature",
        "There is no such webhook, or the signature does not hold: check the address, the secret and the clock.",
    )


def find_source(source_id: UUID) -> Source | None:
    """A source of whichever tenant is active; its hooks come without any scope."""
    with unscoped(reason="find the source of a webhook"):
        known = Source.objects.filter(pk=source_id, tenant__status=Tenant.Status.ACTIVE)
        # No more than it takes to believe the sender: a source may remember megabytes.
        found: Source | None = known.only("tenant_id", "hook_secret").first()
    return found


def receive(
    *, source_id: UUID, headers: Mapping[str, str], body: bytes, address: str | None = None
) -> Received:
    """Takes a delivery in.

    Args:
        headers: names in lower case.
        body: as it was sent.
        address: of the sender.

    Raises:
        Problem: 401 unless the signature holds; 400, 413, 415 for what a genuine sender says wrongly; 503 while another
            process is at this very delivery.
    """
    source = find_source(source_id)
    secrets = live_secrets(source) if source is not None else []
    signed = verify(secrets=secrets or [_NOBODY], headers=headers, body=body, now=time.time())
    if source is None or not secrets or signed is None:
        raise refused()
    with scope(tenant_id=source.tenant_id, tags=None):
        source = Source.objects.select_related("collection").defer("state").get(pk=source.pk)
        claim = uuid4().hex
        before = _claim(source, signed, claim)
        if before is not None:
            return before
        try:
            event = read_event(signed=signed, headers=headers, body=body)
            received = _act(source, event, signed, address)
        except BaseException:
            _forget(source, signed, claim)  # it is sent again, and must not be taken for a copy then
            raise
        _remember(source, signed, received)
        return received


def _act(source: Source, event: Event, signed: Signed, address: str | None) -> Received:
    if event.kind in ("ping", "webhook.test", "test"):
        return Received("received")
    if event.kind in EVENTS:
        # Told to its own hook, the end of a sync would begin the next one, for ever.
        return Received(
            "ignored", "The end of a job changes nothing: send another type when there is something new."
        )
    if not source.enabled:
        return Received("ignored", "The source is paused.")
    if source.kind == Source.Kind.PUSH:
        return _take_document(source, event, signed, address)
    if signed.scheme != "standard" or event.kind in ("push", "other"):
        if event.kind != "push":
            return Received("ignored", "Only pushes matter here.")
        if reason := _other_branch(source, event):
            return Received("ignored", reason)
    with atomic():
        job = start_sync(source=source, follow=True)
        record_event(
            action="source.hook",
            method="webhook",
            target=source,
            detail={
                "name": source.name,
                "event": event.kind[:100],
                "scheme": signed.scheme,
                "ref": event.ref[:200],
            },
            address=address,
        )
    return Received("started", job=job.pk)


def _other_branch(source: Source, event: Event) -> str:
    """Why a push is none of this source's business; empty when it is."""
    wanted = str(source.options.get("branch") or "") or event.default_branch
    if source.kind != Source.Kind.GIT or not event.ref or not wanted:
        return ""
    if event.ref in (wanted, f"refs/heads/{wanted}", f"refs/tags/{wanted}"):
        return ""
    return f"The push was to {event.ref}; this source follows {wanted}."


def _take_document(source: Source, event: Event, signed: Signed, address: str | None) -> Received:
    if signed.scheme == "standard" and event.kind == "document.upsert":
        pushed = read_document(event.data)
        if is_excluded(source=source, uri=pushed.uri):
            words = "It was deleted here: restore it, or have the source take it again, on the source's page."
            return Received("ignored", words)
        job: Job | None = upsert_document(source=source, pushed=pushed, address=address)
        if job is None:
            return Received("unchanged", "The document is indexed with this very content.")
        return Received("started", job=job.pk)
    if signed.scheme == "standard" and event.kind == "document.delete":
        gone = remove_document(source=source, uri=read_uri(event.data), address=address)
        return Received("deleted") if gone else Received("absent", "There is no document of this uri.")
    raise Problem(
        400,
        "unknown-event",
        "This source takes documents: send document.upsert or document.delete, signed as Standard Webhooks are.",
    )


# Each once


def _key(source: Source, signed: Signed) -> str:
    digest = hashlib.sha256(signed.once.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{cache.key_prefix}:hook:{source.pk}:{digest}"


def _claim(source: Source, signed: Signed, claim: str) -> Received | None:
    """``None`` for the first of its kind; else what became of that. With Redis away every one is taken for the first: a
    copy can be no older than the tolerance of its timestamp, and does again what was done.

    The right to do the work is lent: only what is done is remembered, so that a process that dies at it loses nothing.

    Raises:
        Problem: 503 while the first is under way. Senders take that for a failure that passes: those who send again do so,
            the others show it.
    """
    key = _key(source, signed)
    try:
        redis = get_redis_connection("default")
        if redis.set(key, json.dumps({"claim": claim}), nx=True, ex=LEASE_SECONDS):
            return None
        stored, seconds = json.loads(redis.get(key) or b'{"claim": ""}'), redis.ttl(key)
    except RedisError as error:
        logger.warning("webhook copies are not looked for", error=type(error).__name__)
        return None
    if "claim" in stored:
        raise Problem(
            503,
            "delivery-in-progress",
            "This delivery is being taken in, and nothing is sure yet: send it again in a moment.",
            headers={"Retry-After": str(max(1, seconds))},
        )
    job = stored.get("job")
    return Received("duplicate", "This delivery was received before.", UUID(job) if job else None)


def _remember(source: Source, signed: Signed, received: Received) -> None:
    try:
        value = json.dumps({"job": str(received.job)} if received.job else {})
        get_redis_connection("default").set(_key(source, signed), value, ex=REMEMBERED_SECONDS)
    except RedisError as error:
        logger.warning("webhook not remembered", error=type(error).__name__)


def _forget(source: Source, signed: Signed, claim: str) -> None:
    """Unless it took so long that another process is at it by now."""
    key = _key(source, signed)
    try:
        redis = get_redis_connection("default")
        if json.loads(redis.get(key) or b"{}").get("claim") == claim:
            redis.delete(key)
    except RedisError as error:
        logger.warning("webhook not forgotten", error=type(error).__name__)
