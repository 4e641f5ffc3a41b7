"""Superusers in the admin: on the platform, or inside the one tenant that they chose.

On the platform they see what belongs to no tenant, in the audited platform scope. Inside a tenant they are its member
for as long as they stay, in a role that is stored nowhere: row-level security, roles and action functions hold for
them as for its admins, and both logs say that they were there.
"""

from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from tenants.access import Principal
from tenants.audit import record_event, record_platform_event
from tenants.authentication import client_address
from tenants.models import Ability, Membership, Role, Tenant, User
from tenants.scope import PLATFORM, enter, record_unscoped, scope

SESSION_OPERATOR_TENANT = "ragsite_admin_tenant"
ROLE = "superuser"
CHOICES_SHOWN = 200


def is_superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_active and request.user.is_superuser)


def on_platform(request: HttpRequest) -> bool:
    """A superuser who has chosen no tenant, in a request that the log tells of."""
    return is_superuser(request) and getattr(request, "on_platform", False)


def operator_principal(*, user: User, tenant: Tenant, address: str | None) -> Principal:
    """A superuser as a member of ``tenant``, with every ability. Nothing of it is stored."""
    abilities = [ability.value for ability in Ability]
    role = Role(tenant=tenant, name=ROLE, reads_everything=True, abilities=abilities)
    membership = Membership(tenant=tenant, user=user, role=role)
    return Principal(membership=membership, method="session", abilities=frozenset(abilities), address=address)


def enter_as_operator(request: Any) -> AbstractContextManager[Any]:
    """The scope of a superuser's request to the admin, audited; sets ``request.principal``."""
    request.own_principal = request.principal
    tenant = _chosen_tenant(request)
    if tenant is None:
        request.principal, request.on_platform = None, True
        record_unscoped(reason="superuser in the admin", actor=request.user)
        return enter(PLATFORM)
    request.principal = operator_principal(user=request.user, tenant=tenant, address=client_address(request))
    if request.path != reverse("admin:jsi18n"):  # a script that comes with most pages
        record_platform_event(
            action="platform.in_tenant",
            actor=request.user,
            detail={"tenant": tenant.slug, "method": request.method, "path": request.path[:200]},
        )
    return enter(request.principal.scope())


def _chosen_tenant(request: Any) -> Tenant | None:
    chosen = request.session.get(SESSION_OPERATOR_TENANT)
    if not chosen:
        return None
    with scope(tenant_id=UUID(chosen), tags=()):
        return Tenant.objects.filter(pk=chosen).first()


def tenant_choices() -> list[Tenant]:
    """The tenants to choose from, by short name; the list of tenants has the rest."""
    with enter(PLATFORM):
        return list(Tenant.objects.order_by("slug")[:CHOICES_SHOWN])


def choose_tenant(request: HttpRequest) -> HttpResponse:
    """Enters the tenant named by ``tenant`` (its id), or leaves the present one where it is empty."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if not is_superuser(request):
        return HttpResponse(status=403)
    present: Principal | None = getattr(request, "principal", None)
    wanted = request.POST.get("tenant", "")
    tenant = _tenant_of_id(wanted) if wanted else None
    if wanted and tenant is None:
        messages.error(request, _("There is no such tenant."))
        return HttpResponseRedirect(reverse("admin:index"))
    address = client_address(request)
    user: User = request.user  # type: ignore[assignment]
    if present is not None:
        _record(present, "operator.leave")
    if tenant is None:
        request.session.pop(SESSION_OPERATOR_TENANT, None)
    else:
        request.session[SESSION_OPERATOR_TENANT] = str(tenant.pk)
        _record(operator_principal(user=user, tenant=tenant, address=address), "operator.enter")
    return HttpResponseRedirect(_next_page(request))


def _tenant_of_id(pk: str) -> Tenant | None:
    try:
        wanted = UUID(pk)
    except ValueError:
        return None
    with scope(tenant_id=wanted, tags=()):
        return Tenant.objects.filter(pk=wanted).first()


def _record(principal: Principal, action: str) -> None:
    """Into the tenant's log, whose admins are to see it, and into the platform's."""
    membership = principal.membership
    with enter(principal.scope()):
        record_event(
            action=action,
            membership=membership,
            method=principal.method,
            target=membership.tenant,
            address=principal.address,
        )
    with enter(None):
        record_platform_event(action=action, actor=membership.user, detail={"tenant": membership.tenant.slug})


def _next_page(request: HttpRequest) -> str:
    """Pages of the admin that are there on both sides; everything else begins at its home."""
    costs = reverse("admin:costs")
    wanted = request.POST.get("next", "")
    return wanted if wanted.partition("?")[0] == costs else reverse("admin:index")


def is_visiting(principal: Principal) -> bool:
    """Whether this is a superuser in a tenant, whom its own pages do not know."""
    return bool(principal.membership._state.adding)
