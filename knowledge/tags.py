"""Which tags a member may give to documents."""

from collections.abc import Sequence

from django.core.exceptions import ValidationError

from knowledge.access import may_read_tags
from knowledge.schedules import wrong
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.models import Ability, Role, validate_tag


def check_tags(*, tags: Sequence[str], principal: Principal | None) -> list[str]:
    """Tags, well formed, and such that whoever gives them can read what they mark.

    Raises:
        Problem: 400.
    """
    try:
        for tag in tags:
            validate_tag(tag)
    except ValidationError as error:
        raise Problem(
            400, "invalid", "A tag cannot be used.", errors=[FieldProblem("tags", m) for m in error.messages]
        ) from None
    cleaned = sorted(set(tags))
    if principal is not None and not may_read_tags(principal.membership, cleaned):
        readable = principal.membership.role.readable_tags or ()
        raise Problem(
            400,
            "invalid",
            "You could not read this document yourself.",
            errors=[
                FieldProblem("tags", "Give at least one tag that your role reads: " + ", ".join(readable))
            ],
        )
    return cleaned


def check_added_tags(*, added: set[str], principal: Principal | None) -> None:
    """Who does not manage the tenant opens a document to no other readers than those of the tags that they read.

    Raises:
        Problem: 400.
    """
    if principal is None or principal.may(Ability.MANAGE):
        return
    readable = principal.membership.role.readable_tags
    if readable is not None and (beyond := sorted(added - set(readable))):
        raise wrong(
            "tags",
            f"You may add only tags that your role reads, not {', '.join(beyond)[:200]}: leave them out, or ask "
            "somebody who manages the tenant.",
        )


def known_tags() -> list[str]:
    """Every tag that a role of the tenant in force reads, sorted."""
    return sorted({tag for tags in Role.objects.values_list("tags", flat=True) for tag in tags})
