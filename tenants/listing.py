"""What the lists of people and keys show: rows with what stands beside them, a page at a time."""

from dataclasses import dataclass

from django.db.models import Max, OuterRef, Q, QuerySet, Subquery

from tenants.invitations import open_invitations
from tenants.models import ApiKey, AuditEvent, Invitation, Membership
from tenants.paging import NEWEST, read_page

INVITED_FIRST = 10  # before the members; all of them when the list is narrowed to them
PAGE = 25  # a row holds a form: fifty would weigh more than a page may
SIGN_INS = ("session.sign_in", "session.switch_tenant")


@dataclass(frozen=True)
class Asked:
    """What a list of members is narrowed to. ``after`` is where the page before ended."""

    text: str = ""
    role: str = ""
    status: str = ""
    after: str = ""

    @property
    def is_narrowed(self) -> bool:
        return bool(self.text or self.role or self.status)


@dataclass(frozen=True)
class Listed:
    """A page of members, with the open invitations before the first of them.

    Attributes:
        more_invitations: whether there are more of them than the first page shows.
        after: where the next page begins; empty on the last.
    """

    members: list[Membership]
    invitations: list[Invitation]
    more_invitations: bool
    after: str


def list_members(asked: Asked) -> Listed:
    """Members of the tenant in force by user name, with ``last_sign_in`` (into this tenant) and ``last_used`` (a key).

    Raises:
        Problem: 400 for a page that is not one of ours.
    """
    if asked.status == "invited":
        page = read_page(_invitations(asked), order=NEWEST, cursor=asked.after, size=PAGE)
        return Listed(members=[], invitations=page.rows, more_invitations=False, after=page.next)
    rows = _members(asked)
    if asked.after:
        rows = rows.filter(user__username__gt=asked.after)
    found = list(rows[: PAGE + 1])
    invitations = [] if asked.after or asked.status else list(_invitations(asked)[: INVITED_FIRST + 1])
    return Listed(
        members=found[:PAGE],
        invitations=invitations[:INVITED_FIRST],
        more_invitations=len(invitations) > INVITED_FIRST,
        after=found[PAGE - 1].user.username if len(found) > PAGE else "",
    )


def _members(asked: Asked) -> "QuerySet[Membership]":
    # By name, as the log has it: its index serves the newest events of one actor.
    sign_ins = AuditEvent.objects.filter(actor_name=OuterRef("user__username"), action__in=SIGN_INS)
    keys = ApiKey.objects.filter(membership=OuterRef("pk")).order_by().values("membership")
    rows: QuerySet[Membership] = (
        Membership.objects.select_related("user", "role")
        .annotate(
            last_sign_in=Subquery(sign_ins.order_by("-at").values("at")[:1]),
            last_used=Subquery(keys.annotate(newest=Max("last_used_at")).values("newest")),
        )
        .order_by("user__username")
    )
    if asked.text:
        rows = rows.filter(Q(user__username__icontains=asked.text) | Q(user__email__icontains=asked.text))
    if asked.role:
        rows = rows.filter(role__name=asked.role)
    if asked.status == "service":
        return rows.filter(user__is_service=True)
    return rows.filter(status=asked.status) if asked.status in Membership.Status.values else rows


def _invitations(asked: Asked) -> "QuerySet[Invitation]":
    rows = open_invitations()
    if asked.text:
        rows = rows.filter(email__icontains=asked.text)
    return rows.filter(role__name=asked.role) if asked.role else rows
