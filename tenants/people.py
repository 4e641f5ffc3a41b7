"""Tenants and their people: every change, audited in its own transaction, raising the authorisation epoch."""

from collections.abc import Sequence
from functools import cache
from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.utils.translation import gettext as _

from ragsite.core.problems import FieldProblem, Problem, not_found
from tenants.access import Principal
from tenants.audit import record_by, record_event
from tenants.models import Ability, Membership, Role, Tenant, User
from tenants.roles import create_default_roles
from tenants.scope import atomic, scope, unscoped


def create_tenant(*, slug: str, name: str, is_demo: bool = False, actor: User | None = None) -> Tenant:
    """A new tenant with the default roles.

    Raises:
        Problem: 409 when the slug is taken, 400 when it is not well formed.
    """
    tenant = Tenant(slug=slug, name=name, is_demo=is_demo)
    with unscoped(reason="create a tenant", actor=actor), atomic():
        _check_fields(tenant)
        if Tenant.objects.filter(slug=slug).exists():
            raise Problem(409, "conflict", f"The tenant {slug} exists already.")
        tenant.save(force_insert=True)
    with scope(tenant_id=tenant.pk, tags=None), atomic():
        create_default_roles()
        record_event(action="tenant.create", actor=actor, target=tenant, detail={"slug": slug})
    return tenant


def invalid(error: ValidationError) -> Problem:
    """Django's validation error as the 400 problem."""
    if hasattr(error, "error_dict"):
        errors = [
            FieldProblem("" if field == "__all__" else field, message)
            for field, messages in error.message_dict.items()
            for message in messages
        ]
    else:
        errors = [FieldProblem("", message) for message in error.messages]
    return Problem(400, "invalid", "Some values cannot be used; see errors.", errors=errors)


def _check_fields(row: Tenant | Role) -> None:
    """Raises Problem: 400 that names the fields."""
    try:
        row.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        raise invalid(error) from None


def create_user(
    *,
    username: str,
    email: str = "",
    password: str | None = None,
    is_service: bool = False,
    check_password: bool = True,
) -> User:
    """A new user of no tenant yet; without a password they cannot sign in.

    Raises:
        Problem: 409 when the name is taken, 400 when name or password cannot be used.
    """
    user = User(username=username, email=email, is_service=is_service)
    if password and not is_service:
        if check_password:
            try:
                validate_password(password, user)
            except ValidationError as error:
                raise Problem(
                    400,
                    "invalid",
                    "The password cannot be used.",
                    errors=[FieldProblem("password", message) for message in error.messages],
                ) from None
        user.set_password(password)
    else:
        user.set_unusable_password()
    try:
        user.full_clean(exclude=["password"], validate_unique=False)
    except ValidationError as error:
        raise invalid(error) from None
    try:
        with atomic():
            user.save(force_insert=True)
    except IntegrityError:
        taken = f"The user name {username} is taken: choose another."
        raise Problem(409, "conflict", taken, errors=[FieldProblem("username", taken)]) from None
    return user


def add_member(*, user: User, role: Role, principal: Principal | None = None) -> Membership:
    """Makes a user a member of the tenant in force.

    Raises:
        Problem: 409 when they are one already.
    """
    with atomic():
        if Membership.objects.filter(user=user).exists():
            raise Problem(409, "conflict", f"{user.username} is a member of this tenant already.")
        membership = Membership(user=user, role=role)
        membership.save(force_insert=True)
        membership.tenant.raise_auth_epoch()
        record_by(principal, "member.add", membership, {"user": user.username, "role": role.name})
    return membership


def change_rights_alone(tenant_id: UUID) -> None:
    """Until the transaction ends nobody else changes members or roles of this tenant.

    To be called before anything is read or locked that is decided by: two who act at once must neither undo each other's
    change nor leave a tenant that nobody manages.
    """
    Tenant.objects.select_for_update(no_key=True).filter(pk=tenant_id).exists()


def _read_again(row: Membership | Role, *fields: str) -> None:
    """What may have been changed since the row was read.

    Raises:
        Problem: 404 when it is not there any more.
    """
    try:
        row.refresh_from_db(fields=fields)
    except (Membership.DoesNotExist, Role.DoesNotExist):
        raise not_found() from None


def _refuse_last_admin(membership: Membership, *, remains: bool) -> None:
    """A tenant that nobody manages could only be rescued by the platform's operators."""
    if remains or not membership.role.may(Ability.MANAGE):
        return
    others = Membership.objects.filter(
        status=Membership.Status.ACTIVE,
        role__abilities__contains=[Ability.MANAGE],
        user__is_active=True,
        user__is_service=False,
    ).exclude(pk=membership.pk)
    if not others.exists():
        raise Problem(
            409, "last-admin", "This is the last member who manages the tenant: name another first."
        )


