"""API keys: made, shown once, verified, revoked.

A key reads ``rsk_<where>.<secret>``; ``where`` is the tenant's and the key's id (it opens nothing by itself, but lets the
look-up happen inside the tenant, under row-level security); the secret has 256 random bits and only its hash is kept.
"""

import base64
import binascii
import hashlib
import hmac
import math
import secrets
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal, unauthenticated
from tenants.audit import record_by
from tenants.models import ApiKey, Membership, Role, TenantModel
from tenants.people import add_member, create_user
from tenants.scope import atomic, scope

PREFIX = "rsk_"
LAST_USED_EVERY = timedelta(minutes=1)


def make_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    # The secret is random, so a fast hash is as good as a slow one (nothing to guess).
    return hashlib.sha256(secret.encode()).hexdigest()


def write_token(prefix: str, row: TenantModel, secret: str) -> str:
    """``<prefix><where>.<secret>``: where the row is found, and what proves the right to it."""
    where = base64.urlsafe_b64encode(row.tenant_id.bytes + row.pk.bytes).decode().rstrip("=")
    return f"{prefix}{where}.{secret}"


def read_token(prefix: str, raw: str) -> tuple[uuid.UUID, uuid.UUID, str] | None:
    """The tenant's id, the row's id and the secret of a token; ``None`` for what is not one."""
    where, _, secret = raw.removeprefix(prefix).partition(".")
    try:
        ids = base64.urlsafe_b64decode(where + "=" * (-len(where) % 4))
        secret.encode()
        return uuid.UUID(bytes=ids[:16]), uuid.UUID(bytes=ids[16:]), secret
    except (binascii.Error, ValueError):
        return None


def create_api_key(
    *,
    principal: Principal,
    member: Membership,
    name: str,
    scopes: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Makes a key that acts as ``member``, with ``scopes`` of its role's abilities (none: all of them).

    Returns:
        The row, and the key itself, which can never be shown again.

    Raises:
        Problem: 400 for a scope that the member's role has not, or an expiry in the past; 409 for a name that is taken.
    """
    beyond = sorted(set(scopes) - set(member.role.abilities))
    if beyond:
        raise Problem(
            400,
            "invalid",
            "The key would be able to do more than its member.",
            errors=[
                FieldProblem("scopes", f"The role {member.role.name} has no ability “{s}”.") for s in beyond
            ],
        )
    if expires_at is not None and expires_at <= timezone.now():
        raise Problem(
            400,
            "invalid",
            "The key would have expired already.",
            errors=[FieldProblem("expires_at", "Give a time in the future.")],
        )
    secret = make_secret()
    key = ApiKey(
        membership=member,
        name=name,
        hint=secret[-4:],
        secret_hash=hash_secret(secret),
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
        created_by=principal.membership.user,
    )
    with atomic():
        if ApiKey.objects.filter(name=name, revoked_at__isnull=True).exists():
            taken = f"A key named {name} exists already: choose another name."
            raise Problem(409, "conflict", taken, errors=[FieldProblem("name", taken)])
        key.save(force_insert=True)
        record_by(
            principal,
            "api_key.create",
            key,
            {"name": name, "member": member.user.username, "scopes": key.scopes},
        )
    return key, write_token(PREFIX, key, secret)


def create_service_account(*, principal: Principal, name: str, role: Role) -> Membership:
    """A member that acts through API keys alone.

    Raises:
        Problem: 409 for a user name that is taken, 400 for one that cannot be used.
    """
    user = create_user(username=name, is_service=True)
    return add_member(user=user, role=role, principal=principal)


def principal_of_key(*, raw: str, address: str | None) -> Principal:
    """Verifies an API key.

    Raises:
        Problem: 401, in the same words whatever is wrong with it.
    """
    refused = unauthenticated("The API key is not valid, has expired or was revoked.")
    token = read_token(PREFIX, raw)
    if token is None:
        raise refused
    tenant_id, key_id, secret = token
    with scope(tenant_id=tenant_id, tags=()), atomic():
        key: ApiKey | None = (
            ApiKey.objects.select_related("membership__user", "membership__role", "membership__tenant")
            .filter(pk=key_id)
            .first()
        )
        # The hash is compared in every case, so that the time taken does not tell whether the key exists.
        matches = hmac.compare_digest(key.secret_hash if key else hash_secret(""), hash_secret(secret))
        if (
            key is None
            or not matches
            or not key.is_live
            or not key.membership.is_active
            or not key.membership.user.is_active
            or not key.membership.tenant.is_active
        ):
            raise refused
        now = timezone.now()
        if key.last_used_at is None or key.last_used_at < now - LAST_USED_EVERY:
            stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - LAST_USED_EVERY)
            ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)
    abilities = frozenset(key.membership.role.abilities)
    return Principal(
        membership=key.membership,
        method="api_key",
        abilities=abilities & frozenset(key.scopes) if key.scopes else abilities,
        credential=str(key.pk),
        address=address,
        expires=key.expires_at.timestamp() if key.expires_at else math.inf,
    )


def revoke_api_key(*, principal: Principal, key: ApiKey) -> None:
    """Ends a key; its next request is refused. Revoking twice is no error."""
    with atomic():
        if ApiKey.objects.filter(pk=key.pk, revoked_at__isnull=True).update(revoked_at=timezone.now()):
            record_by(principal, "api_key.revoke", key, {"name": key.name})
