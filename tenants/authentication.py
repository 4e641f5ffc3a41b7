"""Sessions, JSON Web Tokens and API keys: three ways in, one authoriser (``resolve_principal``)."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import authenticate
from django.http import HttpRequest
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal, unauthenticated
from tenants.audit import record_event
from tenants.keys import PREFIX, principal_of_key, read_token
from tenants.limits import begin_attempt, end_attempt
from tenants.models import Membership, Tenant, User
from tenants.scope import enter, identity, scope
from tenants.tokens import claimed_tenant, principal_of_token

SESSION_TENANT = "ragsite_tenant"


def client_address(request: HttpRequest) -> str | None:
    """The peer's IP address. ``X-Forwarded-For`` is the ASGI server's business (``RAGSITE_TRUSTED_PROXIES``), not ours."""
    return request.META.get("REMOTE_ADDR") or None


def own_memberships(*, user: User) -> list[Membership]:
    """The user's live memberships in active tenants, with tenant and role, by tenant name."""
    with identity(user_id=user.pk):
        rows = (
            Membership.objects.all()
            .of_no_tenant()
            .select_related("user", "role", "tenant")
            .filter(user_id=user.pk, status=Membership.Status.ACTIVE, tenant__status=Tenant.Status.ACTIVE)
            .order_by("tenant__slug")
        )
        return list(rows)


def known_memberships(principal: Principal) -> list[Membership]:
    """Those that a member is told of. A key speaks for one tenant: it does not learn of its member's others."""
    if principal.method == "api_key":
        return [principal.membership]
    return own_memberships(user=principal.membership.user)


def check_credentials(
    *, request: HttpRequest, username: str, password: str, tenant: str = ""
) -> tuple[User, list[Membership]]:
    """User name and password → the user and their live memberships (only ``tenant``'s, when it is given).

    Raises:
        Problem: 401 with the same words for an unknown user and a wrong password; 429 after too many failures.
    """
    address = client_address(request)
    begin_attempt(account=username, address=address)
    user = authenticate(request, username=username, password=password)
    if not isinstance(user, User) or user.is_service:
        _record_failure(username=username, address=address)
        raise unauthenticated("User name or password is wrong.")
    end_attempt(account=username, address=address)
    memberships = own_memberships(user=user)
    if tenant:
        memberships = [m for m in memberships if m.tenant.slug == tenant]
        if not memberships:
            raise unauthenticated("You are not an active member of this tenant.")
    return user, memberships


def _record_failure(*, username: str, address: str | None) -> None:
    """Into the log of each tenant whose member was tried, so that its admins see it; else into the platform's."""
    user = User.objects.filter(username=username).first()
    memberships = own_memberships(user=user) if user else []
    for membership in memberships:
        with scope(tenant_id=membership.tenant_id, tags=()):
            record_event(
                action="session.sign_in_failed",
                actor=user,
                detail={"username": username[:150]},
                address=address,
            )
    if not memberships:
        with enter(None):
            record_event(
                action="session.sign_in_failed", detail={"username": username[:150]}, address=address
            )


def choose_membership(memberships: list[Membership], *, user: User) -> Membership:
    """The one membership.

    Raises:
        Problem: 400 that lists the tenants when there are several; 401 when there is none.
    """
    if len(memberships) > 1:
        slugs = [m.tenant.slug for m in memberships]
        raise Problem(
            400,
            "tenant-required",
            f"You are a member of several tenants: name one of them in “tenant” ({', '.join(slugs)}).",
            errors=[FieldProblem("tenant", "Name one of: " + ", ".join(slugs))],
            extra={
                "tenants": [
                    {"slug": m.tenant.slug, "name": m.tenant.name, "role": m.role.name} for m in memberships
                ]
            },
        )
    if not memberships:
        raise unauthenticated(f"{user.username} is not an active member of any tenant.")
    return memberships[0]


def record_sign_in(*, membership: Membership, method: str, address: str | None) -> None:
    with scope(tenant_id=membership.tenant_id, tags=()):
        record_event(action="session.sign_in", membership=membership, method=method, address=address)


def _principal_of_session(request: HttpRequest) -> Principal | None:
    user = request.user
    if not isinstance(user, User) or not user.is_active or user.is_service:
        return None
    chosen = request.session.get(SESSION_TENANT)
    memberships = own_memberships(user=user)
    live = [m for m in memberships if str(m.tenant_id) == chosen] or (memberships if not chosen else [])
    if not live:
        return None
    return Principal(
        membership=live[0],
        method="session",
        abilities=frozenset(live[0].role.abilities),
        address=client_address(request),
    )


def resolve_principal(request: HttpRequest) -> Principal | None:
    """Who makes this request: the one authoriser of every way in.

    Returns:
        ``None`` for an anonymous request.

    Raises:
        Problem: 401 for a token or key that does not hold.
    """
    header = request.headers.get("Authorization", "")
    kind, _, raw = header.partition(" ")
    key = request.headers.get("X-API-Key", "")
    if header and kind.lower() != "bearer":
        raise unauthenticated("Send “Authorization: Bearer …” with a token or an API key.")
    credential = (raw or key).strip()
    if header or key:
        if credential.startswith(PREFIX):
            return principal_of_key(raw=credential, address=client_address(request))
        return principal_of_token(raw=credential, address=client_address(request))
    if settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return None
    return _principal_of_session(request)


def tenant_of_credential(raw: str) -> UUID | None:
    """The tenant that a token or key says it is of, which nobody has verified."""
    if not raw.startswith(PREFIX):
        return claimed_tenant(raw)
    token = read_token(PREFIX, raw)
    return token[0] if token else None


class PrincipalAuthentication(BaseAuthentication):
    """Hands DRF what the middleware found out; a session must come with the CSRF token, a header needs none."""

    def authenticate(self, request: Request) -> tuple[User, Principal] | None:
        inner: Any = request._request
        if inner.authentication_problem is not None:
            raise inner.authentication_problem
        principal: Principal | None = inner.principal
        if principal is None:
            return None
        if principal.method == "session":
            check = CSRFCheck(lambda _request: None)  # type: ignore[arg-type]
            check.process_request(inner)
            reason = check.process_view(inner, None, (), {})  # type: ignore[arg-type]
            if reason:
                raise PermissionDenied(f"CSRF check failed: {reason}")
        return principal.membership.user, principal

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="ragsite"'


class PrincipalScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "tenants.authentication.PrincipalAuthentication"
    name = ["bearer", "session"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return [
            {
                "type": "http",
                "scheme": "bearer",
                "description": "An access token of `POST /api/v1/token`, or an API key.",
            },
            {"type": "apiKey", "in": "cookie", "name": "ragsite_session"},
        ]