def change_member(
    *,
    membership: Membership,
    role: Role | None = None,
    status: str | None = None,
    principal: Principal | None = None,
) -> Membership:
    """Gives a member another role, suspends them or lets them back in; holds from their next request on.

    Raises:
        Problem: 409 for the last one who manages the tenant.
    """
    with atomic():
        change_rights_alone(membership.tenant_id)
        _read_again(membership, "role", "status")
        before = {"role": membership.role.name, "status": membership.status}
        will_manage = (role or membership.role).may(Ability.MANAGE) and (
            status or membership.status
        ) == "active"
        _refuse_last_admin(membership, remains=will_manage)
        if role is not None:
            membership.role = role
        if status is not None:
            membership.status = status
        membership.save(update_fields=["role", "status"])
        membership.tenant.raise_auth_epoch()
        after = {"role": membership.role.name, "status": membership.status}
        record_by(
            principal,
            "member.change",
            membership,
            {"user": membership.user.username, "before": before, "after": after},
        )
    return membership


def remove_member(*, membership: Membership, principal: Principal | None = None) -> None:
    """Ends a membership, with its keys and tokens. The user and what they asked remain.

    Raises:
        Problem: 409 for the last one who manages the tenant.
    """
    with atomic():
        change_rights_alone(membership.tenant_id)
        _read_again(membership, "role", "status")
        _refuse_last_admin(membership, remains=False)
        record_by(principal, "member.remove", membership, {"user": membership.user.username})
        membership.tenant.raise_auth_epoch()
        membership.delete()


def save_role(
    *,
    role: Role,
    principal: Principal | None = None,
    changes: dict[str, Any] | None = None,
) -> Role:
    """Creates a role, or changes one by ``changes`` (name, tags, abilities, reads_everything).

    Raises:
        Problem: 400 for tags or abilities that are not well formed, 409 for a name that is taken, or when nobody
            would be left who manages the tenant.
    """
    creating = role._state.adding
    changes = changes or {}
    with atomic():
        if not creating:
            change_rights_alone(role.tenant_id)
            _read_again(role, "name", "tags", "abilities", "reads_everything")
        before = _role_facts(role)
        managed = role.may(Ability.MANAGE)
        for field, value in changes.items():
            setattr(role, field, value)
        _check_fields(role)
        if Role.objects.filter(name=role.name).exclude(pk=role.pk).exists():
            raise Problem(409, "conflict", f"A role named {role.name} exists already.")
        role.save(update_fields=None if creating else list(changes))
        if managed and not role.may(Ability.MANAGE) and not _somebody_manages():
            raise Problem(
                409, "last-admin", "Nobody would be left who manages the tenant: name another role first."
            )
        role.tenant.raise_auth_epoch()
        after = _role_facts(role)
        record_by(
            principal,
            "role.create" if creating else "role.change",
            role,
            after if creating else {"before": before, "after": after},
        )
    return role


def _role_facts(role: Role) -> dict[str, Any]:
    return {
        "name": role.name,
        "tags": list(role.tags),
        "abilities": list(role.abilities),
        "reads_everything": role.reads_everything,
    }


def _somebody_manages() -> bool:
    managing = Membership.objects.filter(
        status=Membership.Status.ACTIVE,
        role__abilities__contains=[Ability.MANAGE],
        user__is_active=True,
        user__is_service=False,
    )
    return bool(managing.exists())


def delete_role(*, role: Role, principal: Principal | None = None) -> None:
    """Removes a role that no member has.

    Raises:
        Problem: 409 while members have it.
    """
    with atomic():
        holders: Sequence[str] = list(role.memberships.values_list("user__username", flat=True)[:5])
        if holders:
            raise Problem(
                409,
                "role-in-use",
                f"Members have this role ({', '.join(holders)}): give them another first.",
            )
        record_by(principal, "role.delete", role, {"name": role.name})
        role.tenant.raise_auth_epoch()
        role.delete()


@cache
def time_zones() -> list[str]:
    """The names that a tenant may choose from, by place, sorted."""
    return sorted(
        name
        for name in available_timezones()
        if name == "UTC" or ("/" in name and not name.startswith(("Etc/", "SystemV/", "posix/", "right/")))
    )


def change_tenant(*, tenant: Tenant, changes: dict[str, str], principal: Principal) -> Tenant:
    """Changes a tenant's name or time zone.

    Raises:
        Problem: 400 for an empty or too long name, or what is no time zone.
    """
    before = {field: getattr(tenant, field) for field in changes}
    for field, value in changes.items():
        setattr(tenant, field, value)
    _check_fields(tenant)
    if tenant.time_zone not in time_zones():
        words = _("Choose a time zone from the list, for instance Europe/Berlin.")
        raise Problem(400, "invalid", words, errors=[FieldProblem("time_zone", words)])
    after = {field: getattr(tenant, field) for field in changes}
    if after != before:
        with atomic():
            tenant.save(update_fields=list(changes))
            record_by(principal, "tenant.change", tenant, {"before": before, "after": after})
    return tenant


def set_tenant_status(*, tenant: Tenant, status: str, actor: User | None = None) -> None:
    """Suspends a tenant or lets it back in; holds from its members' next request on."""
    with unscoped(reason="suspend or resume a tenant", actor=actor), atomic():
        Tenant.objects.filter(pk=tenant.pk).update(status=status)
        tenant.status = status
        tenant.raise_auth_epoch()
        record_event(action=f"tenant.{status}", actor=actor, target=tenant)
