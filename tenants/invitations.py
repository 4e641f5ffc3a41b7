"""Invitations: an offer of membership by e-mail, accepted once.

A token reads ``inv_<where>.<secret>`` like an API key; only the hash of its secret is kept. Where e-mail is set up, the
task that sends it makes the secret, so that no broker ever holds one; elsewhere the one who invites gets the link once.
Nobody learns from an invitation whether an address has an account.
"""

import hmac
import re
from dataclasses import dataclass
from datetime import timedelta

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal, access_one
from tenants.audit import record_by
from tenants.keys import hash_secret, make_secret, read_token, write_token
from tenants.limits import throttle
from tenants.mail import mail_is_set_up, send_mail
from tenants.models import Invitation, Membership, Role, User
from tenants.people import add_member, create_user
from tenants.scope import atomic, require_tenant_id, scope

PREFIX = "inv_"
VALID_FOR = timedelta(days=7)
AT_ONCE = 50
PER_HOUR = 200


@dataclass(frozen=True)
class Invited:
    """What came of inviting.

    Attributes:
        invitations: those that are open now, for new addresses and for those invited before.
        tokens: by address, where no e-mail is sent: to be shown once and passed on.
        members: addresses that belong to members of the tenant already.
    """

    invitations: list[Invitation]
    tokens: dict[str, str]
    members: list[str]


def open_invitations() -> "QuerySet[Invitation]":
    """Neither accepted nor revoked, the expired among them, in the tenant in force."""
    rows: QuerySet[Invitation] = Invitation.objects.filter(accepted_at=None, revoked_at=None)
    return rows.select_related("role", "invited_by")


def access_invitation(membership: Membership, pk: object) -> Invitation:
    """An invitation that can still be sent again or revoked; 404 otherwise."""
    invitation: Invitation = access_one(open_invitations().filter(tenant_id=membership.tenant_id), str(pk))
    return invitation


def access_any_invitation(membership: Membership, pk: object) -> Invitation:
    """An invitation, whatever became of it."""
    rows = Invitation.objects.filter(tenant_id=membership.tenant_id).select_related("role", "invited_by")
    invitation: Invitation = access_one(rows, str(pk))
    return invitation


def read_addresses(text: str) -> list[str]:
    """Addresses apart by commas, semicolons, spaces or lines, each once, in lower case.

    Raises:
        Problem: 400 that names every one that is not an address.
    """
    found = list(dict.fromkeys(part.lower() for part in re.split(r"[\s,;]+", text) if part))
    wrong = [address for address in found if not _is_address(address)]
    detail = ""
    if wrong:
        detail = _("Not an e-mail address: %(addresses)s.") % {"addresses": ", ".join(wrong[:5])}
    elif not found:
        detail = _("Give at least one e-mail address.")
    elif len(found) > AT_ONCE:
        detail = _("Invite at most %(most)s people at once.") % {"most": AT_ONCE}
    if detail:
        raise Problem(400, "invalid", detail, errors=[FieldProblem("emails", detail)])
    return found


def _is_address(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return len(text) <= 254


def invite(*, principal: Principal, emails: list[str], role: Role, site: str) -> Invited:
    """Invites addresses to a role. One that was invited before gets a new link, and the role that is named now.

    Args:
        emails: as ``read_addresses`` gives them.
        site: what the links begin with (``tenants.mail.site_of``).

    Raises:
        Problem: 429 when the tenant has invited too many people within the hour.
    """
    for _address in emails:
        throttle(what="invite", key=str(principal.membership.tenant_id), most=PER_HOUR, seconds=3600)
    members = set(Membership.objects.filter(user__email__in=emails).values_list("user__email", flat=True))
    invitations, tokens = [], {}
    with atomic():
        for email in emails:
            if email in members:
                continue
            values = {"role": role, "expires_at": timezone.now() + VALID_FOR, "sent_at": None}
            invitation, created = Invitation.objects.update_or_create(
                email=email,
                accepted_at=None,
                revoked_at=None,
                defaults=values,
                create_defaults=values | {"invited_by": principal.membership.user},
            )
            detail = {"email": email, "role": role.name}
            record_by(principal, "invitation.create" if created else "invitation.resend", invitation, detail)
            if token := _deliver(invitation, site=site):
                tokens[email] = token
            invitations.append(invitation)
    return Invited(invitations=invitations, tokens=tokens, members=sorted(members))


def resend_invitation(*, principal: Principal, invitation: Invitation, site: str) -> Invited:
    """A new link for an open invitation, for another seven days; the one before opens nothing any more."""
    return invite(principal=principal, emails=[invitation.email], role=invitation.role, site=site)


def _deliver(invitation: Invitation, *, site: str) -> str:
    """Has the link sent; where no e-mail is set up, returns the token instead."""
    from tenants.tasks import send_invitation

    if not mail_is_set_up():
        return _renew_token(invitation)
    # The link of before must not outlive this moment, also when the mail takes a while.
    _renew_token(invitation)
    send_invitation.enqueue_on_commit(invitation_id=str(invitation.pk), site=site)
    return ""


def _renew_token(invitation: Invitation) -> str:
    secret = make_secret()
    Invitation.objects.filter(pk=invitation.pk).update(secret_hash=hash_secret(secret))
    return write_token(PREFIX, invitation, secret)


def mail_invitation(*, invitation_id: str, site: str) -> None:
    """Sends the e-mail of an invitation that is still open; in the scope of its tenant."""
    invitation: Invitation | None = (
        open_invitations().select_related("tenant").filter(pk=invitation_id).first()
    )
    if invitation is None or not invitation.is_open:
        return
    token = _renew_token(invitation)
    tenant = invitation.tenant
    send_mail(
        to=invitation.email,
        subject=_("You are invited to %(tenant)s on ragsite") % {"tenant": tenant.name},
        template="invitation",
        context={
            "tenant": tenant,
            "inviter": invitation.invited_by,
            "role": invitation.role,
            "link": join_link(site=site, token=token),
            "days": VALID_FOR.days,
        },
    )
    Invitation.objects.filter(pk=invitation.pk).update(sent_at=timezone.now())


def join_link(*, site: str, token: str) -> str:
    """The address at which an invitation is accepted."""
    return f"{site}{reverse('join')}?{urlencode({'invitation': token})}"


def revoke_invitation(*, principal: Principal, invitation: Invitation) -> None:
    """Ends an invitation; its link opens nothing any more. Twice is no error."""
    with atomic():
        open_one = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None)
        if open_one.update(revoked_at=timezone.now()):
            record_by(principal, "invitation.revoke", invitation, {"email": invitation.email})


