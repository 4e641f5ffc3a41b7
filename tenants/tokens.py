"""JSON Web Tokens: issue, rotate with reuse detection, revoke, verify."""

import base64
import hashlib
import hmac
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Exists, OuterRef
from django.utils import timezone
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from ragsite.core.problems import Problem
from tenants.access import Principal, unauthenticated
from tenants.audit import record_event
from tenants.models import Membership, TokenFamily, User
from tenants.scope import atomic, scope


@dataclass(frozen=True)
class TokenPair:
    """A fresh access token and the refresh token that follows it."""

    access: str
    refresh: str


def password_stamp(user: User) -> str:
    """A claim that changes with the password, so that a change of password ends every token."""
    return hashlib.sha256(user.get_session_auth_hash().encode()).hexdigest()[:16]


def _pair(membership: Membership, family: uuid.UUID, jti: uuid.UUID) -> tuple[TokenPair, datetime]:
    refresh = RefreshToken()
    refresh["jti"] = str(jti)
    refresh["sub"] = str(membership.user_id)
    refresh["tenant"] = membership.tenant.slug
    refresh["tid"] = str(membership.tenant_id)
    refresh["mid"] = str(membership.pk)
    refresh["fam"] = str(family)
    refresh["pws"] = password_stamp(membership.user)
    expires = datetime.fromtimestamp(refresh["exp"], tz=UTC)
    return TokenPair(access=str(refresh.access_token), refresh=str(refresh)), expires


def issue_tokens(*, membership: Membership) -> TokenPair:
    """Starts a token family. To be called in the membership's tenant scope."""
    family, jti = uuid.uuid4(), uuid.uuid4()
    pair, expires = _pair(membership, family, jti)
    TokenFamily.objects.create(id=family, membership=membership, current=jti, expires_at=expires)
    return pair


def _claims(token_type: type[AccessToken] | type[RefreshToken], raw: str) -> dict[str, Any]:
    try:
        token: Any = token_type(raw)  # type: ignore[arg-type]
        claims: dict[str, Any] = token.payload
        for name in ("tid", "mid", "fam", "jti"):
            uuid.UUID(claims[name])
        str(claims["pws"])
    except (TokenError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise unauthenticated("The token is not valid or has expired: sign in again.") from None
    return claims


def claimed_tenant(raw: str) -> uuid.UUID | None:
    """The tenant that a token says it is of, which nobody has verified."""
    try:
        part = raw.split(".")[1]
        return uuid.UUID(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["tid"])
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _live_membership(claims: dict[str, Any], *conditions: Exists) -> Membership:
    """The member that the claims speak of, if nothing has ended the sign-in since.

    Args:
        conditions: that must hold of the membership as well.
    """
    membership: Membership | None = (
        Membership.objects.select_related("user", "role", "tenant")
        .filter(*conditions, pk=claims["mid"], status=Membership.Status.ACTIVE)
        .first()
    )
    if (
        membership is None
        or not membership.user.is_active
        or not membership.tenant.is_active
        or not hmac.compare_digest(password_stamp(membership.user), str(claims["pws"]))
    ):
        raise unauthenticated("This sign-in has ended: sign in again.")
    return membership


def principal_of_token(*, raw: str, address: str | None) -> Principal:
    """Verifies an access token against the database, so that suspension and revocation hold at once.

    Raises:
        Problem: 401.
    """
    claims = _claims(AccessToken, raw)
    with scope(tenant_id=uuid.UUID(claims["tid"]), tags=()):
        family = TokenFamily.objects.filter(
            pk=claims["fam"], membership=OuterRef("pk"), revoked_at__isnull=True
        )
        membership = _live_membership(claims, Exists(family))  # in one statement: it runs before every answer
    return Principal(
        membership=membership,
        method="jwt",
        abilities=frozenset(membership.role.abilities),
        credential=str(claims["fam"]),
        address=address,
        expires=float(claims["exp"]),
    )


def rotate_tokens(*, refresh: str, address: str | None = None) -> TokenPair:
    """Exchanges a refresh token for a new pair. One that was used before ends its whole family.

    Raises:
        Problem: 401.
    """
    claims = _claims(RefreshToken, refresh)
    with scope(tenant_id=uuid.UUID(claims["tid"]), tags=()):
        with atomic():
            membership = _live_membership(claims)
            jti = uuid.uuid4()
            pair, _ = _pair(membership, uuid.UUID(claims["fam"]), jti)
            # The conditional update decides between two that come at once.
            rotated = TokenFamily.objects.filter(
                pk=claims["fam"],
                membership=membership,
                current=uuid.UUID(claims["jti"]),
                revoked_at__isnull=True,
            ).update(current=jti, rotated_at=timezone.now())
            if rotated:
                return pair
        with atomic():
            if _revoke_family(claims["fam"], because="reuse"):
                record_event(
                    action="token.reuse_detected", membership=membership, method="jwt", address=address
                )
    raise unauthenticated("The refresh token was used before: this sign-in has been ended, sign in again.")


def _revoke_family(family: str, *, because: str) -> int:
    revoked: int = TokenFamily.objects.filter(pk=family, revoked_at__isnull=True).update(
        revoked_at=timezone.now(), revoked_because=because
    )
    return revoked


def revoke_tokens(*, token: str, address: str | None = None) -> None:
    """Ends the sign-in of an access or refresh token. An invalid token is ignored (RFC 7009, section 2.2)."""
    for token_type in (RefreshToken, AccessToken):
        try:
            claims = _claims(token_type, token)
            with scope(tenant_id=uuid.UUID(claims["tid"]), tags=()), atomic():
                if _revoke_family(claims["fam"], because="signed out"):
                    # Of a suspended member too: their tokens must not come back to life with them.
                    membership = (
                        Membership.objects.select_related("user", "role").filter(pk=claims["mid"]).first()
                    )
                    record_event(action="token.revoke", membership=membership, method="jwt", address=address)
            return
        except Problem:
            continue
