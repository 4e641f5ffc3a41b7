"""``Idempotency-Key``: a POST that is sent again, for want of an answer, has its effect once.

As draft-ietf-httpapi-idempotency-key-header-07 has it: a member's key stands for one request for 24 hours. Sent again, the
same request gets the same answer, another one under the same key 422, and one whose first is under way 409. What was
refused or failed has done nothing, and leaves its key free; so does an answer that broke off. Kept in PostgreSQL: Redis
may forget.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.http import QueryDict
from django.utils import timezone

from ragsite.core.problems import FieldProblem, Problem
from ragsite.core.secrets import SecretLost, decrypt_secret, encrypt_secret
from tenants.models import IdempotentRequest, Membership

HEADER = "Idempotency-Key"
KEPT_FOR = timedelta(hours=24)
# Longer than any request takes; one whose process has died is taken over then.
UNDER_WAY_FOR = timedelta(minutes=5)
# A string of RFC 8941, or, as most clients send it, the same without its quotes.
_KEY = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"|([\x21\x23-\x7e]{1,255})')


@dataclass(frozen=True)
class Claim:
    """The right to do the work of a request, once."""

    pk: uuid.UUID
    run: uuid.UUID


@dataclass(frozen=True)
class Kept:
    """What was answered: ``data`` with its status, or ``reference`` to what is to be read anew."""

    status: int
    data: Any
    reference: uuid.UUID | None


def read_key(header: str) -> str:
    """The key of the header's value.

    Raises:
        Problem: 400 for what is no key.
    """
    match = _KEY.fullmatch(header.strip())
    if match is None:
        words = "Send 1 to 255 visible ASCII characters, for instance a random UUID."
        raise Problem(
            400, "invalid-idempotency-key", f"{HEADER}: {words}", errors=[FieldProblem(HEADER, words)]
        )
    return re.sub(r"\\(.)", r"\1", match[1]) if match[1] else match[2]


def fingerprint_of(*, method: str, path: str, data: Any) -> str:
    """Of a request's parsed body; files by their names and contents."""
    digest = hashlib.sha256(f"{method} {path}\n".encode())
    if isinstance(data, QueryDict):
        for name in sorted(data):
            for value in data.getlist(name):
                digest.update(json.dumps([name, _describe(value)]).encode())
    else:
        digest.update(json.dumps(data, sort_keys=True).encode())
    return digest.hexdigest()


def _describe(value: Any) -> Any:
    if not isinstance(value, UploadedFile):
        return value
    content = hashlib.sha256()
    for chunk in value.chunks():
        content.update(chunk)
    value.seek(0)
    return [value.name, content.hexdigest()]


def claim_request(
    *,
    membership: Membership,
    key: str,
    fingerprint: str,
    is_whole: Callable[[uuid.UUID], bool | None] = lambda reference: True,
) -> Claim | Kept:
    """Either the right to do the work, or what came of it.

    Args:
        is_whole: whether what a reference names has come to its end; ``None`` where there is nothing (yet).

    Raises:
        Problem: 422 for another request under this key, 409 while the first is under way.
    """
    now, run = timezone.now(), uuid.uuid4()
    row, created = IdempotentRequest.objects.get_or_create(
        membership=membership,
        key=key,
        defaults={"fingerprint": fingerprint, "run": run, "started_at": now},
    )
    if created:
        return Claim(row.pk, run)
    whole = None if row.status is None else row.reference is None or is_whole(row.reference)
    is_free = whole is False or row.started_at < now - KEPT_FOR
    is_dead = whole is None and row.started_at < now - UNDER_WAY_FOR
    if not is_free and row.fingerprint != fingerprint:
        raise Problem(
            422,
            "idempotency-key-reused",
            f"This {HEADER} stands for another request, with another body or to another address: use a new one.",
        )
    if is_free or is_dead:
        taken = IdempotentRequest.objects.filter(pk=row.pk, run=row.run, status=row.status).update(
            fingerprint=fingerprint, run=run, started_at=now, status=None, reference=None, body=""
        )
        if taken:
            return Claim(row.pk, run)
    elif row.status is not None:
        return Kept(row.status, _read_body(row), row.reference)
    raise Problem(
        409,
        "request-in-progress",
        f"The first request with this {HEADER} is still under way: wait for its answer, or ask again in a moment.",
        headers={"Retry-After": "1"},
    )


def _read_body(row: IdempotentRequest) -> Any:
    try:
        return json.loads(decrypt_secret(row.body)) if row.body else None
    except SecretLost:
        raise Problem(
            409,
            "answer-lost",
            "This request was carried out, but its answer cannot be read any more, as the installation’s secret key "
            "has changed: look at what it made.",
        ) from None


def keep_answer(claim: Claim, *, status: int, body: str | None, reference: uuid.UUID | None = None) -> None:
    """Keeps what was answered; encrypted, as it may hold a secret that is shown this once."""
    IdempotentRequest.objects.filter(pk=claim.pk, run=claim.run).update(
        status=status, body=encrypt_secret(body) if body else "", reference=reference
    )


def free_key(claim: Claim) -> None:
    """Nothing was done: the key may be used again."""
    IdempotentRequest.objects.filter(pk=claim.pk, run=claim.run).delete()


def clear_idempotency() -> int:
    """Removes what is older than a day; in the scope of a tenant."""
    gone, _ = IdempotentRequest.objects.filter(started_at__lt=timezone.now() - KEPT_FOR).delete()
    return int(gone)