def find_invitation(raw: str) -> Invitation:
    """The invitation of a token, with its tenant and role.

    Raises:
        Problem: 404 in the same words for one that never was, was revoked or whose role or tenant is gone; 410 for
            one that has expired or was accepted, told to whoever has the link.
    """
    unknown = Problem(
        404,
        "no-invitation",
        _(
            "This invitation is not valid: it was withdrawn, replaced by a newer one, or the link is incomplete."
        ),
    )
    token = read_token(PREFIX, raw) if raw.startswith(PREFIX) else None
    if token is None:
        raise unknown
    tenant_id, pk, secret = token
    with scope(tenant_id=tenant_id, tags=()):
        invitation: Invitation | None = (
            Invitation.objects.select_related("tenant", "role", "invited_by").filter(pk=pk).first()
        )
    matches = hmac.compare_digest(
        invitation.secret_hash if invitation else hash_secret(""), hash_secret(secret)
    )
    if invitation is None or not matches or invitation.revoked_at or not invitation.tenant.is_active:
        raise unknown
    if invitation.accepted_at:
        raise Problem(410, "invitation-used", _("This invitation has been accepted already."))
    if not invitation.is_open:
        raise Problem(
            410, "invitation-expired", _("This invitation has expired: ask who invited you for a new one.")
        )
    return invitation


def accept_as_new(*, raw: str, username: str, password: str, address: str | None) -> Membership:
    """Makes an account with the invited address, and a member of it.

    Raises:
        Problem: as ``find_invitation`` and ``create_user``.
    """
    invitation = find_invitation(raw)
    with scope(tenant_id=invitation.tenant_id, tags=()), atomic():
        user = create_user(username=username, email=invitation.email, password=password)
        return _accept(invitation, user=user, address=address)


def accept_as(*, raw: str, user: User, address: str | None) -> Membership:
    """Makes a member of somebody who has an account.

    Raises:
        Problem: as ``find_invitation``; 409 when they are a member already.
    """
    invitation = find_invitation(raw)
    with scope(tenant_id=invitation.tenant_id, tags=()), atomic():
        return _accept(invitation, user=user, address=address)


def _accept(invitation: Invitation, *, user: User, address: str | None) -> Membership:
    # The conditional update decides between two that come at once; whatever the loser made is rolled back.
    now = timezone.now()
    claimed = Invitation.objects.filter(
        pk=invitation.pk,
        secret_hash=invitation.secret_hash,
        accepted_at=None,
        revoked_at=None,
        expires_at__gt=now,
    ).update(accepted_at=now, accepted_by=user)
    if not claimed:
        raise Problem(410, "invitation-used", _("This invitation has just been accepted or withdrawn."))
    role = Role.objects.get(pk=invitation.role_id)
    themselves = Membership(user=user, role=role, tenant_id=require_tenant_id())
    actor = Principal(membership=themselves, method="session", abilities=frozenset(), address=address)
    membership = add_member(user=user, role=role, principal=actor)
    record_by(actor, "invitation.accept", invitation, {"email": invitation.email, "role": role.name})
    return membership
