"""Roles side by side: which tags each reads and what each may do, changed together."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db.models import Count, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.models import Ability, Role, validate_tag
from tenants.people import change_rights_alone, save_role
from tenants.scope import atomic

EVERYTHING = "*"  # what a ticked “everything” is called in a form; no tag can be


@dataclass(frozen=True)
class Wish:
    """What a form wants of one role.

    Attributes:
        ticked: tags, abilities as ``may:<ability>``, and ``*`` for everything.
        stamp: ``stamp_of`` the role as the form showed it.
    """

    ticked: frozenset[str]
    stamp: str


@dataclass(frozen=True)
class Changed:
    """What a save did to one role."""

    role: Role
    gained: tuple[str, ...]
    lost: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.role.name} " + ", ".join(
            [*(f"+{one}" for one in self.gained), *(f"−{one}" for one in self.lost)]
        )


def ticks_of(role: Role) -> frozenset[str]:
    """A role as its column shows it."""
    abilities = {f"may:{ability}" for ability in role.abilities}
    return frozenset({*role.tags, *abilities, *([EVERYTHING] if role.reads_everything else [])})


def stamp_of(role: Role) -> str:
    """Changes with what the role reads and may do: two who edit at once must not undo each other unseen."""
    return hashlib.sha256(json.dumps(sorted(ticks_of(role))).encode()).hexdigest()[:16]


def list_roles() -> list[Role]:
    """The roles of the tenant in force by name, with ``members`` and ``invited`` counted."""
    still_open = Q(
        invitations__accepted_at=None,
        invitations__revoked_at=None,
        invitations__expires_at__gt=timezone.now(),
    )
    return list(
        Role.objects.annotate(
            members=Count("memberships", distinct=True),
            invited=Count("invitations", filter=still_open, distinct=True),
        ).order_by("name")
    )


def tags_of(roles: Iterable[Role]) -> list[str]:
    """Every tag that one of the roles reads, sorted."""
    return sorted({tag for role in roles for tag in role.tags})


def read_tag(text: str) -> str:
    """A new tag as it was typed.

    Raises:
        Problem: 400 when it is not a tag.
    """
    tag = text.strip().lower().replace(" ", "_")
    try:
        validate_tag(tag)
    except ValidationError as error:
        raise Problem(
            400, "invalid", error.messages[0], errors=[FieldProblem("new_tag", error.messages[0])]
        ) from None
    return tag


def save_matrix(*, principal: Principal, wishes: Mapping[str, Wish]) -> list[Changed]:
    """Changes several roles at once, all or none; each change is audited.

    Args:
        wishes: by the role's id.

    Raises:
        Problem: 409 when a role has changed since the form was made, or nobody would be left who manages; 400 for tags
            or abilities that are not well formed.
    """
    with atomic():
        change_rights_alone(principal.membership.tenant_id)
        roles = list(Role.objects.filter(pk__in=list(wishes)).order_by("name"))
        wanted = [(role, wishes[str(role.pk)]) for role in roles]
        wanted = [(role, wish) for role, wish in wanted if wish.ticked != ticks_of(role)]
        if stale := [role.name for role, wish in wanted if wish.stamp != stamp_of(role)]:
            raise Problem(
                409,
                "changed-meanwhile",
                _("Somebody else has just changed %(roles)s: reload the page, then make your change again.")
                % {"roles": ", ".join(stale)},
            )
        # Who gains the right to manage comes first, so that it can be handed from one role to another.
        manage = f"may:{Ability.MANAGE.value}"
        wanted.sort(key=lambda pair: manage not in pair[1].ticked)
        return [_save(role, wish, principal) for role, wish in wanted]


def _save(role: Role, wish: Wish, principal: Principal) -> Changed:
    before = ticks_of(role)
    abilities = [ability.value for ability in Ability if f"may:{ability.value}" in wish.ticked]
    tags = sorted(one for one in wish.ticked if one != EVERYTHING and not one.startswith("may:"))
    changes = {"tags": tags, "abilities": abilities, "reads_everything": EVERYTHING in wish.ticked}
    save_role(role=role, changes=changes, principal=principal)
    after = ticks_of(role)
    return Changed(role=role, gained=_words(after - before), lost=_words(before - after))


def _words(ticks: Iterable[str]) -> tuple[str, ...]:
    return tuple(
        _("everything") if one == EVERYTHING else one.removeprefix("may:").replace("see_costs", "see costs")
        for one in sorted(ticks)
    )
